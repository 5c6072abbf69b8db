"""CPU seconds and peak memory of an imported model beside nnunetv2, on a made-up CT: one core, one case.

    python benchmarks/imported_models.py --nnunet-python VENV/bin/python --out FOLDER
        [--size 512 512 300] [--spacing 0.75 0.75 1.5] [--grid 1.5] [--tools medseg without_air fast nnunet]

The network is that of a part of TotalSegmentator's `total`: 6 stages of 32 to 320 features, patches of 128^3, 25
classes, no mirroring, windows that overlap by half. Its weights are random and its logits smooth: every convolution is
a mean over its kernel, times a random matrix from channel to channel, so that all it does is to mix blurred images. The
CT is an ellipse of soft tissue with lungs and noise, which fills a third of the slice, in air. Each tool runs in
a process of its own with one thread; its CPU seconds and largest memory are those that the system counts, start-up and
files included. `RESULTS.md` in --out has them.

`medseg` is `medseg predict` as it is, `without_air` the same where the model says that air may be left out, and
`fast` that with --fast.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage

from medseg.inference import BundleInfo, NetInfo, PredictionInfo, save_bundle
from medseg.inference.bundle_parts import SourceInfo
from medseg.inference.exporting.nnunet import export_nnunet
from medseg.preparation.plan import Plan
from medseg.preparation.plan_fields import ChannelPlan, ImagePlan, LabelPlan, LogitPlan, WindowPlan

CLASSES = 25
FEATURES = (32, 64, 128, 256, 320, 320)
STRIDES = ((1, 1, 1), *[(2, 2, 2)] * 5)
TOOLS = ("medseg", "without_air", "fast", "nnunet")
# What nnunetv2 does for one case, in this process alone.
NNUNET = """
import sys
from unittest.mock import MagicMock
sys.modules |= {name: MagicMock() for name in ("timm", "timm.layers", "timm.models", "timm.models.eva")}
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
torch.set_num_threads(1)
folder, image, mask = sys.argv[1:]
predictor = nnUNetPredictor(0.5, True, True, False, torch.device("cpu"), False, allow_tqdm=False)
predictor.initialize_from_trained_model_folder(folder, (0,), "checkpoint_final.pth")
array, properties = SimpleITKIO().read_images([image])
SimpleITKIO().write_seg(predictor.predict_single_npy_array(array, properties), mask, properties)
"""


def smooth_weights(info: BundleInfo) -> dict[str, torch.Tensor]:
    """Convolutions that are means over their kernels, times random matrices."""
    torch.manual_seed(0)
    net = info.net.build()
    weights = net.state_dict()
    for value in weights.values():
        if value.dim() > 2:
            value.copy_(value.mean(dim=tuple(range(2, value.dim())), keepdim=True).expand_as(value))
            value *= value[0, 0].numel() ** 0.5
    head = weights[f"decoder.seg_layers.{len(FEATURES) - 2}.weight"]
    head.copy_(10 * (head - head.mean(dim=1, keepdim=True)))
    return weights


def model(folder: Path, grid: float, without_air: bool) -> Path:
    """The bundle."""
    patch = (128, 128, 128)
    plan = Plan(
        dims=3, orientation=None, axes="file", transpose=(2, 1, 0), spacing_mm=(grid,) * 3, patch_size=patch,
        batch_size=2, in_channels=1, channels=FEATURES, strides=STRIDES, kernels=((3, 3, 3),) * 6, crop="nonzero",
        normalization=(ChannelPlan(kind="clip", low=-1000.0, high=1500.0, mean=-50.0, std=500.0),),
        normalize_on="native", image=ImagePlan(order=3, thick_axis="nearest"), labels=LabelPlan(method="linear"),
        logits=LogitPlan(order=1, thick_axis="nearest"), shape_rounding="ratio", padding="zero",
        windows=WindowPlan(overlap=0.5, starts="real_step", weights="half"),
    )  # fmt: skip
    options: dict[str, Any] = {
        "channels": FEATURES, "strides": STRIDES, "kernels": ((3, 3, 3),) * 6, "convs": (2,) * 6,
        "decoder_convs": (2,) * 5, "norm": "instance", "activation": "leaky_relu", "conv_bias": True,
    }  # fmt: skip
    info = BundleInfo(
        labels={f"organ{n}": n for n in range(1, CLASSES)},
        plan=plan,
        net=NetInfo(name="nnunet_plain", dims=3, in_channels=1, out_channels=CLASSES, options=options),
        prediction=PredictionInfo(without_air=without_air),
        source=SourceInfo(kind="nnunet", hash="0" * 64),
    )
    return save_bundle(folder, info, {0: smooth_weights(info)})


def ct(path: Path, size: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    """An ellipse of soft tissue with two lungs, in air."""
    rng = np.random.default_rng(0)
    i, j = np.meshgrid(*(np.linspace(-1, 1, n) for n in size[:2]), indexing="ij")
    slab = np.full(size[:2], -1000.0)
    slab[(i / 0.75) ** 2 + (j / 0.5) ** 2 < 1] = 40
    for side in (-0.35, 0.35):
        slab[((i - side) / 0.25) ** 2 + (j / 0.3) ** 2 < 1] = -820
    values = np.empty(size, dtype=np.int16)
    for k in range(size[2]):
        values[..., k] = slab + ndimage.gaussian_filter(rng.normal(size=size[:2]), 1.0) * 60
    nib.save(nib.Nifti1Image(values, np.diag([*spacing, 1.0])), path)


def measured(command: list[str]) -> tuple[float, float]:
    """CPU seconds and largest memory in GB of a command with one thread."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "nnUNet_def_n_proc"), "1")
    started = subprocess.Popen(command, env={**os.environ, **threads}, stdout=sys.stderr)
    _, status, used = os.wait4(started.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command[:6])} ... failed")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6


def main() -> None:
    """Make the model and the CT, run each tool, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nnunet-python", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 300))
    parser.add_argument("--spacing", type=float, nargs=3, default=(0.75, 0.75, 1.5))
    parser.add_argument("--grid", type=float, default=1.5)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    image, kept = asked.out / "ct.nii.gz", asked.out / "measured.json"
    ct(image, tuple(asked.size), tuple(asked.spacing))
    folders = {name: model(asked.out / name, asked.grid, name != "medseg") for name in ("medseg", "without_air")}
    if not (asked.out / "nnunet").is_dir():
        export_nnunet(folders["medseg"], asked.out / "nnunet")
    results = json.loads(kept.read_text()) if kept.exists() else {}
    for tool in asked.tools:
        if tool == "nnunet":
            script = [str(asked.nnunet_python), "-c", NNUNET]
            command = [*script, str(asked.out / "nnunet"), str(image), str(asked.out / "nnunet.nii.gz")]
        else:
            bundle = folders["medseg" if tool == "medseg" else "without_air"]
            options = ["--no-preview", "--overwrite", "--device", "cpu", *["--fast"] * (tool == "fast")]
            out = str(asked.out / f"masks_{tool}")
            command = [sys.executable, "-m", "medseg", "predict", str(bundle), str(image), "-o", out, *options]
        results[tool] = measured(command)
        kept.write_text(json.dumps(results))
    lines = [f"CT of {' x '.join(map(str, asked.size))} voxels of {asked.spacing} mm, grid of {asked.grid:g} mm", ""]
    lines += ["| tool | CPU seconds | peak memory, GB |", "|---|---|---|"]
    lines += [f"| {tool} | {seconds:.1f} | {memory:.2f} |" for tool, (seconds, memory) in results.items()]
    text = "\n".join(lines) + "\n"
    (asked.out / "RESULTS.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
