"""From a fingerprint, a configuration and the memory at hand to a `Plan`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medseg.config import RESENC_SIZES, RunConfig, SelectRule, validate_model
from medseg.errors import ConfigError, DatasetError
from medseg.io.channel_names import kind_of_name, modality_of_kind
from medseg.labels import LabelScheme
from medseg.preparation.channel_plans import asked_kinds, channel_plan, kind_in_words
from medseg.preparation.coarseness import coarser_spacing, thinnest_of
from medseg.preparation.direction import directed_axes
from medseg.preparation.fingerprint import Fingerprint
from medseg.preparation.mirroring import unmirrored_axes
from medseg.preparation.net_needs import catalogue_entry, needs_of, sides_for, tensors_of
from medseg.preparation.nnunet_topology import kernels_for
from medseg.preparation.patch import Budget, choose_batch, choose_patch, strides_for
from medseg.preparation.plan import ChannelPlan, Plan
from medseg.preparation.sizes import (
    DataShape,
    NetSize,
    channels_of_size,
    reason_of_size,
    resenc_size,
    scale_of_size,
)
from medseg.preparation.training_budget import core_seconds, reach_of
from medseg.preparation.twins import find_twins

__all__ = ["check_plan_fits", "make_plan"]

# nnU-Net's limits: spacing 3 times coarser and 3 times fewer voxels than along the other axes.
ANISOTROPY = 3.0
# Spacings closer than this count as equal when the slice axis of a 2D net is chosen.
SAME_SPACING = 1.1
CT_AIR_HU = -500
# Patches that a step should have room for when the grid is chosen.
SAMPLES_OF_A_STEP = 4
# A patch is as long as most images are, so that it is not cut where some cases have many slices.
LONG_SHARE = 0.85
# Where all images point the same way, so will new ones.
FIXED_POSE_DEGREES, FIXED_POSE_SCALE = 20.0, (0.8, 1.25)


def make_plan(
    fingerprint: Fingerprint, config: RunConfig, scheme: LabelScheme, memory_gb: float, on_gpu: bool, cores: int = 1
) -> Plan:
    """The plan for a data set.

    Args:
        fingerprint: of the cases that train or validate.
        config: what it fixes in `plan`, `net`, `training.batch_size`, `data.normalization`, `data.window` and
            `data.modality` is kept.
        scheme: the labels.
        memory_gb: of the device that trains; `plan.memory_gb` overrides it.
        on_gpu: whether that device is a GPU: patches are then limited by memory, on a CPU by time as well.
        cores: that a training on a CPU uses.

    Returns:
        A valid plan.

    Raises:
        ConfigError: where what the configuration fixes does not fit the data or itself.
        DatasetError: if no case holds a labelled voxel.

    Source:
        Rules for spacing, clipping and anisotropic strides follow Isensee et al., nnU-Net, Nature Methods 18 (2021).
    """
    if not any(n for c in fingerprint.cases for value, n in c.label_voxels.items() if value not in (0, scheme.ignore)):
        raise DatasetError(
            "no case holds a labelled voxel, so there is nothing to learn; check data.labels, "
            "data.label_threshold and the masks"
        )
    dims = _dims(fingerprint, config)
    orientation = _orientation(fingerprint, dims)
    directed, asked = directed_axes(fingerprint.cases, dims, orientation), config.augmentation.mirror
    needs = needs_of(config.net)
    kilobytes = None if needs is None else needs.kilobytes[dims - 2]
    budget = Budget(
        dims,
        config.plan.memory_gb or memory_gb,
        on_gpu,
        kilobytes,
        tensors=tensors_of(config.net, dims),
        scale=scale_of_size(config.plan.size),
        seconds=core_seconds(config.training, cores),
        reach=reach_of(fingerprint),
    )
    target, downsampling = _grid(fingerprint, config, scheme, orientation, budget)
    sampled = target or (None if downsampling is None else (downsampling,) * dims + (1.0,) * (fingerprint.dims - dims))
    shape, long = (_quantile_shape(fingerprint, orientation, sampled, share) for share in (0.5, LONG_SHARE))
    spacing = sampled or (1.0,) * len(shape)
    outputs = len(scheme.names) + 1
    data = DataShape(shape[:dims], spacing[:dims], float(np.prod(shape)) * len(fingerprint.cases), outputs)
    made = resenc_size(config, data, budget)
    if made is None:
        made = NetSize(*_size(config, long, spacing, budget, data.voxels))
    values = {
        "dims": dims,
        "orientation": orientation,
        "spacing_mm": None if target is None else [round(s, 6) for s in target],
        "patch_size": made.patch,
        "batch_size": made.batch,
        "in_channels": fingerprint.in_channels,
        "normalization": [_channel_plan(fingerprint, config, c).model_dump() for c in range(fingerprint.in_channels)],
        "channels": made.channels,
        "strides": made.strides,
        "kernels": kernels_for(data.spacing, made.strides) if catalogue_entry(config.net).kernels else None,
        "size": reason_of_size(config, made, on_gpu),
        "downsampling": downsampling,
        "select": [rule.model_dump(exclude_defaults=True) for rule in _select(fingerprint, config)],
        "unmirrored": unmirrored_axes(
            dims,
            orientation,
            scheme,
            find_twins(fingerprint.cases, scheme),
            {axis: reason for axis, reason in directed.items() if isinstance(asked, bool) or axis not in asked},
        ),
        "rotation_degrees": FIXED_POSE_DEGREES if directed else None,
        "scale": FIXED_POSE_SCALE if directed else None,
        "image": {"prefilter": "area"},
        "labels": {"method": "area", "ties": "unbiased"},
        "low_resolution_ties": "unbiased",
        "seeding": "sample",
    }
    return validate_model(Plan, values, "planning")


def check_plan_fits(plan: Plan, fingerprint: Fingerprint, config: RunConfig, path: Path) -> None:
    """Refuse a kept plan that contradicts the data or what the configuration fixes.

    Raises:
        ConfigError: naming the plan's file, the part and both values.
    """
    fixed = config.plan
    spatial = fingerprint.dims
    wanted: list[tuple[str, object, object]] = [
        ("in_channels", plan.in_channels, fingerprint.in_channels),
        ("dims", plan.dims, _dims(fingerprint, config) if config.net.dims or spatial == 2 else plan.dims),
        ("orientation (axes of the images: three letters 3, null 2)", plan.spatial_dims, spatial),
        ("patch_size", plan.patch_size, fixed.patch_size or plan.patch_size),
        ("batch_size", plan.batch_size, config.training.batch_size or plan.batch_size),
        ("channels", plan.channels, config.net.channels or plan.channels),
    ]
    if fixed.size != "default":
        wanted.append(("size", None if plan.size is None else plan.size.name, fixed.size))
    if fixed.spacing_mm is not None and plan.spacing_mm is not None:
        count = len(fixed.spacing_mm)
        wanted.append(("spacing_mm", tuple(plan.spacing_mm[:count]), tuple(round(s, 6) for s in fixed.spacing_mm)))
    if plan.spacing_mm is not None and not fingerprint.spacing_known:
        wanted.append(("spacing_mm (the images have no known spacing)", plan.spacing_mm, None))
    if fixed.downsampling is not None:
        wanted.append(("downsampling", plan.downsampling, fixed.downsampling))
    if plan.in_channels == fingerprint.in_channels:
        kinds = asked_kinds(config, plan.in_channels)
        for channel, (has_plan, kind) in enumerate(zip(plan.normalization, kinds, strict=True)):
            where = f"normalization of channel {channel}"
            asked = _channel_plan(fingerprint, config, channel)
            if asked.kind == "window":
                wanted.append((where, str(has_plan), str(asked)))
            elif kind != "auto":
                wanted.append((where, kind_in_words(has_plan), kind))
    for key, has, needs in wanted:
        if has != needs:
            raise ConfigError(
                f"{path}: {key} is {has}, but the data set and the configuration ask for {needs}; edit the plan, or "
                "delete it to plan anew"
            )


def _dims(fingerprint: Fingerprint, config: RunConfig) -> int:
    dims = config.net.dims or fingerprint.dims
    if dims > fingerprint.dims:
        raise ConfigError("net.dims is 3, but the images are 2D; leave net.dims out or set it to 2")
    return dims


def _orientation(fingerprint: Fingerprint, dims: int) -> str | None:
    if fingerprint.dims == 2:
        return None
    if dims == 3:
        return "RAS"
    spacing = np.median([c.along("RAS")[1] for c in fingerprint.cases], axis=0)
    # A 2D net looks along the coarsest axis; among equals along the superior one, the usual axial slices.
    coarsest = next(a for a in (2, 1, 0) if SAME_SPACING * spacing[a] >= spacing.max())
    return "RAS".replace("RAS"[coarsest], "") + "RAS"[coarsest]


def _grid(
    fingerprint: Fingerprint, config: RunConfig, scheme: LabelScheme, orientation: str | None, budget: Budget
) -> tuple[tuple[float, ...] | None, float | None]:
    """Spacing of the network's grid, and how many pixels become one of an image without a known spacing."""
    dims, fixed = budget.dims, config.plan
    if fixed.spacing_mm is not None and not fingerprint.spacing_known:
        raise ConfigError(
            "plan.spacing_mm is given, but the images have no known spacing; leave it out, or give plan.downsampling"
        )
    if fixed.downsampling is not None and fingerprint.spacing_known:
        raise ConfigError("plan.downsampling is given, but the images have a known spacing; give plan.spacing_mm")
    target = _native_spacing(fingerprint, config, orientation, dims) if fingerprint.spacing_known else None
    if fixed.spacing_mm is not None or fixed.downsampling is not None or fixed.size in RESENC_SIZES:
        return target, fixed.downsampling
    shape = _quantile_shape(fingerprint, orientation, target, LONG_SHARE)[:dims]
    spacing = (1.0,) * dims if target is None else target[:dims]
    voxels = min(budget.patch_voxels, budget.step_voxels / SAMPLES_OF_A_STEP)
    coarser = coarser_spacing(shape, spacing, budget.reach, thinnest_of(fingerprint, scheme), voxels)
    if target is None:
        # Whole and half pixels, so that each new one is the mean of equally many.
        factor = math.floor(2 * coarser[0]) / 2
        return None, factor if factor > 1 else None
    return (*coarser, *target[dims:]), None


