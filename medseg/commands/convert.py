"""`medseg convert`: DICOM to NIfTI and back, label maps to and from DICOM SEG, RTSTRUCT and annotation formats.

The source is recognised by its content; the target's suffix, or the format asked for, says what is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from medseg.disk.atomic import write_error
from medseg.disk.directory_walk import files_below, is_hidden
from medseg.errors import ConfigError, MedsegError, PartialFailure, ReadError, WriteError
from medseg.geometry import reorient
from medseg.io import contents, read_file, unpacked, write
from medseg.io.annotations import Annotated, case_names, read_annotations, write_annotations
from medseg.io.annotations import Format as AnnotationFormat
from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.grid import Irregular, grid_of
from medseg.io.dicom.objects import find_reference, object_kind, read_object
from medseg.io.formats import READABLE, check_source, is_annotation_file, is_image_file, kind_of, stem_of
from medseg.io.label_maps import LabelSource, read_label_map
from medseg.io.label_names import read_label_names
from medseg.io.naming import safe_name
from medseg.io.output_names import Owner, claim_names, owner_of_file, owner_of_series
from medseg.labels import LabelScheme
from medseg.output_formats import OUTPUT_FORMATS, OutputFormat, check_format, format_of_name
from medseg.version import __version__
from medseg.volume import Finding, Metadata, Volume, orientation_of

if TYPE_CHECKING:
    from medseg.io.dicom.series import Series

__all__ = ["Conversion", "ConvertOptions", "convert"]

Progress = Callable[[float, float, str], None]


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """How to convert.

    Args:
        format: a key of `OUTPUT_FORMATS`; None: the target's suffix decides, and for a folder the source's kind.
        series: SeriesInstanceUID, where the source, or else the reference, has several.
        irregular: missing or uneven DICOM slices, as for `medseg.read`.
        reference: the DICOM study that a label map was drawn on: needed to write SEG and RTSTRUCT and to read RTSTRUCT,
            and gives written DICOM series their patient.
        labels: YAML or JSON file with `name: value`, for label maps that do not bring their names.
        anonymize: copy DICOM objects without the patient (PS3.15 Basic Profile).
        overwrite: replace what is there.

    Raises:
        ConfigError: for a format that does not exist.
    """

    format: str | None = None
    series: str | None = None
    irregular: Irregular = "error"
    reference: Path | None = None
    labels: Path | None = None
    anonymize: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_format(self.format, OUTPUT_FORMATS)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was written, which value each class got, what was noticed, and what failed."""

    written: tuple[Path, ...]
    classes: Mapping[str, int]
    findings: tuple[Finding, ...]
    failures: tuple[MedsegError, ...] = ()

    def text(self) -> str:
        """A few lines for people."""
        lines = [f"{path}" for path in self.written]
        lines += [f"{value:6d}  {name}" for name, value in self.classes.items()]
        lines += [f"{f.kind}: {f.message}" for f in dict.fromkeys(self.findings)]
        return "\n".join(lines)

    def raise_for_failures(self) -> None:
        """Raise a `PartialFailure` that names what failed, if anything did."""
        if self.failures:
            reasons = "; ".join(map(str, self.failures))
            raise PartialFailure(f"{len(self.written)} written, {len(self.failures)} failed: {reasons}")


@dataclass(frozen=True, slots=True)
class _Pending:
    """A volume still to be read; `load` gives it, and what its integers mean if it is a label map that says so."""

    name: str
    owner: Owner
    load: Callable[[], tuple[Volume, Mapping[str, int] | None]]


