"""The trial: engines run the same windows of an image, and the fastest that finds the same is chosen."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medseg.inference.engines.judged import TensorNetwork, decided
from medseg.inference.engines.names import EXPORTED
from medseg.inference.same_labels import CHANGED, CHANGED_BF16, LabelEvidence

__all__ = ["Trial"]

log = logging.getLogger(__name__)

# The network as it is stays unless another engine takes less than this share of its time.
WORTH_CHANGING = 0.95
# Below this share of the network's own time one pass of each is enough to know.
CLEARLY_FASTER = 0.7
# An ONNX graph of a network takes 2 to 10 s to write, for the trial and once more for windows of full size, and saves
# a tenth to a half of the run that is ahead.
SECONDS_WORTH_EXPORTING = 100
# What torch raises on networks that cannot be traced, besides running out of memory; and what exporting raises.
REFUSALS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, MemoryError)


class Trial:
    """Engines beside the network as it is.

    Args:
        net: the network as it is.
        regions: whether the channels are overlapping regions; else the largest logit is the label.
        expected: passes of each network that are ahead, in passes of the size of the trial's batches.

    Example:
        >>> windows = torch.randn(2, 3, 16, 16)
        >>> trial = Trial(torch.nn.Identity(), regions=False, expected=1000)
        >>> trial.choose(iter([windows, windows]), ["another"], lambda name: lambda batch: -batch)
        'eager'
    """

    def __init__(self, net: nn.Module, regions: bool, expected: float) -> None:
        self.net = net
        self.regions = regions
        self.expected = expected

    @torch.inference_mode()
    def choose(
        self, batches: Iterator[Tensor], names: Sequence[str], build: Callable[[str], TensorNetwork]
    ) -> str | None:
        """The engine that takes the least time among those that find the same; None: too few labels to tell.

        Args:
            batches: windows (B, C, *patch) at different places of an image.
            names: of the engines to try, beside 'eager'.
            build: the network by an engine; the network itself where that changes nothing.
        """
        own = _Timed(self.net, self.regions)
        try:
            evidence = LabelEvidence.gather(batches, own, self.regions)
            if not evidence.is_enough:
                return None
            windows = evidence.batches[0][0]
            if set(names) - {"winograd", "bf16"} and own.passes == 1:
                own(windows)  # the first pass of all has kernels to choose; what follows must not look faster for that
        except REFUSALS as error:
            # A plug-in that takes no other size than its patch.
            log.info("network engine not measured: %s", _first_line(error))
            return "eager"
        candidates = {"eager": own}
        for name in names:
            best = min(each.seconds for each in candidates.values())
            if name in EXPORTED and best * self.expected < SECONDS_WORTH_EXPORTING:
                continue
            if name == "frozen" and best < WORTH_CHANGING * own.seconds:
                continue  # A graph costs more passes to try than it would save beside Winograd's convolutions.
            timed = self._accepted(name, build, evidence)
            if timed is not None:
                candidates[name] = timed
        if len(candidates) > 1 and min(each.seconds for each in candidates.values()) > CLEARLY_FASTER * own.seconds:
            # The first pass of all had kernels to choose, so a small lead says nothing yet.
            for each in candidates.values():
                each.seconds = float("inf")
            for _ in range(2):
                for each in candidates.values():
                    each(windows)
        fastest = min(candidates, key=lambda name: candidates[name].seconds)
        return fastest if candidates[fastest].seconds < WORTH_CHANGING * own.seconds else "eager"

    def _accepted(
        self, name: str, build: Callable[[str], TensorNetwork], evidence: LabelEvidence[Tensor]
    ) -> _Timed | None:
        """The engine with its time, if it runs and finds the same."""
        try:
            network = build(name)
            if network is self.net:
                return None
            # A graph is optimised at its second call, others lay out their kernels at the first.
            network(evidence.batches[0][0])
            timed = _Timed(network, self.regions)
            same = evidence.holds_for(timed, CHANGED_BF16 if name.endswith("bf16") else CHANGED)
        except REFUSALS as error:
            log.info("network engine %s refused: %s", name, _first_line(error))
            return None
        if not same:
            log.info("network engine %s refused: its labels differ", name)
            return None
        return timed


class _Timed:
    """Decides batches by a network and notes the shortest time; labels, not logits: of many classes these are large."""

    def __init__(self, network: TensorNetwork, regions: bool) -> None:
        self.network = network
        self.regions = regions
        self.seconds = float("inf")
        self.passes = 0

    def __call__(self, windows: Tensor) -> NDArray[Any]:
        start = time.perf_counter()
        logits = self.network(windows)
        self.seconds = min(self.seconds, time.perf_counter() - start)
        self.passes += 1
        return decided(logits, self.regions)


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0][:100]