def _native_spacing(
    fingerprint: Fingerprint, config: RunConfig, orientation: str | None, dims: int
) -> tuple[float, ...]:
    """The spacing that the configuration gives, else the usual one of the images."""
    fixed = config.plan.spacing_mm
    grids = [c.along(orientation) for c in fingerprint.cases]
    spacings = np.array([g[1] for g in grids])
    target = np.median(spacings, axis=0)
    if fixed is not None:
        if len(fixed) not in {dims, len(target)}:
            raise ConfigError(f"plan.spacing_mm has {len(fixed)} entries; expected {len(target)}, in mm")
        # A 2D net on volumes may leave out the slice axis, which is not resampled.
        return (*fixed, *(float(s) for s in target[len(fixed) :]))
    if len(target) == 3:
        coarse = int(np.argmax(target))
        others = [a for a in range(3) if a != coarse]
        shape = np.median([g[0] for g in grids], axis=0)
        if target[coarse] > ANISOTROPY * target[others].max() and shape[coarse] * ANISOTROPY < shape[others].min():
            # The finer cases keep their detail, yet the axis stays the coarsest.
            target[coarse] = max(float(np.percentile(spacings[:, coarse], 10)), float(target[others].max()))
    return tuple(float(s) for s in target)


def _quantile_shape(
    fingerprint: Fingerprint, orientation: str | None, target: Sequence[float] | None, share: float
) -> tuple[float, ...]:
    """Voxels per axis on the network's grid that this share of the cases does not exceed."""
    shapes = []
    for case in fingerprint.cases:
        shape, spacing = case.along(orientation)
        scale = np.ones(len(shape)) if target is None else np.divide(spacing, target)
        shapes.append(np.multiply(shape, scale))
    return tuple(float(n) for n in np.maximum(1, np.round(np.quantile(shapes, share, axis=0))))


