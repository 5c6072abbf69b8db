"""Run-length codes: alternating counts of 0 and 1, down the columns (COCO) or along the rows of a box (CVAT)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.errors import AnnotationError
from medseg.io.annotations.shapes import Patch

__all__ = ["counts_of", "decode_columns", "decode_rows", "string_of", "string_to_counts"]

Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]


def _checked(counts: Counts, pixels: int, where: str) -> None:
    # The sum of many huge counts could overflow, so each is compared first.
    if len(counts) > 2 * pixels + 1 or (len(counts) and (counts.min() < 0 or counts.max() > pixels)):
        raise AnnotationError(f"{where} has run lengths that exceed its {pixels} pixels; the file is damaged")
    total = int(counts.sum())
    if total != pixels:
        raise AnnotationError(f"{where} has run lengths for {total} pixels; expected {pixels}")


def decode_columns(counts: Counts, width: int, height: int, where: str) -> Patch:
    """A COCO code, down the columns of the whole image (`rleDecode` in maskApi.c of cocoapi).

    Raises:
        AnnotationError: if the counts do not add up to the image.
    """
    _checked(counts, width * height, where)
    ends = np.cumsum(counts)
    on = np.flatnonzero(counts[1::2]) * 2 + 1
    if not len(on):
        return Patch.empty()
    left, right = int(ends[on[0] - 1]) // height, (int(ends[on[-1]]) - 1) // height + 1
    # Only columns with foreground are unpacked.
    bounds = np.clip(ends, left * height, right * height)
    lengths = np.diff(bounds, prepend=left * height)
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, lengths)
    flat = np.concatenate([flat, np.zeros((right - left) * height - len(flat), np.bool_)])
    return Patch(flat.reshape(right - left, height).T, 0, left)


def decode_rows(counts: Counts, width: int, height: int, where: str) -> Mask:
    """A CVAT code, along the rows of the mask's own box: (height, width).

    Raises:
        AnnotationError: if the counts do not add up to the box.
    """
    _checked(counts, width * height, where)
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)


def counts_of(flat: Mask) -> list[int]:
    """Run lengths of a flat mask, beginning with background (0 pixels if the first one is foreground)."""
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [len(flat)]])).tolist()
    return [0, *runs] if len(flat) and flat[0] else runs


def string_to_counts(text: str, where: str) -> Counts:
    """COCO's compressed counts: 5 bits per character from '0' on, the sixth bit means that more follow; from the fourth
    count on, the difference to the count before the last (`rleFrString` in maskApi.c).

    Raises:
        AnnotationError: if the code has invalid characters, or an incomplete last count.
    """
    codes = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64) - 48
    if not len(codes):
        raise AnnotationError(f"{where} contains no run lengths")
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise AnnotationError(f"{where} is not a run-length text of COCO; the file is damaged")
    last = np.flatnonzero((codes & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    number = last - first + 1
    if number.max() > 8:
        raise AnnotationError(f"{where} has a run length beyond 40 bits; the file is damaged")
    place = np.arange(len(codes)) - np.repeat(first, number)
    values = np.add.reduceat((codes & 31) << (5 * place), first)
    values = np.where(codes[last] & 16, values - (np.int64(1) << (5 * number)), values)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def string_of(counts: Sequence[int]) -> str:
    """Counts as COCO's compressed text (`rleToString` in maskApi.c)."""
    out = bytearray()
    for n, count in enumerate(counts):
        rest = count - counts[n - 2] if n > 2 else count
        more = True
        while more:
            code = rest & 31
            rest >>= 5
            more = rest != -1 if code & 16 else rest != 0
            out.append(48 + (code | 32 if more else code))
    return out.decode("ascii")
