"""What a step learns from unlabelled patches: from the averaged network, or from a second one that learns alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medseg.augmentation import BatchMixing
from medseg.config import AugmentationConfig
from medseg.losses.consistency import ConsistencyLoss
from medseg.training.data import Views
from medseg.training.fold import Fold, Setup
from medseg.training.optimizer import build_optimizer, set_rate
from medseg.training.semi.ramp import ramp_up
from medseg.training.synced_batch_norm import with_synced_batch_norm

__all__ = ["Teaching"]

# The last number of the seed of a step's CutMix.
CUTMIX = (1 << 21) - 1
Forward = Callable[[Tensor], Any]


class Teaching:
    """The unlabelled part of a training, and the second network of cross pseudo supervision.

    With several processes each learns from its own unlabelled patches, and exchanges boxes among these.

    Args:
        net: the network that is trained.
        average: the running average of its weights, which teaches it where there is no second network.
        second: a network of the same form with other weights, which teaches and is taught; None: mean teacher.
        fold: its number is part of the seed.
        setup: configuration, labels, device, processes.

    Raises:
        ConfigError: fewer unlabelled samples than processes, or parts of a batch.

    Source:
        Tarvainen & Valpola, Mean teachers, NeurIPS 2017. Chen et al., Semi-supervised semantic segmentation with cross
        pseudo supervision, CVPR 2021. CutMix: French et al., BMVC 2020, section 3.3.
    """

    def __init__(self, net: nn.Module, average: nn.Module, second: nn.Module | None, fold: Fold, setup: Setup) -> None:
        self.settings, self.device, self.ranks = setup.config.semi, setup.device, setup.ranks
        training = setup.config.training
        wanted = self.settings.patches or max(setup.plan.batch_size // 2, 1)
        if self.settings.patches is None:
            wanted = max(wanted, setup.ranks.size * training.accumulate)
        self.parts = setup.ranks.parts(wanted, training.accumulate)
        self.loss = ConsistencyLoss(setup.scheme.is_regions, self.settings.confidence)
        self.mixing = BatchMixing(AugmentationConfig(cutmix_probability=self.settings.cutmix))
        self.seed = (setup.config.seed, fold.number)
        self.net, self.average, self.second = net, average, second
        self.optimizer: torch.optim.Optimizer | None = None
        if second is not None:
            self.second = second.to(self.device)
            if setup.ranks.size > 1:
                self.second = with_synced_batch_norm(self.second, self.device)
            self.optimizer = build_optimizer(self.second, training)
        self.gradient_clip = training.gradient_clip
        self.losses: list[Tensor] = []

    @property
    def numbers(self) -> Sequence[int]:
        """The unlabelled samples of a batch that this process computes."""
        return [number for part in self.parts for number in part.numbers]

    def begin(self, rate: float) -> None:
        """A step begins."""
        if self.second is not None and self.optimizer is not None:
            set_rate(self.optimizer, rate)
            self.second.train()
            self.optimizer.zero_grad(set_to_none=True)

    def add_gradients(self, views: Views, iteration: int, progress: float, scaler: Any, precision: Any) -> Tensor:
        """Add the gradients of a step's unlabelled patches to the networks; returns their loss, without gradient.

        Before `semi.start` it does nothing, so that such steps cost what they cost without unlabelled images.
        """
        if progress < self.settings.start:
            return torch.zeros((), device=self.device)
        counts = [len(part.numbers) for part in self.parts]
        weight = self.settings.weight * ramp_up(progress - self.settings.start, self.settings.ramp)
        total = torch.zeros((), device=self.device)
        split = zip(*(torch.split(each, counts) for each in (views.weak, views.strong, views.inside)), strict=True)
        for number, (part, (weak, strong, inside)) in enumerate(zip(self.parts, split, strict=True)):
            rng = np.random.default_rng([*self.seed, iteration, self.ranks.rank, number, CUTMIX])
            views_here = Views(*(each.to(self.device, non_blocking=True) for each in (weak, strong, inside)))
            # Every process counts its own voxels, and the gradients are added up.
            share = part.share / self.ranks.size
            total += self._part(views_here, rng, weight * share, scaler, precision) * share
        total = self.ranks.all_sum(total)
        self.losses.append(total)
        return total * weight

    def _part(
        self, views: Views, rng: np.random.Generator, weight: float, scaler: Any, precision: torch.dtype | None
    ) -> Tensor:
        if self.second is None:
            pairs = [(self.average, self.net)]
        else:
            pairs = [(self.second, self.net), (self.net, self.second)]
        taught = [self._probabilities(teacher, views.weak, precision) for teacher, _ in pairs]
        params = self.mixing.draw(rng, len(views.weak), views.weak.shape[2:])
        mixed = self.mixing.apply(views.strong, views.inside, params)
        total = torch.zeros((), device=self.device)
        for (_, student), target in zip(pairs, taught, strict=True):
            target = self.mixing.apply(target, target, params).images
            with torch.autocast(self.device.type, precision, enabled=precision is not None):
                logits = student(mixed.images)
            value = self.loss(logits[0] if isinstance(logits, tuple) else logits, target, mixed.labels)
            scaler.scale(value * weight).backward()
            total += value.detach() / len(pairs)
        return total

    @torch.no_grad()
    def _probabilities(self, net: nn.Module, images: Tensor, precision: torch.dtype | None) -> Tensor:
        training = net.training
        net.eval()
        with torch.autocast(self.device.type, precision, enabled=precision is not None):
            logits = net(images).float()
        net.train(training)
        return torch.sigmoid(logits) if self.loss.regions else torch.softmax(logits, dim=1)

    def add_labelled(self, images: Tensor, loss: Forward, scaler: Any, precision: torch.dtype | None) -> None:
        """Add the gradients of labelled samples to the second network; `loss` takes its logits."""
        if self.second is None:
            return
        with torch.autocast(self.device.type, precision, enabled=precision is not None):
            logits = self.second(images)
        scaler.scale(loss(logits)).backward()

    def end(self, scaler: Any) -> None:
        """The second network's step."""
        if self.second is None or self.optimizer is None:
            return
        self.ranks.sum_gradients(self.second)
        scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.second.parameters(), self.gradient_clip)
        scaler.step(self.optimizer)

    def state(self) -> dict[str, Any]:
        """For the checkpoint; empty without a second network, as the average is kept anyway."""
        if self.second is None or self.optimizer is None:
            return {}
        return {"net": self.second.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()` of the checkpoint.

        Raises:
            KeyError, RuntimeError, ValueError: a state of another training.
        """
        if self.second is not None and self.optimizer is not None:
            self.second.load_state_dict(state["net"])
            self.optimizer.load_state_dict(state["optimizer"])

    def taken(self) -> dict[str, float]:
        """The mean loss since the last call, for the log; nothing before unlabelled images count."""
        if not self.losses:
            return {}
        mean = torch.stack(self.losses).mean().item()
        self.losses.clear()
        return {"consistency": mean}
