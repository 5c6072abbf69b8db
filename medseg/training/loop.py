"""The training loop: steps, validation with real sliding windows, checkpoints, log."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medseg.config import PostprocessConfig, RunConfig
from medseg.disk.atomic import atomic_path, write_text_atomic
from medseg.errors import CheckpointError, MedsegError
from medseg.labels import LabelScheme
from medseg.nets.weights_file import first_line, load_torch_file
from medseg.preparation.plan import Plan
from medseg.preparation.plan_upgrade import hashed_content
from medseg.preparation.store import PreparedCase
from medseg.progress import ProgressCallback
from medseg.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from medseg.training.curve import write_curve
from medseg.training.data import BatchSource, prefetched
from medseg.training.ema import WeightAverage
from medseg.training.postprocess_choice import PostprocessChoice, score_of_task
from medseg.training.precision import precision_for
from medseg.training.schedule import default_learning_rate, is_over, learning_rate, progress_of
from medseg.training.validation import Scores, validate

__all__ = ["Trained", "train_fold"]

_log = logging.getLogger("medseg")
_LOG_EVERY = 20
_VALIDATIONS = 10


@dataclass(frozen=True, slots=True)
class Trained:
    """What one fold's training left behind.

    Args:
        weights: averaged weights to ship (the last, or the best where `training.checkpoint: best`).
        iterations: steps done.
        seconds: time spent.
        scores: validation scores of the shipped weights, without post-processing.
        postprocess: what helps on the validation cases, and by how much.
    """

    weights: dict[str, torch.Tensor]
    iterations: int
    seconds: float
    scores: Scores
    postprocess: PostprocessConfig
    postprocess_gains: dict[str, float]


def train_fold(
    net: nn.Module,
    loss: nn.Module,
    training_cases: Sequence[PreparedCase],
    validation_cases: Sequence[PreparedCase],
    plan: Plan,
    scheme: LabelScheme,
    config: RunConfig,
    fold: int,
    folder: Path,
    device: torch.device,
    resume: bool,
    progress: ProgressCallback,
) -> Trained:
    """Train one network on one fold.

    Raises:
        CheckpointError: `resume` with a checkpoint that is damaged or belongs to another training.
        WriteError: disk full; the last good checkpoint stays.
        MedsegError: the loss is no longer a number.
    """
    identity = _identity(net, plan, scheme, config, fold, training_cases)
    trainer = _Trainer(net.to(device), loss.to(device), plan, scheme, config, device, folder, identity)
    if resume and trainer.last.exists():
        trainer.restore()
        _log.info("resuming at iteration %d", trainer.iteration)
    source = BatchSource(training_cases, plan, scheme, config, fold)
    trainer.run(source, validation_cases, progress)
    choice = PostprocessChoice(scheme, score_of_task(config.task))
    weights, scores = trainer.shipped(validation_cases, choice)
    return Trained(weights, trainer.iteration, trainer.elapsed, scores, *choice.chosen())


def _identity(
    net: nn.Module, plan: Plan, scheme: LabelScheme, config: RunConfig, fold: int, cases: Sequence[PreparedCase]
) -> str:
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    content = [
        hashed_content(plan),
        repr(scheme),
        repr(shapes),
        config.seed,
        fold,
        [case.name for case in cases],
        config.loss.model_dump(mode="json"),
        config.augmentation.model_dump(mode="json"),
        config.training.optimizer,
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class _Trainer:
    """State of one training; `restore` and `save` keep all of it."""

    def __init__(
        self,
        net: nn.Module,
        loss: nn.Module,
        plan: Plan,
        scheme: LabelScheme,
        config: RunConfig,
        device: torch.device,
        folder: Path,
        identity: str,
    ) -> None:
        self.net, self.loss, self.plan, self.scheme, self.device = net, loss, plan, scheme, device
        self.config, self.training = config, config.training
        self.folder, self.identity = folder, identity
        self.last, self.best, self.log = folder / "last.pt", folder / "best.pt", folder / "log.jsonl"
        self.average = WeightAverage(net, self.training.ema_decay)
        self.optimizer = _optimizer(net, config)
        self.precision = precision_for(net, plan, device) if self.training.mixed_precision else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == torch.float16)
        self.iteration, self.elapsed, self.best_score = 0, 0.0, -1.0
        self.entries: list[dict[str, Any]] = []

    def restore(self) -> None:
        """Go on where the last checkpoint stopped."""
        state = load_checkpoint(self.last)
        if state.identity != self.identity:
            raise CheckpointError(
                f"{self.last} belongs to a training with another plan, data set, labels, loss, augmentation or seed; "
                "give the same configuration, or choose another output folder"
            )

        def take() -> None:
            self.net.load_state_dict(state.net)
            self.average.net.load_state_dict(state.average)
            self.optimizer.load_state_dict(state.optimizer)
            self.scaler.load_state_dict(state.scaler)
            torch.set_rng_state(state.random_state)
            self.iteration, self.elapsed = int(state.iteration), float(state.elapsed_seconds)
            self.best_score = float(state.best_score)

        _restored(self.last, take)
        if self.log.is_file():
            _restored(self.log, self._restore_log)

    def _restore_log(self) -> None:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]
        self.entries = [entry for entry in lines if entry["iteration"] <= self.iteration]

    def save(self) -> None:
        """Write `last.pt`, the log and the curve."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = Checkpoint(
            identity=self.identity,
            iteration=self.iteration,
            elapsed_seconds=self.elapsed,
            net=self.net.state_dict(),
            average=self.average.net.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            random_state=torch.get_rng_state(),
            best_score=self.best_score,
        )
        save_checkpoint(state, self.last)
        write_text_atomic(self.log, "".join(json.dumps(entry) + "\n" for entry in self.entries))

    def run(self, source: BatchSource, validation_cases: Sequence[PreparedCase], progress: ProgressCallback) -> None:
        """Steps until the limit, saving and validating on the way; an interruption saves first."""
        batches = prefetched(source, self.iteration, self.device.type == "cuda")
        started = time.monotonic() - self.elapsed
        waited, losses, since = 0.0, [], time.monotonic()
        try:
            while not is_over(self.iteration, self.elapsed, self.training):
                asked = time.monotonic()
                batch = next(batches)
                waited += time.monotonic() - asked
                done_before = progress_of(self.iteration, self.elapsed, self.training)
                rate = learning_rate(self.iteration, done_before, self.training)
                losses.append(self._step(batch.images, batch.labels, rate))
                self.iteration += 1
                self.elapsed = time.monotonic() - started
                done = progress_of(self.iteration, self.elapsed, self.training)
                if self.iteration % _LOG_EVERY == 0:
                    mean = torch.stack(losses).mean().item()
                    self._require_number(mean)
                    now = time.monotonic()
                    self._note(loss=mean, learning_rate=rate, wait_fraction=waited / (now - since))
                    self._show(progress, done)
                    waited, losses, since = 0.0, [], now
                if self._validation_due(done_before, done) and not is_over(self.iteration, self.elapsed, self.training):
                    self._validate(validation_cases)
                    self.elapsed = time.monotonic() - started
                    waited, losses, since = 0.0, [], time.monotonic()
                if self.iteration % self.training.save_every == 0:
                    self.save()
        except KeyboardInterrupt:
            self.save()
            _log.info("stopped at iteration %d; go on with --resume", self.iteration)
            raise
        finally:
            batches.close()  # type: ignore[attr-defined]
        self.save()
        progress(1, 1, f"{self.iteration} iterations")

    def _step(self, images: torch.Tensor, labels: torch.Tensor, rate: float) -> torch.Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images, labels = (t.to(self.device, non_blocking=True) for t in (images, labels))
        self.net.train()
        with torch.autocast(self.device.type, self.precision, enabled=self.precision is not None):
            logits = self.net(images)
        value: torch.Tensor = self.loss(logits, labels)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(value).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.net.parameters(), self.training.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(self.net, self.iteration)
        return value.detach()

    def _validation_due(self, before: float, now: float) -> bool:
        if self.training.validate_every is not None:
            return self.iteration % self.training.validate_every == 0
        return int(before * _VALIDATIONS) != int(now * _VALIDATIONS)

    def _validate(self, cases: Sequence[PreparedCase]) -> None:
        if not cases:
            return
        scores = validate(self.average.net, self._validated(cases), self.plan, self.scheme, self.device)
        self._note(validation_dice=scores.mean_dice, dice=scores.dice)
        if scores.mean_dice > self.best_score:
            self.best_score = scores.mean_dice
            with atomic_path(self.best) as temporary:
                torch.save(self.average.net.state_dict(), temporary)
        write_curve(self.entries, self.folder / "progress.png")

    def _validated(self, cases: Sequence[PreparedCase]) -> Sequence[PreparedCase]:
        limit = self.training.validation_cases or len(cases)
        return cases[:: math.ceil(len(cases) / limit)]

    def shipped(
        self, cases: Sequence[PreparedCase], choice: PostprocessChoice
    ) -> tuple[dict[str, torch.Tensor], Scores]:
        """The weights to ship, scored on all validation cases."""
        if self.training.checkpoint == "best" and self.best.exists():
            best = load_torch_file(self.best, "delete it, or train from the start")
            _restored(self.best, lambda: self.average.net.load_state_dict(best))
        scores = validate(self.average.net, cases, self.plan, self.scheme, self.device, choice.add)
        self._note(validation_dice=scores.mean_dice, dice=scores.dice, final=True)
        write_text_atomic(self.log, "".join(json.dumps(entry) + "\n" for entry in self.entries))
        write_curve(self.entries, self.folder / "progress.png")
        return {name: value.cpu() for name, value in self.average.net.state_dict().items()}, scores

    def _note(self, **values: Any) -> None:
        if self.entries and self.entries[-1].get("final"):
            self.entries.pop()
        self.entries.append({"iteration": self.iteration, "seconds": round(self.elapsed, 2), **values})

    def _show(self, progress: ProgressCallback, done: float) -> None:
        latest = next((e["validation_dice"] for e in reversed(self.entries) if "validation_dice" in e), None)
        dice = "" if latest is None else f", Dice {latest:.3f}"
        loss = next(e["loss"] for e in reversed(self.entries) if "loss" in e)
        progress(done, 1.0, f"iteration {self.iteration}, loss {loss:.3f}{dice}")

    def _require_number(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise MedsegError(
                f"the loss is {loss} at iteration {self.iteration}; lower training.learning_rate or check the "
                f"intensities of the data; the last good state is in {self.last}"
            )


def _restored(path: Path, take: Callable[[], Any]) -> None:
    try:
        take()
    except Exception as error:  # A file that somebody altered may hold anything, and each state fails in its own way.
        raise CheckpointError(
            f"{path}: does not fit this training ({first_line(error)}); delete it to train from the start, or restore "
            "it from a backup"
        ) from None


def _optimizer(net: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    training = config.training
    rate = default_learning_rate(training)
    if training.optimizer == "sgd":
        decay = 3e-5 if training.weight_decay is None else training.weight_decay
        return torch.optim.SGD(
            net.parameters(), rate, momentum=training.momentum, nesterov=training.momentum > 0, weight_decay=decay
        )
    decay = 1e-2 if training.weight_decay is None else training.weight_decay
    return torch.optim.AdamW(net.parameters(), rate, weight_decay=decay)