def _size(
    config: RunConfig, shape: Sequence[float], spacing: Sequence[float], budget: Budget, voxels: float
) -> tuple[int, tuple[int, ...], tuple[int, ...], tuple[tuple[int, ...], ...]]:
    dims = budget.dims
    shape, spacing = shape[:dims], spacing[:dims]
    channels = config.net.channels or channels_of_size(config.plan.size, dims, budget.on_gpu)
    stages = None if config.net.channels is None else len(config.net.channels)
    fixed = config.plan.patch_size
    if fixed is not None:
        if len(fixed) != dims:
            raise ConfigError(f"plan.patch_size has {len(fixed)} entries, but the net sees {dims} axes")
        patch = tuple(fixed)
        strides = strides_for(patch, spacing, len(channels), smallest=4 if stages is None else 2, exact=True)
        if stages is not None and len(strides) < stages:
            raise ConfigError(
                f"net.channels asks for {stages} stages, but plan.patch_size {patch} can be halved for {len(strides)} "
                f"only; give sides divisible by {2 ** (stages - 1)}, or fewer channels"
            )
    else:
        needs = needs_of(config.net)
        multiple, least = (None, None) if needs is None else sides_for(needs, shape, spacing)
        samples = config.training.batch_size or 2
        patch, strides = choose_patch(shape, spacing, channels, budget, samples, stages, multiple, least)
    channels = tuple(channels[: len(strides)])
    batch = config.training.batch_size or choose_batch(patch, channels, strides, budget, voxels)
    return batch, patch, channels, strides


