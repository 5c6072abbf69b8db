"""The corrected masks in a file or folder, in whatever form: label maps, DICOM objects, drawn annotations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from medseg.config import DataConfig
from medseg.datasets.cases import Case
from medseg.datasets.csv_layout import case_list_in, csv_layout
from medseg.datasets.pair_finding import cases_beside, folder_pairs, has_masks_beside
from medseg.disk.directory_walk import files_below, is_hidden
from medseg.errors import AnnotationError, DatasetError, GeometryError
from medseg.geometry import copy_grid, describe, reorient
from medseg.io.annotations import case_names, read_annotations
from medseg.io.annotations.slices import SLICE_NAME, stacked
from medseg.io.dicom.objects import object_contents, object_kind, read_object
from medseg.io.formats import check_source, is_annotation_file, is_image_file, may_be_dicom, stem_of
from medseg.io.label_maps import LabelSource, read_label_map
from medseg.labels import LabelScheme
from medseg.preparation.sources import Reading, read_case
from medseg.resampling import resample_like
from medseg.studies.ledger import Ledger, hash_file
from medseg.studies.outputs import PREVIEWS, UNCERTAINTY
from medseg.volume import Volume

__all__ = ["CorrectedMask", "Found", "find_masks"]

_EXPECTED = (
    "expected label maps (NIfTI, NRRD, PNG, ...), DICOM SEG or RTSTRUCT objects, or annotations of Labelme, CVAT, "
    "Supervisely or COCO, named after their studies"
)
# What predict and viewers add to the name of a study.
_ENDING = re.compile(r"[._ -](seg|segmentation|mask|label|labels|labelmap|rtstruct|corrected)$", re.IGNORECASE)
# JSON files that medseg writes beside masks.
_OURS = frozenset({"labels.json", "dataset.json", "suggested.json", "splits_final.json"})


class _Mask(Protocol):
    def on_image(self, image: Volume, case: Case) -> Volume:
        """The label map on the grid of an image, read from its case."""

    def grid(self) -> Volume | None:
        """A label map as it lies in its file; None where the file has no grid."""


@dataclass(frozen=True, slots=True)
class CorrectedMask:
    """One corrected mask.

    Args:
        names: of the study that it may belong to, the likelier one first.
        file: where it lies.
        content: reads it.
        series_uids: series that it was drawn on, as it says itself, or as the ledger beside it says.
        case: the study, where image and mask came together.
        unchanged: whether it is, byte for byte, what the ledger beside it says was predicted.
        input_hash: of the image that it was predicted from, as that ledger says; '' if unknown.
    """

    names: tuple[str, ...]
    file: Path
    content: _Mask
    series_uids: tuple[str, ...] = ()
    case: Case | None = None
    unchanged: bool = False
    input_hash: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """Corrected masks, and the places beside them that hold images."""

    masks: tuple[CorrectedMask, ...]
    images: tuple[Path, ...]


def find_masks(place: Path, data: DataConfig, scheme: LabelScheme, reading: Reading) -> Found:
    """The corrected masks of a file or folder.

    Images may lie beside them: `images/` with `labels/`, `imagesTr/` with `labelsTr/`, a CSV that lists both, masks
    beside their images, or DICOM studies with their objects.

    Args:
        place: the file or folder.
        data: of the run.
        scheme: its labels.
        reading: how it reads label maps.

    Raises:
        ReadError: the place does not exist.
        DatasetError: it contains no mask.
        AnnotationError: annotations that cannot become label maps of this run.
    """
    check_source(place)
    if place.is_file():
        masks = list(_masks_of_files([place], scheme, reading))
        return Found(_checked(masks, place), ())
    if (table := case_list_in(place)) is not None:
        listed = csv_layout(data.model_copy(update={"root": place, "csv": table, "layout": "csv"})).cases
        return Found(_checked([_whole(case, reading) for case in listed if case.labels], place), ())
    pairs = [(place / "imagesTr", place / "labelsTr")] if (place / "labelsTr").is_dir() else []
    pairs += [(pair.images, pair.labels) for pair in folder_pairs(place)]
    if pairs:
        masks = [mask for _, labels in pairs for mask in _masks_in(labels, scheme, reading)]
        return Found(_checked(masks, place), tuple(images for images, _ in pairs if images.is_dir()))
    if has_masks_beside(place):
        try:
            return Found(tuple(_whole(case, reading) for case in cases_beside(place)), ())
        except DatasetError:
            pass  # Masks alone, some of which are called so.
    masks = list(_masks_in(place, scheme, reading))
    drawn = any(isinstance(mask.content, _Object) for mask in masks)
    return Found(_checked(masks, place), (place,) if drawn else ())


def _checked(masks: list[CorrectedMask], place: Path) -> tuple[CorrectedMask, ...]:
    if not masks:
        raise DatasetError(f"{place} contains no corrected mask; {_EXPECTED}")
    return tuple(masks)


def _whole(case: Case, reading: Reading) -> CorrectedMask:
    return CorrectedMask((case.name,), case.labels[0].path, _LabelMap(case.labels, reading), case=case)


def _masks_in(folder: Path, scheme: LabelScheme, reading: Reading) -> Iterator[CorrectedMask]:
    aside = {folder / PREVIEWS, folder / UNCERTAINTY}
    files = sorted(p for p in files_below(folder)[0] if not is_hidden(p) and not aside & {*p.parents})
    yield from _with_ledgers(_masks_of_files(files, scheme, reading, folder))


def _masks_of_files(
    files: Iterable[Path], scheme: LabelScheme, reading: Reading, folder: Path | None = None
) -> Iterator[CorrectedMask]:
    files = list(files)
    annotations = _annotations(files, scheme, folder)
    yield from annotations
    for path in files:
        # Pictures beside their annotations are images, not masks.
        if is_image_file(path) and not annotations:
            yield CorrectedMask(_names(stem_of(path)), path, _LabelMap((LabelSource(path),), reading))
        elif may_be_dicom(path) and object_kind(path):
            contents = object_contents(path)
            yield CorrectedMask(_names(path.stem), path, _Object(path, contents.names, scheme), contents.series_uids)


def _names(stem: str) -> tuple[str, ...]:
    shorter = _ENDING.sub("", stem)
    return tuple(dict.fromkeys((stem, shorter, _ENDING.sub("", shorter))))


def _annotations(files: Sequence[Path], scheme: LabelScheme, folder: Path | None) -> list[CorrectedMask]:
    found = [path for path in files if is_annotation_file(path) and path.name not in _OURS]
    if not found:
        return []
    classes = dict(zip(scheme.names, scheme.painted, strict=True))
    try:
        pictures = read_annotations(found[0] if folder is None or len(found) == 1 else folder, classes)
    except AnnotationError:
        if any(is_image_file(path) or (may_be_dicom(path) and object_kind(path)) for path in files):
            return []  # Masks, and some other JSON or XML beside them.
        raise
    result = []
    slices: dict[str, list[tuple[int, Volume]]] = {}
    for name, picture in zip(case_names(pictures), pictures, strict=True):
        match = SLICE_NAME.fullmatch(name)
        if match and picture.label_map.dims == 2:
            slices.setdefault(match["case"], []).append((int(match["slice"]), picture.label_map))
        else:
            result.append(CorrectedMask(_names(name), found[0].parent / name, _Drawn(picture.label_map)))
    result += [CorrectedMask(_names(case), found[0].parent / case, _Slices(tuple(s))) for case, s in slices.items()]
    return result


def _with_ledgers(masks: Iterable[CorrectedMask]) -> Iterator[CorrectedMask]:
    """The masks, with what a ledger of predict says of them."""
    ledgers: dict[Path, Ledger] = {}
    for mask in masks:
        folder = mask.file.parent
        ledger = ledgers.setdefault(folder, Ledger(folder / "ledger.jsonl"))
        row = next((row for name in mask.names if (row := ledger.latest(name)) is not None), None)
        if row is None:
            yield mask
            continue
        uids = mask.series_uids or tuple(filter(None, (row.series_uid,)))
        same = bool(row.output_hash) and mask.file.is_file() and hash_file(mask.file) == row.output_hash
        yield replace(mask, series_uids=uids, unchanged=same, input_hash=row.input_hash)


@dataclass(frozen=True, slots=True)
class _LabelMap:
    """A file of label values."""

    labels: tuple[LabelSource, ...]
    reading: Reading

    def on_image(self, image: Volume, case: Case) -> Volume:
        return read_case(replace(case, labels=self.labels), self.reading)[1]

    def grid(self) -> Volume:
        return read_label_map(self.labels, self.reading.threshold)


@dataclass(frozen=True, slots=True)
class _Object:
    """A DICOM SEG or RTSTRUCT: its labels go by their names."""

    path: Path
    names: tuple[str, ...]
    scheme: LabelScheme

    def on_image(self, image: Volume, case: Case) -> Volume:
        ours = {_key(name): index for index, name in enumerate(self.scheme.names)}
        unknown = sorted(name for name in self.names if _key(name) not in ours)
        if unknown:
            raise DatasetError(
                f"{self.path} holds the label(s) {', '.join(unknown[:5])}, which the model does not have; it has "
                f"{', '.join(self.scheme.names)}: rename them, or take them out"
            )
        study = case.images[0] if case.series or case.images[0].is_dir() else None
        painted = np.zeros(image.shape, dtype=np.int64)
        for name in sorted(self.names, key=lambda name: ours[_key(name)]):
            mask = _on_grid(read_object(self.path, study, values={name: 1})[0], image, self.path).array > 0
            painted[mask] = self.scheme.painting(ours[_key(name)])[painted[mask]]
        return image.with_array(painted.astype(self.scheme.dtype))

    def grid(self) -> None:
        return None


def _on_grid(label_map: Volume, image: Volume, path: Path) -> Volume:
    turned = label_map
    if label_map.dims == image.dims == 3 and label_map.orientation != image.orientation:
        turned = reorient(label_map, image.orientation)
    if image.same_geometry(turned, tolerance_mm=1e-2):
        return turned
    # A segmentation without empty slices lies on a part of the image's grid.
    if turned.dims == image.dims == 3 and np.allclose(turned.spacing_mm, image.spacing_mm, rtol=1e-3):
        return resample_like(turned, image, order=0)
    raise GeometryError(f"{path} does not lie on the grid of its image: {describe(turned)} against {describe(image)}")


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A drawn picture, or stack of frames, whose file says nothing of where it lies in the patient."""

    label_map: Volume

    def on_image(self, image: Volume, case: Case) -> Volume:
        return copy_grid(self.label_map, image)

    def grid(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _Slices:
    """Drawn pictures of the slices of one volume; slices without a picture are background."""

    slices: tuple[tuple[int, Volume], ...]

    def on_image(self, image: Volume, case: Case) -> Volume:
        return stacked(self.slices, image)

    def grid(self) -> None:
        return None
