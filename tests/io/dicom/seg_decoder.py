"""A second reader of DICOM Segmentations, written from the standard for the tests: pydicom for the elements, numpy for
the bits, nothing of medseg and nothing of highdicom.

Pixels: PS3.5 8.1.1 and annex D (one bit per pixel, packed across frames, lowest bit first), annex G (RLE).
Frames: PS3.3 C.7.6.16 (functional groups), C.7.6.16.2.3 (plane position), C.8.20.3.1 (segment identification).
World position of a pixel: PS3.3 C.7.6.2.1.1.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames


@dataclass
class Frame:
    """Segment number (0 in a label map), pixels `[row, column]`, and (3, 3): (column, row, 1) to LPS millimetres."""

    segment: int
    pixels: np.ndarray
    to_world: np.ndarray


def decode(path: Path) -> tuple[Dataset, list[Frame]]:
    data = pydicom.dcmread(path)
    shared = data.SharedFunctionalGroupsSequence[0]
    frames = []
    for pixels, own in zip(_pixels(data), data.PerFrameFunctionalGroupsSequence, strict=True):

        def group(name, own=own):
            return (own if name in own else shared)[name][0]

        segment = 0
        if data.SegmentationType != "LABELMAP":
            segment = group("SegmentIdentificationSequence").ReferencedSegmentNumber
        row, column = np.array(group("PlaneOrientationSequence").ImageOrientationPatient, float).reshape(2, 3)
        down, along = map(float, group("PixelMeasuresSequence").PixelSpacing)
        origin = np.array(group("PlanePositionSequence").ImagePositionPatient, float)
        frames.append(Frame(segment, pixels, np.stack([row * along, column * down, origin], axis=1)))
    return data, frames


def _pixels(data: Dataset) -> list[np.ndarray]:
    shape = (data.NumberOfFrames, data.Rows, data.Columns)
    if data.file_meta.TransferSyntaxUID.is_encapsulated:
        return [_rle(f, shape[1:]) for f in generate_frames(data.PixelData, number_of_frames=shape[0])]
    if data.BitsAllocated == 1:
        bits = np.unpackbits(np.frombuffer(data.PixelData, np.uint8), bitorder="little")
        return list(bits[: np.prod(shape)].reshape(shape))
    return list(np.frombuffer(data.PixelData, f"<u{data.BitsAllocated // 8}")[: np.prod(shape)].reshape(shape))


def _rle(frame: bytes, shape: tuple[int, int]) -> np.ndarray:
    header = np.frombuffer(frame[:64], "<u4")
    bounds = [*header[1 : 1 + header[0]], len(frame)]
    planes = [_unpack(frame[a:b], shape[0] * shape[1]) for a, b in itertools.pairwise(bounds)]
    # The most significant byte comes first.
    return sum(p.astype(np.uint16) << 8 * (len(planes) - 1 - n) for n, p in enumerate(planes)).reshape(shape)


def _unpack(segment: bytes, size: int) -> np.ndarray:
    out, n = bytearray(), 0
    while len(out) < size:
        head = segment[n]
        if head < 128:
            out += segment[n + 1 : n + 2 + head]
            n += 2 + head
        else:
            if head > 128:
                out += segment[n + 1 : n + 2] * (257 - head)
            n += 2
    return np.frombuffer(bytes(out[:size]), np.uint8)


def masks_on(frames: list[Frame], shape: tuple[int, ...], affine_lps: np.ndarray) -> dict[int, np.ndarray]:
    """Segment (label map: pixel value) -> mask `[i, j, k]`, each pixel carried there by its position in the patient."""
    masks: dict[int, np.ndarray] = {}
    back = np.linalg.inv(affine_lps)
    for frame in frames:
        rows, columns = np.nonzero(frame.pixels)
        world = frame.to_world @ np.stack([columns, rows, np.ones(len(rows))])
        index = back[:3, :3] @ world + back[:3, 3:]
        assert np.abs(index - np.rint(index)).max(initial=0) < 0.1
        values = frame.pixels[rows, columns]
        for value in np.unique(values):
            mask = masks.setdefault(frame.segment or int(value), np.zeros(shape, bool))
            mask[tuple(np.rint(index[:, values == value]).astype(int))] = True
    return masks
