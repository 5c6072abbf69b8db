"""Training of the classifier whose activation maps become label maps, and how well it tells held-out images apart."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from medseg.config import RunConfig, TrainingConfig
from medseg.nets.classifier import Classifier
from medseg.progress import ProgressCallback
from medseg.training.init_weights import initialise
from medseg.training.optimizer import build_optimizer, set_rate
from medseg.training.schedule import is_over, learning_rate, progress_of, with_epochs
from medseg.training.weak.pictures import Picture

__all__ = ["auc_of", "batch_of", "drawn_classifier", "train_classifier"]

BATCH = {2: 16, 3: 4}
# Running statistics of smaller batches say little.
LEAST_FOR_BATCH_NORM = 8
# Stride of the maps while training, which is cheap; maps are drawn at 8, with the same weights.
TRAINED_STRIDE, DRAWN_STRIDE = 16, 8
# Random changes of a sample: half-ranges of zoom (as a power), rotation in radians, shift as a share of the image.
ZOOM, ROTATION, SHIFT = 0.2, 0.2, 0.1
CONTRAST, BRIGHTNESS = 0.2, 0.2


def train_classifier(
    pictures: Sequence[Picture],
    names: Sequence[str],
    config: RunConfig,
    device: torch.device,
    progress: ProgressCallback,
    mirrored: bool = True,
) -> Classifier:
    """Train a classifier for `weak.classifier_minutes`, or as long as `training` says.

    Half of the samples of a batch show a label, drawn evenly among the labels; binary cross-entropy of each label.

    Args:
        pictures: at least one that shows each label, and one that does not.
        names: of the labels, in the order of the classifier's.
        config: `weak`, `training`, `seed`.
        device: to train on.
        progress: called as `progress(share done, 1, text)`.
        mirrored: whether images are mirrored along their first axis at random.

    Raises:
        ConfigError: an unknown backbone.
        CheckpointError: `training.init` is absent, damaged or does not fit.
    """
    dims = pictures[0].image.ndim - 1
    batch = config.training.batch_size or BATCH[dims]
    training = with_epochs(_length(config), len(pictures), batch)
    torch.manual_seed(config.seed)
    net = _build(dims, len(pictures[0].image), len(names), config, TRAINED_STRIDE)
    if training.init is not None:
        initialise(net.backbone, training.init)
    net = net.to(device).train()
    optimizer = build_optimizer(net, training.model_copy(update={"layer_rates": {}}))
    rng = np.random.default_rng([config.seed, 0])
    targets = np.array([[name in picture.shown for name in names] for picture in pictures])
    started, iteration, losses = time.monotonic(), 0, []
    while not is_over(iteration, time.monotonic() - started, training):
        done = progress_of(iteration, time.monotonic() - started, training)
        chosen = _draw(targets, batch, rng)
        x = _changed(batch_of([pictures[n] for n in chosen], device), rng, mirrored)
        y = torch.from_numpy(targets[chosen].astype(np.float32)).to(device)
        set_rate(optimizer, learning_rate(iteration, done, training))
        optimizer.zero_grad(set_to_none=True)
        loss = F.binary_cross_entropy_with_logits(net(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), training.gradient_clip)
        optimizer.step()
        iteration += 1
        losses.append(loss.item())
        progress(progress_of(iteration, time.monotonic() - started, training), 1, f"loss {np.mean(losses[-50:]):.3f}")
    drawn = drawn_classifier(pictures[0], len(names), config).to(device)
    drawn.load_state_dict(net.state_dict())
    return drawn.eval()


def drawn_classifier(like: Picture, labels: int, config: RunConfig) -> Classifier:
    """An untrained classifier whose maps are as fine as label maps are drawn from, for images like one."""
    return _build(like.image.ndim - 1, len(like.image), labels, config, DRAWN_STRIDE)


@torch.no_grad()
def auc_of(
    net: Classifier, pictures: Sequence[Picture], names: Sequence[str], device: torch.device
) -> list[float | None]:
    """Of each label, the area under the ROC curve; None where the images all show it, or none does."""
    found = [torch.sigmoid(net(batch_of([picture], device)))[0].cpu().double().numpy() for picture in pictures]
    probabilities = np.stack(found) if found else np.zeros((0, len(names)))
    shown = np.array([[name in picture.shown for name in names] for picture in pictures], bool).reshape(-1, len(names))
    return [_auc(p, y) for p, y in zip(probabilities.T, shown.T, strict=True)]


def batch_of(pictures: Sequence[Picture], device: torch.device) -> Tensor:
    """`(B, C, I, J[, K])` float32; smaller images are centred in the largest, on their own minimum."""
    shape = np.max([picture.image.shape[1:] for picture in pictures], axis=0)
    images = []
    for picture in pictures:
        missing = shape - picture.image.shape[1:]
        around = [(0, 0), *((int(n // 2), int(n - n // 2)) for n in missing)]
        image = picture.image.astype(np.float32)
        images.append(np.pad(image, around, constant_values=float(image.min())) if missing.any() else image)
    return torch.from_numpy(np.stack(images)).to(device)


def _build(dims: int, channels: int, labels: int, config: RunConfig, stride: int) -> Classifier:
    batch = config.training.batch_size or BATCH[dims]
    norm = "batch" if config.training.init is not None or batch >= LEAST_FOR_BATCH_NORM else "group"
    weak = config.weak
    return Classifier(
        dims,
        channels,
        labels,
        backbone=weak.backbone,
        width=weak.width,
        norm=norm,
        stage=weak.stage,
        output_stride=stride,
    )


def _length(config: RunConfig) -> TrainingConfig:
    if config.weak.classifier_minutes is None:
        return config.training
    none = {"max_iterations": None, "max_epochs": None}
    return config.training.model_copy(update={**none, "max_minutes": config.weak.classifier_minutes})


def _draw(targets: NDArray[np.bool_], batch: int, rng: np.random.Generator) -> list[int]:
    chosen = []
    for n in range(batch):
        column = targets[:, int(rng.integers(targets.shape[1]))]
        candidates = np.flatnonzero(column == bool(n % 2))
        chosen.append(int(candidates[rng.integers(len(candidates))]))
    return chosen


def _changed(x: Tensor, rng: np.random.Generator, mirrored: bool) -> Tensor:
    """Each image moved, turned, enlarged, mirrored and changed in contrast at random; edges are held."""
    dims = x.dim() - 2
    theta = np.zeros((len(x), dims, dims + 1), np.float32)
    for n in range(len(x)):
        matrix = np.eye(dims) * np.exp(rng.uniform(-ZOOM, ZOOM))
        angle = rng.uniform(-ROTATION, ROTATION)
        turn = np.eye(dims)
        # Grids name the last axis first, so these are the last two of the image's first two axes in its plane.
        turn[-2:, -2:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        matrix = matrix @ turn
        if mirrored and rng.random() < 0.5:
            matrix[:, -1] *= -1
        theta[n, :, :dims], theta[n, :, dims] = matrix, rng.uniform(-SHIFT, SHIFT, dims)
    grid = F.affine_grid(torch.from_numpy(theta).to(x.device), list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    shape = (len(x), x.shape[1], *[1] * dims)
    factor, offset = rng.uniform(1 - CONTRAST, 1 + CONTRAST, shape), rng.uniform(-BRIGHTNESS, BRIGHTNESS, shape)
    return moved * torch.from_numpy(factor).to(moved) + torch.from_numpy(offset).to(moved)


def _auc(probabilities: NDArray[np.float64], shown: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve, as the rank sum of Mann and Whitney."""
    positive, negative = int(shown.sum()), int((~shown).sum())
    if not positive or not negative:
        return None
    ranks = stats.rankdata(probabilities)
    return float((ranks[shown].sum() - positive * (positive + 1) / 2) / (positive * negative))