def convert(
    source: str | Path, target: str | Path, options: ConvertOptions | None = None, progress: Progress | None = None
) -> Conversion:
    """Convert what lies at `source` to `target`.

    Args:
        source: image file, DICOM file or folder, zip, SEG, RTSTRUCT, or annotations of Labelme, CVAT, Supervisely or
            COCO.
        target: a file for one volume, a folder for any number. With a folder, an image file becomes a DICOM series and
            all else a NIfTI file per volume (a PNG for annotated pictures), unless a format is asked for.
        options: see `ConvertOptions`.
        progress: called with (volumes done, volumes, name).

    Returns:
        What was written, and what failed: a volume that fails does not stop the others of a folder.

    Raises:
        ReadError, GeometryError, AnnotationError: nothing of the source can be read.
        WriteError: the target exists, cannot be written, or cannot hold the values.
        ConfigError: options that do not fit the source or target.

    Example:
        >>> convert("study/", "study.nii.gz").written
        (PosixPath('study.nii.gz'),)
    """
    options = options or ConvertOptions()
    place, out = Path(source), Path(target)
    check_source(place)
    if options.anonymize:
        return _anonymized(place, out, options)
    made = _format_of_target(place, out, options)
    written: list[Path] = []
    findings: list[Finding] = []
    classes: dict[str, int] = {}
    annotated: list[Annotated] = []
    with unpacked(place) as root:
        pending, damaged = _pending(root, place, made.holds_labels_only, options)
        failures: list[MedsegError] = [*damaged]
        if not pending:
            raise failures[0] if failures else ReadError(f"{place} holds no image; expected {READABLE}")
        if len(pending) > 1 and out.suffix and made.content != "annotations":
            names = ", ".join(p.name for p in pending[:8])
            raise ReadError(
                f"{place} holds {len(pending)} volumes ({names}), {out} is one file; give a folder, or --series UID"
            )
        own_names: list[str] = []
        for number, each in enumerate(pending, start=1):
            try:
                volume, known = each.load()
                known = _names_of(volume, known, options) if made.holds_labels_only else known
                if made.content == "annotations":
                    annotated.append(Annotated(volume, known or {}, each.name))
                else:
                    own_names = own_names or _names_in(out, pending, made)
                    path = _path_for(out, own_names[number - 1], made, alone=len(pending) == 1)
                    findings += _write(volume, path, made, known, options, place)
                    written.append(path)
                findings += volume.findings
                classes |= known or {}
            except MedsegError as error:
                failures.append(error)
            if progress is not None:
                progress(number, len(pending), each.name)
    if failures and not (written or annotated):
        raise failures[0]
    if annotated:
        _refuse_existing(out, (), options)
        write_annotations(annotated, out, cast(AnnotationFormat, made.name))
        written.append(out)
    return Conversion(tuple(written), classes, tuple(findings), tuple(failures))


def _format_of_target(place: Path, out: Path, options: ConvertOptions) -> OutputFormat:
    if options.format is not None:
        return OUTPUT_FORMATS[options.format]
    asked = format_of_name(out)
    if asked is not None:
        return asked
    if out.suffix:
        names = "|".join(OUTPUT_FORMATS)
        raise ConfigError(f"{out}: nothing is known to write into a {out.suffix.lower()} file; give --format {names}")
    if _is_annotation(place):
        return OUTPUT_FORMATS["png"]
    is_image = place.is_file() and is_image_file(place)
    return OUTPUT_FORMATS["dicom" if is_image else "nifti"]


def _names_in(out: Path, pending: Sequence[_Pending], made: OutputFormat) -> list[str]:
    """The names of the volumes; in a folder of results no study takes another's."""
    if _is_whole_target(out, made, alone=len(pending) == 1):
        return [each.name for each in pending]
    return claim_names(out, [(each.name, each.owner) for each in pending], lambda index, name: None)


def _is_whole_target(out: Path, made: OutputFormat, alone: bool) -> bool:
    """Whether the target is the result itself, not a folder of results."""
    return bool(out.suffix) or (made.content == "slices" and alone)


def _path_for(out: Path, name: str, made: OutputFormat, alone: bool) -> Path:
    if _is_whole_target(out, made, alone):
        return out
    return out / f"{name}{made.suffix}"


def _is_annotation(place: Path) -> bool:
    if place.is_file():
        return is_annotation_file(place)
    # Pictures lie beside their annotations; DICOM and volumes do not.
    found, files, _ = contents(place)
    if found or any(kind_of(f) != "raster" for f in files):
        return False
    return any(is_annotation_file(p) and not is_hidden(p) for p in files_below(place)[0])


def _pending(
    root: Path, place: Path, as_labels: bool, options: ConvertOptions
) -> tuple[list[_Pending], Sequence[MedsegError]]:
    if _is_annotation(root):
        names = read_label_names(options.labels) if options.labels else None
        found = read_annotations(root, None if names is None else _values(names))
        return [
            _Pending(name, owner_of_file(place / name), partial(_annotated, each))
            for name, each in zip(case_names(found), found, strict=True)
        ], ()
    if root.is_file() and object_kind(root):
        return [_Pending(stem_of(place), owner_of_file(place), partial(read_object, root, options.reference))], ()
    series, files, damaged = contents(root)
    if options.series is not None and not (options.reference and not series):
        series, files = [s for s in series if options.series in (s.uid, s.key)], []
        if not series:
            raise ReadError(f"{place} holds no series {options.series}; medseg inspect lists what it holds")
    names_ = _unique([_name_below(s.slices[0].path.parent, root, place) for s in series])
    result = [
        _Pending(
            name, owner_of_series([s], _in_source(s.slices[0].path.parent, root, place)), partial(_image, s, options)
        )
        for name, s in zip(names_, series, strict=True)
    ]
    for name, file in zip(_unique([_name_below(f, root, place) for f in files]), files, strict=True):
        owner = owner_of_file(_in_source(file, root, place))
        result.append(_Pending(name, owner, partial(_file, file, as_labels)))
    return result, damaged


