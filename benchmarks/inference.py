"""Logits to native labels side by side with nnU-Net's export: 512x512x300 voxels from logits at 1.5 mm.

    python benchmarks/inference.py --nnunet-python VENV/bin/python [--model BUNDLE --image IMAGE] [--classes 5 25]

Each contender runs in a process of its own, one thread, on the same logits: smooth random ones (the worst case, a fifth
of the cells lies on a boundary) and, with --model and --image, those of a trained network, mirrored until they fill
the grid. CPU seconds; memory is the peak of the resident set above the logits. Labels are compared with torch's
interpolation of every channel over the whole grid. nnU-Net is left out where no Python with it is given.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SIZE, SHAPE = (273, 273, 200), (512, 512, 300)
TARGETS = {"trained": 1 / 10, "smooth random": 1 / 4}

# Runs in either Python: needs torch and numpy only, and what its contender needs.
RUN = """
import json, resource, sys, threading, time
import numpy as np, torch
torch.set_num_threads(1)
who, path, out, shape = sys.argv[1], sys.argv[2], sys.argv[3], tuple(json.loads(sys.argv[4]))
logits = torch.from_numpy(np.load(path))
def resident():
    return int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()
if who == 'medseg':
    from medseg.inference.restore import to_label_map
    job = lambda: to_label_map(logits, shape)
elif who == 'torch':
    def job():
        best, label = None, np.zeros(shape, np.uint8)
        for n, channel in enumerate(logits):
            values = torch.nn.functional.interpolate(channel[None, None], size=shape, mode='trilinear')[0, 0]
            if best is None:
                best = values
                continue
            label[(values > best).numpy()] = n
            torch.maximum(best, values, out=best)
        return label
else:
    from functools import partial
    from types import SimpleNamespace
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape as run
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape as resample
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    names = {'background': 0, **{f'c{n}': n for n in range(1, len(logits))}}
    plans = SimpleNamespace(transpose_forward=[0, 1, 2], transpose_backward=[0, 1, 2])
    fn = partial(resample, is_seg=False, order=1, order_z=0, force_separate_z=None)
    config = SimpleNamespace(spacing=[1.5, 1.5, 1.5], resampling_fn_probabilities=fn)
    case = {'spacing': [0.8, 0.8, 1.0], 'shape_after_cropping_and_before_resampling': shape,
            'shape_before_cropping': shape, 'bbox_used_for_cropping': [[0, n] for n in shape]}
    job = lambda: run(logits.numpy(), plans, config, LabelManager(names, None), case, num_threads_torch=1)
base, peak, stop = resident(), 0, threading.Event()
def watch():
    global peak
    while not stop.is_set():
        peak = max(peak, resident() - base)
        time.sleep(0.005)
watcher = threading.Thread(target=watch)
watcher.start()
start = time.process_time()
labels = job()
seconds = time.process_time() - start
stop.set()
watcher.join()
np.save(out, np.asarray(labels).astype(np.uint8))
print(json.dumps({'seconds': seconds, 'mb': peak / 1e6}))
"""


def smooth_random(classes: int) -> object:
    """Normal noise at a tenth of the resolution, interpolated."""
    import numpy as np
    import torch

    generator = torch.Generator().manual_seed(0)
    logits = np.empty((classes, *SIZE), dtype=np.float32)
    for channel in logits:
        coarse = torch.randn(1, 1, *(n // 10 + 1 for n in SIZE), generator=generator)
        channel[:] = torch.nn.functional.interpolate(coarse, size=SIZE, mode="trilinear")[0, 0].numpy()
    return logits


def trained(classes: int, model: Path, image: Path) -> object:
    """A trained network's logits, mirrored until they fill the grid; each copy has its labels in other channels."""
    from itertools import product

    import numpy as np

    import medseg

    found, _ = medseg.load_model(model, "cpu").predict_logits(medseg.read(image))
    tile = found.numpy()
    logits = np.empty((classes, *SIZE), dtype=np.float32)
    counts = [-(-n // m) for n, m in zip(SIZE, tile.shape[1:], strict=True)]
    for number, place in enumerate(product(*(range(n) for n in counts))):
        turned = tile[(slice(None), *(slice(None, None, -1 if p % 2 else 1) for p in place))]
        box = tuple(slice(p * n, (p + 1) * n) for p, n in zip(place, tile.shape[1:], strict=True))
        target = logits[(slice(None), *box)]
        turned = turned[(slice(None), *(slice(0, n) for n in target.shape[1:]))]
        target[:] = turned.min(axis=0) - 1
        target[0] = turned[0]
        for label, channel in enumerate(turned[1:]):
            target[1 + (number * (len(turned) - 1) + label) % (classes - 1)] = channel
    return logits


def measure(python: str, who: str, logits: Path, out: Path) -> dict[str, float]:
    """CPU seconds and memory of one contender."""
    command = [python, "-W", "ignore", "-c", RUN, who, str(logits), str(out), json.dumps(SHAPE)]
    environment = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PATH": ""}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        raise SystemExit(f"{who} failed: {result.stderr[-1500:]}")
    figures: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Print a table."""
    import numpy as np

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nnunet-python", default="")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--classes", type=int, nargs="+", default=[5, 25])
    options = parser.parse_args()
    for classes in options.classes:
        for kind in TARGETS:
            if kind == "trained" and not (options.model and options.image):
                continue
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                made = smooth_random(classes) if kind != "trained" else trained(classes, options.model, options.image)
                np.save(folder / "logits.npy", made)
                del made
                contenders = {"medseg": sys.executable, "torch": sys.executable}
                if options.nnunet_python:
                    contenders["nnunet"] = options.nnunet_python
                figures = {
                    who: measure(python, who, folder / "logits.npy", folder / f"{who}.npy")
                    for who, python in contenders.items()
                }
                labels = np.load(folder / "medseg.npy")
                wrong = int((labels != np.load(folder / "torch.npy")).sum())
            line = ", ".join(f"{who} {f['seconds']:.1f} s {f['mb']:.0f} MB" for who, f in figures.items())
            print(f"{classes} classes, {kind}: {line}; voxels unlike torch's {wrong}", flush=True)
            if "nnunet" in figures:
                ours, theirs = figures["medseg"], figures["nnunet"]
                print(
                    f"    seconds {ours['seconds'] / theirs['seconds']:.3f} of nnU-Net's (target {TARGETS[kind]:.2f}), "
                    f"memory 1/{theirs['mb'] / ours['mb']:.1f} (target 1/15)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
