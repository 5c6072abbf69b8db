"""`Model.stream`: frames in, masks out, while the frames are read, segmented and used by threads of their own.

Between the threads there is room for one frame and one mask. So memory does not grow with the length of a stream, and
where frames come faster than the network, or masks faster than they are used, the older ones are dropped and counted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ConfigError, GeometryError
from medseg.inference.frames.handover import Handover
from medseg.inference.frames.masks import FrameMasks
from medseg.inference.layer_memory import layer_memory_kept
from medseg.volume import Volume

if TYPE_CHECKING:
    from medseg.inference.predictor import Model

__all__ = ["Frame", "FrameMask", "FrameStream", "StreamTimings"]

log = logging.getLogger(__name__)
Frame = Volume | NDArray[Any]

# Latencies that are kept for the percentiles: those of the last minute at 30 frames per second, and more.
MOST_LATENCIES = 2000
# A camera that sends nothing more cannot be interrupted; its thread ends with the program.
READER_SECONDS = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class FrameMask:
    """The mask of one frame.

    Args:
        number: of the frame among all that were given, from 0; numbers that are left out were dropped.
        frame: as it was given.
        mask: of an array (rows, columns), unsigned integers; of a `Volume` a `Volume`, as `Model.predict` gives it.
        seconds: from the frame to its mask.
    """

    number: int
    frame: Frame
    mask: Frame
    seconds: float


@dataclass(frozen=True, slots=True)
class StreamTimings:
    """How fast a stream has been so far.

    Args:
        frames: whose masks were used.
        dropped_before: frames that gave way to a newer one before the network was free.
        dropped_after: masks that gave way to a newer one before they were used.
        median_seconds, p95_seconds: from a frame to its mask, of the last 2000; NaN before the first.
        frames_per_second: masks used per second, from the first frame on; 0 before the first.
    """

    frames: int
    dropped_before: int
    dropped_after: int
    median_seconds: float
    p95_seconds: float
    frames_per_second: float

    @property
    def dropped(self) -> int:
        """All frames whose masks were not used."""
        return self.dropped_before + self.dropped_after

    def text(self) -> str:
        """One line.

        Example:
            >>> StreamTimings(90, 10, 0, 0.02, 0.03, 31.0).text()
            '90 frames, 31.0 frames/s, latency 20 ms (95 %: 30 ms), 10 dropped because the network was slower'
        """
        line = (
            f"{self.frames} frames, {self.frames_per_second:.1f} frames/s, latency {1000 * self.median_seconds:.0f} ms "
            f"(95 %: {1000 * self.p95_seconds:.0f} ms)"
        )
        if self.dropped_before:
            line += f", {self.dropped_before} dropped because the network was slower"
        if self.dropped_after:
            line += f", {self.dropped_after} dropped because their masks were not taken in time"
        return line


class FrameStream:
    """Frames in, masks out, one after the other; `Model.stream` makes one.

    Each mask is what `Model.predict` gives for the same picture, but for `smoothing` and `whole=True`. Use the stream
    in a `with` block, and iterate over it in another thread than the one that calls `push`; or give `frames`, which are
    then read by a thread of the stream's own. An error of the network, of a frame or of the source of frames is raised
    to whoever takes the masks.

    Args:
        model: of 2D images.
        frames: their source; None: they are given by `push`, which says how their axes lie.
        drop: where frames come faster than they are used, the older ones are dropped and counted; False: all are used,
            and their source waits.
        smoothing: share of the earlier frames in the logits, from 0 (none) to below 1: an exponential mean that calms a
            flickering border, and starts anew where the scene or the size changes.
        whole: True passes a frame through the network at once, at a multiple of its stride; False in windows of the
            size that it was trained with, as `predict` does; None: at once if the first frame with labels gets the same
            labels either way, see `medseg.inference.same_labels`. An exported model takes windows.
        mirror: as in `Model.predict`; False is fastest.

    Raises:
        ConfigError: for a model of volumes, a smoothing out of range, or whole frames for an exported model.

    Example:
        >>> frames = [np.zeros((40, 48), np.uint8)] * 3
        >>> with FrameStream(medseg.load_model("runs/vessel/model"), frames, drop=False) as stream:
        ...     [each.mask.shape for each in stream]
        [(40, 48), (40, 48), (40, 48)]
    """

    def __init__(
        self,
        model: Model,
        frames: Iterable[Frame] | None = None,
        *,
        drop: bool = True,
        smoothing: float = 0.0,
        whole: bool | None = None,
        mirror: bool | None = None,
    ) -> None:
        plan = model.info.plan
        if plan.spatial_dims != 2:
            raise ConfigError(
                "this model segments volumes, and a stream takes 2D images; use predict, or a model trained on pictures"
            )
        if not 0 <= smoothing < 1:
            raise ConfigError(f"smoothing is the share of the earlier frames, from 0 to below 1, found {smoothing}")
        self._channels = plan.in_channels
        self._masks_of = FrameMasks(model, smoothing, whole, mirror)
        self._source = frames
        self._frames: Handover[tuple[int, Frame, float]] = Handover(drop)
        self._masks: Handover[FrameMask] = Handover(drop)
        self._threads: list[Thread] = []
        self._given = self._used = 0
        self._started = self._last = 0.0
        self._latencies = np.full(MOST_LATENCIES, np.nan)

    def __enter__(self) -> FrameStream:
        if self._threads:
            raise ConfigError("a stream can be used once; ask the model for another")
        self._threads.append(Thread(target=self._segment, name="medseg-stream", daemon=True))
        if self._source is not None:
            self._threads.append(Thread(target=self._read, args=(self._source,), name="medseg-frames", daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._frames.close()
        self._frames.leave()
        self._masks.leave()
        segmenting, *reading = self._threads
        segmenting.join()
        for thread in reading:
            thread.join(READER_SECONDS)
        if self.timings.dropped:
            log.warning("%s", self.timings.text())

    def push(self, frame: Frame) -> bool:
        """Give a frame; False where the stream has ended.

        With `drop` it returns at once, and takes the place of a frame that still waits; else it waits for that one.

        Args:
            frame: an array of integers as cameras and pictures have them, (rows, columns) or (rows, columns, 3) in the
                order red, green, blue, which is copied; or a `Volume`, [x, y] with channels first, as `medseg.read`
                gives it.

        Raises:
            GeometryError: an array of another shape or type, or channels that do not fit the model.
            ConfigError: outside of the `with` block.
        """
        if not self._threads:
            raise ConfigError("frames are given inside of `with model.stream() as stream:`")
        self._check(frame)
        now = time.perf_counter()
        self._started = self._started or now
        number, self._given = self._given, self._given + 1
        # A camera may write the next frame into the same memory.
        kept = frame if isinstance(frame, Volume) else frame.copy()
        return self._frames.put((number, kept, now))

    def close(self) -> None:
        """Say that no more frames come; the masks of those that wait are still given."""
        self._frames.close()

    def __iter__(self) -> Iterator[FrameMask]:
        """The masks in the order of their frames, until `close` was called or the source has ended."""
        if not self._threads:
            raise ConfigError("masks are taken inside of `with model.stream() as stream:`")
        while (each := self._masks.take()) is not None:
            self._latencies[self._used % MOST_LATENCIES] = each.seconds
            self._used += 1
            self._last = time.perf_counter()
            yield each

    @property
    def timings(self) -> StreamTimings:
        """How fast the stream has been so far."""
        latencies = self._latencies[: self._used]
        median, p95 = np.quantile(latencies, (0.5, 0.95)) if self._used else (np.nan, np.nan)
        spent = self._last - self._started
        rate = self._used / spent if self._used and spent > 0 else 0.0
        return StreamTimings(
            self._used, self._frames.dropped, self._masks.dropped, float(median), float(p95), float(rate)
        )

    def _read(self, source: Iterable[Frame]) -> None:
        try:
            for frame in source:
                if not self.push(frame):
                    return
        except BaseException as error:
            # Whatever a source raises belongs to whoever takes the masks.
            self._frames.close(error)
        else:
            self._frames.close()

    def _segment(self) -> None:
        try:
            with layer_memory_kept():
                while (given := self._frames.take()) is not None:
                    number, frame, since = given
                    volume = frame if isinstance(frame, Volume) else _as_volume(frame)
                    found = self._masks_of.of(volume)
                    mask = found if isinstance(frame, Volume) else np.ascontiguousarray(found.array.T)
                    seconds = time.perf_counter() - since
                    if not self._masks.put(FrameMask(number, frame, mask, seconds)):
                        return
        except BaseException as error:
            # This thread has nobody else to tell.
            self._masks.close(error)
        else:
            self._masks.close()
        finally:
            self._frames.leave()

    def _check(self, frame: Frame) -> None:
        if isinstance(frame, Volume):
            shape, channels = frame.shape, max(1, frame.channels)
            if frame.dims != 2:
                raise GeometryError(f"a frame is a 2D image, found a volume of {' x '.join(map(str, shape))} voxels")
        elif isinstance(frame, np.ndarray):
            shape = frame.shape
            if frame.dtype.kind not in "ui" or not (frame.ndim == 2 or (frame.ndim == 3 and shape[2] == 3)):
                raise GeometryError(
                    f"a frame is an array of integers (rows, columns) or (rows, columns, 3) in the order red, green, "
                    f"blue; found {frame.dtype} of shape {shape}. Channels first, as in medseg's own arrays, are given "
                    "as a Volume"
                )
            channels = 1 if frame.ndim == 2 else 3
        else:
            raise GeometryError(f"a frame is a numpy array or a Volume, found {type(frame).__name__}")
        if min(shape[:2]) < 1:
            raise GeometryError(f"a frame of shape {shape} contains no pixels")
        if channels != self._channels:
            wanted = {1: "grey frames (rows, columns)", 3: "colour frames (rows, columns, 3)"}
            raise GeometryError(
                f"a frame has {channels} channel(s), the model expects {self._channels}; give "
                f"{wanted.get(self._channels, 'a Volume with them')}"
            )


def _as_volume(frame: NDArray[Any]) -> Volume:
    """A picture's array in medseg's axes: [x, y], channels first."""
    colour = frame.ndim == 3
    return Volume(frame.T, np.eye(4), 3 if colour else 0, spacing_known=False)