def _in_source(path: Path, root: Path, place: Path) -> Path:
    """A path of the source, which may be an archive that is unpacked at `root`."""
    return place / path.relative_to(root) if path.is_relative_to(root) else path


def _annotated(each: Annotated) -> tuple[Volume, Mapping[str, int]]:
    return each.label_map, each.classes


def _image(series: Series, options: ConvertOptions) -> tuple[Volume, None]:
    from medseg.io.dicom.read import read_series

    return read_series(series, irregular=options.irregular), None


def _file(path: Path, as_labels: bool) -> tuple[Volume, None]:
    return read_label_map([LabelSource(path)]) if as_labels else read_file(path), None


def _name_below(path: Path, root: Path, place: Path) -> str:
    inside = path.relative_to(root) if path.is_relative_to(root) else Path()
    parts = [*inside.parts[:-1], stem_of(inside)] if inside.parts else []
    return safe_name("_".join(parts) or stem_of(place.resolve()))


def _unique(names: Sequence[str]) -> list[str]:
    result: dict[str, int] = {}
    for name in names:
        other, n = name, result.get(name, 1)
        while other in result:
            n += 1
            other = f"{name}_{n}"
        result[name] = n
        result.setdefault(other, 1)
    return list(result)


def _values(scheme: LabelScheme) -> dict[str, int]:
    return dict(zip(scheme.names, scheme.painted, strict=True))


def _names_of(volume: Volume, known: Mapping[str, int] | None, options: ConvertOptions) -> Mapping[str, int]:
    if known is not None:
        return known
    if options.labels is not None:
        return _values(read_label_names(options.labels))
    return {f"label_{v}": int(v) for v in np.unique(volume.array) if v}


def _write(
    volume: Volume,
    path: Path,
    made: OutputFormat,
    classes: Mapping[str, int] | None,
    options: ConvertOptions,
    place: Path,
) -> Sequence[Finding]:
    _refuse_existing(path, (place, options.reference), options)
    if made.content == "voxels":
        # Identifiers stay out of files that do not need them.
        write(replace(volume, metadata=Metadata()), path)
        return ()
    grid = None
    if options.reference is not None:
        wanted = (volume.metadata.series_instance_uid, options.series or "")
        grid = grid_of(find_reference(options.reference, wanted), options.irregular)
        if volume.dims == 3 and volume.orientation != orientation_of(grid.affine):
            # Programs that write NIfTI often turn the axes; the voxels stay where they are.
            volume = reorient(volume, orientation_of(grid.affine))
    if made.content == "slices":
        from medseg.io.dicom.writing.series import write_dicom_series

        return write_dicom_series(volume, path, reference=grid, overwrite=options.overwrite)
    if grid is None:
        raise ConfigError(f"{made.name} refers to the slices it was drawn on: give their folder with --reference STUDY")
    scheme = LabelScheme.from_mapping(dict(classes or {}) or {"label_1": 1})
    algorithm = Algorithm("medseg convert", __version__, "")
    if made.name == "rtstruct":
        from medseg.io.dicom.rtstruct.write import write_rtstruct

        write_rtstruct(volume, path, scheme, grid, algorithm)
    else:
        from medseg.io.dicom.seg.write import write_dicom_seg

        write_dicom_seg(volume, path, scheme, grid, algorithm)
    return ()


def _refuse_existing(path: Path, sources: Sequence[Path | None], options: ConvertOptions) -> None:
    """Refuse to replace what is there without being asked to, and a folder that holds a source in any case."""
    try:
        is_taken = path.exists() and not (path.is_dir() and not any(path.iterdir()))
        held = next((s for s in sources if s and path.is_dir() and s.resolve().is_relative_to(path.resolve())), None)
    except OSError as error:
        raise write_error(path, error) from error
    if held is not None:
        raise WriteError(f"cannot write {path}: it holds {held}, which is read; give another name")
    if is_taken and not options.overwrite:
        raise WriteError(f"{path} exists; give another name, or --overwrite to replace it")


def _anonymized(place: Path, out: Path, options: ConvertOptions) -> Conversion:
    from medseg.io.dicom.deidentify.files import deidentify_files
    from medseg.io.dicom.deidentify.profile import Deidentifier
    from medseg.io.dicom.deidentify.site_key import site_key
    from medseg.io.dicom.deidentify.texts import PrivateTexts

    key = site_key()
    with PrivateTexts(Deidentifier.with_key(key)).guarded([place]), unpacked(place) as root:
        findings = deidentify_files([root], out, key, overwrite=options.overwrite)
    return Conversion((out,), {}, tuple(findings))
