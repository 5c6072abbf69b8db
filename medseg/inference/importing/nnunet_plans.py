"""nnU-Net's `plans.json` and `dataset.json` as a plan, the options of a network, and labels.

Names of classes and functions in these files are compared with those known here; nothing is looked up or imported.

Source: nnU-Net 2.8.1, `plans_handler.py`, `default_preprocessor.py`, `default_normalization_schemes.py` and
`label_handling.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from medseg.config import SelectRule
from medseg.errors import CheckpointError, ConfigError
from medseg.inference.bundle_info import NetInfo
from medseg.labels import LabelScheme
from medseg.preparation.plan import Plan
from medseg.preparation.plan_fields import (
    ChannelPlan,
    ImagePlan,
    LabelPlan,
    LogitPlan,
    Region,
    UnmirroredAxis,
    WindowPlan,
)

__all__ = ["Described", "configuration_of", "described"]

NETS = {"PlainConvUNet": "nnunet_plain", "ResidualEncoderUNet": "nnunet_resenc"}
NORMS = {"InstanceNorm2d": "instance", "InstanceNorm3d": "instance", "BatchNorm2d": "batch", "BatchNorm3d": "batch"}
ACTIVATIONS = {"LeakyReLU": "leaky_relu", "ReLU": "relu"}
# The trainer whose networks normalise over the batch, whatever the plans say.
BATCH_NORM_TRAINER = "nnUNetTrainerBN"
RESAMPLING = "resample_data_or_seg_to_shape"
# What else decides how an image becomes the network's input, and logits become labels.
PREPROCESSOR, LABEL_MANAGER = "DefaultPreprocessor", "LabelManager"
READERS = ("SimpleITKIO", "NibabelIO", "NaturalImage2DIO")
MOST_PARENTS = 16


@dataclass(frozen=True, slots=True)
class Described:
    """What the files say.

    Args:
        plan: how an image becomes the network's input.
        net: how to build the network.
        labels: name -> value, or values of a region, in the order of the channels.
        ignore: value that took part in no loss.
        mirror_axes: of the network.
        channels: names of the images' channels.
        previous_labels: of a stage of a cascade, how many labels of the stage before it sees.
    """

    plan: Plan
    net: NetInfo
    labels: dict[str, int | tuple[int, ...]]
    ignore: int | None
    mirror_axes: tuple[int, ...]
    channels: tuple[str, ...]
    previous_labels: int = 0

    @property
    def scheme(self) -> LabelScheme:
        """The labels as a scheme."""
        return LabelScheme.from_mapping(self.labels, self.ignore)


def configuration_of(plans: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """A configuration with all that it inherits.

    Raises:
        CheckpointError: an unknown configuration, or one that inherits from itself.
    """
    chain: list[Mapping[str, Any]] = []
    known = _mapping(plans, "configurations", where)
    seen: list[str] = []
    while name:
        if name in seen or len(seen) > MOST_PARENTS:
            raise CheckpointError(f"{where}: configuration {seen[0]!r} inherits from itself ({' > '.join(seen)})")
        if not isinstance(known.get(name), Mapping):
            raise CheckpointError(f"{where} has no configuration {name!r}; it has {', '.join(map(str, known))[:200]}")
        seen.append(name)
        chain.append(known[name])
        parent = known[name].get("inherits_from") or ""
        if not isinstance(parent, str):
            raise CheckpointError(f"{where}: configuration {name!r} inherits from {parent!r}, expected a name"[:500])
        name = parent
    return {key: value for each in reversed(chain) for key, value in each.items()}


def described(
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    configuration: str,
    trainer: str,
    mirroring: Sequence[int] | None,
    where: str,
) -> Described:
    """Plan, network and labels of one configuration.

    Args:
        plans, dataset: contents of `plans.json` and `dataset.json`.
        configuration: its name.
        trainer: name of the trainer; of those that change the network only 'nnUNetTrainerBN' is known.
        mirroring: axes of the network along which the checkpoint permits test-time mirroring.
        where: the folder, for messages.

    Raises:
        CheckpointError: what medseg does not know, or values that make no sense; named.
    """
    content = configuration_of(plans, configuration, f"{where}: plans.json")
    try:
        return _described(plans, dataset, content, trainer, mirroring, where)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        # Files of anybody: whatever is missing or of another kind than nnU-Net writes.
        text = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise CheckpointError(
            f"{where}: plans.json and dataset.json are not as nnU-Net writes them ({type(error).__name__}: {text})"[
                :600
            ]
        ) from None
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from None


def _described(
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    content: Mapping[str, Any],
    trainer: str,
    mirroring: Sequence[int] | None,
    where: str,
) -> Described:
    reader = str(dataset.get("overwrite_image_reader_writer") or plans.get("image_reader_writer") or READERS[0])
    if reader not in READERS:
        raise CheckpointError(f"{where}: images were read by {reader}; medseg knows {', '.join(READERS)}")
    for key, name, known in (
        ("preprocessor_name", content.get("preprocessor_name"), PREPROCESSOR),
        ("label_manager", plans.get("label_manager"), LABEL_MANAGER),
    ):
        if name not in (None, known):
            raise CheckpointError(f"{where}: {key} is {name!r}, which medseg does not know; it knows {known}"[:500])
    patch = tuple(int(n) for n in content["patch_size"])
    dims = len(patch)
    flat = reader == "NaturalImage2DIO"
    forward = [int(n) for n in plans["transpose_forward"]]
    names = dataset.get("channel_names") or dataset["modality"]
    channels = tuple(str(names[key]) for key in sorted(names, key=int))
    labels, ignore = _labels(dataset, where)
    scheme = LabelScheme.from_mapping(labels, ignore)
    previous = 0
    if content.get("previous_stage"):
        previous = len({value for values in scheme.trained.values for value in values})
        if previous != len(labels):
            raise CheckpointError(f"{where} is a stage of a cascade whose regions are not one for each value of a mask")
    net = _net(content, trainer, dims, len(channels) + previous, scheme.out_channels, where)
    transpose = _transpose(forward, dims, flat)
    allowed = tuple(int(axis) for axis in mirroring or ())
    if not set(allowed) <= set(range(dims)):
        raise ValueError(f"the checkpoint mirrors along the axes {allowed} of {dims}")
    sideways = transpose.index(0)
    plan = Plan(
        dims=3 if dims == 3 else 2,
        orientation=None,
        axes="file",
        transpose=transpose,
        spacing_mm=_spacing(content["spacing"], dims, flat, where),
        patch_size=patch,
        batch_size=max(1, int(content.get("batch_size", 2))),
        in_channels=len(channels),
        normalization=_normalization(plans, content, len(channels), where),
        channels=net.options["channels"],
        strides=net.options["strides"],
        kernels=net.options["kernels"],
        select=tuple(SelectRule(name=name[:64], modality="CT" if name.upper() == "CT" else None) for name in channels),
        crop="nonzero",
        normalize_on="native",
        image=ImagePlan(order=_order(content, "resampling_fn_data", 3, where), thick_axis="nearest"),
        labels=LabelPlan(method="linear"),
        logits=LogitPlan(order=_order(content, "resampling_fn_probabilities", 1, where), thick_axis="nearest"),
        shape_rounding="ratio",
        padding="zero",
        windows=WindowPlan(overlap=0.5, starts="real_step", weights="impulse"),
        unmirrored=(
            (UnmirroredAxis(axis=sideways, reason="the labels say left or right"),)
            if scheme.sides and sideways < dims
            else ()
        ),
    )
    return Described(plan, net, labels, ignore, allowed, channels, previous)


def _labels(dataset: Mapping[str, Any], where: str) -> tuple[dict[str, int | tuple[int, ...]], int | None]:
    found = dict(dataset["labels"])
    ignore = found.pop("ignore", None)
    values = {str(name): value for name, value in found.items() if value not in (0, [0])}
    if any(isinstance(value, list | tuple) for value in values.values()):
        regions = {name: _values(value) for name, value in values.items()}
        order = tuple(int(n) for n in dataset["regions_class_order"])
        painted = LabelScheme.from_mapping(regions).painted
        if painted != order:
            raise CheckpointError(
                f"{where}: dataset.json paints its regions as {list(order)}, which its labels do not allow "
                f"(expected {list(painted)}); correct regions_class_order or the order of the regions"
            )
        return dict(regions), None if ignore is None else int(ignore)
    plain = {name: int(value) for name, value in values.items()}
    if sorted(plain.values()) != list(range(1, len(plain) + 1)):
        raise CheckpointError(f"{where}: dataset.json has the labels {str(plain)[:300]}; nnU-Net numbers them 1, 2 ...")
    return dict(sorted(plain.items(), key=lambda item: item[1])), None if ignore is None else int(ignore)


def _values(value: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in value) if isinstance(value, list | tuple) else (int(value),)


def _transpose(forward: Sequence[int], dims: int, flat: bool) -> tuple[int, ...]:
    """nnU-Net's arrays have the axes of the file in reverse order; of 2D networks the slices come last here."""
    if sorted(forward) != [0, 1, 2]:
        raise ValueError(f"transpose_forward is {forward}")
    axes = [2 - n for n in forward]
    if flat:
        if forward != [0, 1, 2]:
            raise ValueError(f"transpose_forward of pictures is {forward}")
        return (1, 0)
    return tuple(axes if dims == 3 else [*axes[1:], axes[0]])


