"""Small networks in folders with TotalSegmentator's names, as nnunetv2 2.8.1 writes them; weights and image by formula.

Read by the test and, in another environment, by `tests/fixtures/make_totalsegmentator.py`; it needs numpy and torch.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

FEATURES = [4, 8, 8]
NAMES = {291: "organs", 292: "vertebrae", 293: "cardiac", 294: "muscles", 295: "ribs", 298: "fastest", 8: "liver"}
COUNTS = {291: 24, 292: 26, 293: 18, 294: 23, 295: 26, 298: 117, 8: 2}
SPACINGS = {298: 6.0, 8: 2.5}
TRAINERS = {298: "nnUNetTrainer_4000epochs_NoMirroring", 8: "nnUNetTrainer"}


def image() -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """A made-up body in HU (33, 38, 30), its affine in an order that is not RAS."""
    rng = np.random.default_rng(5)
    coarse = rng.normal(size=(9, 10, 8))
    grid = np.stack(np.meshgrid(*(np.linspace(0, 1, n) for n in (33, 38, 30)), indexing="ij"))
    values = np.zeros((33, 38, 30))
    for n in range(60):
        middle, width = rng.uniform(0.1, 0.9, 3), rng.uniform(0.05, 0.25)
        values += coarse.flat[n] * np.exp(-((grid - middle[:, None, None, None]) ** 2).sum(0) / width**2)
    affine = np.array([[-2.2, 0, 0, 40], [0, 0, 2.0, -30], [0, -2.7, 0, 60], [0, 0, 0, 1.0]])
    return (values * 150).astype(np.int16), affine


def weight(number: int, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor that only its data set and name decide."""
    rng = np.random.default_rng([number, zlib.crc32(name.encode())])
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    if len(shape) == 1:
        found = torch.zeros(shape)
        if number == 298 and name.endswith("seg_layers.1.bias"):
            # So that the liver fills a small part of the image.
            found[0], found[5] = 10.0, 8.2
        return found
    scale = (2 / np.prod(shape[1:])) ** 0.5
    return torch.from_numpy(rng.normal(size=shape) * scale * (6 if "seg_layers" in name else 1)).float()


def canonical(name: str) -> str:
    """The one name of a tensor that a file of nnU-Net holds under several."""
    name = name.removeprefix("decoder.") if name.startswith("decoder.encoder.") else name
    return name.replace(".all_modules.0.", ".conv.").replace(".all_modules.1.", ".norm.")


def write_folder(results: Path, number: int, shapes: dict[str, tuple[int, ...]]) -> Path:
    """`DatasetNNN_NAME/TRAINER__nnUNetPlans__3d_fullres` with one fold; `shapes` are those of its state dict."""
    labels = {"background": 0, **{f"label_{n}": n for n in range(1, COUNTS[number] + 1)}}
    if number == 8:
        labels = {"background": 0, "liver_vessels": 1, "liver_tumor": 2}
    dataset: dict[str, Any] = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    spacing = SPACINGS.get(number, 1.5)
    name = f"Dataset{number:03d}_{NAMES[number]}"
    kernels = [[3, 3, 3]] * 3
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    probabilities = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    functions = ("data", "seg", "probabilities")
    plans: dict[str, Any] = {
        "dataset_name": name,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "experiment_planner_used": "ExperimentPlanner",
        "original_median_spacing_after_transp": [spacing] * 3,
        "original_median_shape_after_transp": [40, 40, 40],
        "foreground_intensity_properties_per_channel": {
            "0": {
                "mean": 20.0,
                "std": 110.0,
                "median": 15.0,
                "min": -500.0,
                "max": 600.0,
                "percentile_00_5": -250.0,
                "percentile_99_5": 280.0,
            }
        },
        "configurations": {
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": [32, 24, 32],
                "median_image_size_in_voxels": [40.0, 40.0, 40.0],
                "spacing": [spacing] * 3,
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                **{f"resampling_fn_{each}": "resample_data_or_seg_to_shape" for each in functions},
                "resampling_fn_data_kwargs": resampling,
                "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
                "resampling_fn_probabilities_kwargs": probabilities,
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": {
                        "n_stages": 3,
                        "features_per_stage": FEATURES,
                        "conv_op": "torch.nn.modules.conv.Conv3d",
                        "kernel_sizes": kernels,
                        "strides": [[1, 1, 1], [2, 2, 2], [2, 1, 2]],
                        "n_conv_per_stage": [2, 2, 2],
                        "n_conv_per_stage_decoder": [2, 2],
                        "conv_bias": True,
                        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.LeakyReLU",
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
                "batch_dice": True,
            }
        },
    }
    trainer = TRAINERS.get(number, "nnUNetTrainerNoMirroring")
    folder = results / name / f"{trainer}__nnUNetPlans__3d_fullres"
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    mirroring = (0, 1, 2) if trainer == "nnUNetTrainer" else None
    checkpoint = {
        "network_weights": {key: weight(number, canonical(key), tuple(shape)) for key, shape in shapes.items()},
        "optimizer_state": {},
        "logging": {"ema_fg_dice": [np.float64(0.5)]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1,
        "init_args": {"plans": plans, "configuration": "3d_fullres", "fold": 0, "dataset_json": dataset},
        "trainer_name": trainer,
        "inference_allowed_mirroring_axes": mirroring,
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder
