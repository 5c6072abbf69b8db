"""Reading and writing annotations: Labelme, CVAT, Supervisely and COCO files as label maps, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from medseg.disk.directory_walk import is_hidden
from medseg.errors import AnnotationError, ReadError, WriteError
from medseg.io.annotations.coco import coco_classes, coco_pictures, is_coco, write_coco
from medseg.io.annotations.cvat import cvat_classes, cvat_pictures, is_cvat
from medseg.io.annotations.cvat_writer import write_cvat
from medseg.io.annotations.labelme import is_labelme, labelme_classes, labelme_picture, write_labelme
from medseg.io.annotations.shapes import MAX_PIXELS, Annotated, ClassTable, Picture, Scribbles, paint
from medseg.io.annotations.supervisely import (
    is_supervisely,
    supervisely_classes,
    supervisely_picture,
    write_supervisely,
)
from medseg.io.annotations.untrusted_fields import Json, Xml, load_document
from medseg.io.formats import is_annotation_file, stem_of
from medseg.io.naming import natural_order
from medseg.lookup import nearest_hint
from medseg.volume import Finding

__all__ = [
    "FORMATS",
    "Annotated",
    "Format",
    "Scribbles",
    "case_names",
    "iter_annotations",
    "read_annotations",
    "write_annotations",
]

Format = Literal["labelme", "cvat", "supervisely", "coco"]
FORMATS: tuple[Format, ...] = ("labelme", "cvat", "supervisely", "coco")

# More label maps than this do not fit into memory; `iter_annotations` yields one at a time.
_MAX_LISTED_BYTES = 4 * MAX_PIXELS


@dataclass(frozen=True, slots=True)
class _Source:
    """A recognised annotation file: its path, its format and, if it is the only one, its content."""

    path: Path
    kind: Format
    document: Json | Xml | None = None

    def load(self) -> Json | Xml:
        """The content; if there are many files, each is loaded whenever it is needed."""
        return self.document or load_document(self.path)


def iter_annotations(
    path: str | Path, classes: Mapping[str, int] | None = None, scribbles: Scribbles | None = None
) -> Iterator[Annotated]:
    """The label maps of an annotation file or folder, one at a time: see `read_annotations`."""
    sources, others = _sources(Path(path))
    table = ClassTable.of(classes) if classes is not None else _numbered(sources, Path(path), scribbles is not None)
    for source in sources:
        for picture in _pictures(source.load(), source, scribbles.width if scribbles else 0):
            annotated = paint(picture, table, source.path, scribbles.undrawn if scribbles else 0)
            if others:
                label_map = replace(annotated.label_map, findings=(*annotated.findings, others))
                annotated = replace(annotated, label_map=label_map)
            yield annotated


def read_annotations(
    path: str | Path, classes: Mapping[str, int] | None = None, scribbles: Scribbles | None = None
) -> list[Annotated]:
    """Label maps from the annotations of Labelme (JSON), CVAT (XML 1.1), Supervisely (JSON) or COCO (JSON).

    The format is recognised from the content. Overlapping shapes are painted in the tool's own order, onto the pixels
    that the tool's own export paints (each reader documents which). Without `classes` the values are: Labelme 1, 2, ...
    by name; CVAT by the labels of the task; Supervisely by the project's meta.json, else by name; COCO the category
    ids. All files of a folder share one table. Classes named 'background' or '_background_' are 0.

    Args:
        path: a file, or a folder (searched recursively) of .json and .xml files of one format.
        classes: class name -> value from 0 to 65535, to be used instead.
        scribbles: how lines and points are drawn; None skips them.

    Returns:
        One per image or video: the label map (`[i = x, j = y]`, or `[i, j, frame]`; uint8 or uint16; spacing unknown),
        the table, the image's name, and findings: 'ignored_shapes', 'empty_shapes', 'overlap', 'crowd', 'track_gap',
        'other_files'.

    Raises:
        AnnotationError: if a file is damaged or of an unknown format, an image is too large, or `classes` lacks a
            class.
        ReadError: if nothing is there, or permission is missing.
        ConfigError: if a value in `classes` is not a possible label.

    Example:
        >>> annotated = read_annotations("scan.json", {"lung": 1, "tumour": 2})[0]
        >>> annotated.label_map.shape, annotated.classes, annotated.image_name
        ((6, 4), {'lung': 1, 'tumour': 2}, 'scan.png')
    """
    found: list[Annotated] = []
    total = 0
    for annotated in iter_annotations(path, classes, scribbles):
        total += annotated.label_map.array.nbytes
        if total > _MAX_LISTED_BYTES:
            raise AnnotationError(
                f"{path} contains label maps of more than {_MAX_LISTED_BYTES} bytes; read them one at a time with "
                "iter_annotations"
            )
        found.append(annotated)
    return found


def write_annotations(annotated: Annotated | Sequence[Annotated], path: str | Path, format: Format) -> None:
    """Write label maps as annotations; `read_annotations(path, classes)` then gives the same label maps back.

    Connected components become polygons; those with holes become whatever the format supports: run lengths (COCO), a
    mask (CVAT, Labelme), a polygon with holes (Supervisely).

    Args:
        annotated: label maps with the names of their values; several only for CVAT images and COCO, a stack of frames
            only for CVAT.
        path: the file to write.
        format: 'labelme', 'cvat', 'supervisely' or 'coco'.

    Raises:
        AnnotationError: if a value has no name, or two names share a value.
        ConfigError: if a value in `classes` is not from 0 to 65535.
        WriteError: if the format cannot store the label maps, the disk is full or permission is missing.

    Example:
        >>> label_map = medseg.Volume(np.ones((6, 4), np.uint8), np.eye(4), spacing_known=False)
        >>> write_annotations(Annotated(label_map, {"lung": 1}, "scan.png"), "drawn.json", "labelme")
        >>> read_annotations("drawn.json")[0].classes
        {'lung': 1}
    """
    each = [annotated] if isinstance(annotated, Annotated) else list(annotated)
    target = Path(path)
    if not each:
        raise WriteError(f"cannot write {target}: there are no label maps")
    for one in each:
        _check_named(one)
    if format != "cvat" and any(one.label_map.dims == 3 for one in each):
        raise WriteError(f"cannot write {target}: {format} annotates 2D images; a stack can be written as CVAT video")
    if format in ("labelme", "supervisely") and len(each) > 1:
        raise WriteError(f"cannot write {target}: a {format} file contains one image, found {len(each)}")
    if format == "labelme":
        write_labelme(each[0], target)
    elif format == "supervisely":
        write_supervisely(each[0], target)
    elif format == "cvat":
        write_cvat(each, target)
    elif format == "coco":
        write_coco(each, target)
    else:
        raise WriteError(
            f"cannot write {target}: format {format!r} is not known; expected {', '.join(FORMATS)}"
            f"{nearest_hint(format, FORMATS)}"
        )


def case_names(annotated: Iterable[Annotated]) -> list[str]:
    """A safe, unique file name without suffix for each: 'a/b.png' gives 'a_b'; no name leads out of a folder."""
    names: list[str] = []
    for each in annotated:
        steps = [s for s in re.split(r"[/\\]+", each.image_name) if s not in ("", ".", "..")]
        stem = stem_of(Path("_".join(steps))) if steps else ""
        safe = re.sub(r"[^\w\-. ]", "_", stem)[:150].strip(". ") or "image"
        name, n = safe, 2
        while name in names:
            name, n = f"{safe}_{n}", n + 1
        names.append(name)
    return names


def _check_named(annotated: Annotated) -> None:
    label_map = annotated.label_map
    if label_map.channels or label_map.array.dtype.kind not in "iu":
        raise AnnotationError(f"{label_map!r} is not a label map; expected integers without channels")
    painted = list(filter(None, ClassTable.of(annotated.classes).values.values()))
    shared = sorted({v for v in painted if painted.count(v) > 1})
    if shared:
        raise AnnotationError(f"the value(s) {shared} have two names each in {dict(annotated.classes)}")
    unnamed = sorted(set(np.unique(label_map.array).tolist()) - {0, *painted})
    if unnamed:
        raise AnnotationError(
            f"{annotated.image_name} contains the value(s) {unnamed[:8]} without a name; add them to classes"
        )


def _sources(path: Path) -> tuple[list[_Source], Finding | None]:
    """The annotation files, and a finding about other JSON and XML files next to them."""
    if not path.exists():
        raise ReadError(f"{path} does not exist")
    if path.is_file():
        document = load_document(path)
        kind = _recognised(document)
        if kind is None:
            raise AnnotationError(
                f"{path} is not an annotation of Labelme, CVAT, Supervisely or COCO; check what it is"
            )
        return [_Source(path, kind, document)], None
    files = [p for p in path.rglob("*") if is_annotation_file(p) and p.is_file() and not is_hidden(p)]
    found, others = [], []
    for file in sorted(files):
        kind = _recognised(load_document(file))
        if kind is None:
            others.append(file)
        else:
            found.append(_Source(file, kind))
    if not found:
        raise AnnotationError(f"{path} contains no annotation of Labelme, CVAT, Supervisely or COCO")
    kinds = sorted({source.kind for source in found})
    if len(kinds) > 1:
        raise AnnotationError(f"{path} mixes annotations of {', '.join(kinds)}; give one of them at a time")
    if not others:
        return found, None
    names = ", ".join(p.name for p in others[:8])
    text = f"{len(others)} JSON or XML file(s) are not annotations and were skipped: {names}"
    return found, Finding("other_files", text, tuple(str(p) for p in others))


def _recognised(document: Json | Xml) -> Format | None:
    if isinstance(document, Xml):
        return "cvat" if is_cvat(document) else None
    if is_labelme(document):
        return "labelme"
    if is_coco(document):
        return "coco"
    return "supervisely" if is_supervisely(document) else None


def _numbered(sources: list[_Source], path: Path, strokes: bool) -> ClassTable:
    """Label values by the format's own rule, one table for all files."""
    names: dict[str, None] = {}
    ids: dict[str, int] = {}
    for source in sources:
        document = source.load()
        if isinstance(document, Xml):
            names.update(dict.fromkeys(cvat_classes(document, strokes)))
        elif source.kind == "coco":
            own = coco_classes(document)
            if any(ids.get(n, v) != v for n, v in own.items()):
                raise AnnotationError(
                    f"{source.path} numbers its categories differently from the files before; give classes"
                )
            ids.update(own)
        elif source.kind == "labelme":
            names.update(dict.fromkeys(labelme_classes(document, strokes)))
        else:
            names.update(dict.fromkeys(supervisely_classes(document, source.path, strokes)))
    if ids:
        if len(set(ids.values())) < len(ids):
            raise AnnotationError(f"the files in {path} give one category id to different classes; give classes")
        return ClassTable(ids)
    by_name = sources[0].kind == "labelme" and len(sources) > 1
    return ClassTable.numbered(sorted(names, key=natural_order) if by_name else names, str(path))


def _pictures(document: Json | Xml, source: _Source, thickness: int) -> Iterator[Picture]:
    if isinstance(document, Xml):
        yield from cvat_pictures(document, source.path, thickness)
    elif source.kind == "coco":
        yield from coco_pictures(document, source.path)
    elif source.kind == "labelme":
        yield labelme_picture(document, source.path, thickness)
    else:
        yield supervisely_picture(document, source.path, thickness)
