"""Engines and INT8, each beside the network as torch runs it; --sections chooses.

    python benchmarks/deployment.py --sections engines [--nets unet nnunet_plain] [--size 128]
    python benchmarks/deployment.py --sections int8 --runs RUN ...

`engines`: an image of 128^3 voxels to labels, one core: MONAI's sliding window inferer over the network as it is and an
argmax, beside medseg's sliding window and labels over each engine, all in one process. The 3D U-Net 16-32-64-128, and
nnU-Net's plain one, 32 to 320 channels. CPU seconds, the shortest of --repeats passes after one that is not counted,
and those of the network alone, which no sliding window can save.

`int8`: networks of trained runs in INT8, calibrated on prepared training cases. Size of the files, CPU seconds for a
window beside the same engine's float32, and the Dice that is lost on the validation cases of the run, with the
bootstrap interval of its mean over cases.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before torch is imported: one core.
os.environ["OMP_NUM_THREADS"] = "1"

NETS = {"unet": {"channels": (16, 32, 64, 128)}, "nnunet_plain": {}}
CLASSES = 3
TARGETS = {"float32": 0.6, "bf16": 0.4}
RESAMPLES = 2000


class Timed:
    """A network that counts the CPU seconds of its calls; `least` is that of the shortest."""

    def __init__(self, network: Callable[..., Any]) -> None:
        self.network, self.least = network, math.inf

    def __call__(self, batch: Any) -> Any:
        start = time.process_time()
        answer = self.network(batch)
        self.least = min(self.least, time.process_time() - start)
        return answer


def seconds(run: Callable[[], object], repeats: int = 2) -> float:
    """CPU seconds: the shortest of some passes, after one that lays out the kernels."""
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def engines(name: str, size: int, repeats: int) -> None:
    """Print the time of each engine for one network."""
    import torch
    from monai.inferers import sliding_window_inference

    from medseg.inference.engines.torch_engines import torch_network
    from medseg.inference.layer_memory import layer_memory_kept
    from medseg.inference.onnx_network import OnnxNetwork
    from medseg.inference.openvino_network import OpenvinoNetwork
    from medseg.inference.restore import to_label_map
    from medseg.inference.sliding_window import image_logits
    from medseg.inference.window_grid import Windows
    from medseg.nets import build_net
    from medseg.nets.onnx_graph import onnx_graph

    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = build_net(name, dims=3, in_channels=1, out_channels=CLASSES, **NETS[name]).eval().requires_grad_(False)
    patch = (size,) * 3
    image = torch.nn.functional.interpolate(torch.randn(1, 1, 16, 16, 16), size=patch, mode="trilinear")

    def by_monai() -> object:
        with torch.inference_mode():
            return sliding_window_inference(image, patch, 1, net, overlap=0.5, mode="gaussian").argmax(1)

    def by_medseg(network: Callable[[torch.Tensor], torch.Tensor]) -> object:
        return to_label_map(image_logits(network, image[0], Windows(patch), CLASSES).numpy(), patch)

    def by_arrays(network: Callable[..., object]) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda batch: torch.from_numpy(network(batch.numpy()))

    monai = seconds(by_monai, repeats)
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    print(f"{name}, {millions:.1f} M parameters, {size}^3: MONAI's sliding window over it {monai:.2f} s", flush=True)
    start = time.process_time()
    graph = onnx_graph(net, 1, patch)
    print(f"    written as ONNX in {time.process_time() - start:.1f} s", flush=True)
    makers: dict[str, Callable[[], Callable[[torch.Tensor], torch.Tensor]]] = {
        "openvino": lambda: by_arrays(OpenvinoNetwork(graph)),
        "openvino-bf16": lambda: by_arrays(OpenvinoNetwork(graph, precision="bf16")),
        "bf16": lambda: torch_network("bf16", net, False),
        "eager": lambda: net,
        "winograd": lambda: torch_network("winograd", net, False),
        "frozen": lambda: torch_network("frozen", net, False),
        "onnxruntime": lambda: by_arrays(OnnxNetwork(graph)),
    }
    shares = {}
    for engine, make in makers.items():
        network = make()
        # As over the many windows of an image.
        with layer_memory_kept():
            timed = Timed(network)
            took = seconds(lambda timed=timed: by_medseg(timed), repeats)
        alone, shares[engine] = timed.least, took / monai
        print(f"    {engine}: {took:.2f} s, {took / monai:.2f} of MONAI's; the network {alone / monai:.2f}", flush=True)
        del network, timed
    for precision, target in TARGETS.items():
        best = min((share, engine) for engine, share in shares.items() if ("bf16" in engine) == (precision == "bf16"))
        print(f"    best in {precision}: {best[1]}, {best[0]:.2f} of MONAI's (target {target})", flush=True)


def int8(run: Path, kind: str) -> None:
    """Print size, speed and loss of a run's network in INT8."""
    import numpy as np
    import torch

    from medseg.inference import load_model
    from medseg.inference.onnx_network import OnnxNetwork
    from medseg.inference.openvino_network import OpenvinoNetwork
    from medseg.inference.quantisation import quantised
    from medseg.inference.quantisation.dice_loss import Judge
    from medseg.inference.quantisation.windows import stored_cases
    from medseg.nets.onnx_graph import onnx_graph

    torch.set_num_threads(1)
    model = load_model(run / "model", "cpu")
    info = model.info
    split = json.loads((run / "split.json").read_text(encoding="utf-8"))
    graph = onnx_graph(model.nets[0], info.net.in_channels, info.plan.patch_size)
    start = time.process_time()
    made = quantised(
        graph,
        kind,
        stored_cases(run / "prepared", info.plan, model.scheme, split["train"]),
        regions=model.scheme.is_regions,
    )
    took = time.process_time() - start

    def network(content: bytes, weights: bytes | None = None) -> Callable[..., object]:
        return OnnxNetwork(content) if kind == "onnx" else OpenvinoNetwork(content, weights)

    in_float, in_int8 = network(graph), network(made.content, made.weights)
    cases = stored_cases(run / "prepared", info.plan, model.scheme, split["validation"])
    losses = Judge(in_float, cases, model.scheme.is_regions).losses(in_int8)
    rng = np.random.default_rng(0)
    means = losses[rng.integers(len(losses), size=(RESAMPLES, len(losses)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    window = cases[0].windows[:1]
    slow, fast = seconds(lambda: in_float(window)), seconds(lambda: in_int8(window))
    parameters = sum(p.numel() for p in model.nets[0].parameters())
    weights = made.weights if made.weights is not None else made.content
    print(
        f"{info.net.name} {info.net.dims}D, {parameters / 1e6:.1f} M parameters, {kind}, {took:.0f} s to write\n"
        f"    weights {len(weights) / len(graph):.1%} of the float file, with the description of the graph "
        f"{made.bytes / len(graph):.1%} (target 27%); left in float {made.floating_share:.1%} of the weights "
        f"({', '.join(made.floating) or 'no layer'})\n"
        f"    {slow:.3f} s a window in float32, {fast:.3f} s in INT8: {slow / fast:.1f} times as fast (target 2)\n"
        f"    Dice lost on {len(losses)} validation cases {losses.mean():.4f}, interval {low:.4f} to {high:.4f} "
        f"(upper bound at most 0.01)",
        flush=True,
    )


def main() -> None:
    """Print the tables."""
    from medseg.machine import processor

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", default=["engines"], choices=["engines", "int8"])
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=list(NETS))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--runs", type=Path, nargs="+", default=[])
    parser.add_argument("--kinds", nargs="+", default=["openvino"], choices=["onnx", "openvino"])
    options = parser.parse_args()
    model, flags = processor()
    vectors = sorted(each for each in flags if each.startswith(("avx2", "avx512f", "avx512_", "avx_vnni", "amx")))
    print(f"{model}: {' '.join(vectors)}", flush=True)
    if "engines" in options.sections:
        for name in options.nets:
            engines(name, options.size, options.repeats)
    if "int8" in options.sections:
        for run in options.runs:
            for kind in options.kinds:
                int8(run, kind)


if __name__ == "__main__":
    main()