def _channel_plan(fingerprint: Fingerprint, config: RunConfig, channel: int) -> ChannelPlan:
    return channel_plan(fingerprint, config, channel, _modality(fingerprint, config, channel))


def _select(fingerprint: Fingerprint, config: RunConfig) -> tuple[SelectRule, ...]:
    """The configuration's rules with the names and modalities that the data set gives; () for photographs."""
    given, count = config.data.select, fingerprint.in_channels
    if given and len(given) != count:
        raise ConfigError(
            f"data.select has {len(given)} rules, but the images have {count} channels; give one for each"
        )
    if not given and fingerprint.dims == 2:
        return ()
    names = fingerprint.channel_names if len(fingerprint.channel_names) == count else ("",) * count
    modalities = sorted({c.modality.upper() for c in fingerprint.cases} - {""})
    rules = []
    for channel, rule in enumerate(given or (SelectRule(),) * count):
        name = rule.name or names[channel]
        stated = modality_of_kind(kind_of_name(name)) or (modalities[0] if len(modalities) == 1 else "")
        guessed = "CT" if not stated and _modality(fingerprint, config, channel) == "CT" else stated
        rules.append(rule.model_copy(update={"name": name, "modality": rule.modality or guessed or None}))
    return tuple(rules) if any(rule != SelectRule() for rule in rules) else ()


def _modality(fingerprint: Fingerprint, config: RunConfig, channel: int) -> str:
    """'CT', another modality's name, or '' where it is unknown."""
    given = config.data.modality
    if given is not None:
        names = (given,) * fingerprint.in_channels if isinstance(given, str) else given
        if len(names) != fingerprint.in_channels:
            raise ConfigError(
                f"data.modality names {len(names)} channels, but the images have {fingerprint.in_channels}"
            )
        return names[channel].upper()
    if channel < len(fingerprint.channel_names):
        named = modality_of_kind(kind_of_name(fingerprint.channel_names[channel]))
        if named:
            return named
    modalities = {c.modality.upper() for c in fingerprint.cases} - {""}
    if modalities:
        return "CT" if modalities == {"CT"} else sorted(modalities)[0]
    each = [c.channels[channel] for c in fingerprint.cases]
    hounsfield = sum(c.whole_numbers and c.minimum <= CT_AIR_HU for c in each)
    return "CT" if 2 * hounsfield > len(each) else ""
