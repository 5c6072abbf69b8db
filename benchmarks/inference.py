"""Prediction side by side with others, in three sections; --sections chooses.

    python benchmarks/inference.py --nnunet-python VENV/bin/python [--model BUNDLE --image IMAGE] [--classes 5 25]

`native`: logits to native labels beside nnU-Net's export: 512x512x300 voxels from logits at 1.5 mm. Each contender runs
in a process of its own, one thread, on the same logits: smooth random ones (the worst case, a fifth of the cells lies
on a boundary) and, with --model and --image, those of a trained network, mirrored until they fill the grid. CPU
seconds; memory is the peak of the resident set above the logits. Labels are compared with torch's interpolation of
every channel over the whole grid. nnU-Net is left out where no Python with it is given.

`whole`: 256x256x128 voxels to labels by 50 windows of 96^3, beside MONAI's `sliding_window_inference` + argmax with the
same network run eagerly: medseg's U-Net 16-32-64-128, and MONAI's UNet of these channels with two residual units. Each
run is a process of its own. 'stitching' is the same run with a network that answers at once with
smooth random logits made before, the best of three. 'measured' is what `predict` does with this one image: it tries the
engines first, which counts.

`memory`: the peak of the resident set of whole `medseg predict` runs, U-Net 16-32-64-128 at 1.5 mm with 25 classes: a
DICOM study of 512x512x300 voxels (0.8x0.8x1.0 mm), one of 1,200 slices, and 20 smaller ones, with what is held after
each. --studies chooses; the image is a phantom's, or with --image a real CT's, enlarged.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from inference_memory import STUDIES, memory

WHOLE_SHAPE, PATCH, OVERLAP = (256, 256, 128), (96, 96, 96), 0.5
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

# One prediction in a process of its own: no contender finds memory that another has left behind.
RUN_WHOLE = """
import json, sys, time
sys.path.insert(0, sys.argv[4])
import numpy as np, torch
torch.set_num_threads(1)
who, path, out, _, batch, answers = *sys.argv[1:5], int(sys.argv[5]), sys.argv[6]
from inference import OVERLAP, PATCH, whole_image
from medseg.inference import load_model
import dataclasses
engine = who if who in ('winograd', 'frozen', 'bf16') else None
model = load_model(path, 'cpu', engine, fast=who == 'bf16', allow_code=('inference',))
if who == 'measured':
    model = dataclasses.replace(model, engine=model.engine.for_images(1))
image = whole_image()
classes = model.info.net.out_channels
made = torch.nn.functional.interpolate(torch.randn(batch, classes, 12, 12, 12), size=PATCH, mode='trilinear')
net = (lambda x: made[:len(x)]) if answers == 'made' else model.nets[0]
if who == 'monai':
    from monai.inferers import sliding_window_inference
    tensor = torch.from_numpy(image)[None, None]
    def job():
        return sliding_window_inference(tensor, PATCH, batch, net, overlap=OVERLAP, mode='gaussian').argmax(1)[0]
