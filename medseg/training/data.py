"""Training batches as a function of the iteration: same seed, same iteration, same batch, also after a resume."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from medseg.augmentation import BatchMixing, SampleAugment, SpatialAugment
from medseg.config import AugmentationConfig, RunConfig
from medseg.labels import LabelScheme
from medseg.preparation.mirroring import plan_axes
from medseg.preparation.normalize import Scale
from medseg.preparation.plan import Plan
from medseg.preparation.store import PreparedCase
from medseg.training.augmentation_check import grey_ranges
from medseg.training.label_draw import LabelDraw

__all__ = ["Batch", "BatchSource", "Batches", "Views", "mirror_axes", "normalised", "prefetched"]

# The last number of the seed of a batch's mixing, beyond any number of a sample.
MIXING = 1 << 20


@dataclass(frozen=True, slots=True)
class Views:
    """Two views of the same unlabelled patches: `weak` and `strong` (B, C, I, J[, K]) float32, in place alike.

    `inside` (B, 1, I, J[, K]) bool: what lies inside the image.
    """

    weak: torch.Tensor
    strong: torch.Tensor
    inside: torch.Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples for one step: `images` (B, C, I, J[, K]) float32, `labels` (B, 1, I, J[, K]) in the data set's values.

    `cases`: of each sample, the name of the case that it is from; where samples are mixed, of all in the batch.
    Samples of cases without some labels hold codes of `medseg.sample_labels`; what a loss needs besides follows in
    further channels of `labels`.
    Where MixUp blended images, `others` are the labels of what was blended in, and `share` is that of `labels`.
    `unlabelled`: views of images without labels, of a semi-supervised training.
    """

    images: torch.Tensor
    labels: torch.Tensor
    cases: tuple[str, ...] = ()
    others: torch.Tensor | None = None
    share: float = 1.0
    unlabelled: Views | None = None


class Batches(Protocol):
    """What gives the batches of a training."""

    def batch(self, iteration: int, numbers: Sequence[int] | None = None) -> Batch:
        """The batch of this iteration, or those of its labelled samples that `numbers` lists."""


def mirror_axes(config: AugmentationConfig, plan: Plan, scheme: LabelScheme) -> tuple[int, ...]:
    """Axes that training mirrors: those asked for that the plan permits, so never left to right where sides matter."""
    if not config.enabled or config.mirror is False:
        return ()
    allowed = plan_axes(plan, scheme)
    return allowed if config.mirror is True else tuple(axis for axis in allowed if axis in config.mirror)


