"""What `medseg convert` finds in its source: volumes still to be read, recognised by their content."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.commands.convert_options import ConvertOptions
from medseg.disk.directory_walk import files_below, is_hidden
from medseg.errors import MedsegError, ReadError
from medseg.io import contents, read, read_file
from medseg.io.annotations import Annotated, Scribbles, case_names, read_annotations
from medseg.io.annotations.slices import SLICE_NAME, stacked
from medseg.io.dicom.objects import object_kind, read_object
from medseg.io.formats import check_source, is_annotation_file, kind_of, stem_of
from medseg.io.images import channels_first
from medseg.io.label_maps import LabelSource, read_label_map
from medseg.io.label_names import read_label_names
from medseg.io.naming import safe_name
from medseg.io.output_names import Owner, owner_of_file, owner_of_series
from medseg.labels import LabelScheme
from medseg.output_formats import OutputFormat
from medseg.volume import Volume

if TYPE_CHECKING:
    from medseg.io.dicom.series import Series

__all__ = ["Names", "Pending", "is_annotation", "pending_volumes", "values_of"]


UNDRAWN = 255
"""What scribbles leave open, where no other value to ignore is given."""

Names = Mapping[str, int | tuple[int, ...]]
"""What a label map says of itself: name -> value, or values of a region."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A volume that is still to be read.

    Args:
        name: for its file.
        owner: the study or file it comes from.
        load: reads it; gives the volume, and the name of each value or region if it is a label map that says so.
    """

    name: str
    owner: Owner
    load: Callable[[], tuple[Volume, Names | None]]


def pending_volumes(
    root: Path, place: Path, target: OutputFormat, options: ConvertOptions
) -> tuple[list[Pending], Sequence[MedsegError]]:
    """The volumes of a source, none of them read yet, and what is too damaged to become one.

    Args:
        root: the source, unpacked if it is an archive.
        place: the source as it was given, for messages and names.
        target: what is written: image files become label maps for one that stores labels only.
        options: which series, which label names, and the reference of a structure set.

    Raises:
        ReadError: the series that was asked for does not exist, or the source cannot be read.
        AnnotationError: annotations that cannot become label maps.
    """
    if is_annotation(root):
        names = read_label_names(options.labels) if options.labels else None
        scribbles = None
        if options.scribbles is not None:
            ignored = None if names is None else names.ignore
            scribbles = Scribbles(options.scribbles, UNDRAWN if ignored is None else ignored)
        found = read_annotations(root, None if names is None else values_of(names), scribbles)
        named = list(zip(case_names(found), found, strict=True))
        if options.copy_grid is not None and (volume := _stacked(named, options.copy_grid)) is not None:
            return [Pending(volume.image_name, owner_of_file(place), partial(_annotated, volume))], ()
        return [Pending(name, owner_of_file(place / name), partial(_annotated, each)) for name, each in named], ()
    if root.is_file() and object_kind(root):
        # A voxel of DICOM objects may have several labels.
        keep = target.content == "object"
        load = partial(read_object, root, options.reference, strict=options.strict, keep_overlaps=keep)
        return [Pending(stem_of(place), owner_of_file(place), load)], ()
    series, files, damaged = contents(root)
    if options.series is not None and not (options.reference and not series):
        series, files = [s for s in series if options.series in (s.uid, s.key)], []
        if not series:
            raise ReadError(f"{place} has no series {options.series}; medseg inspect lists those there are")
    folders = _unique([_name_below(s.slices[0].path.parent, root, place) for s in series])
    result = [
        Pending(
            name, owner_of_series([s], _in_source(s.slices[0].path.parent, root, place)), partial(_image, s, options)
        )
        for name, s in zip(folders, series, strict=True)
    ]
    for name, file in zip(_unique([_name_below(f, root, place) for f in files]), files, strict=True):
        owner = owner_of_file(_in_source(file, root, place))
        result.append(Pending(name, owner, partial(_file, file, target.holds_labels_only)))
    return result, damaged


def is_annotation(place: Path) -> bool:
    """Whether a file is an annotation file, or a folder has such files and no images but pictures."""
    if place.is_file():
        return is_annotation_file(place)
    # Pictures lie beside their annotations; DICOM files and volumes do not.
    found, files, _ = contents(place)
    if found or any(kind_of(f) != "raster" for f in files):
        return False
    return any(is_annotation_file(p) and not is_hidden(p) for p in files_below(place)[0])


def _in_source(path: Path, root: Path, place: Path) -> Path:
    """A path of the source, which may be an archive that is unpacked at `root`."""
    return place / path.relative_to(root) if path.is_relative_to(root) else path


def _stacked(named: Sequence[tuple[str, Annotated]], image: Path) -> Annotated | None:
    """The volume whose slices were annotated one by one; None where these are pictures of their own."""
    parts = [SLICE_NAME.fullmatch(name) for name, _ in named]
    cases = {part["case"] if part else "" for part in parts}
    if len(cases) > 1 or "" in cases or any(each.label_map.dims == 3 for _, each in named):
        return None
    slices = [(int(part["slice"]), each.label_map) for part, (_, each) in zip(parts, named, strict=True) if part]
    classes = {name: value for _, each in named for name, value in each.classes.items()}
    check_source(image)
    return Annotated(stacked(slices, channels_first(read(image))), classes, cases.pop())


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


def values_of(scheme: LabelScheme) -> dict[str, int]:
    """Name -> value in a label map."""
    return dict(zip(scheme.names, scheme.painted, strict=True))
