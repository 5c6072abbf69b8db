"""Finding the inputs of a prediction: image files, DICOM studies, folders of either, zips."""

from __future__ import annotations

import bisect
import contextlib
import functools
import hashlib
import itertools
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.disk.archive import naming_archive, split_zip_path, unpack
from medseg.disk.directory_walk import files_below, is_hidden
from medseg.disk.temporary import temporary_folder
from medseg.errors import ReadError
from medseg.io.dicom.deidentify.site_key import keyed_hash
from medseg.io.dicom.series import Series, find_series, scan
from medseg.io.formats import (
    READABLE,
    archives_below,
    check_source,
    has_dicom_magic,
    has_voxels_elsewhere,
    image_files,
    is_dicom_directory,
    is_image_file,
    kind_of,
    may_be_dicom,
    stem_of,
)
from medseg.io.naming import CHANNEL_NAME, group_channels, safe_name
from medseg.studies.channel_files import group_by_kind
from medseg.volume import Volume

if TYPE_CHECKING:
    from medseg.io.dicom.grid import Irregular, SeriesGrid

__all__ = ["Source", "find_studies", "images_of_study", "input_hash", "open_series", "read_source", "with_voxels"]

log = logging.getLogger(__name__)

# More series than any study has, and more than can be listed in a message.
_MOST_SERIES = 1000


