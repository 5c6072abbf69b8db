"""Masks of frames as pictures of label values, or over the frames they belong to, as pictures or as a video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from layouts.frame_sources import require_opencv
from numpy.typing import NDArray

import medseg
from medseg.disk.atomic import atomic_path
from medseg.errors import ConfigError, WriteError
from medseg.labels import LabelScheme
from medseg.reports.figures import label_colours

__all__ = ["VIDEO_CODECS", "FrameWriter", "check_output", "overlay", "writer"]

VIDEO_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
SHARE = 0.45


class FrameWriter:
    """Writes a mask as a picture of its label values, or the frame under the mask's colours.

    Args:
        out: folder.
        scheme: what the values mean; None writes the masks themselves.
    """

    def __init__(self, out: Path, scheme: LabelScheme | None = None) -> None:
        self._out, self._scheme = out, scheme

    def write(self, name: str, frame: Any, mask: Any) -> None:
        """Write one frame's picture as `name`.png."""
        rows = _rows(mask) if self._scheme is None else overlay(frame, mask, self._scheme)
        picture = medseg.Volume(rows.T, np.eye(4), 3 if rows.ndim == 3 else 0, spacing_known=False)
        medseg.write(picture, self._out / f"{name}.png")


class _VideoWriter:
    """The same as a video, whose size is that of the first frame."""

    def __init__(self, path: Path, target: Path, scheme: LabelScheme, rate: float) -> None:
        self._path, self._target, self._scheme, self._rate = path, target, scheme, rate
        self._cv2, self._video, self._size = require_opencv(), None, (0, 0)

    def write(self, name: str, frame: Any, mask: Any) -> None:
        picture = overlay(frame, mask, self._scheme)
        size = (picture.shape[1], picture.shape[0])
        if self._video is None:
            code = self._cv2.VideoWriter_fourcc(*VIDEO_CODECS[self._target.suffix.lower()])
            self._video, self._size = self._cv2.VideoWriter(str(self._path), code, self._rate, size), size
            if not self._video.isOpened():
                raise WriteError(f"OpenCV cannot write {self._target}; give a name that ends in .avi, or a folder")
        if size != self._size:
            raise WriteError(
                f"{name} has {size} pixels, the video {self._size}; write pictures: give a folder as --out"
            )
        self._video.write(self._cv2.cvtColor(picture, self._cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        if self._video is not None:
            self._video.release()


def check_output(out: Path) -> None:
    """Refuse what would be overwritten, or cannot be written, before anything is read.

    Raises:
        ConfigError: for a file that is not a video.
        WriteError: for a folder that is not empty, and a video that exists.
        MissingPartError: for a video without OpenCV.
    """
    if out.suffix.lower() in VIDEO_CODECS:
        require_opencv()
        if out.exists():
            raise WriteError(f"{out} exists; give another name")
    elif out.is_file() or out.suffix.lower() in (".mov", ".mkv", ".webm"):
        raise ConfigError(f"{out}: masks go to a folder, and a video is written as {' or '.join(VIDEO_CODECS)}")
    elif out.is_dir() and any(out.iterdir()):
        raise WriteError(f"{out} is not empty; give a new folder")


@contextmanager
def writer(out: Path, scheme: LabelScheme, rate: float, coloured: bool) -> Iterator[Any]:
    """What writes the masks of a stream: to a folder, or to a video that appears when the stream has ended."""
    if out.suffix.lower() not in VIDEO_CODECS:
        yield FrameWriter(out, scheme if coloured else None)
        return
    with atomic_path(out) as temporary:
        video = _VideoWriter(temporary, out, scheme, rate)
        try:
            yield video
        finally:
            video.close()


def overlay(frame: Any, mask: Any, scheme: LabelScheme) -> NDArray[np.uint8]:
    """A frame with each label in its colour, RGB (rows, columns, 3); grey levels above 8 bits fill the range."""
    rows, labels = _rows(frame), _rows(mask)
    if rows.dtype != np.uint8:
        low, high = float(rows.min()), float(rows.max())
        rows = np.uint8((rows.astype(np.float32) - low) * (255 / max(high - low, 1e-6)))
    picture = rows.copy() if rows.ndim == 3 else np.repeat(rows[..., None], 3, axis=2)
    for value, (colour, _) in zip(scheme.values, label_colours(list(scheme.names)).values(), strict=True):
        where = np.isin(labels, value)
        tint = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32)
        picture[where] = np.uint8((1 - SHARE) * picture[where] + SHARE * tint)
    return np.ascontiguousarray(picture)


def _rows(image: Any) -> NDArray[Any]:
    """Rows first, channels last, whichever of the two kinds of frame it is."""
    if not isinstance(image, medseg.Volume):
        return np.asarray(image)
    return image.array[0].T if image.channels == 1 else image.array.T
