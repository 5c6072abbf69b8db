"""How a network is run: as it is, or faster. Chosen once by a measurement, then kept.

On a CPU with 3D convolutions of half the multiplications (`medseg.nets.winograd`); as a frozen graph, with its batch
norms folded into the convolutions and no Python between the layers; in bfloat16, which halves the time where the CPU
multiplies it in hardware; or as an ONNX graph by ONNX Runtime or OpenVINO, where these are installed. Their logits
differ from the network's own in the last digits, so what was chosen belongs to a mask as the model does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.inference.engines.judged import TensorNetwork
from medseg.inference.engines.names import ENGINES, EXPORTED, has_bf16, is_installed, problem_with, require_parts
from medseg.inference.engines.torch_engines import torch_network
from medseg.inference.engines.trial import Trial

__all__ = ["ENGINES", "NetworkEngine", "has_bf16"]

log = logging.getLogger(__name__)

# Winograd's convolutions save a fifth and cost about five passes to try, a graph saves a tenth at best and costs nine;
# bfloat16 halves the time and costs two.
PASSES_WORTH_WINOGRAD = 40
PASSES_WORTH_A_GRAPH = 200
# Below this the passes of a small U-Net take ten seconds altogether, and noise would choose.
VOXELS_WORTH_MEASURING = 2**23
# After so many images without enough labels to judge by, the network stays as it is.
MOST_UNDECIDED = 3


class NetworkEngine:
    """The engine of a model's networks.

    Args:
        device: where the networks are; on all but a CPU they are run as they are, unless an engine is named.
        name: one of `ENGINES`; None: chosen at the first image, if that pays.
        fast: permit bfloat16, and TensorRT half precision.
        images: images that will come: what a measurement has to pay for. 0: unknown, as they come from Python; then
            only `fast` is worth measuring, and everything else is the same on every run.

    Raises:
        ConfigError: an unknown engine, or one that this device does not have.
        MissingPartError: an engine whose library is not installed.

    Example:
        >>> NetworkEngine(torch.device("cpu"), "frozen").name
        'frozen'
    """

    def __init__(self, device: torch.device, name: str | None = None, *, fast: bool = False, images: int = 0) -> None:
        self.device = device
        self.fast = fast
        self.images = images
        self.name = "eager" if name is None and device.type != "cpu" else name
        self._networks: tuple[TensorNetwork, ...] | None = None
        self._undecided = 0
        if self.name is not None:
            problem = problem_with(self.name, device.type, fast)
            if problem:
                raise ConfigError(f"network engine {name!r}: {problem}")
            require_parts(self.name)

    def for_images(self, images: int) -> NetworkEngine:
        """The same engine for a run over `images` images; a choice made there does not come back here."""
        return NetworkEngine(self.device, self.name, fast=self.fast, images=images)

    def keep(self, recorded: str) -> None:
        """Take the engine of an earlier run, unless one is chosen already or this machine does not have it."""
        if self.name is None and recorded and self._has(recorded):
            self.name = recorded

    def networks(
        self, nets: Sequence[nn.Module], trials: Callable[[], Iterator[Tensor]], passes: int, *, regions: bool = False
    ) -> tuple[TensorNetwork, ...]:
        """The networks as they are to be called; as they are while no image has shown enough labels to choose by.

        Args:
            nets: the same at each call, in eval mode.
            trials: makes batches (B, C, *patch) at different places of the image, for the choice.
            passes: forward passes that this image takes, in passes of the size of those batches.
            regions: whether the channels are overlapping regions; else the largest logit is the label.
        """
        if self.name is None:
            candidates = self._candidates(passes, trials)
            if not candidates and not self.images:
                return tuple(nets)
            expected = passes * max(1, self.images) / len(nets)
            self.name = self._choose(nets[0], trials(), candidates, regions, expected) if candidates else "eager"
            if self.name is None:
                self._undecided += 1
                log.debug("network engine: too few windows of this image hold labels; left to the next image")
                if self._undecided < MOST_UNDECIDED:
                    return tuple(nets)
                self.name = "eager"
            if candidates:
                log.info("network engine: %s", self.name)
        if self._networks is None:
            self._networks = tuple(self._network(self.name, net, regions) for net in nets)
        return self._networks

    def _candidates(self, passes: int, trials: Callable[[], Iterator[Tensor]]) -> tuple[str, ...]:
        """The engines that are worth trying beside the network as it is."""
        if self._has("bf16"):
            # Where nobody knows how many images will come, nobody knows whether a graph pays either.
            return ("bf16", "openvino-bf16") if self.images and self._has("openvino-bf16") else ("bf16",)
        expected = passes * self.images
        wanted = {
            "winograd": PASSES_WORTH_WINOGRAD,
            "frozen": PASSES_WORTH_A_GRAPH,
            "openvino": PASSES_WORTH_WINOGRAD,
            "onnxruntime": PASSES_WORTH_WINOGRAD,
        }
        names = tuple(name for name, fewest in wanted.items() if expected >= fewest and self._has(name))
        return names if names and expected * next(trials())[:, 0].numel() >= VOXELS_WORTH_MEASURING else ()

    def _choose(
        self, net: nn.Module, trials: Iterator[Tensor], names: Sequence[str], regions: bool, expected: float
    ) -> str | None:
        """The fastest engine that finds the same; None: too few labels to tell."""
        graphs: dict[tuple[int, ...], bytes] = {}
        trial = Trial(net, regions, expected)
        return trial.choose(trials, names, lambda name: self._network(name, net, regions, graphs))

    def _network(
        self, name: str, net: nn.Module, regions: bool, graphs: dict[tuple[int, ...], bytes] | None = None
    ) -> TensorNetwork:
        """The network itself where the engine changes nothing about it."""
        if name not in EXPORTED:
            return _run_by(name, net, regions)
        from medseg.inference.engines.exported import exported_network

        return exported_network(name, net, regions, fast=self.fast, graphs={} if graphs is None else graphs)

    def _has(self, name: str) -> bool:
        return not problem_with(name, self.device.type, self.fast) and is_installed(name)


def _run_by(name: str, net: nn.Module, regions: bool) -> TensorNetwork:
    return torch_network(name, net, regions)