@dataclass(frozen=True, slots=True)
class Source:
    """One case to predict on.

    Args:
        case: name of the case, safe as a file name and free of patient names unless the user's folders contain them.
        paths: the slices of one DICOM series, or one file per channel; the first damaged file if there is nothing else.
            Files inside a zip are given as `archive.zip/member`.
        series: the DICOM series, None for other formats.
        error: why this case cannot be read, '' if it can.
        candidates: the image series of a study that has several; `error` then asks for a choice.
        channels: a source for each channel, if they are read separately.
        reason: why this series or these files were chosen, in a phrase.
        study_hash: its owner, see `medseg.io.output_names.Owner`; '' until the case has a name in an output folder.
        irregular: what to do with missing or unevenly spaced slices of the series, see `medseg.read`.
    """

    case: str
    paths: tuple[Path, ...]
    series: Series | None = None
    error: str = ""
    candidates: tuple[Series, ...] = ()
    channels: tuple[Source, ...] = ()
    reason: str = ""
    study_hash: str = ""
    irregular: Irregular = "error"

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID, followed by '#2' for the second volume of a series; '' for other formats."""
        return self.series.key if self.series else ""


def find_studies(
    source: str | Path, series: str | Sequence[str] | None = None, channels: Sequence[str] = ()
) -> list[Source]:
    """The cases in a file, a folder of image files, a DICOM study, a folder of studies, or a zip; sorted by name.

    A DICOMDIR means its folder; zips in a folder are opened if it has no other images. Image files of a folder are
    one case each, nnU-Net channels (`case_0000`, `case_0001`) together one. A DICOM study
    is named after its path below `source`, with '_' for '/', and with a keyed hash of its identifiers if two would
    share a name. A study of several series gives one Source with `error` set and the series as `candidates`, unless
    `series` selects one of them.

    Args:
        source: a file, folder or zip.
        series: SeriesInstanceUID (or its key, see `Series`), or several, for studies that contain one or more of them;
            studies without any of them are skipped.
        channels: names of a model's channels: files named after them (`p1_flair`, `p1_t1ce`) become one case.

    Raises:
        ReadError: if the source is missing, unreadable, or contains no image or no such series.
    """
    place = Path(source)
    asked = (series,) if isinstance(series, str) else tuple(series or ())
    check_source(place)
    if place.is_file() and kind_of(place) == "zip":
        with temporary_folder() as folder:
            unpack(place, folder)
            found = _in_folder(folder, stem_of(place), asked, channels)
            sources = [_named_by(s, folder, place) for s in found]
    elif place.is_file() and not (may_be_dicom(place) and is_dicom_directory(place)):
        sources = _from_file(place, asked)
    else:
        folder = place if place.is_dir() else place.parent
        sources = _in_folder(folder, folder.resolve().name, asked, channels) or _in_zips(place, asked, channels)
    if not sources:
        what = f"no series {' or '.join(asked)}" if asked else "no image"
        raise ReadError(f"{place} contains {what}; expected {READABLE}")
    return sorted((replace(s, case=safe_name(s.case)) for s in sources), key=lambda s: s.case)


def _in_zips(folder: Path, series: Sequence[str], channels: Sequence[str]) -> list[Source]:
    """The cases in the zips of a folder that has no others; a zip that cannot be read is a failed case."""
    sources: list[Source] = []
    for archive in archives_below(folder) if folder.is_dir() else []:
        try:
            sources += find_studies(archive, series, channels)
        except ReadError as error:
            # With a series asked for, its study may lie in another zip.
            if not series:
                sources.append(Source(safe_name(stem_of(archive)), (archive,), error=str(error)))
    return sources


def _named_by(source: Source, folder: Path, archive: Path) -> Source:
    """A source of an unpacked archive, its files named as members."""

    def named(path: Path) -> Path:
        return archive / path.relative_to(folder)

    return replace(
        source,
        paths=tuple(named(p) for p in source.paths),
        series=source.series and _moved(source.series, named),
        error=source.error.replace(str(folder), str(archive)),
        candidates=tuple(_moved(each, named) for each in source.candidates),
        channels=tuple(_named_by(each, folder, archive) for each in source.channels),
    )


def _moved(series: Series, where: Callable[[Path], Path]) -> Series:
    return replace(series, slices=tuple(replace(s, path=where(s.path)) for s in series.slices))


def _from_file(path: Path, series: Sequence[str]) -> list[Source]:
    if is_image_file(path):
        match = CHANNEL_NAME.match(stem_of(path))
        # A single channel file looks like one whose name ends in a number, so only 0000 is cut.
        case = match["case"] if match and match["channel"] == "0000" else stem_of(path)
        return [] if series else [Source(case, (path,))]
    if kind_of(path) == "dicom" or has_dicom_magic(path):
        return _from_series(find_series([path]), path.parent, stem_of(path), series)
    raise ReadError(f"{path} is not a supported image file; expected {READABLE}")


def _in_folder(folder: Path, name: str, series: Sequence[str], channels: Sequence[str]) -> list[Source]:
    scanned = scan(folder)
    found = scanned.series
    sources = _with_damage(_from_series(found, folder, name, series), scanned.damaged, folder, name)
    if series:
        return sources
    # Pictures next to DICOM slices are thumbnails, not cases.
    dicom_folders = {s.path.parent for each in found for s in each.slices}
    files = [] if folder in dicom_folders else image_files(folder)
    if not files and not found:
        files = image_files(folder, recursive=True)
    _tell_unseen(folder, {*files}, dicom_folders)
    named, others = group_by_kind(files, folder, channels)
    for each in named:
        reason = f"files named by channel: {', '.join(p.name for p in each.paths)}"
        if each.left_out:
            reason += f"; left out: {', '.join(p.name for p in each.left_out)}"
        parts = () if each.error else tuple(Source(each.case, (p,)) for p in each.paths)
        sources.append(Source(each.case, each.paths, error=each.error, channels=parts, reason=reason))
    taken = {s.case for s in sources}
    for case, paths in group_channels(others, folder).items():
        sources.append(Source(f"{case}_image" if case in taken else case, paths))
    return sources


def _tell_unseen(folder: Path, taken: set[Path], dicom_folders: set[Path]) -> None:
    """Warn of images and archives that are ignored because the folder contains other cases."""
    below = [p for p in files_below(folder)[0] if p not in taken and p.parent not in dicom_folders and not is_hidden(p)]
    images = [p for p in below if p.parent != folder and is_image_file(p)]
    # Without other cases they are opened.
    archives = [p for p in below if kind_of(p) == "zip"] if taken or dicom_folders else []
    for what, unseen in (("image file(s) in sub-folders", images), ("archive(s)", archives)):
        if unseen:
            names = sorted({str(p.relative_to(folder).parts[0]) for p in unseen})
            where = ", ".join([*names[:3], *["..."] * (len(names) > 3)])
            log.warning("%s: %d %s were ignored (%s); give them by name", folder, len(unseen), what, where)


def _with_damage(
    sources: list[Source], damaged: Sequence[tuple[Path, ReadError]], root: Path, root_name: str
) -> list[Source]:
    """The sources, with an error if damaged files are next to their slices; all-damaged folders are sources too."""
    errors: dict[Path, list[tuple[Path, ReadError]]] = {}
    for path, error in damaged:
        # A folder that could not be searched is a case of its own.
        errors.setdefault(path if path.is_dir() else path.parent, []).append((path, error))
    result = []
    reached: set[Path] = set()
    for source in sources:
        folders = {p.parent for p in source.paths}
        reached |= folders
        beside = min(folders & errors.keys(), default=None)
        result.append(source if beside is None else replace(source, error=_told(errors[beside]), candidates=()))
    for folder, found in errors.items():
        if folder not in reached:
            case = "_".join(folder.relative_to(root).parts) or root_name
            result.append(Source(case, (found[0][0],), None, _told(found)))
    return result


def _told(damaged: Sequence[tuple[Path, ReadError]]) -> str:
    """The first of a folder's damaged files, and how many more there are."""
    more = len(damaged) - 1
    return f"{damaged[0][1]} ({more} more damaged file(s) in the same folder)" if more else str(damaged[0][1])


