"""Frames per second of real-time networks by `Model.stream`, in three sections; --sections chooses.

    python benchmarks/frames.py [--sizes 256x512 512x512 720x1280] [--threads 1 2] [--engines eager openvino] [--best]

`speed`: ENet, BiSeNetV2, ICNet and DeepLabv3 on MobileNetV3, with batch norm as in the papers, three channels to one
label, one whole frame (rows x columns) at a time without mirroring, by every engine of this machine: frames of 8 bits
in, masks out. They are trained for some steps to find what is bright: an engine that changes labels is refused, and the
labels of random weights are a matter of rounding. Where one is refused, the row says so. Each figure is from a process
of its own, the engines in alternating order over the rounds; the best round counts. A process starts, and where needed
writes an ONNX graph, for 5 to 15 s, then shows frames for --seconds of processor time. Engines with less than half of
the best one's frames are left out in later rounds, sizes and numbers of threads.

Frames/s by the wall clock are what a viewer sees; those of processor time (threads x frames / processor seconds) are
what remains where other programs take their share of the processor, for one thread: several threads wait for each other
at work, which counts, too.

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
# Of each measurement, however long they take; and the most.
FEWEST, MOST = 4, 200
# Of the best engine's frames per second: less is not measured again.
CONTENDING = 0.5

RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from frames import stream_frames
print(json.dumps(stream_frames(*sys.argv[2:4], json.loads(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6]))))
"""


def bundle(folder: Path, trained: TrainedNet, size: tuple[int, int]) -> Path:
    """A model whose window is the frame: (rows, columns) are medseg's y and x."""
    from medseg.inference import BundleInfo, PredictionInfo, Provenance, save_bundle
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
    info = BundleInfo(
        labels={"object": 1},
        plan=plan,
        net=trained.info,
        prediction=PredictionInfo(mirror_axes=()),
        provenance=Provenance(),
    )
    return save_bundle(folder, info, {0: trained.weights})


class TrainedNet:
    """A network after some steps towards a mask of what is bright, on small frames: once for all sizes.

    One thread: others would wait for each other at such small frames.
    """

    def __init__(self, name: str, backbone: str | None, norm: str, steps: int = 60) -> None:
        import torch

        from medseg.inference import NetInfo
        from medseg.losses import build_loss

        self.info = NetInfo(name=name, dims=2, in_channels=3, out_channels=2, backbone=backbone, options={"norm": norm})
        torch.set_num_threads(1)
        torch.manual_seed(0)
        net = self.info.build()
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
        self.weights = net.state_dict()


def pictures(size: tuple[int, int], count: int) -> Iterator[NDArray[np.uint8]]:
    """Frames of smooth noise that moves, made before so that making them costs nothing."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (-(-size[0] // 16), -(-size[1] // 16), 3), np.uint8)
    frame = np.kron(coarse, np.ones((16, 16, 1), np.uint8))[: size[0], : size[1]]
    some = [np.ascontiguousarray(np.roll(frame, 4 * n, axis=1)) for n in range(8)]
    return (some[n % len(some)] for n in range(count))


def stream_frames(path: str, engine: str, size: list[int], threads: int, seconds: float) -> dict[str, float]:
    """Frames per second of one stream, after a warm-up, over so many seconds of processor time."""
    import torch

    import medseg

    torch.set_num_threads(threads)
    refusals = Refusals()
    model = medseg.load_model(path, "cpu", engine, fast=True)
    where = (size[0], size[1])
    latencies = []
    start, cpu_start, count = time.perf_counter(), time.process_time(), 0
    with model.stream(pictures(where, WARM_UP + MOST), drop=False, whole=True, mirror=False) as stream:
        for each in stream:
            if each.number < WARM_UP:
                start, cpu_start = time.perf_counter(), time.process_time()
                continue
            count += 1
            latencies.append(each.seconds)
            wall, cpu = time.perf_counter() - start, time.process_time() - cpu_start
            if count >= FEWEST and cpu > seconds:
                break
    late = float(np.quantile(latencies, 0.95))
    figures = {"wall": count / wall, "cpu": threads * count / cpu, "p95_ms": 1000 * late}
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


def apart(path: Path, engine: str, size: tuple[int, int], threads: int, seconds: float) -> dict[str, float] | str:
    """`stream_frames` in a process of its own; or the last line of its error."""
    here = str(Path(__file__).parent)
    command = [sys.executable, "-W", "ignore", "-c", RUN, here, str(path), engine, json.dumps(size)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [*command, str(threads), str(seconds)], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:160]
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def usable(names: list[str] | None) -> list[str]:
    """The engines of this machine; TensorRT without a GPU is ONNX Runtime again."""
    import torch

    from medseg.errors import MedsegError
    from medseg.inference.engine import ENGINES, NetworkEngine

    engines = []
    for name in names or [each for each in ENGINES if each != "tensorrt" or torch.cuda.is_available()]:
        try:
            NetworkEngine(torch.device("cpu"), name, fast=True)
        except MedsegError as error:
            print(f"left out: {error}")
        else:
            engines.append(name)
    return engines


def speed(options: argparse.Namespace) -> None:
    """Print a row for each network, size and number of threads."""
    engines = usable(options.engines)
    print("| network | rows x columns | threads | engine | frames/s, processor time | frames/s, wall | 95 % ms |")
    print("| --- | --- | --: | --- | --: | --: | --: |", flush=True)
    for net in options.nets:
        contending, trained = engines, TrainedNet(*NETS[net], options.norm)
        for size in options.sizes:
            with tempfile.TemporaryDirectory() as folder:
                path = bundle(Path(folder) / "model", trained, size)
                for threads in options.threads:
                    best: dict[str, dict[str, float]] = {}
                    refused: dict[str, str] = {}
                    for turn in range(options.rounds):
                        for engine in contending if turn % 2 == 0 else contending[::-1]:
                            found = apart(path, engine, size, threads, options.seconds)
                            if isinstance(found, str):
                                refused[engine] = found
                            elif engine not in best or found["cpu"] > best[engine]["cpu"]:
                                best[engine] = found
                        least = CONTENDING * max((found["cpu"] for found in best.values()), default=0.0)
                        contending = [each for each in contending if each in best and best[each]["cpu"] >= least]
                    ranking = sorted(best.items(), key=lambda item: -item[1]["cpu"])
                    for engine, found in ranking[: 1 if options.best else None]:
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
        model = medseg.load_model(bundle(Path(folder) / "model", TrainedNet(*NETS["ENet"], options.norm), size), "cpu")
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
        model = medseg.load_model(bundle(Path(folder) / "model", TrainedNet(*NETS["ENet"], options.norm), size), "cpu")
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
    parser.add_argument("--seconds", type=float, default=3, help="processor time of a measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--best", action="store_true", help="only the best engine's rows")
    options = parser.parse_args()
    options.sizes = [tuple(int(n) for n in size.split("x")) for size in options.sizes]
    for section in options.sections:
        {"speed": speed, "growth": growth, "slow": slow}[section](options)


if __name__ == "__main__":
    main()
