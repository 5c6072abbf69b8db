"""Dense CRF: logits moved to the edges of the image (Krähenbühl and Koltun, NIPS 2011; as in DeepLab v1 and v2).

Every two voxels prefer the same class, the more the nearer they lie (smoothness) and the more alike they look
(appearance). Mean field: Q = softmax(logits + sum over kernels of weight * K Q), a few times over, where

    K_ij = k_ij / sqrt(D_i D_j) for j != i,  K_ii = 0,  D_i = sum over all j of k_ij          (symmetric normalisation)

With the Potts model a class gains what its own Q sends and nothing else, up to a constant that softmax does not see.
B batch, C channels (classes or regions), I J K voxel axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from medseg.config.crf_options import CrfOptions
from medseg.errors import GeometryError
from medseg.lookup import check_option_names
from medseg.nets.crf_kernels import Appearance, Smoothness, WindowedAppearance

__all__ = ["CrfOptions", "dense_crf"]

Kernel = Callable[[Tensor], Tensor]
# Without `window_mm`, an image of several channels is cut off here: 86 % (3D: 74 %) of a Gaussian's mass lie inside.
WINDOW_SIGMAS = 2.0


@torch.no_grad()
def dense_crf(
    logits: Tensor,
    image: Tensor,
    spacing_mm: Sequence[float],
    options: CrfOptions | None = None,
    *,
    regions: bool = False,
    **changes: Any,
) -> Tensor:
    """Logits after the mean field, in the shape, dtype and on the device of the input.

    Args:
        logits: (C, I, J[, K]), or (B, C, I, J[, K]) with an image of as many samples; any float type.
        image: (channels, I, J[, K]) or (B, channels, I, J[, K]) on the same grid, as the network sees it.
        spacing_mm: distance of neighbouring voxels, one number per voxel axis; 1 for pictures without a spacing.
        options: strength and range of the pairwise terms; None: the defaults.
        regions: True where each channel is a region of its own (sigmoid) that may overlap others: each is then a CRF
            of two classes, the region and the rest. False: the channels are classes that exclude each other (softmax).
        **changes: single options by name, e.g. `iterations=10`.

    Returns:
        Unary logits plus the last messages: softmax (or sigmoid) gives the mean field, argmax (or > 0) the labels.
        Weights of 0 return the input.

    Raises:
        GeometryError: if logits, image and spacing do not fit together.
        ConfigError: for an unknown or impossible option.

    Source:
        P. Krähenbühl, V. Koltun, Efficient inference in fully connected CRFs with Gaussian edge potentials, NIPS 2011,
        algorithm 1; symmetric normalisation as in the authors' code. The sums are exact instead of filtered on a
        lattice, see `medseg.nets.crf_kernels`.

    Example:
        >>> image = torch.tensor([[[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]] * 6])
        >>> right = torch.tensor([[[-0.25, -0.25, 0.25, 0.25, 0.25, 0.25]] * 6])
        >>> sharp = dense_crf(torch.cat([-right, right]), image, (1.0, 1.0))
        >>> sharp.argmax(0)[0].tolist()
        [0, 0, 0, 1, 1, 1]
    """
    options = _changed(options or CrfOptions(), changes)
    spacing = tuple(float(s) for s in spacing_mm)
    dims = len(spacing)
    _check(logits, image, spacing)
    if logits.dim() == dims + 2:
        pairs = zip(logits, image, strict=True)
        return torch.stack([dense_crf(one, picture, spacing, options, regions=regions) for one, picture in pairs])
    alone = len(logits) == 1 and not regions
    idle = not options.iterations or not (options.smooth_weight or options.appearance_weight)
    if alone or idle or logits.numel() == 0:
        return logits.clone()
    kernels = _kernels(logits, image, spacing, options)
    unary = logits.float()
    result = unary
    for _ in range(options.iterations):
        result = _with_messages(unary, result, kernels, regions)
    return result.to(logits.dtype)


def _with_messages(unary: Tensor, current: Tensor, kernels: list[_Normalized], regions: bool) -> Tensor:
    if regions:
        q = torch.sigmoid(current)
    else:
        # The last class is what the others leave of all: its sums need not be taken.
        q = torch.softmax(current, dim=0)[:-1]
    result = unary.clone()
    for kernel in kernels:
        message = kernel(q)
        if regions:
            # Region against rest: what the region sends less what the rest sends.
            result.add_(message, alpha=2).sub_(kernel.of_all)
        else:
            result[:-1] += message
            result[-1] += kernel.of_all - message.sum(0)
    return result


class _Normalized:
    """weight * k_ij / sqrt(D_i D_j) over the other voxels; `of_all` (I, J[, K]) is its sum where every Q is 1."""

    def __init__(self, kernel: Kernel, weight: float, like: Tensor) -> None:
        ones = torch.ones_like(like)
        self.kernel = kernel
        # (1, I, J[, K]); each voxel counts 1 for itself.
        self.scale = kernel(ones).add_(1).rsqrt_()
        self.weight = weight
        self.of_all = self(ones)[0]

    def __call__(self, q: Tensor) -> Tensor:
        return self.kernel(q * self.scale).mul_(self.scale).mul_(self.weight)


def _kernels(logits: Tensor, image: Tensor, spacing: Sequence[float], options: CrfOptions) -> list[_Normalized]:
    like = torch.empty_like(logits[:1], dtype=torch.float32)
    found = []
    if options.smooth_weight:
        kernel: Kernel = Smoothness(like, spacing, options.smooth_mm)
        found.append(_Normalized(kernel, options.smooth_weight, like))
    if options.appearance_weight:
        scaled = _in_sigmas(image.to(logits.device), options.appearance_intensity)
        if options.window_mm is None and len(image) == 1:
            kernel = Appearance(scaled, spacing, options.appearance_mm)
        else:
            window = options.window_mm or WINDOW_SIGMAS * options.appearance_mm
            kernel = WindowedAppearance(scaled, spacing, options.appearance_mm, window)
        found.append(_Normalized(kernel, options.appearance_weight, like))
    return found


def _in_sigmas(image: Tensor, intensity: float) -> Tensor:
    """Each channel around 0 in units of `intensity` standard deviations; a constant channel is 0."""
    axes = tuple(range(1, image.dim()))
    mean = image.double().mean(axes, keepdim=True)
    centred = image.double() - mean
    deviation = centred.square().mean(axes, keepdim=True).sqrt()
    usable = deviation > 1e-6 * mean.abs().clamp(min=1e-30)
    return torch.where(usable, centred / (intensity * deviation), 0.0).float()


def _changed(options: CrfOptions, changes: dict[str, Any]) -> CrfOptions:
    known = [field.name for field in fields(CrfOptions)]
    check_option_names("the CRF", changes, known)
    values: dict[str, Any] = {name: getattr(options, name) for name in known}
    return CrfOptions(**(values | changes))


def _check(logits: Tensor, image: Tensor, spacing: tuple[float, ...]) -> None:
    dims = len(spacing)
    if dims not in (2, 3) or not all(math.isfinite(s) and s > 0 for s in spacing):
        raise GeometryError(f"spacing_mm is {spacing}; expected 2 or 3 positive numbers, one per voxel axis")
    if logits.dim() not in (dims + 1, dims + 2) or logits.dim() != image.dim():
        raise GeometryError(
            f"logits of shape {tuple(logits.shape)} and an image of shape {tuple(image.shape)} do not fit "
            f"{dims} spacings: expected (C, {'I, J' if dims == 2 else 'I, J, K'}) each, or both with a batch in front"
        )
    same = logits.shape[-dims:] == image.shape[-dims:] and (logits.dim() == dims + 1 or len(logits) == len(image))
    if not same or not image.shape[-dims - 1]:
        raise GeometryError(
            f"logits of shape {tuple(logits.shape)} and an image of shape {tuple(image.shape)} are not on one grid"
        )
    if not bool(torch.isfinite(image).all()):
        raise GeometryError("the image of the CRF holds NaN or infinite voxels")