def _from_series(found: Sequence[Series], root: Path, root_name: str, series: Sequence[str]) -> list[Source]:
    studies: dict[tuple[str, ...], list[Series]] = {}
    copies = Counter(each.key for each in found)
    for each in found:
        first = each.slices[0]
        # Anonymised studies often have no UID, and copies of a study share theirs.
        # Relative to the root, because an archive is unpacked into a temporary folder.
        place = (
            () if first.study_instance_uid and copies[each.key] == 1 else (str(first.path.parent.relative_to(root)),)
        )
        studies.setdefault((first.patient_id, first.study_instance_uid, *place), []).append(each)
    named = [(_study_name(members, root, root_name), key, members) for key, members in studies.items()]
    sources = []
    alike = Counter(name for name, _, _ in named)
    for name, key, members in named:
        if alike[name] > 1:
            name = f"{name}_{keyed_hash(*key)}"
        source = _study_source(name, members, series)
        if source is not None:
            sources.append(source)
    return sources


def _study_name(members: Sequence[Series], root: Path, root_name: str) -> str:
    parents = [str(s.path.parent) for each in members for s in each.slices]
    relative = Path(os.path.commonpath(parents)).relative_to(root)
    return "_".join(relative.parts) or root_name


def _study_source(case: str, members: Sequence[Series], series: Sequence[str]) -> Source | None:
    if series:
        members = [s for s in members if s.uid in series or s.key in series]
        if not members:
            return None
    paths = tuple(sorted({s.path for each in members for s in each.slices}))
    if len(members) > _MOST_SERIES:
        error = f"the study has {len(members)} series, more than any study; choose one with --series UID"
        return Source(case, paths, None, error)
    if len(members) > 1:
        titles = "; ".join(s.title for s in members)
        error = f"the study has {len(members)} series, expected one: {titles}; choose one with --series UID"
        return Source(case, paths, None, error, tuple(members))
    return Source(case, paths, members[0])


