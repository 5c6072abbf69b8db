"""Segmentations of 3D Slicer (`.seg.nrrd`) whose segments overlap: several label maps in one file, one a layer.

`Segment0_Layer:=1`, `Segment0_LabelValue:=1` and `Segment0_Name:=tumour` describe each segment
(slicer.readthedocs.io, segmentation file format).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.io.voxel_files.streams import read_start
from medseg.volume import Finding, Volume

__all__ = ["join_layers"]

_HEADER_LIMIT = 1 << 20
_KEY = re.compile(r"Segment(\d{1,5})_(Layer|LabelValue|Name):=(.*)")


def join_layers(volume: Volume, path: Path) -> Volume | None:
    """The layers of a segmentation as one label map; None if the file describes no layers.

    A segment keeps its label value where no other has the same; else segments are numbered from 1 in their order. Later
    segments are painted over earlier ones.

    Args:
        volume: `(layers, I, J, K)`, as read from `path`.
        path: the file.

    Returns:
        `(I, J, K)` with the findings 'segment_layers', which names the values, and 'overlap'.
    """
    segments = _segments(path)
    layers = [_number(each.get("Layer")) for each in segments]
    values = [_number(each.get("LabelValue")) for each in segments]
    if not segments or any(layer is None or not 0 <= layer < volume.channels for layer in layers) or None in values:
        return None
    numbers = values if len(set(values)) == len(values) else list(range(1, len(values) + 1))
    result: NDArray[Any] = np.zeros(
        volume.shape, np.uint16 if max(filter(None, numbers), default=0) > 255 else np.uint8
    )
    shared = 0
    for layer, value, number in zip(layers, values, numbers, strict=True):
        mask = volume.array[layer] == value
        shared += int(np.count_nonzero(result[mask]))
        result[mask] = number
    names = [each.get("Name", f"segment {n}") for n, each in enumerate(segments)]
    named = ", ".join(f"{name}={number}" for name, number in zip(names, numbers, strict=True))
    findings = [Finding("segment_layers", f"{path} holds layers of segments; they were read as {named}", (path.name,))]
    if shared:
        text = f"segments of {path} share {shared} voxels; painted in the order of the file, so the last one is kept"
        findings.append(Finding("overlap", text, (path.name,)))
    return replace(volume, array=result, channels=0, findings=(*volume.findings, *findings))


def _segments(path: Path) -> list[Mapping[str, str]]:
    head = read_start(path, _HEADER_LIMIT, "raw").partition(b"\n\n")[0]
    found: dict[int, dict[str, str]] = {}
    for line in head.decode("utf-8", errors="replace").splitlines():
        match = _KEY.fullmatch(line.strip())
        if match:
            found.setdefault(int(match[1]), {})[match[2]] = match[3].strip()
    return [found[n] for n in sorted(found)]


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 6 else None
