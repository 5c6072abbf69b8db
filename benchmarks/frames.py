"""Frames per second of real-time networks by `Model.stream`, in three sections; --sections chooses.

    python benchmarks/frames.py [--sizes 256x512 512x512 720x1280] [--threads 1 2] [--engines eager openvino]

`speed`: ENet, BiSeNetV2, ICNet and DeepLabv3 on MobileNetV3, with batch norm as in the papers, three channels to one
label, one whole frame (rows x columns) at a time without mirroring, by every engine of this machine: frames of 8 bits
in, masks out. They are trained for some steps to find what is bright: an engine that changes labels is refused, and the
labels of random weights are a matter of rounding. Where one is refused, the row says so. Each figure is from a process
of its own, the engines in alternating order over the rounds; the best round counts. Frames/s by the wall clock are what
a viewer sees; those of processor time (threads x frames / processor seconds) are what remains where other programs take
their share of the processor, for one thread: several threads wait for each other at work, which counts, too.

`growth`: the resident memory after 100 and after 1,000 frames of one stream.

`slow`: a camera of 100 frames per second and a consumer that takes 50 ms for each mask.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NETS = {
    "ENet": ("enet", None),
    "BiSeNetV2": ("bisenetv2", None),
    "ICNet": ("icnet", None),
    "DeepLabv3-MobileNetV3": ("deeplabv3", "mobilenet_v3_large"),
}
# Frames before the clock starts: a graph is made, judged and optimised on the first ones.
WARM_UP = 4

RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from frames import stream_frames
print(json.dumps(stream_frames(*sys.argv[2:4], json.loads(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6]))))
"""


def bundle(folder: Path, name: str, backbone: str | None, size: tuple[int, int], norm: str) -> Path:
    """A model with random weights whose window is the frame: (rows, columns) are medseg's y and x."""
    import torch

    from medseg.inference import BundleInfo, NetInfo, PredictionInfo, Provenance, save_bundle
    from medseg.preparation.plan import ChannelPlan, Plan

    plan = Plan(
        dims=2,
        orientation=None,
        spacing_mm=None,
        patch_size=(size[1], size[0]),
        batch_size=1,
        in_channels=3,
        normalization=(ChannelPlan(kind="rgb", mean=0.45, std=0.22),) * 3,
        channels=(8,),
        strides=((1, 1),),
    )
    net = NetInfo(name=name, dims=2, in_channels=3, out_channels=2, backbone=backbone, options={"norm": norm})
    info = BundleInfo(
        labels={"object": 1}, plan=plan, net=net, prediction=PredictionInfo(mirror_axes=()), provenance=Provenance()
    )
    torch.manual_seed(0)
    built = info.net.build()
    train(built)
    return save_bundle(folder, info, {0: built.state_dict()})


def train(net: Any, steps: int = 60) -> None:
    """Some steps towards a mask of what is bright."""
    import torch

    from medseg.losses import build_loss

    loss = build_loss("dice_ce")
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    frames = [torch.from_numpy(frame).movedim(-1, 0).float() for frame in pictures((64, 128), 8)]
    for step in range(steps):
        batch = torch.stack([frames[(2 * step + n) % len(frames)] for n in range(2)])
        labels = (batch.mean(1, keepdim=True) > 128).long()
        answer = net((batch / 255 - 0.45) / 0.22)
        # Auxiliary logits may be smaller, and are not used in prediction.
        main = answer[0] if isinstance(answer, tuple) else answer
        optimizer.zero_grad()
        loss(main, labels).backward()
        optimizer.step()