@contextlib.contextmanager
def _on_disk(source: Source) -> Iterator[tuple[Path, ...]]:
    """The source's files; those inside a zip are unpacked for the duration of the block."""
    inside = [split_zip_path(p) if not p.exists() else None for p in source.paths]
    if not any(inside):
        yield source.paths
        return
    with temporary_folder() as folder:
        wanted: dict[Path, list[str]] = {}
        for each in inside:
            if each:
                wanted.setdefault(each[0], []).append(each[1])
        with contextlib.ExitStack() as names:
            for archive, members in wanted.items():
                # If the voxels are in a separate file, only the header is listed.
                alone = not any(has_voxels_elsewhere(Path(m)) for m in members)
                unpack(archive, folder, members if alone else None)
                names.enter_context(naming_archive(archive, folder))
            yield tuple(folder / e[1] if e else p for e, p in zip(inside, source.paths, strict=True))


def require_series(source: Source) -> Series:
    """The DICOM series of a source.

    Raises:
        ReadError: if the source is not a DICOM series.
    """
    if source.series is None:
        raise ReadError(
            f"{source.paths[0]} is not a DICOM series, which a DICOM object has to refer to; write NIfTI or PNG"
        )
    return source.series


@contextlib.contextmanager
def open_series(source: Source) -> Iterator[SeriesGrid]:
    """The grid of a DICOM source, with its files on disk for the duration of the block.

    Raises:
        ReadError: if the source is not a DICOM series, or its files are missing.
        GeometryError: if the series does not form a grid.
    """
    from medseg.io.dicom.grid import grid_of

    series = require_series(source)
    with _on_disk(source) as paths:
        on_disk = dict(zip(source.paths, paths, strict=True))
        moved = _moved(series, lambda p: on_disk[p])
        yield grid_of(moved, source.irregular)


def read_source(source: Source) -> Volume:
    """The image of a case, channels first: `(C, I, J, K)` or `(C, I, J)`, C >= 1.

    Raises:
        ReadError: if `source.error` is set, or a file cannot be read.
        GeometryError: if a series does not form a regular grid, or channels have different grids.
    """
    from medseg.io.images import channels_first, read_image

    if source.error:
        raise ReadError(f"{source.case}: {source.error}")
    with _on_disk(source) as paths:
        if source.series is None:
            return read_image(paths)
        from medseg.io.dicom.read import read_series

        on_disk = dict(zip(source.paths, paths, strict=True))
        series = _moved(source.series, lambda p: on_disk[p])
        return channels_first(read_series(series, str(source.paths[0].parent), source.irregular))


def images_of_study(source: Source, files: Sequence[Path]) -> int:
    """How many of some files are images of the case's study, or may become such: they cannot be read yet."""
    members = (source.series,) if source.series is not None else source.candidates
    first = members[0].slices[0] if members else None
    found = scan(files)
    new = {
        s.path
        for each in found.series
        for s in each.slices
        if first is None or (s.patient_id, s.study_instance_uid) == (first.patient_id, first.study_instance_uid)
    }
    return len(new) + len(found.damaged)


def with_voxels(path: Path) -> list[Path]:
    """The file, and the separate file with its voxels if there is one."""
    if path.is_dir():
        return []  # a folder that could not be searched
    if not has_voxels_elsewhere(path):
        return [path]
    start = f"{stem_of(path)}."
    names = _names_in(path.parent, path.parent.stat().st_mtime_ns)
    first = bisect.bisect_left(names, start)
    beside = itertools.takewhile(lambda name: name.startswith(start), itertools.islice(names, first, None))
    return [each for name in beside if (each := path.with_name(name)).is_file()]


@functools.lru_cache(maxsize=1)
def _names_in(folder: Path, changed_ns: int) -> tuple[str, ...]:
    """The sorted names in a folder as of `changed_ns`: a folder of many headers is listed only once."""
    return tuple(sorted(path.name for path in folder.iterdir()))


def input_hash(source: Source) -> str:
    """SHA-256 of the content of all files of a case, in order, independent of names and places.

    Raises:
        ReadError: if a file cannot be read.
    """
    digest = hashlib.sha256()
    with _on_disk(source) as paths:
        for path in [each for p in paths for each in with_voxels(p)]:
            try:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise ReadError(f"{path} cannot be read: {error.strerror or error}") from None
    return digest.hexdigest()