class BatchSource:
    """Draws patches from prepared cases and augments them.

    Args:
        cases: the training cases, memory-mapped.
        plan: gives patch and batch size.
        scheme: meaning of the labels.
        config: augmentation, foreground oversampling, seed.
        fold: part of the seed, so that folds see different samples.
        complete: adds to the labels of a batch, in further channels, what the loss needs beside them.
        numbers: the samples of a batch to make, counted from 0 to the plan's batch size; None: all.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        plan: Plan,
        scheme: LabelScheme,
        config: RunConfig,
        fold: int,
        complete: Callable[[torch.Tensor], torch.Tensor] | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        self.cases = cases
        self.complete = complete
        self.draw = LabelDraw.where_needed(cases, scheme)
        self.plan = plan
        self.scheme = scheme
        self.seed = (config.seed, fold)
        self.numbers = range(plan.batch_size) if numbers is None else numbers
        training, augmentation = config.training, config.augmentation
        self.foreground_samples = round(training.foreground_fraction * plan.batch_size)
        if training.foreground_fraction and not self.foreground_samples:
            self.foreground_samples = 1
        if not augmentation.enabled:
            off = {"spatial_probability": 0.0, "elastic_probability": 0.0, "mirror": False}
            augmentation = augmentation.model_copy(update=off)
        planned = {"rotation_degrees": plan.rotation_degrees, "scale": plan.scale}
        missing = {key: value for key, value in planned.items() if getattr(augmentation, key) is None}
        augmentation = augmentation.model_copy(update=missing)
        mirrored = mirror_axes(augmentation, plan, scheme)
        self.spatial = SpatialAugment.from_config(
            augmentation,
            plan.dims,
            plan.patch_size,
            plan.net_spacing_mm,
            mirror_axes=[axis in mirrored for axis in range(plan.dims)],
            ignore=scheme.ignore,
        )
        self.augment = SampleAugment(augmentation, plan.low_resolution_ties, scheme.ignore)
        self.mixing = BatchMixing(augmentation)
        self._fills: dict[str, tuple[float, ...]] = {}

    def batch(self, iteration: int, numbers: Sequence[int] | None = None) -> Batch:
        """The batch of this iteration, or those of its samples that `numbers` (None: the source's own) lists."""
        wanted = self.numbers if numbers is None else numbers
        # Each sample is mixed with another one, which may be none of those asked for.
        made = range(self.plan.batch_size) if self.mixing.active else wanted
        if self.plan.seeding == "sample":
            samples = [self._sample(np.random.default_rng([*self.seed, iteration, n]), n) for n in made]
        else:
            # A sample depends on all before it, so they are made, too.
            rng = np.random.default_rng([*self.seed, iteration])
            drawn = [self._sample(rng, n) for n in range(max(made) + 1)]
            samples = [drawn[n] for n in made]
        each_image, each_label, cases = zip(*samples, strict=True)
        images, labels = torch.stack(each_image), torch.stack(each_label)
        if not self.mixing.active:
            return Batch(images, self._completed(labels), cases)
        # A generator of its own: how samples are mixed does not depend on how many numbers the samples took.
        params = self.mixing.draw(np.random.default_rng([*self.seed, iteration, MIXING]), len(images), images.shape[2:])
        mixed = self.mixing.apply(images, labels, params)
        mine = list(wanted)
        others = None if mixed.others is None else self._completed(mixed.others[mine])
        # All cases of the batch, as any of them may be mixed in.
        return Batch(mixed.images[mine], self._completed(mixed.labels[mine]), cases, others, mixed.share)

    def _completed(self, labels: torch.Tensor) -> torch.Tensor:
        return labels if self.complete is None else self.complete(labels)

    def _placed(self, rng: np.random.Generator, number: int) -> tuple[torch.Tensor, torch.Tensor, PreparedCase]:
        """A patch after the spatial augmentation: grey levels as stored, labels, and its case."""
        foreground = number < self.foreground_samples
        if foreground and self.draw is not None:
            case, label = self.draw.draw(rng)
        else:
            case, label = self.cases[int(rng.integers(len(self.cases)))], None
        image, labels = case.image, case.labels
        center = self._center(case, rng, foreground, label)
        if self.plan.dims == 2 and labels.ndim == 3:
            k = round(float(center[2]))
            image, labels, center = image[..., k], labels[..., k], center[:2]
        params = self.spatial.draw(rng, labels.shape, center=[float(c) for c in center])
        patch, patch_labels = self.spatial.apply(image, labels[None], params, fill=self._outside(case))
        return patch, patch_labels, case

    def _sample(self, rng: np.random.Generator, number: int) -> tuple[torch.Tensor, torch.Tensor, str]:
        patch, patch_labels, case = self._placed(rng, number)
        patch, patch_labels = self._strong(rng, patch, patch_labels, case)
        if case.codes is not None:
            patch_labels = torch.from_numpy(case.codes)[patch_labels.long()]
            kind = torch.int16 if case.codes.max() < 2**15 else torch.int32
        else:
            kind = torch.int16 if patch_labels.dtype == torch.uint8 else torch.int32
        return patch, patch_labels.to(kind), case.name

    def _strong(
        self, rng: np.random.Generator, patch: torch.Tensor, labels: torch.Tensor, case: PreparedCase
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A placed patch after all changes of grey levels, normalised between them; it is overwritten."""
        if self.augment.on_range:
            patch = self.augment.before_normalization(rng, patch, grey_ranges(self.plan, case.scales))
        return self.augment(rng, normalised(patch, case.scales), labels)

    def _center(
        self, case: PreparedCase, rng: np.random.Generator, foreground: bool, label: int | None
    ) -> NDArray[np.float64]:
        """Voxel the patch is centred on: the patch stays inside the case where the case is large enough."""
        shape = np.array(case.labels.shape)
        patch = np.array([*self.plan.patch_size, *[1] * (len(shape) - self.plan.dims)])
        low = np.minimum((patch - 1) / 2, (shape - 1) / 2)
        high = np.maximum(shape - 1 - low, low)
        center = rng.uniform(low, high)
        if foreground and case.foreground:
            values = sorted(case.foreground) if label is None else [label]
            voxels = case.foreground[values[int(rng.integers(len(values)))]]
            center = np.clip(voxels[rng.integers(len(voxels))], low, high)
        return center

    def _outside(self, case: PreparedCase) -> tuple[float, ...]:
        """The grey level per channel of what lies outside the image: `Plan.padding`; a minimum is measured once."""
        if self.plan.padding == "zero":
            return tuple(scale.mean for scale in case.scales)
        if case.name not in self._fills:
            self._fills[case.name] = tuple(float(channel.min()) for channel in case.image)
        return self._fills[case.name]


def normalised(patch: torch.Tensor, scales: Sequence[Scale]) -> torch.Tensor:
    """The patch `(C, I, J[, K])` with each channel clipped and scaled; it is overwritten."""
    for values, scale in zip(patch, scales, strict=True):
        values.clamp_(scale.low, scale.high).sub_(scale.mean).div_(scale.std)
    return patch


def prefetched(source: Batches, start: int, on_gpu: bool) -> Iterator[Batch]:
    """Batches from iteration `start` on, made ahead of time in threads, in order.

    torch releases the interpreter lock inside its operators, so threads suffice and nothing is copied between
    processes. On a CPU one thread is enough: a batch costs a few percent of the step it is for.
    """
    workers = max(1, min(8, (os.cpu_count() or 1) - 1)) if on_gpu else 1
    ahead: deque[Future[Batch]] = deque()
    pool = ThreadPoolExecutor(
        workers, thread_name_prefix="medseg-batch", initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        iteration = start
        while True:
            while len(ahead) < workers + 1:
                ahead.append(pool.submit(source.batch, iteration))
                iteration += 1
            yield ahead.popleft().result()
    finally:
        for future in ahead:
            future.cancel()
        pool.shutdown(wait=True)