elif who == 'network':
    windows = torch.from_numpy(image[:96, :96, :96]).expand(batch, 1, *PATCH).contiguous()
    def job():
        for _ in range(50 // batch):
            net(windows)
        return np.zeros(0)
else:
    if answers == 'made':
        model = dataclasses.replace(model, nets=(net,))
    job = lambda: model.predict(image, np.eye(4), batch_size=batch).array
with torch.inference_mode():
    net(torch.zeros(batch, 1, *PATCH))
    seconds = []
    for _ in range(3 if answers == 'made' else 1):
        start = time.process_time()
        labels = job()
        seconds.append(time.process_time() - start)
np.save(out, np.asarray(labels).astype(np.uint8))
print(json.dumps({'seconds': min(seconds)}))
"""


def build_monai_unet(dims: int, in_channels: int, out_channels: int) -> object:
    """MONAI's own U-Net, as a plug-in net of a bundle."""
    from monai.networks.nets import UNet

    return UNet(dims, in_channels, out_channels, (16, 32, 64, 128), (2, 2, 2), num_res_units=2)


def whole_image() -> object:
    """Smooth noise, float32."""
    import torch

    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 1, *(n // 8 for n in WHOLE_SHAPE), generator=generator)
    return torch.nn.functional.interpolate(coarse, size=WHOLE_SHAPE, mode="trilinear")[0, 0].numpy()


def whole_bundle(path: Path, net: str, classes: int, spacing_mm: tuple[float, ...] | None = None) -> Path:
    """A bundle with random weights that takes the image as it is, or on a grid of `spacing_mm`."""
    import torch

    from medseg.inference import BundleInfo, NetInfo, PredictionInfo, Provenance, save_bundle
    from medseg.preparation.plan import ChannelPlan, Plan

    options = {"channels": (16, 32, 64, 128)} if net == "unet" else {}
    plan = Plan(
        dims=3,
        orientation="RAS",
        spacing_mm=spacing_mm,
        patch_size=PATCH,
        batch_size=2,
        in_channels=1,
        normalization=(ChannelPlan(kind="clip", low=-1e6, high=1e6, mean=0.0, std=1.0),),
        channels=(16, 32, 64, 128),
        strides=((1, 1, 1), *[(2, 2, 2)] * 3),
    )
    info = BundleInfo(
        labels={f"label{n}": n for n in range(1, classes)},
        plan=plan,
        net=NetInfo(name=net, dims=3, in_channels=1, out_channels=classes, options=options),
        prediction=PredictionInfo(overlap=OVERLAP, mirror_axes=()),
        provenance=Provenance(medseg="0", torch="2", config_hash="00" * 32, dataset={}, iterations=0),
    )
    torch.manual_seed(0)
    return save_bundle(path, info, {0: info.net.build().state_dict()})


def whole(classes: int, net: str, engines: list[str]) -> None:
    """Print the times of one network with this many classes."""
    import numpy as np

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = whole_bundle(folder / "model", net, classes)

        def run(who: str, batch: int = 2, answers: str = "computed") -> float:
            here = str(Path(__file__).parent)
            arguments = [who, str(bundle), str(folder / f"{who}.npy"), here, str(batch), answers]
            return start(sys.executable, RUN_WHOLE, arguments, path=here)["seconds"]

        ours, theirs = run("eager", answers="made"), run("monai", answers="made")
        alone = run("network")
        print(f"{net}, {classes} classes: network alone, eager, {alone:.1f} s")
        print(
            f"    stitching and argmax: medseg {ours:.2f} s, MONAI {theirs:.2f} s: {ours / theirs:.2f} of MONAI's "
            f"(target 0.40), {ours / alone:.3f} of the network (target 0.05 at 5 classes)",
            flush=True,
        )
        monai = {batch: run("monai", batch) for batch in (1, 2)}
        print("    MONAI: " + ", ".join(f"{s:.1f} s by {b} windows at a time" for b, s in monai.items()), flush=True)
        for engine in engines:
            seconds = run(engine)
            ratios = ", ".join(f"{seconds / s:.2f}" for s in monai.values())
            same = float((np.load(folder / f"{engine}.npy") == np.load(folder / "eager.npy")).mean())
            line = f"    medseg {engine}: {seconds:.1f} s, {ratios} of MONAI's (target 0.65)"
            print(f"{line}; {same:.5%} of labels are the eager network's", flush=True)


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
    return start(python, RUN, [who, str(logits), str(out), json.dumps(SHAPE)])


def start(python: str, code: str, arguments: list[str], path: str = "") -> dict[str, float]:
    """What a process of one thread prints last."""
    command = [python, "-W", "ignore", "-c", code, *arguments]
    environment = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PATH": "", "PYTHONPATH": path}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        raise SystemExit(f"{arguments[0]} failed: {result.stderr[-1500:]}")
    figures: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nnunet-python", default="")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--classes", type=int, nargs="+", default=[5, 25])
    parser.add_argument("--sections", nargs="+", default=["native", "whole"], choices=["native", "whole", "memory"])
    parser.add_argument("--studies", nargs="+", default=list(STUDIES), choices=list(STUDIES))
    parser.add_argument("--nets", nargs="+", default=["unet", "inference:build_monai_unet"])
    options = parser.parse_args()
    if "native" in options.sections:
        native(options)
    if "whole" in options.sections:
        from medseg.inference.engine import ENGINES, has_bf16

        # What the others' labels are compared with comes first.
        engines = ["eager", "measured", *(name for name in ENGINES[1:] if name != "bf16" or has_bf16())]
        for classes in options.classes:
            for net in options.nets:
                whole(classes, net, engines)
    if "memory" in options.sections:
        with tempfile.TemporaryDirectory() as name:
            bundle = whole_bundle(Path(name) / "model", "unet", 25, (1.5, 1.5, 1.5))
            memory(bundle, options.studies, options.image)


def native(options: argparse.Namespace) -> None:
    """Print the times and memory from logits to labels."""
    import numpy as np

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
