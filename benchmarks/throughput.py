"""Cases per hour of `medseg predict` beside `nnUNetv2_predict_from_modelfolder`, from the start of the process.

    python benchmarks/throughput.py --nnunet-python VENV/bin/python --model BUNDLE --images FILES... [--core 1]
    python benchmarks/throughput.py ... --shape 512 512 600 --spacing 0.8 0.8 1.0 --studies 3 --tta off

BUNDLE holds a trained 3D `unet` with one plain set of labels. nnU-Net gets its own U-Net blocks with max pooling, which
are the same function, and the same weights: windows, step 0.5, Gaussian weights, spacing and normalisation are the
same, so the masks can be compared (nnU-Net sums logits in half precision and resamples by splines of order 3).

Without --shape the studies are the images as they are, the last three mirrored outwards to 64^3, 64^3 and 96^3. With it
every study is an image repeated to that size. All run on one core with one thread; nnU-Net with one process each for
reading and writing, which is its best there (--processes 3 is its default). medseg writes its ledger, measurements and
previews, nnU-Net its masks only. Wall seconds count from process start; on a machine that does other work besides,
look at the CPU seconds, which include all child processes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OUTWARDS = ((64, 64, 64), (64, 64, 64), (96, 96, 96))
RUNS = ("nnunet", "medseg", "medseg --fast")
TARGETS = {"medseg": 1.7, "medseg --fast": 3.0}

# In nnU-Net's Python: its own blocks, built as `unet` is.
NETWORK = """
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder


class MaxPoolUNet(PlainConvUNet):
    def __init__(self, input_channels, num_classes, n_stages, features_per_stage, strides, deep_supervision=False):
        torch.nn.Module.__init__(self)
        conv, norm, act = torch.nn.Conv3d, torch.nn.InstanceNorm3d, torch.nn.LeakyReLU
        self.encoder = PlainConvEncoder(
            input_channels, n_stages, features_per_stage, conv, 3, strides, 2, True, norm,
            {"eps": 1e-5, "affine": True}, None, None, act, {"inplace": True}, return_skips=True, pool="max",
        )
        self.decoder = UNetDecoder(self.encoder, num_classes, 2, deep_supervision)
