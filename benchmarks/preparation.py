"""Preparing one CT of 512x512x300 voxels with labels to 1.5 mm, beside nnU-Net: CPU seconds and peak memory.

    python benchmarks/preparation.py --nnunet-python VENV/bin/python [--rounds 2] [--shape 512 512 300]

The CT is made: an ellipsoid of smooth noise in air, voxels of 0.8x0.8x1.0 mm, int16, five organs as labels, both as
.nii.gz. medseg runs its whole `prepare` of a data set with this one case: checks, fingerprint, plan (with
`plan.spacing_mm=[1.5, 1.5, 1.5]`), stored arrays. nnU-Net runs `DefaultPreprocessor.run_case_save` with its default
resampling (cubic images, labels one by one): reading, cropping, normalising, resampling, storing, and not its
fingerprint, which it extracts before. Each run is a process of its own with one thread, and the two take turns. CPU
seconds and memory count from after the imports; memory is the peak of the resident set above what it was then.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from cpu_trainings import start

SPACING, TARGET = (0.8, 0.8, 1.0), (1.5, 1.5, 1.5)
TARGETS = {"CPU time": 1 / 5, "peak memory": 1 / 4}
CENTRES = ((0.4, 0.4, 0.3), (0.6, 0.45, 0.5), (0.5, 0.6, 0.7), (0.35, 0.55, 0.6), (0.62, 0.62, 0.35))

# Runs in either Python.
RUN = """
import json, os, sys, threading, time
from pathlib import Path
who, image, labels, out = sys.argv[1], *map(Path, sys.argv[2:5])
if who == 'medseg':
    from medseg.config import config_from_values
    from medseg.preparation import prepare
    import scipy.ndimage, nibabel
    values = {'data': {'root': str(image.parent.parent), 'layout': 'folders', 'modality': 'CT',
                       'labels': {f'organ{n}': n for n in range(1, 6)}},
              'plan': {'spacing_mm': [1.5, 1.5, 1.5]}, 'output': str(out)}
    config = config_from_values(values, {}, 'benchmark', 'benchmark')
    job = lambda: prepare(config, workers=1)
else:
    import torch
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    torch.set_num_threads(1)
    plans = PlansManager(json.loads((out.parent / 'plans.json').read_text()))
    description = {'channel_names': {'0': 'CT'}, 'file_ending': '.nii.gz', 'numTraining': 1,
                   'labels': {'background': 0, **{f'organ{n}': n for n in range(1, 6)}}}
    out.mkdir()
    job = lambda: DefaultPreprocessor(verbose=False).run_case_save(
        str(out / 'case'), [str(image)], str(labels), plans, plans.get_configuration('3d_fullres'), description)
def resident():
    return int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
base, peak, stop = resident(), 0, threading.Event()
def watch():
    global peak
    while not stop.is_set():
        peak = max(peak, resident() - base)
        time.sleep(0.005)
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
before = sum(os.times()[:4])
job()
seconds = sum(os.times()[:4]) - before
stop.set()
watcher.join()
(out.parent / 'result.json').write_text(json.dumps({'CPU time': seconds, 'peak memory': peak / 1e6}))
"""


def made_ct(shape: tuple[int, ...], folder: Path) -> tuple[Path, Path]:
    """Write `images/ct.nii.gz` and `labels/ct.nii.gz`."""
    from scipy import ndimage

    import medseg

    rng = np.random.default_rng(0)
    coarse = rng.normal(0, 60, [n // 16 + 2 for n in shape]).astype(np.float32)
    image = ndimage.zoom(coarse, [n / m for n, m in zip(shape, coarse.shape, strict=True)], order=1)
    axes = [np.linspace(0, 1, n, dtype=np.float32).reshape([-1 if a == k else 1 for a in range(3)])
            for k, n in enumerate(shape)]  # fmt: skip
    labels = np.zeros(shape, np.uint8)
    for value, centre in enumerate(CENTRES, start=1):
        inside = sum((each - c) ** 2 for each, c in zip(axes, centre, strict=True)) < 0.08**2
        labels[inside] = value
        image[inside] += 30 * value
    body = (axes[0] - 0.5) ** 2 / 0.44**2 + (axes[1] - 0.5) ** 2 / 0.36**2 + 0 * axes[2] < 1
    image[~np.broadcast_to(body, shape)] = -1000
    image += rng.normal(0, 12, shape[:2]).astype(np.float32)[:, :, None]
    affine = np.diag([*SPACING, 1.0])
    paths = folder / "images" / "ct.nii.gz", folder / "labels" / "ct.nii.gz"
    for path, array in zip(paths, (np.rint(image).astype(np.int16), labels), strict=True):
        path.parent.mkdir(parents=True)
        medseg.write(medseg.Volume(array, affine), path)
    return paths


def nnunet_plans() -> dict[str, object]:
    """What nnU-Net plans for a CT at 1.5 mm, as far as preprocessing looks at it."""
    configuration: dict[str, object] = {
        "data_identifier": "benchmark",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [96, 128, 128],
        "spacing": list(TARGET),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": False,
        "architecture": {"network_class_name": "", "arch_kwargs": {}, "_kw_requires_import": []},
    }
    for what, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        configuration[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        options = {"is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None}
        configuration[f"resampling_fn_{what}_kwargs"] = options
    return {
        "dataset_name": "Dataset001_Benchmark",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 90.0, "std": 70.0, "percentile_00_5": -100.0, "percentile_99_5": 300.0}
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nnunet-python", help="without it medseg runs alone")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 300))
    asked = parser.parse_args()
    pythons = {"medseg": sys.executable} | ({"nnU-Net": asked.nnunet_python} if asked.nnunet_python else {})
    found: dict[str, list[dict[str, float]]] = {who: [] for who in pythons}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, labels = made_ct(tuple(asked.shape), folder / "data")
        for turn in range(asked.rounds):
            for who, python in pythons.items():
                place = folder / f"{who}{turn}"
                place.mkdir()
                (place / "plans.json").write_text(json.dumps(nnunet_plans()))
                command = [python, "-c", RUN, who, str(image), str(labels), str(place / "out")]
                start(command, place / "output.log")
                found[who].append(json.loads((place / "result.json").read_text()))
                print(f"{who}: " + ", ".join(f"{k} {v:.1f}" for k, v in found[who][-1].items()), flush=True)
                subprocess.run(["rm", "-rf", str(place)], check=True)
    for what, target in TARGETS.items():
        middle = {who: float(np.median([each[what] for each in runs])) for who, runs in found.items()}
        unit = "s" if what == "CPU time" else "MB"
        line = f"{what}: " + ", ".join(f"{who} {value:.1f} {unit}" for who, value in middle.items())
        if "nnU-Net" in middle:
            share = middle["medseg"] / middle["nnU-Net"]
            line += f"; medseg takes {share:.3f} (target {target:.2f}: {'met' if share <= target else 'MISSED'})"
        print(line)


if __name__ == "__main__":
    main()
