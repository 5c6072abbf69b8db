"""Reading and writing images: NIfTI, Analyze, NRRD, MetaImage, PNG, JPEG, TIFF, BMP, GIF and DICOM series.

Readers are imported on first use. All volumes are in RAS+ millimetres, whatever the file's own convention.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.disk.temporary import remove_dead_folders, temporary_folder
from medseg.errors import MedsegError, ReadError, WriteError
from medseg.io.formats import (
    READABLE,
    archives_below,
    check_source,
    has_dicom_magic,
    image_files,
    is_dicom_directory,
    is_image_file,
    kind_of,
    may_be_dicom,
    reader_of,
    writer_of,
)
from medseg.io.library_errors import naming_file
from medseg.output_formats import OUTPUT_FORMATS
from medseg.volume import Finding, Volume

if TYPE_CHECKING:
    from medseg.io.dicom.grid import Irregular
    from medseg.io.dicom.series import Series
    from medseg.io.voxel_files.pictures import Role

__all__ = ["contents", "read", "read_all", "read_as", "read_file", "unpacked", "write"]


def read(path: str | Path, series: str | None = None, irregular: Irregular = "error") -> Volume:
    """The one volume in a file, a DICOM folder or a zip.

    Args:
        path: a NIfTI, Analyze, NRRD, MetaImage, PNG, JPEG, TIFF, BMP, GIF or DICOM file, a folder (searched
            recursively; a DICOMDIR means its folder) or a zip. A DICOM Segmentation gives its label map, on its
            own grid. A palette picture gives colours or indices, whichever its content looks like.
        series: SeriesInstanceUID to choose if there are several; followed by '#2' for the second volume of a series
            that contains several (time points, echoes), as the error and `medseg inspect` name them.
        irregular: what to do with missing or unevenly spaced DICOM slices: 'error' refuses them, 'resample'
            interpolates onto a regular grid, 'allow' treats them as evenly spaced; the last two add a finding.

    Returns:
        The volume as stored, `(I, J, K)` or `(I, J)`, with leading channels if the file has any; a single DICOM slice
        is a 2D image. Grey values are in the file's units after rescaling: Hounsfield units for CT. The affine is RAS+,
        mm.

    Raises:
        ReadError: if the source is missing, unreadable or empty, or contains more than one volume (the message lists
            them).
        GeometryError: if a DICOM series does not form a regular grid.
        ConfigError: if `irregular` has an unknown value.

    Example:
        >>> volume = read("study/")
        >>> volume.shape, np.round(volume.spacing_mm, 1).tolist(), volume.orientation
        ((65, 63, 40), [4.7, 4.7, 6.2], 'LPS')
    """
    return read_as("", path, series, irregular)


def read_as(role: Role, path: str | Path, series: str | None = None, irregular: Irregular = "error") -> Volume:
    """Like `read`, for a file that is known to be an 'image' or 'labels', which decides what a palette means.

    Args:
        role: see `read_file`.
        path, series, irregular: see `read`.

    Raises:
        ReadError, GeometryError, ConfigError: see `read`.

    Example:
        >>> read_as("labels", "masks/study.nii.gz").array.dtype
        dtype('uint8')
    """
    from medseg.io.dicom.objects import object_kind, read_object

    source = Path(path)
    with unpacked(source) as place:
        if place.is_file() and kind_of(place) != "dicom" and not _is_unnamed_dicom(place):
            if series is not None:
                raise ReadError(f"{source} is not a DICOM series, so series={series} cannot be chosen from it")
            return read_file(place, role)
        if place.is_file() and object_kind(place):
            return _named(read_object(place)[0], source)
        found, files, damaged = contents(place)
        if damaged:
            raise damaged[0]
        if series is not None:
            known = "; ".join(s.title for s in found) or "none"
            found = [s for s in found if series in (s.uid, s.key)]
            files = []
            if not found:
                raise ReadError(f"{source} does not contain series {series}; it contains: {known}")
        if len(found) + len(files) > 1:
            names = "; ".join([*(s.title for s in found), *(p.name for p in files)][:12])
            hint = _how_to_choose(found)
            raise ReadError(f"{source} contains {len(found) + len(files)} volumes, expected one: {names}; {hint}")
        if files:
            return _named(read_file(files[0], role), source)
        if not found:
            archives = archives_below(source) if source.is_dir() else []
            if len(archives) == 1:
                return read_as(role, archives[0], series, irregular)
            if archives:
                names = ", ".join(p.name for p in archives[:12])
                text = f"{source} contains {len(archives)} zips, expected one image: {names}; give one of them"
                raise ReadError(text)
            raise ReadError(_nothing(source))
        return _read_series(found[0], source, irregular)


def read_all(path: str | Path, irregular: Irregular = "error") -> list[Volume]:
    """Every volume in a file, a folder (searched recursively) or a zip, each with its findings.

    Files that cannot be read are named in a finding of kind 'unreadable' on each volume that could.

    Args:
        path: see `read`.
        irregular: see `read`.

    Returns:
        DICOM series in the order of their UIDs, or other files in the order of their names; shapes, units and affines
        as for `read`.

    Raises:
        ReadError, GeometryError: if nothing could be read; the error is the first one met.

    Example:
        >>> [volume.metadata.modality for volume in read_all("study/")]
        ['CT']
    """
    source = Path(path)
    volumes: list[Volume] = []
    with unpacked(source) as place:
        found, files, damaged = contents(place)
        errors: list[MedsegError] = [*damaged]
        for series in found:
            try:
                volumes.append(_read_series(series, source, irregular))
            except MedsegError as error:
                errors.append(error)
        for file in files:
            try:
                volumes.append(read_file(file))
            except MedsegError as error:
                errors.append(error)
        # Beside other images zips are copies of them; zips inside a zip are not opened, as one can hold itself.
        for archive in archives_below(source) if source.is_dir() and not (volumes or errors) else []:
            try:
                volumes += read_all(archive, irregular)
            except MedsegError as error:
                errors.append(error)
    if not volumes:
        raise errors[0] if errors else ReadError(_nothing(source))
    notes = tuple(Finding("unreadable", str(error)) for error in errors)
    return [replace(v, findings=v.findings + notes) for v in volumes]


def write(volume: Volume, path: str | Path) -> None:
    """Write a volume; the suffix selects the format: .nii, .nii.gz, .nrrd, .mha, .png, .tif, .tiff.

    The file appears complete or not at all, and the same volume gives the same bytes on every run.

    Args:
        volume: 2D or 3D, with or without channels; in RAS+ mm, which is converted to the file's convention.
        path: the file to write; missing parent folders are created.

    Raises:
        WriteError: if the disk is full, permission is missing, the suffix is unknown, or the format cannot store the
            values.

    Example:
        >>> write(Volume(np.zeros((4, 5, 6), np.uint8), np.diag([1.0, 1.0, 2.5, 1.0])), "labels.nii.gz")
        >>> read("labels.nii.gz").spacing_mm
        (1.0, 1.0, 2.5)
    """
    target = Path(path)
    writer = writer_of(target)
    if writer is None:
        voxels = [each for each in OUTPUT_FORMATS.values() if each.content == "voxels"]
        suffixes = ", ".join(suffix for each in voxels for suffix in each.asked_by)
        raise WriteError(f"cannot write {target}: expected a name ending in one of {suffixes}")
    writer(volume, target)


def contents(place: Path) -> tuple[list[Series], list[Path], list[ReadError]]:
    """DICOM series, other image files, and the errors of files that look like either but are damaged.

    Args:
        place: a file, or a folder, which is searched recursively; not a zip.

    Raises:
        ReadError: if the folder cannot be listed.

    Example:
        >>> series, files, errors = contents(Path("study"))
        >>> [len(each.slices) for each in series], files, errors
        ([40], [], [])
    """
    from medseg.io.dicom.series import scan

    if place.is_file() and is_image_file(place):
        return [], [place], []
    found = scan([place] if place.is_file() else place)
    # Pictures next to DICOM slices are thumbnails, not studies.
    files = [] if found.series or place.is_file() else image_files(place, recursive=True)
    return list(found.series), files, [error for _, error in found.damaged]


def _how_to_choose(found: list[Series]) -> str:
    if not found:
        return "give one of the files"
    if len({s.key for s in found}) == len(found):
        return "choose one with series=UID (--series UID)"
    folders = sorted({s.slices[0].path.parent.name for s in found})
    return f"these are copies of one study: give one of the folders {', '.join(folders[:8])}"


def _is_unnamed_dicom(place: Path) -> bool:
    return kind_of(place) == "" and has_dicom_magic(place)


def read_file(path: Path, role: Role = "") -> Volume:
    """The volume in one NIfTI, Analyze, NRRD, MetaImage, PNG, JPEG, TIFF, BMP or GIF file.

    Args:
        path: the file; its suffix selects the reader.
        role: what the palette of a picture means: colours in an 'image', values in 'labels'; by default its content
            decides.

    Returns:
        The volume as stored, see `read`.

    Raises:
        ReadError: if the file is of another kind or cannot be read.

    Example:
        >>> read_file(Path("ct.nii.gz")).dims
        3
    """
    reader = reader_of(path)
    if reader is None:
        raise ReadError(f"{path} is not a supported image file; expected {READABLE}")
    with naming_file(path):
        if role and kind_of(path) == "raster":
            from medseg.io.voxel_files.raster import read_raster

            return read_raster(path, role)
        return reader(path)


def _read_series(series: Series, source: Path, irregular: Irregular) -> Volume:
    from medseg.io.dicom.read import read_series

    return read_series(series, str(source), irregular)


def _named(volume: Volume, source: Path) -> Volume:
    return replace(volume, metadata=replace(volume.metadata, source=str(source)))


def _nothing(source: Path) -> str:
    return f"{source} contains no image; expected {READABLE}"


@contextlib.contextmanager
def unpacked(source: Path) -> Iterator[Path]:
    """The source itself, the folder of a DICOMDIR, or a temporary folder with the contents of a zip.

    Args:
        source: a file, folder or zip.

    Raises:
        ReadError: if it is missing, not a file or folder, or a damaged or hostile zip.
        WriteError: if a zip does not fit onto the disk.

    Example:
        >>> with unpacked(Path("study")) as place:
        ...     place.name
        'study'
    """
    check_source(source)
    _remove_dead_folders_once()
    if not (source.is_file() and kind_of(source) == "zip"):
        yield source.parent if source.is_file() and _lists_a_disc(source) else source
        return
    from medseg.disk.archive import naming_archive, unpack

    with temporary_folder() as folder:
        unpack(source, folder)
        with naming_archive(source, folder):
            yield folder


def _lists_a_disc(path: Path) -> bool:
    return may_be_dicom(path) and is_dicom_directory(path)


@functools.cache
def _remove_dead_folders_once() -> None:
    # Once per process, because thousands of files may be read one by one.
    remove_dead_folders()
