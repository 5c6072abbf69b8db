"""De-identified copies of folders of DICOM objects."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.disk.atomic import atomic_folder
from medseg.disk.directory_walk import files_below, is_hidden
from medseg.errors import ReadError, WriteError
from medseg.io.dicom.deidentify.profile import Deidentifier
from medseg.io.dicom.deidentify.site_key import site_key
from medseg.io.formats import check_source, has_dicom_magic, is_dicom_directory, kind_of
from medseg.io.library_errors import refuse_own_fault
from medseg.volume import Finding

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["deidentify_files", "site_key"]

_DICOMDIR = "1.2.840.10008.1.3.10"


def deidentify_files(
    sources: Sequence[Path],
    out: Path,
    key: bytes | str,
    known_texts: Collection[str] = (),
    overwrite: bool = False,
) -> list[Finding]:
    """De-identified copies of DICOM objects of any kind as `out/study_1/series_1/00001.dcm`; pixel data is unchanged.

    Numbers follow the replaced identifiers and InstanceNumber, not the old names or the order of `sources`. References
    between the objects, and to objects copied with the same key at another time, remain valid.

    Args:
        sources: files, and folders that are searched recursively.
        out: the folder to create; it appears complete or not at all.
        key: see `medseg.io.dicom.deidentify.profile.deidentify`; `site_key` gives a permanent one.
        known_texts: texts known to identify no patient, see there.
        overwrite: True to replace an existing folder.

    Returns:
        The findings of `deidentify`, each with the new names of all files it concerns, and one of kind 'left_out' if
        files were not copied: a DICOMDIR, which lists patients, and files that are not DICOM objects.

    Raises:
        ReadError: if there is nothing to copy, or an object is damaged.
        WriteError: if `out` is not empty or contains a source, the disk is full or permission is missing.
        ConfigError: if the key is empty.

    Example:
        >>> findings = deidentify_files([Path("study")], Path("shared"), key="a secret of this example")
        >>> [finding.kind for finding in findings], len(list(Path("shared/study_1/series_1").iterdir()))
        (['burned_in_text'], 40)
    """
    deidentifier = Deidentifier.with_key(key, known_texts)
    files = sorted(_files(sources))
    inside = next((f for f in files if f.resolve().is_relative_to(out.resolve())), None)
    if inside is not None:
        raise WriteError(
            f"cannot write {out}: it holds {inside.name}, one of the files to be copied; choose another one"
        )
    found: dict[tuple[str, str], tuple[Finding, list[str]]] = {}
    with _quiet_pydicom(), atomic_folder(out, overwrite) as folder:
        names, left_out = _names(files, deidentifier)
        if not names:
            where = ", ".join(map(str, sources[:3]))
            raise ReadError(
                f"{where}: none of the {len(files)} files is a DICOM object; expected a DICOM file or study"
            )
        for path, name in names.items():
            for finding in _copy(path, folder / name, deidentifier):
                found.setdefault((finding.kind, finding.message), (finding, []))[1].append(name)
    findings = [Finding(f.kind, f.message, tuple(names)) for f, names in found.values()]
    lists = sum(is_dicom_directory(path) for path in left_out)
    for count, what in ((lists, "are lists of patients (DICOMDIR)"), (len(left_out) - lists, "are not DICOM objects")):
        if count:
            findings.append(Finding("left_out", f"{count} file(s) {what} and were not copied"))
    return findings


def _files(sources: Iterable[Path]) -> Iterator[Path]:
    for source in sources:
        check_source(source)
        inner, missed = ([source], []) if source.is_file() else files_below(source)
        if missed:
            raise missed[0][1]
        yield from (p for p in inner if not is_hidden(p))


@contextlib.contextmanager
def _quiet_pydicom() -> Iterator[None]:
    """Silence pydicom, which warns about values that are about to be replaced and quotes them."""
    from pydicom.config import disable_value_validation

    with warnings.catch_warnings(), disable_value_validation():
        warnings.filterwarnings("ignore", module=r"pydicom\.")
        yield


def _names(files: Sequence[Path], deidentifier: Deidentifier) -> tuple[dict[Path, str], list[Path]]:
    places: list[tuple[str, str, int, str, Path]] = []
    for path in files:
        place = _place(path, deidentifier)
        if place is not None:
            places.append((*place, path))
    studies: dict[str, int] = {}
    series: dict[tuple[str, str], int] = {}
    images: Counter[tuple[str, str]] = Counter()
    first_of: dict[str, int] = {}
    names = {}
    for study, uid, _, _, path in sorted(places):
        first = first_of.setdefault(study, len(series))
        numbers = studies.setdefault(study, len(studies) + 1), series.setdefault((study, uid), len(series)) - first + 1
        images[study, uid] += 1
        names[path] = "study_{}/series_{}/{:05d}.dcm".format(*numbers, images[study, uid])
    return names, [path for path in files if path not in names]


def _place(path: Path, deidentifier: Deidentifier) -> tuple[str, str, int, str] | None:
    """New study and series identifiers, instance number, new instance identifier; None for files not to copy."""
    try:
        return _place_of_object(path, deidentifier)
    except ReadError:
        # Viewers on a CD bring files of every kind, some of which begin like a DICOM file without a preamble.
        if is_dicom_directory(path) or not (has_dicom_magic(path, strictly=True) or kind_of(path) == "dicom"):
            return None
        raise


def _place_of_object(path: Path, deidentifier: Deidentifier) -> tuple[str, str, int, str] | None:
    if not has_dicom_magic(path):
        if kind_of(path) == "dicom":
            raise ReadError(f"{path} is named like DICOM but is empty or damaged; export it again or remove it")
        return None
    wanted = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    with _damage_named(path):
        data = _read(path, [*wanted, "SOPClassUID", "InstanceNumber"])
        if _DICOMDIR in (data.file_meta.get("MediaStorageSOPClassUID"), data.SOPClassUID):
            return None
        study, series, instance = (deidentifier.uid(str(data.get(name) or "")) for name in wanted)
        number = str(data.get("InstanceNumber") or "")
    return study, series, int(number) if number.isdecimal() else 0, instance


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turn exceptions on damaged values, which pydicom parses lazily, into a `ReadError`."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        refuse_own_fault(error)
        raise ReadError(f"{path} is damaged ({type(error).__name__}); export it again or remove it") from None


def _read(path: Path, wanted: list[str] | None = None) -> Dataset:
    import pydicom

    try:
        data = pydicom.dcmread(path, force=True, stop_before_pixels=wanted is not None, specific_tags=wanted)
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from None
    if not data.get("SOPClassUID"):
        raise ReadError(f"{path} does not say what kind of object it is (SOPClassUID); remove it or export it again")
    return data


def _copy(path: Path, target: Path, deidentifier: Deidentifier) -> list[Finding]:
    import pydicom

    with _damage_named(path):
        data = _read(path)
        if not data.file_meta.get("TransferSyntaxUID"):
            implicit, little = data.original_encoding
            explicit = pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
            data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian if implicit else explicit
        if not data.get("SOPInstanceUID"):
            data.SOPInstanceUID = f"1.{int(hashlib.sha256(path.read_bytes()).hexdigest()[:32], 16)}"
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        findings = deidentifier.apply(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        pydicom.dcmwrite(target, data, enforce_file_format=True)
    return findings
