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
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
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
# Voxels that may get another label: of all; and with bfloat16 of the labelled ones, if these are more.
CHANGED, CHANGED_BF16 = 1e-4, 0.02
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
        self, nets: Sequence[nn.Module], windows: Callable[[], Tensor], passes: int, *, regions: bool = False
    ) -> tuple[Network, ...]:
        """The networks as they are to be called.

        Args:
            nets: the same at each call, in eval mode.
            windows: makes a batch (B, C, *patch) of the image, for the measurement.
            passes: forward passes that this image takes, in passes of the size of `windows`.
            regions: whether the channels are overlapping regions; else the largest logit is the label.
        """
        if self.name is None:
            candidates = self._candidates(passes, windows)
            if not candidates and not self.images:
                return tuple(nets)
            if candidates:
                self.name = self._choose(nets[0], windows(), candidates, regions)
                log.info("network engine: %s", self.name)
            else:
                self.name = "eager"
        if self._networks is None:
            self._networks = tuple(_run_by(self.name, net, regions) for net in nets)
        return self._networks

    def _candidates(self, passes: int, windows: Callable[[], Tensor]) -> tuple[str, ...]:
        """The engines that are worth trying beside the network as it is."""
        if self.fast and has_bf16():
            return ("bf16",)
        expected = passes * self.images
        wanted = {"winograd": PASSES_WORTH_WINOGRAD, "frozen": PASSES_WORTH_A_GRAPH}
        names = tuple(name for name, fewest in wanted.items() if expected >= fewest)
        return names if names and expected * windows()[:, 0].numel() >= VOXELS_WORTH_MEASURING else ()

    @torch.inference_mode()
    def _choose(self, net: nn.Module, windows: Tensor, names: Sequence[str], regions: bool) -> str:
        """The engine that takes the least time on these windows, among those that give the same labels."""
        candidates: dict[str, Network] = {"eager": net}
        try:
            logits, taken = _timed(net, windows)
        except _REFUSALS as error:
            # A plug-in that takes no other size than its patch.
            log.info("network engine not measured: %s", str(error).split("\n")[0][:100])
            return "eager"
        if "frozen" in names:
            # The first pass of all has kernels to choose; what follows must not look faster for that.
            taken = min(taken, _timed(net, windows)[1])
        seconds = {"eager": taken}
        # Labels, not logits: of many classes these are the largest arrays of a prediction.
        reference = _decided(logits, regions)
        del logits
        for name in names:
            try:
                network = _run_by(name, net, regions)
                if network is net:
                    continue
                network(windows)  # a graph is optimised at its second call, others lay out their kernels at the first
                logits, taken = _timed(network, windows)
                same = _same_labels(_decided(logits, regions), reference, regions, bf16=name == "bf16")
                del logits
            except _REFUSALS as error:
                log.info("network engine %s refused: %s", name, str(error).split("\n")[0][:100])
                continue
            if same:
                candidates[name], seconds[name] = network, taken
            else:
                log.info("network engine %s refused: its labels differ", name)
            if min(seconds.values()) < WORTH_CHANGING * seconds["eager"]:
                break  # A graph costs more passes to try than it would save beside Winograd's convolutions.
        if len(candidates) > 1 and min(seconds.values()) > CLEARLY_FASTER * seconds["eager"]:
            # The first pass of all had kernels to choose, so a small lead says nothing yet.
            seconds = dict.fromkeys(candidates, float("inf"))
            for _ in range(2):
                for name, network in candidates.items():
                    seconds[name] = min(seconds[name], _timed(network, windows)[1])
        fastest = min(seconds, key=lambda name: seconds[name])
        return fastest if seconds[fastest] < WORTH_CHANGING * seconds["eager"] else "eager"

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


def _timed(network: Network, windows: Tensor) -> tuple[Tensor, float]:
    """Logits, and the seconds they took."""
    start = time.perf_counter()
    logits = network(windows)
    return logits, time.perf_counter() - start


def _in_bf16(net: nn.Module) -> Network:
    def run(batch: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits: Tensor = net(batch)
        return logits.float()

    return run


class _Frozen:
    """A graph for each shape of batch: tracing turns what Python computes from a shape into constants."""

    def __init__(self, net: nn.Module, regions: bool) -> None:
        self.net = net
        self.regions = regions
        self._graphs: dict[tuple[int, ...], Network] = {}

    def __call__(self, batch: Tensor) -> Tensor:
        shape = tuple(batch.shape)
        if shape not in self._graphs:
            graph = self._trace(batch)
            # The last batch is often smaller; a graph that went wrong there would give a wrong mask.
            expected = _decided(self.net(batch), self.regions)
            same = _same_labels(_decided(graph(batch), self.regions), expected, self.regions)
            self._graphs[shape] = graph if same else self.net
        return self._graphs[shape](batch)

    def _trace(self, batch: Tensor) -> Network:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")  # torch.jit is deprecated, and each `if` on a shape warns
            traced = torch.jit.trace(self.net, batch.clone(), check_trace=False)  # type: ignore[no-untyped-call]
            graph: Network = torch.jit.freeze(traced)
        return graph


def _decided(logits: Tensor, regions: bool) -> Tensor:
    """Labels (B, *patch), or for regions what they hold (B, regions, *patch)."""
    return logits > 0 if regions else logits.argmax(1)


def _same_labels(one: Tensor, other: Tensor, regions: bool, *, bf16: bool = False) -> bool:
    """Whether few enough voxels are decided otherwise; arguments as from `_decided`."""
    if one.shape != other.shape:
        return False
    changed, labelled = one != other, (one > 0) | (other > 0)
    if regions:
        changed, labelled = changed.any(1), labelled.any(1)
    allowed = CHANGED * changed.numel()
    if bf16:
        allowed = max(allowed, CHANGED_BF16 * int(labelled.sum()))
    return int(changed.sum()) <= allowed