"""
CHECKPOINT = """
import json, sys, torch
from throughput_network import MaxPoolUNet
folder = sys.argv[1]
ours = torch.load(folder + "/ours.pt")
kwargs = json.load(open(folder + "/model/plans.json"))["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
classes, channels = len(ours["head.weight"]), ours["encoder.0.first.conv.weight"].shape[1]
net = MaxPoolUNet(channels, classes, **kwargs)
stages, state = kwargs["n_stages"], {}


def stacked(block, prefix, swap=False):
    for unit, name in zip(block.convs, ("first", "second")):
        weight = ours[f"{prefix}.{name}.conv.weight"]
        if swap and name == "first":  # we join skip and upsampled features the other way round
            weight = torch.cat(weight.split(weight.shape[1] // 2, dim=1)[::-1], dim=1)
        unit.conv.weight.copy_(weight)
        unit.conv.bias.zero_()
        unit.norm.weight.copy_(ours[f"{prefix}.{name}.norm.weight"])
        unit.norm.bias.copy_(ours[f"{prefix}.{name}.norm.bias"])


with torch.no_grad():
    for n in range(stages):
        stacked(net.encoder.stages[n][-1], f"encoder.{n}")
    for n in range(stages - 1):
        net.decoder.transpconvs[n].weight.copy_(ours[f"up.{n}.weight"])
        net.decoder.transpconvs[n].bias.copy_(ours[f"up.{n}.bias"])
        stacked(net.decoder.stages[n], f"decoder.{n}", swap=True)
    net.decoder.seg_layers[-1].weight.copy_(ours["head.weight"])
    net.decoder.seg_layers[-1].bias.copy_(ours["head.bias"])
torch.save(
    {"network_weights": net.state_dict(), "trainer_name": "nnUNetTrainer",
     "init_args": {"configuration": "3d_fullres"},
     "inference_allowed_mirroring_axes": tuple(json.load(open(folder + "/axes.json")))},
    folder + "/model/fold_0/checkpoint_final.pth",
)
"""


def main() -> None:
    """Print seconds and ratios of every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nnunet-python", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, nargs="+", required=True)
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--shape", type=int, nargs=3)
    parser.add_argument("--spacing", type=float, nargs=3)
    parser.add_argument("--tta", choices=["off", "on"], nargs="+", default=["off", "on"])
    parser.add_argument("--runs", choices=RUNS, nargs="+", default=list(RUNS))
    parser.add_argument("--processes", type=int, default=1, help="-npp and -nps of nnU-Net")
    parser.add_argument("--repeats", type=int, default=1, help="runs take turns; the fewest seconds count")
    parser.add_argument("--core", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_studies(folder, options)
        write_models(folder, options)
        for tta in options.tta:
            compare(folder, tta, options)


def write_studies(folder: Path, options: argparse.Namespace) -> None:
    """`studies/NAME.nii.gz` for medseg and the same files as `studies_nnunet/NAME_0000.nii.gz`, in RAS."""
    import numpy as np

    import medseg
    from medseg.geometry import reorient

    (folder / "studies").mkdir()
    (folder / "studies_nnunet").mkdir()
    images = [options.images[n % len(options.images)] for n in range(options.studies)]
    shapes = [options.shape] * options.studies if options.shape else [None] * (options.studies - 3) + list(OUTWARDS)
    for number, (image, shape) in enumerate(zip(images, shapes[-options.studies :], strict=True)):
        volume = reorient(medseg.read(image), "RAS")
        array = np.asarray(volume.array)
        if shape is not None:
            array = np.pad(array, [(0, max(0, n - m)) for n, m in zip(shape, array.shape, strict=True)], "symmetric")
            array = array[tuple(slice(n) for n in shape)]
        affine = np.diag([*(options.spacing or volume.spacing_mm), 1.0])
        file = folder / "studies" / f"study{number:02d}.nii.gz"
        medseg.write(medseg.Volume(array, affine), file)
        os.link(file, folder / "studies_nnunet" / f"study{number:02d}_0000.nii.gz")


def write_models(folder: Path, options: argparse.Namespace) -> None:
    """`off` and `on`, our bundle without and with mirroring, and `model`, nnU-Net's folder."""
    import torch

    from medseg.inference import load_bundle, save_bundle

    bundle = load_bundle(options.model)
    weights = {0: next(iter(bundle.weights.values()))}
    # Along axes that training never mirrored, the mean of the passes is full of near ties, which compare nothing.
    mirrored = bundle.info.prediction.mirror_axes or (0, 1, 2)
    (folder / "axes.json").write_text(json.dumps(mirrored))
    for name, axes in (("off", ()), ("on", mirrored)):
        prediction = bundle.info.prediction.model_copy(update={"mirror_axes": axes})
        save_bundle(folder / name, bundle.info.model_copy(update={"prediction": prediction}), weights)
    (folder / "model" / "fold_0").mkdir(parents=True)
    plan = bundle.info.plan
    level = plan.normalization[0]
    resample = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "throughput",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": plan.patch_size,
        "median_image_size_in_voxels": plan.patch_size,
        "spacing": plan.spacing_mm,
        "normalization_schemes": ["ZScoreNormalization" if level.kind == "zscore" else "CTNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": False,
        "architecture": {
            "network_class_name": "throughput_network.MaxPoolUNet",
            "arch_kwargs": {
                "n_stages": len(plan.channels),
                "features_per_stage": plan.channels,
                "strides": plan.strides,
            },
            "_kw_requires_import": [],
        },
    }
    for what, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        configuration[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        configuration[f"resampling_fn_{what}_kwargs"] = {**resample, "is_seg": what == "seg", "order": order}
    intensities = {"mean": level.mean, "std": level.std, "percentile_00_5": level.low, "percentile_99_5": level.high}
    plans = {
        "dataset_name": "Dataset001_Throughput",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": plan.spacing_mm,
        "original_median_shape_after_transp": plan.patch_size,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [2, 1, 0],
        "transpose_backward": [2, 1, 0],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensities},
    }
    labels = {"background": 0, **bundle.info.labels}
    dataset = {"channel_names": {"0": "image"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "model" / "plans.json").write_text(json.dumps(plans))
    (folder / "model" / "dataset.json").write_text(json.dumps(dataset))
    torch.save(weights[0], folder / "ours.pt")
    (folder / "throughput_network.py").write_text(NETWORK)
    run([options.nnunet_python, "-c", CHECKPOINT, str(folder)], folder, options)


def compare(folder: Path, tta: str, options: argparse.Namespace) -> None:
    """Run all contenders in turn and print a line each."""
    seconds = {who: (float("inf"), float("inf"), 0.0) for who in options.runs}
    for _ in range(options.repeats):
        for who in options.runs:
            out = folder / f"{who} {tta}".replace(" ", "_")
            subprocess.run(["rm", "-rf", str(out)], check=True)
            if who == "nnunet":
                command = [str(Path(options.nnunet_python).parent / "nnUNetv2_predict_from_modelfolder")]
                command += ["-i", str(folder / "studies_nnunet"), "-o", str(out), "-m", str(folder / "model")]
                command += ["-f", "0", "-device", "cpu", "--disable_progress_bar"]
                command += ["-npp", str(options.processes), "-nps", str(options.processes)]
                command += ["--disable_tta"] if tta == "off" else []
            else:
                command = [sys.executable, "-m", "medseg", "predict", str(folder / tta), str(folder / "studies")]
                command += ["-o", str(out), *(["--fast"] if who.endswith("--fast") else [])]
            wall, cpu, peak = run(command, folder, options)
            seconds[who] = (min(wall, seconds[who][0]), min(cpu, seconds[who][1]), peak)
    for who, (wall, cpu, peak) in seconds.items():
        line = f"TTA {tta}, {who}: {options.studies} studies in {wall:.1f} s wall, {cpu:.1f} s CPU, "
        line += f"{3600 * options.studies / cpu:.0f} cases per CPU hour, peak of one process so far {peak:.2f} GB"
        if who != "nnunet" and "nnunet" in seconds:
            line += f"; cases per hour {seconds['nnunet'][1] / cpu:.2f} times nnU-Net's by CPU, "
            line += f"{seconds['nnunet'][0] / wall:.2f} by wall (target {TARGETS[who]}); "
            line += agreement(folder / f"nnunet_{tta}", folder / f"{who} {tta}".replace(" ", "_"))
        print(line, flush=True)


def run(command: list[str], folder: Path, options: argparse.Namespace) -> tuple[float, float, float]:
    """Wall seconds and CPU seconds of a command and its children, and the largest resident set so far in GB."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "nnUNet_def_n_proc": "1"}
    places = {name: str(folder) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command,
        env={**os.environ, **threads, **places, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {options.core}),
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 4):
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, after.ru_maxrss / 1e6


def agreement(theirs: Path, ours: Path) -> str:
    """How many voxels have the same label, and Dice of the labelled ones."""
    import numpy as np

    import medseg

    same = voxels = both = either = 0
    for file in sorted(theirs.glob("*.nii.gz")):
        one, other = np.asarray(medseg.read(file).array), np.asarray(medseg.read(ours / file.name).array)
        same += int((one == other).sum())
        voxels += one.size
        both += int(((one == other) & (one > 0)).sum())
        either += int((one > 0).sum()) + int((other > 0).sum())
    return f"{same / voxels:.4%} of voxels alike, Dice {2 * both / max(1, either):.4f}"


if __name__ == "__main__":
    main()
