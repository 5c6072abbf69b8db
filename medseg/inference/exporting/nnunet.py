"""A model as a folder that nnU-Net v2 predicts with: plans, description of the data, and a checkpoint for each fold.

Only models whose plan does what nnU-Net does can be written so, that is, those that were imported from it.

Source: nnU-Net 2.8.1, `plans_handler.py`, `predict_from_raw_data.py`; the names of weights are those of
dynamic_network_architectures 0.4.4, where each layer stands under two to four names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.disk.atomic import atomic_folder
from medseg.errors import CheckpointError, ConfigError, WriteError
from medseg.inference.bundle import load_bundle
from medseg.inference.bundle_info import BundleInfo
from medseg.inference.composites.loading import composite_of
from medseg.inference.importing.cache import as_bundle
from medseg.inference.importing.nnunet_folders import CHECKPOINT
from medseg.inference.importing.nnunet_plans import LABEL_MANAGER, PREPROCESSOR, READERS, RESAMPLING
from medseg.inference.importing.nnunet_postprocessing import KNOWN, NAME, RESULTS
from medseg.preparation.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["export_nnunet"]

TRAINER, PLANS = "nnUNetTrainer", "nnUNetPlans"
# What of a plan nnU-Net cannot do otherwise.
FIXED = {
    "axes": "file",
    "crop": "nonzero",
    "normalize_on": "native",
    "shape_rounding": "ratio",
    "padding": "zero",
    "image.thick_axis": "nearest",
    "image.prefilter": "none",
    "logits.thick_axis": "nearest",
    "windows.starts": "real_step",
    "windows.weights": "half",
}
NETS = {"nnunet_plain": "PlainConvUNet", "nnunet_resenc": "ResidualEncoderUNet"}


def export_nnunet(model: str | Path, target: str | Path, folds: Sequence[int] | None = None) -> Path:
    """Write a model as a model folder of nnU-Net v2; nnUNetv2_predict_from_modelfolder takes it.

    Args:
        model: a bundle of a single network that was imported from nnU-Net, or trained on from there by its plan.
        target: the folder, which must not exist or be empty.
        folds: those wanted; None: all.

    Returns:
        The folder.

    Raises:
        CheckpointError: a bundle that is absent or damaged.
        ConfigError: a model that does what nnU-Net cannot do, or a fold that it does not have.
        WriteError: a target that holds something; disk full, no permission.
    """
    place, folder = as_bundle(model), Path(target)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise WriteError(f"{folder} exists and holds something; choose another name")
    if composite_of(place) is not None:
        raise ConfigError(f"{model} is made of several models; export its members one by one (members/NAME)")
    bundle = load_bundle(place)
    if bundle.networks:
        raise CheckpointError(f"{model} is an exported model; give the model that it was exported from")
    missing = sorted(set(folds or ()) - set(bundle.weights))
    if missing:
        raise ConfigError(f"{model} has no fold {missing[0]}; it has {', '.join(map(str, sorted(bundle.weights)))}")
    info = bundle.info
    _refuse_others(info, str(model))
    which = "2d" if info.plan.dims == 2 else "3d_fullres"
    plans, dataset = _plans(info, which), _dataset(info)
    with atomic_folder(folder, overwrite=True) as fresh:
        _write_json(fresh / "plans.json", plans)
        _write_json(fresh / "dataset.json", dataset)
        for number, weights in bundle.weights.items():
            if folds is None or number in folds:
                fold = "all" if info.folds == "all" else str(number)
                (fresh / f"fold_{fold}").mkdir()
                _save(fresh / f"fold_{fold}" / CHECKPOINT, weights, info, plans, dataset, fold)
        if info.prediction.keep_largest:
            _write_rules(fresh, info)
    return folder


def _refuse_others(info: BundleInfo, model: str) -> None:
    plan = info.plan
    for key, wanted in FIXED.items():
        found: Any = plan
        for part in key.split("."):
            found = getattr(found, part)
        if found != wanted and (key, found) != ("windows.weights", "impulse"):
            raise ConfigError(
                f"{model} cannot be run by nnU-Net: its plan has {key}: {found}, where nnU-Net has {wanted}; only "
                "models that were imported from nnU-Net can be exported to it"
            )
    if info.net.name not in NETS or info.previous_labels or plan.image.order not in (1, 3):
        what = "a stage of a cascade" if info.previous_labels else f"the network {info.net.name}"
        raise ConfigError(f"{model} cannot be run by nnU-Net alone: it is {what}")
    if isinstance(info.ignore, tuple):
        raise ConfigError(f"{model} ignores several values, nnU-Net one")


def _plans(info: BundleInfo, which: str) -> dict[str, Any]:
    plan = info.plan
    flat = plan.spacing_mm is None
    places = (2, 1, 0) if flat else tuple(plan.transpose[n] for n in ((0, 1, 2) if plan.dims == 3 else (2, 0, 1)))
    forward = [2 - axis for axis in places]
    order = {"is_seg": False, "order": plan.image.order, "order_z": 0, "force_separate_z": None}
    levels = {
        str(n): {
            "percentile_00_5": each.low,
            "percentile_99_5": each.high,
            "mean": each.mean,
            "std": each.std,
        }
        if each.kind == "clip"
        else {}
        for n, each in enumerate(plan.normalization)
    }
    configuration = {
        "data_identifier": f"{PLANS}_{which}",
        "preprocessor_name": PREPROCESSOR,
        "batch_size": plan.batch_size,
        "patch_size": list(plan.patch_size),
        "spacing": [1.0, 1.0] if plan.spacing_mm is None else list(plan.spacing_mm[: plan.dims]),
        "normalization_schemes": [_scheme(each.kind) for each in plan.normalization],
        "use_mask_for_norm": [each.region == "mask" for each in plan.normalization],
        "resampling_fn_data": RESAMPLING,
        "resampling_fn_data_kwargs": order,
        "resampling_fn_seg": RESAMPLING,
        "resampling_fn_seg_kwargs": {**order, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": RESAMPLING,
        "resampling_fn_probabilities_kwargs": {**order, "order": plan.logits.order},
        "architecture": _architecture(info, plan),
        "batch_dice": False,
    }
    return {
        "dataset_name": "Dataset001_Exported",
        "plans_name": PLANS,
        "image_reader_writer": READERS[2] if flat else READERS[0],
        "transpose_forward": forward,
        "transpose_backward": [forward.index(axis) for axis in range(3)],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": LABEL_MANAGER,
        "foreground_intensity_properties_per_channel": levels,
        "configurations": {which: configuration},
    }


def _scheme(kind: str) -> str:
    known = {
        "clip": "CTNormalization",
        "zscore": "ZScoreNormalization",
        "unit": "RescaleTo01Normalization",
        "rgb": "RGBTo01Normalization",
        "none": "NoNormalization",
    }
    if kind not in known:
        raise ConfigError(f"nnU-Net has no normalisation {kind!r}; it has {', '.join(known)}")
    return known[kind]


def _architecture(info: BundleInfo, plan: Plan) -> dict[str, Any]:
    options, dims = info.net.options, plan.dims
    norms = {"instance": ("instancenorm", "InstanceNorm"), "batch": ("batchnorm", "BatchNorm")}
    if options.get("norm", "instance") not in norms:
        raise ConfigError(f"nnU-Net's networks have instance or batch norm, not {options['norm']!r}")
    module, norm = norms[options.get("norm", "instance")]
    activation = {"leaky_relu": "LeakyReLU", "relu": "ReLU"}[options.get("activation", "leaky_relu")]
    stages = len(options["channels"])
    given: dict[str, Any] = {
        "n_stages": stages,
        "features_per_stage": list(options["channels"]),
        "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
        "kernel_sizes": [list(row) for row in options["kernels"]],
        "strides": [list(row) for row in options["strides"]],
        "n_conv_per_stage_decoder": list(options["decoder_convs"]),
        "conv_bias": options.get("conv_bias", True),
        "norm_op": f"torch.nn.modules.{module}.{norm}{dims}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": f"torch.nn.{activation}",
        "nonlin_kwargs": {"inplace": True},
    }
    if info.net.name == "nnunet_plain":
        given["n_conv_per_stage"] = list(options["convs"])
    else:
        given["n_blocks_per_stage"] = list(options["blocks"])
        if options.get("bottleneck") is not None:
            given["bottleneck_channels"] = list(options["bottleneck"])
        if options.get("stem_channels") is not None:
            given["stem_channels"] = options["stem_channels"]
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{NETS[info.net.name]}",
        "arch_kwargs": given,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _dataset(info: BundleInfo) -> dict[str, Any]:
    scheme, plan = info.scheme, info.plan
    names = info.provenance.dataset.get("channels") or [rule.name for rule in plan.select]
    names = names if len(names) == plan.in_channels else [f"channel {n}" for n in range(plan.in_channels)]
    labels: dict[str, Any] = {"background": 0}
    content: dict[str, Any] = {"channel_names": {str(n): str(name) for n, name in enumerate(names)}, "labels": labels}
    if scheme.is_regions:
        trained = scheme.trained.values
        labels |= {name: list(values) for name, values in zip(scheme.names, trained, strict=True)}
        content["regions_class_order"] = list(scheme.painted)
    else:
        labels |= {name: values[0] for name, values in zip(scheme.names, scheme.values, strict=True)}
        if sorted(labels.values()) != list(range(len(labels))):
            raise ConfigError(f"nnU-Net numbers labels 1, 2 ..., but the model has {labels}")
    if info.ignore is not None:
        labels["ignore"] = info.ignore
    ending = ".png" if plan.spacing_mm is None else ".nii.gz"
    return {**content, "numTraining": 0, "file_ending": ending, "licence": info.weight_license}


def _save(
    file: Path,
    weights: Mapping[str, Tensor],
    info: BundleInfo,
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    fold: str,
) -> None:
    import torch

    axes = info.prediction.mirror_axes
    content = {
        "network_weights": _all_names(weights),
        "optimizer_state": {},
        "grad_scaler_state": None,
        "logging": {},
        "_best_ema": 0.0,
        "current_epoch": 0,
        "init_args": {
            "plans": dict(plans),
            "configuration": next(iter(plans["configurations"])),
            "fold": fold if fold == "all" else int(fold),
            "dataset_json": dict(dataset),
        },
        "trainer_name": TRAINER,
        "inference_allowed_mirroring_axes": tuple(axes) if axes else None,
    }
    torch.save(content, file)


def _all_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each weight under all the names that nnU-Net's network has for it."""
    found: dict[str, Tensor] = {}
    for key, value in weights.items():
        names = [key]
        for part, module in ((".conv.", ".all_modules.0."), (".norm.", ".all_modules.1.")):
            if part in key:
                start, _, end = key.rpartition(part)
                names.append(f"{start}{module}{end}")
        names += [f"decoder.{name}" for name in names if name.startswith("encoder.")]
        found |= dict.fromkeys(names, value)
    return found


def _write_rules(folder: Path, info: BundleInfo) -> None:
    """For medseg; nnU-Net itself reads only the pickle, which is not written."""
    held = dict(zip(info.scheme.names, info.scheme.trained.values, strict=True))
    options = [
        {"labels_or_regions": sorted({value for name in names for value in held[name]})}
        for names in info.prediction.keep_largest
    ]
    folds = ["all"] if info.folds == "all" else sorted(map(str, info.folds or ()))
    place = folder / f"{RESULTS}{'_'.join(folds)}"
    place.mkdir()
    _write_json(place / NAME, {"postprocessing_fns": [KNOWN] * len(options), "postprocessing_kwargs": options})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