def _spacing(spacing: Sequence[float], dims: int, flat: bool, where: str) -> tuple[float, ...] | None:
    found = tuple(float(s) for s in spacing)
    if len(found) != dims:
        raise ValueError(f"spacing {found} does not fit a patch of {dims} axes")
    if not flat:
        # Slices of a volume are not resampled along the third axis, so that its number is not used.
        return found if dims == 3 else (*found, 1.0)
    if found != (1.0, 1.0):
        raise CheckpointError(f"{where}: pictures were resampled to {found} pixels, which medseg does not know")
    return None


def _normalization(
    plans: Mapping[str, Any], content: Mapping[str, Any], channels: int, where: str
) -> tuple[ChannelPlan, ...]:
    schemes, masked = content["normalization_schemes"], content["use_mask_for_norm"]
    if len(schemes) != channels or len(masked) != channels:
        raise ValueError(f"{len(schemes)} normalization schemes for {channels} channels")
    levels = plans.get("foreground_intensity_properties_per_channel") or plans.get(
        "foreground_intensity_properties_by_modality", {}
    )
    found = []
    for n, scheme in enumerate(schemes):
        region: Region = "mask" if masked[n] else "box"
        if scheme == "CTNormalization":
            each = {key: float(levels[str(n)][key]) for key in ("percentile_00_5", "percentile_99_5", "mean", "std")}
            low, high, mean, std = each.values()
            found.append(ChannelPlan(kind="clip", low=low, high=high, mean=mean, std=max(std, 1e-8)))
        elif scheme == "ZScoreNormalization":
            found.append(ChannelPlan(kind="zscore", region=region))
        elif scheme == "RescaleTo01Normalization":
            found.append(ChannelPlan(kind="unit", region="box"))
        elif scheme == "RGBTo01Normalization":
            found.append(ChannelPlan(kind="rgb"))
        elif scheme == "NoNormalization":
            found.append(ChannelPlan(kind="none"))
        else:
            raise CheckpointError(f"{where}: channel {n} is normalised by {scheme!r}, which medseg does not know")
    return tuple(found)


