"""How a network is run on a CPU: as it is, or faster. Chosen once by a measurement, then kept.

With 3D convolutions of half the multiplications (`medseg.nets.winograd`); as a frozen graph, with its batch norms
folded into the convolutions and no Python between the layers; or in bfloat16, which halves the time where the CPU
multiplies it in hardware. Their logits differ from the network's own in the last digits, so what was chosen belongs to
a mask as the model does.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.inference.same_labels import CHANGED, LabelEvidence, holds_labels, same_labels
from medseg.lookup import nearest_hint
from medseg.nets.winograd import with_winograd

__all__ = ["ENGINES", "NetworkEngine", "has_bf16"]

log = logging.getLogger(__name__)
Network = Callable[[Tensor], Tensor]

ENGINES = ("eager", "winograd", "frozen", "bf16")
# Winograd's convolutions save a fifth and cost about five passes to try, a graph saves a tenth at best and costs nine;
# bfloat16 halves the time and costs two.
PASSES_WORTH_WINOGRAD = 40
PASSES_WORTH_A_GRAPH = 200
# Below this the passes of a small U-Net take ten seconds altogether, and noise would choose.
VOXELS_WORTH_MEASURING = 2**23
# The network as it is stays unless another engine takes less than this share of its time.
WORTH_CHANGING = 0.95
# Below this share of the network's own time one pass of each is enough to know.
CLEARLY_FASTER = 0.7
# Share of the labelled voxels that may get another label by bfloat16.
CHANGED_BF16 = 0.02
# After so many images without enough labels to judge by, the network stays as it is.
MOST_UNDECIDED = 3
# What torch raises on networks that cannot be traced, besides running out of memory.
_REFUSALS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, MemoryError)


class NetworkEngine:
    """The engine of a model's networks.

    Args:
        device: where the networks are; all but a CPU run them as they are.
        name: one of `ENGINES`; None: chosen at the first image, if that pays.
        fast: permit bfloat16.
        images: images that will come: what a measurement has to pay for. 0: unknown, as they come from Python; then
            only `fast` is worth measuring, and everything else is the same on every run.

    Raises:
        ConfigError: an unknown engine, or one that this device does not have.

    Example:
        >>> NetworkEngine(torch.device("cpu"), "frozen").name
        'frozen'
    """

    def __init__(self, device: torch.device, name: str | None = None, *, fast: bool = False, images: int = 0) -> None:
        self.device = device
        self.fast = fast
        self.images = images
        self.name = "eager" if name is None and device.type != "cpu" else name
        self._networks: tuple[Network, ...] | None = None
        self._undecided = 0
        problem = "" if self.name is None else self._problem(self.name)
        if problem:
            raise ConfigError(f"network engine {name!r}: {problem}")

    def for_images(self, images: int) -> NetworkEngine:
        """The same engine for a run over `images` images; a choice made there does not come back here."""
        return NetworkEngine(self.device, self.name, fast=self.fast, images=images)

    def keep(self, recorded: str) -> None:
        """Take the engine of an earlier run, unless one is chosen already or this machine does not have it."""
        if self.name is None and recorded and not self._problem(recorded):
            self.name = recorded

    def networks(
        self, nets: Sequence[nn.Module], trials: Callable[[], Iterator[Tensor]], passes: int, *, regions: bool = False
    ) -> tuple[Network, ...]:
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
            self.name = self._choose(nets[0], trials(), candidates, regions) if candidates else "eager"
            if self.name is None:
                self._undecided += 1
                log.debug("network engine: too few windows of this image hold labels; left to the next image")
                if self._undecided < MOST_UNDECIDED:
                    return tuple(nets)
                self.name = "eager"
            if candidates:
                log.info("network engine: %s", self.name)
        if self._networks is None:
            self._networks = tuple(_run_by(self.name, net, regions) for net in nets)
        return self._networks

    def _candidates(self, passes: int, trials: Callable[[], Iterator[Tensor]]) -> tuple[str, ...]:
        """The engines that are worth trying beside the network as it is."""
        if self.fast and has_bf16():
            return ("bf16",)
        expected = passes * self.images
        wanted = {"winograd": PASSES_WORTH_WINOGRAD, "frozen": PASSES_WORTH_A_GRAPH}
        names = tuple(name for name, fewest in wanted.items() if expected >= fewest)
        return names if names and expected * next(trials())[:, 0].numel() >= VOXELS_WORTH_MEASURING else ()

    @torch.inference_mode()
    def _choose(self, net: nn.Module, trials: Iterator[Tensor], names: Sequence[str], regions: bool) -> str | None:
        """The engine that takes the least time among those that find the same; None: too few labels to tell."""
        own = _Timed(net, regions)
        try:
            evidence = LabelEvidence.gather(trials, own, regions)
            if not evidence.is_enough:
                return None
            windows = evidence.batches[0][0]
            if "frozen" in names and own.passes == 1:
                own(windows)  # the first pass of all has kernels to choose; what follows must not look faster for that
        except _REFUSALS as error:
            # A plug-in that takes no other size than its patch.
            log.info("network engine not measured: %s", str(error).split("\n")[0][:100])
            return "eager"
        candidates = {"eager": own}
        for name in names:
            try:
                network = _run_by(name, net, regions)
                if network is net:
                    continue
                network(windows)  # a graph is optimised at its second call, others lay out their kernels at the first
                timed = _Timed(network, regions)
                same = evidence.holds_for(timed, CHANGED_BF16 if name == "bf16" else CHANGED)
            except _REFUSALS as error:
                log.info("network engine %s refused: %s", name, str(error).split("\n")[0][:100])
                continue
            if same:
                candidates[name] = timed
            else:
                log.info("network engine %s refused: its labels differ", name)
            if min(each.seconds for each in candidates.values()) < WORTH_CHANGING * own.seconds:
                break  # A graph costs more passes to try than it would save beside Winograd's convolutions.
        if len(candidates) > 1 and min(each.seconds for each in candidates.values()) > CLEARLY_FASTER * own.seconds:
            # The first pass of all had kernels to choose, so a small lead says nothing yet.
            for each in candidates.values():
                each.seconds = float("inf")
            for _ in range(2):
                for each in candidates.values():
                    each(windows)
        fastest = min(candidates, key=lambda name: candidates[name].seconds)
        return fastest if candidates[fastest].seconds < WORTH_CHANGING * own.seconds else "eager"

    def _problem(self, name: str) -> str:
        """Why this engine cannot be used; '' if it can."""
        if name not in ENGINES:
            return f"unknown; choose one of {', '.join(ENGINES)}{nearest_hint(name, ENGINES)}"
        if name != "eager" and self.device.type != "cpu":
            return f"it runs on a CPU, the networks are on {self.device}; choose eager"
        if name == "bf16" and not self.fast:
            return "it loses precision and is only used where fast is chosen too"
        if name == "bf16" and not has_bf16():
            return "this CPU has no bfloat16 (AVX512-BF16 or AMX); choose eager, winograd or frozen"
        return ""


def has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _run_by(name: str, net: nn.Module, regions: bool) -> Network:
    """The network itself where the engine changes nothing about it."""
    if name == "winograd":
        return with_winograd(net) or net
    return _Frozen(net, regions) if name == "frozen" else _in_bf16(net) if name == "bf16" else net


class _Timed:
    """Decides batches by a network and notes the shortest time; labels, not logits: of many classes these are large."""

    def __init__(self, network: Network, regions: bool) -> None:
        self.network = network
        self.regions = regions
        self.seconds = float("inf")
        self.passes = 0

    def __call__(self, windows: Tensor) -> NDArray[Any]:
        start = time.perf_counter()
        logits = self.network(windows)
        self.seconds = min(self.seconds, time.perf_counter() - start)
        self.passes += 1
        return _decided(logits, self.regions)


def _in_bf16(net: nn.Module) -> Network:
    def run(batch: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits: Tensor = net(batch)
        return logits.float()

    return run


class _Frozen:
    """A graph for each shape of batch: tracing turns what Python computes from a shape into constants.

    The last batch is often smaller; a graph that went wrong there would give a wrong mask. So each is judged on the
    first batch of its shape that holds labels, and until then the network itself answers.
    """

    def __init__(self, net: nn.Module, regions: bool) -> None:
        self.net = net
        self.regions = regions
        self._graphs: dict[tuple[int, ...], Network] = {}
        self._judged: dict[tuple[int, ...], Network] = {}

    def __call__(self, batch: Tensor) -> Tensor:
        shape = tuple(batch.shape)
        if shape in self._judged:
            return self._judged[shape](batch)
        if shape not in self._graphs:
            self._graphs[shape] = self._trace(batch)
        graph = self._graphs[shape]
        logits: Tensor = self.net(batch)
        other = graph(batch)
        expected = _decided(logits, self.regions)
        if not same_labels(expected, _decided(other, self.regions), regions=self.regions):
            self._judged[shape] = self.net
        elif holds_labels(expected, self.regions).any():
            self._judged[shape] = graph
            return other
        return logits

    def _trace(self, batch: Tensor) -> Network:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")  # torch.jit is deprecated, and each `if` on a shape warns
            traced = torch.jit.trace(self.net, batch.clone(), check_trace=False)  # type: ignore[no-untyped-call]
            graph: Network = torch.jit.freeze(traced)
        return graph


def _decided(logits: Tensor, regions: bool) -> NDArray[Any]:
    """Labels (B, *patch), or for regions what they hold (B, regions, *patch)."""
    return (logits > 0 if regions else logits.argmax(1).to(torch.int16)).numpy()
