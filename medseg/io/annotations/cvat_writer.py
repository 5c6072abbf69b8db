"""Label maps as CVAT XML 1.1: images as polygons and masks, videos as tracks of one frame, as CVAT exports them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from medseg.disk.atomic import atomic_path
from medseg.errors import WriteError
from medseg.io.annotations.outlines import Part, parts, pixel_edges
from medseg.io.annotations.rle import counts_of
from medseg.io.annotations.shapes import Annotated

__all__ = ["write_cvat"]


def write_cvat(annotated: Sequence[Annotated], path: Path) -> None:
    """Write 2D label maps as 'CVAT for images', or one stack of frames as 'CVAT for video'.

    One polygon per connected component, or a mask if it has holes; the labels in the order of their values.

    Raises:
        WriteError: if a stack is mixed with others, the disk is full or permission is missing.
    """
    video = [each for each in annotated if each.label_map.dims == 3]
    if video and len(annotated) > 1:
        raise WriteError(f"cannot write {path}: a CVAT file contains images or one video; write one file per video")
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    root.append(_meta(annotated, video[0] if video else None))
    for number, each in enumerate(annotated):
        if video:
            _add_tracks(root, each)
        else:
            _add_image(root, each, number)
    ET.indent(root)
    with atomic_path(path) as temporary:
        ET.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)
        with temporary.open("ab") as file:
            file.write(b"\n")


def _meta(annotated: Sequence[Annotated], video: Annotated | None) -> ET.Element:
    meta = ET.Element("meta")
    task = ET.SubElement(meta, "task")
    size = video.label_map.shape[2] if video else len(annotated)
    fields = {
        "name": video.image_name if video else "label maps",
        "size": size,
        "mode": "interpolation" if video else "annotation",
        "overlap": 0,
        "start_frame": 0,
        "stop_frame": size - 1,
        "frame_filter": "",
    }
    for tag, value in fields.items():
        ET.SubElement(task, tag).text = str(value)
    labels = ET.SubElement(task, "labels")
    classes = {name: value for each in annotated for name, value in each.classes.items() if value}
    for name in sorted(classes, key=lambda n: classes[n]):
        label = ET.SubElement(labels, "label")
        ET.SubElement(label, "name").text = name
        ET.SubElement(label, "type").text = "any"
        ET.SubElement(label, "attributes")
    if video:
        original = ET.SubElement(task, "original_size")
        ET.SubElement(original, "width").text = str(video.label_map.shape[0])
        ET.SubElement(original, "height").text = str(video.label_map.shape[1])
    return meta


def _add_image(root: ET.Element, annotated: Annotated, number: int) -> None:
    names = {value: name for name, value in annotated.classes.items()}
    width, height = annotated.label_map.shape
    size = {"width": str(width), "height": str(height)}
    image = ET.SubElement(root, "image", {"id": str(number), "name": annotated.image_name, **size})
    for part in parts(annotated.label_map.array.T):
        tag, geometry = _geometry(part)
        label = {"label": names[part.value], "source": "manual", "occluded": "0"}
        ET.SubElement(image, tag, {**label, **geometry, "z_order": "0"})


def _add_tracks(root: ET.Element, annotated: Annotated) -> None:
    names = {value: name for name, value in annotated.classes.items()}
    frames = annotated.label_map.shape[2]
    number = 0
    for frame in range(frames):
        for part in parts(annotated.label_map.array[:, :, frame].T):
            label = {"id": str(number), "label": names[part.value], "source": "manual"}
            track = ET.SubElement(root, "track", label)
            tag, geometry = _geometry(part)
            # The second shape ends the track; otherwise CVAT would continue it to the last frame.
            for n, outside in ((frame, "0"), (frame + 1, "1")):
                if n < frames:
                    state = {"frame": str(n), "keyframe": "1", "outside": outside, "occluded": "0"}
                    ET.SubElement(track, tag, {**state, **geometry, "z_order": "0"})
            number += 1


def _geometry(part: Part) -> tuple[str, dict[str, str]]:
    rings = pixel_edges(part.mask)
    if len(rings) == 1:
        return "polygon", {"points": ";".join(f"{x + part.left:.2f},{y + part.top:.2f}" for x, y in rings[0])}
    rows, columns = part.mask.shape
    box = {"left": str(part.left), "top": str(part.top), "width": str(columns), "height": str(rows)}
    return "mask", {"rle": ", ".join(map(str, counts_of(part.mask.ravel()))), **box}