def _order(content: Mapping[str, Any], key: str, usual: int, where: str) -> Any:
    function = str(content.get(key, RESAMPLING))
    options = content.get(f"{key}_kwargs") or {}
    if function != RESAMPLING or options.get("force_separate_z") is not None or options.get("order_z", 0) != 0:
        raise CheckpointError(
            f"{where}: {key} is {function} with {options}, which medseg does not know; it knows {RESAMPLING}"[:500]
        )
    return int(options.get("order", usual))


def _net(
    content: Mapping[str, Any], trainer: str, dims: int, in_channels: int, out_channels: int, where: str
) -> NetInfo:
    kind, options = _architecture(content) if "architecture" in content else _former_architecture(content)
    name = NETS.get(kind.rpartition(".")[2])
    if name is None:
        raise CheckpointError(f"{where}: the network is {kind!r}; medseg knows {', '.join(NETS)}")
    if trainer == BATCH_NORM_TRAINER:
        options["norm"] = "batch"
    return NetInfo(
        name=name, dims=3 if dims == 3 else 2, in_channels=in_channels, out_channels=out_channels, options=options
    )


def _architecture(content: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    architecture = content["architecture"]
    given = dict(architecture["arch_kwargs"])
    stages = len(given["strides"])
    if given["n_stages"] != stages:
        raise ValueError(f"n_stages is {given['n_stages']}, but there are strides of {stages} stages")
    features = given["features_per_stage"]
    options: dict[str, Any] = {
        "channels": _numbers(features if isinstance(features, list) else [features] * stages),
        "strides": _rows(given["strides"]),
        "kernels": _rows(given["kernel_sizes"]),
        "decoder_convs": _counts(given["n_conv_per_stage_decoder"], stages - 1),
        "norm": _named(NORMS, given["norm_op"]),
        "activation": _named(ACTIVATIONS, given["nonlin"]),
        "conv_bias": bool(given.get("conv_bias", False)),
    }
    epsilon = (given.get("norm_op_kwargs") or {}).get("eps", 1e-5)
    slope = (given.get("nonlin_kwargs") or {}).get("negative_slope", 0.01)
    affine = (given.get("norm_op_kwargs") or {}).get("affine", False)
    if (float(epsilon), float(slope), affine) != (1e-5, 0.01, True):
        raise ValueError(f"norm_op_kwargs {given.get('norm_op_kwargs')}, nonlin_kwargs {given.get('nonlin_kwargs')}")
    kind = str(architecture["network_class_name"])
    if kind.endswith("ResidualEncoderUNet"):
        options["blocks"] = _counts(given["n_blocks_per_stage"], stages)
        if given.get("bottleneck_channels") is not None:
            options["bottleneck"] = _counts(given["bottleneck_channels"], stages)
        if given.get("stem_channels") is not None:
            options["stem_channels"] = int(given["stem_channels"])
    else:
        options["convs"] = _counts(given["n_conv_per_stage"], stages)
    return kind, options


def _former_architecture(content: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Plans of nnU-Net 2.0 to 2.4 do not spell the network out (plans_handler.py, lines 31 to 97)."""
    kernels = _rows(content["conv_kernel_sizes"])
    if len(kernels) != len(content["pool_op_kernel_sizes"]):
        raise ValueError("conv_kernel_sizes and pool_op_kernel_sizes are of different numbers of stages")
    most, first = int(content["unet_max_num_features"]), int(content["UNet_base_num_features"])
    kind = str(content["UNet_class_name"])
    options: dict[str, Any] = {
        "channels": tuple(min(first * 2**n, most) for n in range(len(kernels))),
        "strides": _rows(content["pool_op_kernel_sizes"]),
        "kernels": kernels,
        "decoder_convs": _counts(content["n_conv_per_stage_decoder"], len(kernels) - 1),
        "norm": "instance",
        "activation": "leaky_relu",
        "conv_bias": True,
        "blocks" if kind == "ResidualEncoderUNet" else "convs": _counts(
            content["n_conv_per_stage_encoder"], len(kernels)
        ),
    }
    return kind, options


def _named(known: Mapping[str, str], place: Any) -> str:
    name = str(place).rpartition(".")[2]
    if name not in known or not str(place).startswith("torch.nn."):
        raise ValueError(f"{place!r} is none of {', '.join(known)}")
    return known[name]


def _numbers(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(int(n) for n in values)


def _rows(values: Sequence[Sequence[Any]]) -> tuple[tuple[int, ...], ...]:
    return tuple(_numbers(row) for row in values)


def _counts(value: Any, number: int) -> tuple[int, ...]:
    return _numbers(value if isinstance(value, list) else [value] * number)


def _mapping(content: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    found = content.get(key)
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{where} has no {key}; it is not a file of nnU-Net v2")
    return found