def pictures(size: tuple[int, int], count: int) -> Iterator[NDArray[np.uint8]]:
    """Frames of smooth noise that moves, made before so that making them costs nothing."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (-(-size[0] // 16), -(-size[1] // 16), 3), np.uint8)
    frame = np.kron(coarse, np.ones((16, 16, 1), np.uint8))[: size[0], : size[1]]
    some = [np.ascontiguousarray(np.roll(frame, 4 * n, axis=1)) for n in range(8)]
    return (some[n % len(some)] for n in range(count))


def stream_frames(path: str, engine: str, size: list[int], threads: int, count: int) -> dict[str, float]:
    """Frames per second of one stream, after a warm-up."""
    import torch

    import medseg

    torch.set_num_threads(threads)
    refusals = Refusals()
    model = medseg.load_model(path, "cpu", engine, fast=True)
    where = (size[0], size[1])
    latencies = []
    with model.stream(pictures(where, WARM_UP + count), drop=False, whole=True, mirror=False) as stream:
        for each in stream:
            latencies.append(each.seconds)
            if each.number == WARM_UP - 1:
                start, cpu_start = time.perf_counter(), time.process_time()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    late = float(np.quantile(latencies[WARM_UP:], 0.95))
    figures = {"wall": count / seconds, "cpu": threads * count / cpu_seconds, "p95_ms": 1000 * late}
    return figures | {"refused": float(refusals.any)}


class Refusals(logging.Handler):
    """Notes whether batches were left to the network as it is."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.any = False
        logger = logging.getLogger("medseg.inference.engines")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Every line of these modules says so."""
        self.any = True


def apart(path: Path, engine: str, size: tuple[int, int], threads: int, count: int) -> dict[str, float] | str:
    """`stream_frames` in a process of its own; or the last line of its error."""
    here = str(Path(__file__).parent)
    command = [sys.executable, "-W", "ignore", "-c", RUN, here, str(path), engine, json.dumps(size)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [*command, str(threads), str(count)], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:160]
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def speed(options: argparse.Namespace) -> None:
    """Print a row for each network, size and number of threads."""
    import torch

    from medseg.errors import MedsegError
    from medseg.inference.engine import ENGINES, NetworkEngine

    engines = []
    for name in options.engines or ENGINES:
        try:
            NetworkEngine(torch.device("cpu"), name, fast=True)
        except MedsegError as error:
            print(f"left out: {error}")
        else:
            engines.append(name)
    print("| network | rows x columns | threads | engine | frames/s, processor time | frames/s, wall | 95 % ms |")
    print("| --- | --- | --: | --- | --: | --: | --: |", flush=True)
    for net in options.nets:
        for size in options.sizes:
            with tempfile.TemporaryDirectory() as folder:
                path = bundle(Path(folder) / "model", *NETS[net], size, options.norm)
                for threads in options.threads:
                    best: dict[str, dict[str, float]] = {}
                    refused: dict[str, str] = {}
                    for turn in range(options.rounds):
                        for engine in engines if turn % 2 == 0 else engines[::-1]:
                            if engine in refused:
                                continue
                            found = apart(path, engine, size, threads, options.frames)
                            if isinstance(found, str):
                                refused[engine] = found
                            elif engine not in best or found["cpu"] > best[engine]["cpu"]:
                                best[engine] = found
                    for engine, found in sorted(best.items(), key=lambda item: -item[1]["cpu"]):
                        figures = f"{found['cpu']:.1f} | {found['wall']:.1f} | {found['p95_ms']:.0f}"
                        name = f"{engine} (refused: eager)" if found["refused"] else engine
                        print(f"| {net} | {size[0]} x {size[1]} | {threads} | {name} | {figures} |", flush=True)
                    for engine, why in refused.items():
                        print(f"| {net} | {size[0]} x {size[1]} | {threads} | {engine} | {why} | | |", flush=True)


def growth(options: argparse.Namespace) -> None:
    """Print the resident memory within one stream of 1,000 frames."""
    import medseg

    size = (128, 256)
    with tempfile.TemporaryDirectory() as folder:
        model = medseg.load_model(bundle(Path(folder) / "model", "enet", None, size, options.norm), "cpu")
        held = {}
        with model.stream(pictures(size, 1000), drop=False, whole=True, mirror=False, smoothing=0.5) as stream:
            for each in stream:
                if each.number in (100, 500, 999):
                    pages = int(Path("/proc/self/statm").read_text().split()[1])
                    held[each.number] = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    print("growth: " + ", ".join(f"{megabytes:.1f} MB after {number} frames" for number, megabytes in held.items()))


def slow(options: argparse.Namespace) -> None:
    """Print what a stream says whose consumer is slow."""
    import medseg

    size = (64, 128)

    def camera() -> Iterator[NDArray[np.uint8]]:
        for frame in pictures(size, 200):
            time.sleep(0.01)
            yield frame

    with tempfile.TemporaryDirectory() as folder:
        model = medseg.load_model(bundle(Path(folder) / "model", "enet", None, size, options.norm), "cpu")
        with model.stream(camera(), whole=True, mirror=False) as stream:
            for _ in stream:
                time.sleep(0.05)
    print(f"slow consumer: {stream.timings.text()}")


def main() -> None:
    """Print the sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sections", nargs="+", default=["speed", "growth", "slow"], choices=["speed", "growth", "slow"]
    )
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=list(NETS))
    parser.add_argument("--sizes", nargs="+", default=["256x512", "512x512", "720x1280"], help="rows x columns")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--engines", nargs="+", help="all that this machine has")
    parser.add_argument("--norm", default="batch", choices=["batch", "instance"])
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    options.sizes = [tuple(int(n) for n in size.split("x")) for size in options.sizes]
    for section in options.sections:
        {"speed": speed, "growth": growth, "slow": slow}[section](options)


if __name__ == "__main__":
    main()
