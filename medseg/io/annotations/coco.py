"""COCO JSON: one file for a whole set of images.

Pixels are those of pycocotools (`annToMask`): `rleFrPoly` for polygons, whose coordinates are continuous, with pixel
(0, 0) reaching from 0 to 1; several polygons of one annotation are joined (they cannot cut holes); run lengths go down
the columns. The format has no order: annotations are painted in file order, with a finding 'overlap' if that matters.

Label values are the category ids if all are from 1 to 65535; otherwise (some tools count from 0) 1, 2, ... by id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medseg.disk.atomic import write_text_atomic
from medseg.errors import AnnotationError
from medseg.io.annotations.outlines import Part, parts, pixel_edges
from medseg.io.annotations.polygons import coco_polygon
from medseg.io.annotations.rle import counts_of, decode_columns, string_of, string_to_counts
from medseg.io.annotations.shapes import Annotated, Notes, Patch, Picture, Shape, check_size
from medseg.io.annotations.untrusted_fields import Json

__all__ = ["coco_classes", "coco_pictures", "is_coco", "write_coco"]


def is_coco(document: Json) -> bool:
    """Whether this looks like a COCO data set."""
    return document.has("images") and document.has("annotations")


def _categories(document: Json) -> dict[int, str]:
    """Category id -> name, by id; a name that two ids share is one class."""
    found: dict[int, str] = {}
    for category in document.at("categories").items():
        number = category.at("id").integer()
        if number in found:
            raise AnnotationError(f"{category.where} repeats the category id {number}; ids must be unique")
        found[number] = category.at("name").text()
    return dict(sorted(found.items()))


def coco_classes(document: Json) -> dict[str, int]:
    """Name -> value for every category of the file."""
    categories = _categories(document)
    if len(set(categories.values())) < len(categories) or not all(0 < n <= 65535 for n in categories):
        return {name: n for n, name in enumerate(dict.fromkeys(categories.values()), start=1)}
    return {name: number for number, name in categories.items()}


def coco_pictures(document: Json, path: Path) -> Iterator[Picture]:
    """The images in file order, including those without annotations.

    Raises:
        AnnotationError: if fields are missing or wrong, or an annotation has an image or category that is not listed.
    """
    categories = _categories(document)
    images: dict[int, Json] = {}
    for image in document.at("images").items():
        number = image.at("id").integer()
        if number in images:
            raise AnnotationError(f"{image.where} repeats the image id {number}; ids must be unique")
        images[number] = image
    by_image: dict[int, list[Json]] = {}
    for annotation in document.at("annotations").items():
        number = annotation.at("image_id").integer()
        if number not in images:
            raise AnnotationError(f"{annotation.where} belongs to image {number}, which the file does not list")
        by_image.setdefault(number, []).append(annotation)
    for number, image in images.items():
        name = image.at("file_name").text()
        width, height = image.at("width").integer(), image.at("height").integer()
        check_size(width, height, 0, image.where)
        notes = Notes(path)
        shapes = _shapes(by_image.get(number, []), categories, width, height, notes)
        yield Picture(name, width, height, 0, shapes, notes, ordered=False)


def _shapes(
    annotations: list[Json], categories: dict[int, str], width: int, height: int, notes: Notes
) -> Iterator[Shape]:
    for annotation in annotations:
        number = annotation.at("category_id").integer()
        if number not in categories:
            raise AnnotationError(f"{annotation.where} has the category id {number}, which the file does not list")
        if not annotation.has("segmentation") or annotation.value["segmentation"] == []:
            notes.add("ignored_shapes", "annotation without a segmentation (box or key points only), skipped")
            continue
        if annotation.has("iscrowd") and annotation.at("iscrowd").integer():
            notes.add("crowd", "region of many objects (iscrowd), painted as its class")
        segmentation = annotation.at("segmentation")
        if isinstance(segmentation.value, dict):
            yield Shape(categories[number], _run_lengths(segmentation, width, height))
            continue
        for polygon in segmentation.items():
            points = polygon.flat_points()
            if len(points) < 3:
                notes.add("ignored_shapes", "polygon of fewer than 3 points, which has no area and is skipped")
                continue
            yield Shape(categories[number], coco_polygon(points, width, height, polygon.where))


def _run_lengths(segmentation: Json, width: int, height: int) -> Patch:
    size = segmentation.at("size").integers().tolist()
    if size != [height, width]:
        raise AnnotationError(f"{segmentation.where} is for an image of [height, width] {size}, not {[height, width]}")
    field = segmentation.at("counts")
    if isinstance(field.value, str):
        counts = string_to_counts(field.value, field.where)
    else:
        counts = field.integers()
    return decode_columns(counts, width, height, field.where)


def write_coco(annotated: Sequence[Annotated], path: Path) -> None:
    """Write 2D label maps as one data set: an annotation per connected component, run lengths if it has holes.

    Run lengths stay `iscrowd: 0`: each component is one object, and training code ignores crowds.

    Raises:
        AnnotationError: if two label maps give a class different values.
        WriteError: if the disk is full or permission is missing.
    """
    classes: dict[str, int] = {}
    for each in annotated:
        for name, value in each.classes.items():
            if classes.setdefault(name, value) != value:
                raise AnnotationError(f"class {name!r} is {classes[name]} in one image and {value} in another")
    names = sorted(((value, name) for name, value in classes.items() if value), key=lambda item: item)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, each in enumerate(annotated, start=1):
        rows = each.label_map.array.T
        size = {"width": rows.shape[1], "height": rows.shape[0]}
        images.append({"id": number, **size, "file_name": each.image_name})
        for part in parts(rows):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": part.value,
                    **_written(part, rows.shape),
                }
            )
    document = {
        "info": {"description": "label maps"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": value, "name": name, "supercategory": ""} for value, name in names],
    }
    write_text_atomic(path, json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")


def _written(part: Part, size: tuple[int, ...]) -> dict[str, Any]:
    rings = pixel_edges(part.mask)
    if len(rings) == 1:
        ring = [v for x, y in rings[0] for v in (x + part.left, y + part.top)]
        segmentation: Any = [ring]
    else:
        whole = Patch(part.mask, part.top, part.left).on_box(0, 0, size[0], size[1])
        segmentation = {"size": list(size), "counts": string_of(counts_of(whole.ravel(order="F")))}
    return {
        "segmentation": segmentation,
        "area": int(part.mask.sum()),
        "bbox": [part.left, part.top, part.mask.shape[1], part.mask.shape[0]],
        "iscrowd": 0,
    }
