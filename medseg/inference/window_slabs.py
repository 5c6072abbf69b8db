"""The pass of a network over an image: windows are cut, batched, mirrored and added up; finished rows leave as slabs.

Written alike for numpy arrays and torch tensors; what differs between them is in `ArrayOps`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from medseg.errors import CheckpointError, GeometryError
from medseg.inference.array_ops import ArrayOps, Values
from medseg.inference.rolling import RollingSum
from medseg.inference.tta import mirrored_logits
from medseg.inference.window_grid import Windows, stream_axis

__all__ = ["Body", "Passes", "Progress", "slabs_by"]

log = logging.getLogger(__name__)
Net = Callable[[Values], Values]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Passes:
    """How a network takes its windows.

    Args:
        batch_size: windows per forward pass; halved, with a warning, where memory runs out.
        mirror_axes: spatial axes of test-time mirroring; n axes cost 2**n passes.
        device: of a network of tensors, where it takes its windows; None: of its parameters, or the image's.
        on_cpu: makes the same network on the CPU, for the rest of an image where a single window does not fit.
    """

    batch_size: int = 1
    mirror_axes: Sequence[int] = ()
    device: object = None
    on_cpu: Callable[[], Net] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """The part of an image that is not empty.

    Args:
        box: per spatial axis; windows lie in it, or reach as little beyond as their size requires.
        beyond: (K,) logits outside of the box, as an array or a tensor.
    """

    box: Sequence[slice]
    beyond: Values


def slabs_by(
    ops: ArrayOps,
    net: Net,
    image: Values,
    windows: Windows,
    out_channels: int,
    passes: Passes,
    body: Body | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Values, int, int]]:
    """`logit_slabs` of an image and a network that fit the operations `ops`."""
    grid = _Cut.of(ops, image, windows, body)
    axis = stream_axis(image.shape[1:], windows.patch_size)
    jobs = sorted(product(*grid.lines), key=lambda corner: corner[axis])
    single = all(len(each) == 1 for each in grid.lines[: len(windows.patch_size)])
    rolling = RollingSum(
        out_channels,
        tuple(image.shape[1:]),
        axis,
        grid.patch[axis],
        ops,
        grid.by_slice,
        None if body is None else grid.box,
        None if body is None else body.beyond,
    )
    first = 0
    for logits in _batches(ops, net, grid, jobs, out_channels, passes):
        logits = ops.here(logits)
        logits = logits[..., None] if grid.by_slice else logits
        count = len(logits)
        for number, corner in enumerate(jobs[first : first + count]):
            at = [b.start + c for b, c in zip(grid.box, corner, strict=True)]
            yield from rolling.finished(at[axis])
            cropped = logits[number][(slice(None), *grid.inside)]
            rolling.add(cropped, at, None if single else grid.weights_at(corner))
        first += count
        # Not held while the next batch is computed.
        del logits, cropped
        if progress is not None:
            progress(first, len(jobs))
    yield from rolling.finished(image.shape[1 + axis])


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """An image as its windows are cut from it.

    Args:
        padded: (C, *spatial) the box, with axes no shorter than the patch.
        box: of the image.
        patch: per axis of the image; 1 across the slices of a 2D net.
        lines: per axis, start -> weights.
        rounded: of weights that are not a product of lines, those of a window and their sum over all windows.
        inside: what of a window lies in the image.
        by_slice: whether a 2D net sees a volume.
    """

    padded: Values
    box: Sequence[slice]
    patch: tuple[int, ...]
    lines: list[dict[int, Values]]
    inside: list[slice]
    by_slice: bool
    rounded: tuple[Values, Values] | None = None

    @classmethod
    def of(cls, ops: ArrayOps, image: Values, windows: Windows, body: Body | None) -> _Cut:
        patch_size = windows.patch_size
        by_slice = len(patch_size) == 2 and image.ndim == 4
        if len(patch_size) not in (2, 3) or (image.ndim != len(patch_size) + 1 and not by_slice):
            raise GeometryError(
                f"windows of size {tuple(patch_size)} do not fit an image of shape {tuple(image.shape)}"
            )
        whole = tuple(image.shape[1:])
        patch = (*patch_size, *[1] * by_slice)
        box = [slice(0, n) for n in whole] if body is None else _at_least(body.box, patch, whole)
        image = image[(slice(None), *box)]
        shape = tuple(image.shape[1:])
        padded, before = _pad_to_patch(ops, image, patch, windows.padding)
        if by_slice:
            # A 2D net reads whole slices, which lie voxel by voxel apart in a volume.
            padded = ops.moved(ops.compact(ops.moved(padded, 3, 1)), 1, 3)
        # The weights of a padded axis are 1 (a single window), so cropping them keeps the sum.
        inside = [slice(b, b + min(n, p)) for b, n, p in zip(before, shape, patch, strict=True)]
        lines = [
            {start: ops.here(line[part]) for start, line in windows.along(axis, n).items()}
            for axis, (n, part) in enumerate(zip(shape, inside, strict=True))
        ]
        held = windows.rounded(shape)
        rounded = None if held is None else (ops.here(held[0]), ops.here(held[1]))
        return cls(padded, box, patch, lines, inside, by_slice, rounded)

    def weights_at(self, corner: Sequence[int]) -> Sequence[Values] | Values:
        """Of a window, for `RollingSum.add`: lines, or one array."""
        if self.rounded is None:
            return [line[start] for line, start in zip(self.lines, corner, strict=True)]
        weights, total = self.rounded
        # Across the slices of a 2D net there is one voxel of both.
        sizes = zip(corner, self.patch, total.shape, strict=True)
        place = [slice(start, start + size) if held > 1 else slice(None) for start, size, held in sizes]
        return (weights / total[tuple(place)])[tuple(self.inside)]

    @property
    def window(self) -> tuple[int, ...]:
        """The size of a window as the network sees it."""
        return self.patch[:-1] if self.by_slice else self.patch


def _batches(
    ops: ArrayOps, net: Net, cut: _Cut, jobs: Sequence[tuple[int, ...]], out_channels: int, passes: Passes
) -> Iterator[Values]:
    """The logits (B, K, *patch) of one batch of windows after the other, where the network runs."""
    batch_size, on_cpu = passes.batch_size, passes.on_cpu
    first = 0
    while first < len(jobs):
        chunk = jobs[first : first + batch_size]
        batch = ops.stacked([cut.padded[_box(corner, cut.patch)] for corner in chunk])
        mirrored = _Mirrored(net, passes.mirror_axes)
        try:
            logits = ops.run(mirrored, batch[..., 0] if cut.by_slice else batch)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error) or (len(chunk) == 1 and on_cpu is None):
                raise
            if len(chunk) > 1:
                batch_size = len(chunk) // 2
                log.warning("not enough memory for %d windows at a time; going on with %d", len(chunk), batch_size)
            elif on_cpu is not None:
                log.warning(
                    "not enough memory on %s for a single window; the rest of this image is computed on the CPU",
                    ops.place,
                )
                net, ops, on_cpu = on_cpu(), ops.on_cpu(), None
            continue
        first += len(chunk)
        expected = (len(chunk), out_channels, *cut.window)
        if tuple(logits.shape) != expected:
            raise CheckpointError(f"the network answers with shape {tuple(logits.shape)}, expected {expected}")
        del batch
        yield logits
        del logits


@dataclass(frozen=True, slots=True)
class _Mirrored:
    net: Net
    axes: Sequence[int]

    def __call__(self, batch: Values) -> Values:
        return mirrored_logits(self.net, batch, self.axes)


def _out_of_memory(error: BaseException) -> bool:
    # On a CPU torch raises a plain RuntimeError: "DefaultCPUAllocator: can't allocate memory".
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _box(corner: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    return (slice(None), *(slice(s, s + n) for s, n in zip(corner, size, strict=True)))


def _at_least(box: Sequence[slice], patch: Sequence[int], shape: Sequence[int]) -> list[slice]:
    """The box, enlarged around its middle to a window where the image has room."""
    grown = []
    for part, p, n in zip(box, patch, shape, strict=True):
        size = min(n, max(p, part.stop - part.start))
        start = min(max(0, (part.start + part.stop - size) // 2), n - size)
        grown.append(slice(start, start + size))
    return grown


def _pad_to_patch(ops: ArrayOps, image: Values, patch: Sequence[int], padding: str) -> tuple[Values, tuple[int, ...]]:
    """The image (C, *spatial) with axes no shorter than the patch, and the voxels added before each axis."""
    shape = tuple(image.shape[1:])
    missing = [max(0, p - n) for n, p in zip(shape, patch, strict=True)]
    before = tuple(m // 2 for m in missing)
    if not any(missing):
        return image, before
    padded = ops.empty((len(image), *(n + m for n, m in zip(shape, missing, strict=True))), image)
    for target, channel in zip(padded, image, strict=True):
        target[...] = float(channel.min()) if padding == "minimum" else 0.0
    padded[_box(before, shape)] = image
    return padded, before
