"""Frames of a folder of pictures, of a DICOM clip, or of a video, one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import medseg
from medseg.errors import MissingPartError, ReadError
from medseg.io.formats import has_dicom_magic, image_files, stem_of
from medseg.io.naming import natural_order

__all__ = ["Frames", "find_frames", "paced", "require_opencv"]

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
# Of pictures and clips, which mostly do not state it.
USUAL_RATE = 25.0


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames that are read as they are asked for.

    Args:
        each: arrays (rows, columns[, 3]) of a video, and `Volume`s of everything else.
        rate: frames per second.
        names: of pictures, in their order; () for frames that only have a number.
    """

    each: Iterator[medseg.Volume | NDArray[Any]]
    rate: float = USUAL_RATE
    names: tuple[str, ...] = ()


def require_opencv() -> Any:
    """OpenCV.

    Raises:
        MissingPartError: it is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise MissingPartError(
            "videos need OpenCV: in the folder of medseg, pip install -c constraints.txt '.[video]', or give a folder "
            "of pictures"
        ) from None
    return cv2


def find_frames(source: Path, channels: int) -> Frames:
    """The frames of a source.

    Args:
        source: a folder of pictures, a multi-frame DICOM file, or a video.
        channels: of the model; 1 makes the frames of a video grey, as video files have three channels always.

    Raises:
        ReadError: for anything else, and for a source without frames.
        MissingPartError: for a video without OpenCV.
    """
    if source.is_dir():
        files = sorted(image_files(source), key=lambda path: natural_order(path.name))
        if not files:
            raise ReadError(f"{source} contains no pictures; expected a folder of PNG, JPEG or TIFF files")
        return Frames((medseg.read(path) for path in files), names=tuple(stem_of(path) for path in files))
    if not source.is_file():
        raise ReadError(f"{source} does not exist; give a folder of pictures, a DICOM file with frames, or a video")
    if source.suffix.lower() in VIDEOS:
        return _video(source, channels)
    if has_dicom_magic(source):
        return Frames(_clip(medseg.read(source), source))
    raise ReadError(
        f"{source} is neither a video ({', '.join(VIDEOS)}) nor a DICOM file; for pictures give their folder"
    )


def _clip(volume: medseg.Volume, source: Path) -> Iterator[medseg.Volume]:
    if not any(finding.kind == "cine" for finding in volume.findings):
        raise ReadError(f"{source} holds {volume!r} and no clip of several frames; use medseg predict")
    for moment in range(volume.shape[2]):
        yield medseg.Volume(volume.array[..., moment], np.eye(4), volume.channels, spacing_known=False)


def _video(source: Path, channels: int) -> Frames:
    cv2 = require_opencv()
    video = cv2.VideoCapture(str(source))
    if not video.isOpened():
        raise ReadError(f"{source} cannot be read as a video by OpenCV; convert it to .mp4 or .avi")

    def frames() -> Iterator[NDArray[Any]]:
        try:
            found, frame = video.read()
            if not found:
                raise ReadError(f"{source} contains no frame that OpenCV can decode; convert it to .mp4 or .avi")
            while found:
                # OpenCV's order is blue, green, red.
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY if channels == 1 else cv2.COLOR_BGR2RGB)
                found, frame = video.read()
        finally:
            video.release()

    rate = float(video.get(cv2.CAP_PROP_FPS))
    return Frames(frames(), rate if 0 < rate <= 1000 else USUAL_RATE)


def paced(frames: Iterator[Any], rate: float) -> Iterator[Any]:
    """The frames at the times at which a camera of `rate` frames per second gives them."""
    start = time.perf_counter()
    for number, frame in enumerate(frames):
        time.sleep(max(0.0, start + number / rate - time.perf_counter()))
        yield frame
