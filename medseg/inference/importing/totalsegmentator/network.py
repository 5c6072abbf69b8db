"""One nnU-Net folder of TotalSegmentator as a bundle: plain or residual U-Nets in 3D, one checkpoint a fold.

Nothing in a folder names code: the architecture is matched against what medseg builds, and a checkpoint is read by
torch's `weights_only` with four further names, those of numpy's numbers.
Source: nnU-Net 2.8.1, plans_handler.py, nnUNetTrainer.py, default_preprocessor.py, predict_from_raw_data.py.
"""

from __future__ import annotations

import _codecs
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy._core import multiarray
from pydantic import ValidationError

from medseg.config import SelectRule
from medseg.errors import CheckpointError, ConfigError
from medseg.inference.bundle import save_bundle
from medseg.inference.bundle_info import BundleInfo, NetInfo, PredictionInfo, Provenance
from medseg.inference.bundle_parts import SourceInfo
from medseg.preparation.plan import Plan
from medseg.preparation.plan_fields import ChannelPlan, ImagePlan, LogitPlan, WindowPlan
from medseg.version import __version__

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["dataset_labels", "read_json", "write_network"]

LARGEST_JSON = 64 << 20
NETS = {"PlainConvUNet": "nnunet_plain", "ResidualEncoderUNet": "nnunet_resenc"}
KINDS = {"ZScoreNormalization": "zscore", "NoNormalization": "none", "RescaleTo01Normalization": "unit"}
# Axes of an nnU-Net array from a file in RAS order.
FILE_AXES = "SAR"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a model folder.

    Raises:
        CheckpointError: absent, damaged, or larger than 64 MB.
    """
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError("larger than 64 MB")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); download the weights again") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is damaged; download the weights again")
    return found


def dataset_labels(folder: Path) -> dict[str, int]:
    """The labels of a model folder without background, by rising value.

    Raises:
        CheckpointError: a damaged `dataset.json`, or regions.
    """
    labels = read_json(folder / "dataset.json").get("labels")
    if not isinstance(labels, dict) or not all(type(value) is int for value in labels.values()):
        raise CheckpointError(f"{folder / 'dataset.json'}: expected labels with a number each")
    found = {str(name): int(value) for name, value in labels.items() if value != 0}
    if sorted(found.values()) != list(range(1, len(found) + 1)):
        raise CheckpointError(f"{folder / 'dataset.json'}: its labels are not numbered from 1 without a gap")
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


def write_network(folder: Path, target: Path, labels: Mapping[str, int], step: float, folds: str, licence: str) -> Path:
    """Write a model folder as a bundle.

    Args:
        folder: `TRAINER__PLANS__CONFIGURATION`.
        target: the bundle.
        labels: names and values, from 1.
        step: of the windows, as a share of the patch.
        folds: '0', or 'all' that the folder holds.
        licence: of the weights.

    Raises:
        CheckpointError: what is absent, damaged, or a network that medseg does not build.
    """
    plans, dataset = read_json(folder / "plans.json"), read_json(folder / "dataset.json")
    name = folder.name.rpartition("__")[2]
    configuration = _configuration(plans, name, folder)
    files = _checkpoints(folder, folds)
    digest = hashlib.sha256()
    try:
        channels = len(dataset.get("channel_names") or dataset["modality"])
        net = _net(plans, configuration, channels, len(labels) + 1)
        plan = _plan(plans, configuration, dataset, channels, net, step)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ConfigError, ValidationError) as error:
        raise CheckpointError(
            f"{folder}: its plans are not those of a network that medseg builds ({_first(error)})"
        ) from None
    weights: dict[int, dict[str, Tensor]] = {}
    for fold, file in files.items():
        state = _checkpoint(file)
        weights[0 if fold == "all" else int(fold)] = _weights(state, net, file)
        digest.update(file.read_bytes())
    info = BundleInfo(
        labels=dict(labels),
        plan=plan,
        net=net,
        prediction=PredictionInfo(overlap=round(1 - step, 6)),
        provenance=Provenance(medseg=__version__, dataset={"name": str(plans.get("dataset_name"))[:200]}),
        source=SourceInfo(kind="totalsegmentator", hash=digest.hexdigest(), licence=licence),
        weight_license=licence,
        folds="all" if "all" in files else None,
    )
    return save_bundle(target, info, weights)


def _first(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _configuration(plans: Mapping[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """A configuration with what it inherits."""
    held = plans.get("configurations")
    found: dict[str, Any] = {}
    seen: set[Any] = set()
    following: Any = name
    while following is not None:
        if following in seen or not isinstance(held, dict) or not isinstance(held.get(following), dict):
            raise CheckpointError(f"{folder / 'plans.json'} has no usable configuration {str(name)[:80]!r}")
        seen.add(following)
        found = {**held[following], **found}
        following = held[following].get("inherits_from")
    return found


def _net(plans: Mapping[str, Any], configuration: Mapping[str, Any], inputs: int, outputs: int) -> NetInfo:
    made = configuration.get("architecture")
    if made is None:
        name = str(configuration["UNet_class_name"])
        base, most = int(configuration["UNet_base_num_features"]), int(configuration["unet_max_num_features"])
        stages = len(configuration["n_conv_per_stage_encoder"])
        options: dict[str, Any] = {
            "features_per_stage": [min(base * 2**n, most) for n in range(stages)],
            "strides": configuration["pool_op_kernel_sizes"],
            "kernel_sizes": configuration["conv_kernel_sizes"],
            "n_conv_per_stage": configuration["n_conv_per_stage_encoder"],
            "n_blocks_per_stage": configuration["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": "InstanceNorm3d",
            "nonlin": "LeakyReLU",
        }
    else:
        name, options = str(made["network_class_name"]), dict(made["arch_kwargs"])
    kind = NETS.get(name.rpartition(".")[2])
    norm = {"InstanceNorm3d": "instance", "BatchNorm3d": "batch"}.get(str(options["norm_op"]).rpartition(".")[2])
    act = {"LeakyReLU": "leaky_relu", "ReLU": "relu"}.get(str(options["nonlin"]).rpartition(".")[2])
    if kind is None or norm is None or act is None:
        raise ValueError(f"{name[:80]!r} with {options.get('norm_op')} and {options.get('nonlin')}")
    counts = "n_conv_per_stage" if kind == "nnunet_plain" else "n_blocks_per_stage"
    return NetInfo(
        name=kind,
        dims=3,
        in_channels=inputs,
        out_channels=outputs,
        options={
            "channels": tuple(options["features_per_stage"]),
            "strides": _per_axis(options["strides"]),
            "kernels": _per_axis(options["kernel_sizes"]),
            ("convs" if kind == "nnunet_plain" else "blocks"): tuple(options[counts]),
            "decoder_convs": tuple(options["n_conv_per_stage_decoder"]),
            "norm": norm,
            "activation": act,
            "conv_bias": bool(options["conv_bias"]),
        },
    )


def _per_axis(values: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
    return tuple((int(v),) * 3 if isinstance(v, int) else tuple(int(n) for n in v) for v in values)


def _plan(
    plans: Mapping[str, Any],
    configuration: Mapping[str, Any],
    dataset: Mapping[str, Any],
    channels: int,
    net: NetInfo,
    step: float,
) -> Plan:
    order = [int(axis) for axis in plans["transpose_forward"]]
    if sorted(order) != [0, 1, 2]:
        raise ValueError(f"transpose_forward {order}")
    names = list((dataset.get("channel_names") or dataset["modality"]).values())
    properties = plans.get("foreground_intensity_properties_per_channel") or plans.get(
        "foreground_intensity_properties_by_modality", {}
    )
    options = net.options
    return Plan(
        dims=3,
        orientation="".join(FILE_AXES[axis] for axis in order),
        spacing_mm=tuple(float(s) for s in configuration["spacing"]),
        patch_size=tuple(int(n) for n in configuration["patch_size"]),
        batch_size=max(1, int(configuration.get("batch_size", 2))),
        in_channels=channels,
        normalization=tuple(
            _channel(kind, properties.get(str(n), {})) for n, kind in enumerate(configuration["normalization_schemes"])
        ),
        channels=options["channels"],
        strides=options["strides"],
        kernels=options["kernels"],
        select=tuple(
            SelectRule(name=str(each)[:64], modality="CT" if str(each).upper() == "CT" else None) for each in names
        ),
        normalize_on="native",
        image=ImagePlan(order=3, clip=True),
        logits=LogitPlan(order=1),
        shape_rounding="ratio",
        padding="zero",
        windows=WindowPlan(overlap=round(1 - step, 6), starts="real_step", weights="impulse"),
    )


def _channel(scheme: str, found: Mapping[str, float]) -> ChannelPlan:
    if scheme == "CTNormalization":
        low, high = float(found["percentile_00_5"]), float(found["percentile_99_5"])
        return ChannelPlan(
            kind="clip", low=low, high=high, mean=float(found["mean"]), std=max(float(found["std"]), 1e-8)
        )
    if scheme not in KINDS:
        raise ValueError(f"the normalisation {scheme[:80]!r}")
    return ChannelPlan.model_validate({"kind": KINDS[scheme], "region": "all"})


def _checkpoints(folder: Path, folds: str) -> dict[str, Path]:
    """The checkpoint of each fold that is wanted."""
    wanted = ["fold_0"] if folds == "0" else ["fold_all", *(f"fold_{n}" for n in range(5))]
    found = {}
    for name in wanted:
        file = folder / name / "checkpoint_final.pth"
        if file.is_file():
            found[name.removeprefix("fold_")] = file
    if "all" in found:
        return {"all": found["all"]}
    if not found:
        raise CheckpointError(f"{folder / wanted[0] / 'checkpoint_final.pth'} is missing; download the weights again")
    return found


def _checkpoint(file: Path) -> Mapping[str, Any]:
    import torch

    from medseg.nets.weights_file import load_torch_file

    number = multiarray.scalar
    safe: list[Any] = [
        number,
        (number, "numpy.core.multiarray.scalar"),
        np.dtype,
        np.dtypes.Float64DType,
        _codecs.encode,
    ]
    with torch.serialization.safe_globals(safe):
        read = load_torch_file(file, "download the weights again")
    if not isinstance(read, dict) or not isinstance(read.get("network_weights"), dict):
        raise CheckpointError(f"{file} contains no network_weights; download the weights again")
    weights: dict[str, Any] = read["network_weights"]
    return weights


def _weights(state: Mapping[str, Any], net: NetInfo, file: Path) -> dict[str, Tensor]:
    """The tensors that the network has; the file's further names of the same tensors have to hold the same."""
    import torch

    from medseg.nets import build_net

    with torch.device("meta"):
        wanted = build_net(
            net.name, dims=3, in_channels=net.in_channels, out_channels=net.out_channels, **net.options
        ).state_dict()
    given = {str(key).removeprefix("module.").removeprefix("_orig_mod."): value for key, value in state.items()}
    found = {}
    for key, expected in wanted.items():
        value = given.get(key)
        if not isinstance(value, torch.Tensor) or value.shape != expected.shape:
            raise CheckpointError(
                f"{file} does not hold the network of plans.json: {key} is missing or of another shape"
            )
        found[key] = value.to(expected.dtype)
    others = [
        key
        for key in given
        if key not in wanted and ".all_modules." not in key and not key.startswith("decoder.encoder.")
    ]
    if others:
        raise CheckpointError(f"{file} holds more than the network of plans.json, such as {others[0][:80]!r}")
    return found
