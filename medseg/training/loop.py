"""The training loop: steps, validation with real sliding windows, checkpoints, log."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medseg.augmentation import mixed_loss
from medseg.config import PostprocessConfig
from medseg.disk.atomic import atomic_path
from medseg.errors import CheckpointError, MedsegError
from medseg.losses import distances_for
from medseg.nets.weights_file import first_line, load_torch_file
from medseg.preparation.plan_upgrade import hashed_content
from medseg.progress import ProgressCallback
from medseg.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from medseg.training.cost import Stopwatch, peak_memory_gb
from medseg.training.data import Batch, BatchSource, prefetched
from medseg.training.ema import WeightAverage
from medseg.training.fold import Fold, Setup
from medseg.training.identity import identity_of_annotation, identity_of_settings
from medseg.training.journal import Journal
from medseg.training.mask_pictures import MaskPictures
from medseg.training.optimizer import build_optimizer, set_rate
from medseg.training.postprocess_choice import PostprocessChoice, score_of_task
from medseg.training.precision import precision_for
from medseg.training.schedule import is_over, learning_rate, progress_of
from medseg.training.stop_signals import StopSignals
from medseg.training.validation import Scores, validate

__all__ = ["Trained", "train_fold"]

_log = logging.getLogger("medseg")
_LOG_EVERY = 20
_VALIDATIONS = 10
# Where the scores in the log are measured: on the images' own grids.
_GRID = "image"


@dataclass(frozen=True, slots=True)
class Trained:
    """Result of training one fold.

    Args:
        weights: averaged weights to ship (the last, or the best where `training.checkpoint: best`).
        iterations: steps done.
        seconds: time spent.
        scores: validation scores of the shipped weights on the images' own grids, without post-processing.
        postprocess: the rules that help on the validation cases.
        postprocess_gains: 'label: rule' -> gain in the mean score.
    """

    weights: dict[str, torch.Tensor]
    iterations: int
    seconds: float
    scores: Scores
    postprocess: PostprocessConfig
    postprocess_gains: dict[str, float]


def train_fold(
    net: nn.Module, loss: nn.Module, fold: Fold, setup: Setup, *, resume: bool, progress: ProgressCallback
) -> Trained:
    """Train one network on one fold.

    Args:
        net: logits `(B, C, I, J[, K])`, or in training a tuple of main and auxiliary ones.
        loss: called with (logits, labels), a scalar.
        fold: cases and folder.
        setup: what all folds share.
        resume: continue from the folder's last checkpoint where there is one.
        progress: called with how far the training is.

    Raises:
        CheckpointError: `resume` with a checkpoint that is damaged or belongs to another training.
        WriteError: disk full; the last good checkpoint stays.
        MedsegError: the loss has become NaN or infinite.
    """
    trainer = _Trainer(net, loss, fold, setup)
    if resume and trainer.last.exists():
        trainer.restore()
        _log.info("resuming at iteration %d", trainer.iteration)
    distances = distances_for(loss, setup.plan.net_spacing_mm or (1.0,) * setup.plan.dims)
    source = BatchSource(fold.training, setup.plan, setup.scheme, setup.config, fold.number, distances)
    with trainer.signals.listening():
        trainer.run(source, progress)
    choice = PostprocessChoice(setup.scheme, score_of_task(setup.config.task))
    weights, scores = trainer.shipped(choice)
    return Trained(weights, trainer.iteration, trainer.elapsed, scores, *choice.chosen())


def _identity(net: nn.Module, fold: Fold, setup: Setup) -> str:
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    content = [
        hashed_content(setup.plan),
        repr(setup.scheme.trained),
        repr(shapes),
        setup.config.seed,
        fold.number,
        [case.name for case in fold.training],
        *identity_of_settings(setup.config),
        *identity_of_annotation(fold.training),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class _Trainer:
    """State of one training; `restore` and `save` keep all of it."""

    def __init__(self, net: nn.Module, loss: nn.Module, fold: Fold, setup: Setup) -> None:
        self.plan, self.scheme, self.device = setup.plan, setup.scheme, setup.device
        self.net, self.loss = net.to(self.device), loss.to(self.device)
        self.training, self.cases = setup.config.training, fold.validation
        self.folder, self.identity = fold.folder, _identity(net, fold, setup)
        self.last, self.best = (fold.folder / name for name in ("last.pt", "best.pt"))
        self.journal = Journal(fold.folder, self.training.logger)
        self.average = WeightAverage(net, self.training.ema_decay)
        self.optimizer = build_optimizer(net, self.training)
        self.precision = precision_for(net, self.plan, self.device) if self.training.mixed_precision else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        self.iteration, self.elapsed, self.best_score = 0, 0.0, -1.0
        self.signals = StopSignals()

    def restore(self) -> None:
        """Continue where the last checkpoint stopped."""
        state = load_checkpoint(self.last)
        if state.identity != self.identity:
            raise CheckpointError(
                f"{self.last} belongs to a training with another plan, data set, split, labels, loss, augmentation or "
                "seed; give the same configuration, or choose another output folder"
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
        _restored(self.journal.path, lambda: self.journal.restore(self.iteration))
        validated = [entry for entry in self.journal.entries if "validation_dice" in entry]
        if any(case.native for case in self.cases) and any(entry.get("grid") != _GRID for entry in validated):
            # Measured on the network's grid by an older medseg: the scores to come cannot be compared with it.
            self.best_score = -1.0

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
        self.journal.save()

    def run(self, source: BatchSource, progress: ProgressCallback) -> None:
        """Steps until the limit, saving and validating on the way; Ctrl-C or SIGTERM ends the step, then saves."""
        batches = prefetched(source, self.iteration, self.device.type == "cuda")
        started = time.monotonic() - self.elapsed
        losses, watch = [], Stopwatch()
        try:
            self._validate_again()
            while not is_over(self.iteration, self.elapsed, self.training):
                with watch.measuring("wait"):
                    batch = next(batches)
                done_before = progress_of(self.iteration, self.elapsed, self.training)
                rate = learning_rate(self.iteration, done_before, self.training)
                with self.signals.uninterrupted(), watch.measuring("step"):
                    losses.append(self._step(batch, rate))
                    self.iteration += 1
                    self.elapsed = time.monotonic() - started
                done = progress_of(self.iteration, self.elapsed, self.training)
                if self.iteration % _LOG_EVERY == 0:
                    with watch.measuring("step"):  # A GPU ends its steps only here.
                        mean = torch.stack(losses).mean().item()
                    self._require_number(mean)
                    spent = watch.taken(len(losses))
                    self._note(loss=mean, learning_rate=rate, **spent, memory_gb=peak_memory_gb(self.device))
                    progress(done, 1.0, self.journal.status())
                    losses = []
                if self._validation_due(done_before, done) and not is_over(self.iteration, self.elapsed, self.training):
                    self._validate()
                    self.elapsed = time.monotonic() - started
                if self.iteration % self.training.save_every == 0:
                    self.save()
        except KeyboardInterrupt:
            self.save()
            _log.info("stopped at iteration %d; continue with --resume", self.iteration)
            raise
        finally:
            batches.close()  # type: ignore[attr-defined]
        self.save()
        progress(1, 1, f"{self.iteration} iterations")

    def _step(self, batch: Batch, rate: float) -> torch.Tensor:
        set_rate(self.optimizer, rate)
        images, labels = (t.to(self.device, non_blocking=True) for t in (batch.images, batch.labels))
        others = None if batch.others is None else batch.others.to(self.device, non_blocking=True)
        self.net.train()
        with torch.autocast(self.device.type, self.precision, enabled=self.precision is not None):
            logits = self.net(images)
        value = mixed_loss(self.loss, logits, labels, others, batch.share)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(value).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.net.parameters(), self.training.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(self.net, self.iteration)
        return value.detach()

    def _validate_again(self) -> None:
        """Validate where the training was stopped within a validation, as its score may choose the weights."""
        before, now = (progress_of(n, self.elapsed, self.training) for n in (self.iteration - 1, self.iteration))
        done = any(
            "validation_dice" in entry and entry["iteration"] == self.iteration for entry in self.journal.entries
        )
        if self.iteration and not done and now < 1 and self._validation_due(before, now):
            self._validate()

    def _validation_due(self, before: float, now: float) -> bool:
        if self.training.validate_every is not None:
            return self.iteration % self.training.validate_every == 0
        return int(before * _VALIDATIONS) != int(now * _VALIDATIONS)

    def _validate(self) -> None:
        if not self.cases:
            return
        limit = self.training.validation_cases or len(self.cases)
        picked = self.cases[:: math.ceil(len(self.cases) / limit)]
        pictures, watch = MaskPictures(picked, self.plan, self.scheme), Stopwatch()
        with watch.measuring("validate"):
            scores = validate(self.average.net, picked, self.plan, self.scheme, self.device, pictures.add)
        if scores.mean_dice > self.best_score:
            with atomic_path(self.best) as temporary:
                torch.save(self.average.net.state_dict(), temporary)
            self.best_score = scores.mean_dice
        self._note(validation_dice=scores.mean_dice, dice=scores.dice, grid=_GRID, **watch.taken())
        self.journal.keep_picture(self.iteration, pictures.drawn())
        self.journal.draw()

    def shipped(self, choice: PostprocessChoice) -> tuple[dict[str, torch.Tensor], Scores]:
        """The weights to ship, scored on all validation cases."""
        if self.training.checkpoint == "best" and self.best.exists():
            best = load_torch_file(self.best, "delete it, or train from the start")
            _restored(self.best, lambda: self.average.net.load_state_dict(best))
        watch = Stopwatch()
        with watch.measuring("validate"):
            scores = validate(self.average.net, self.cases, self.plan, self.scheme, self.device, choice.add)
        found = {"validation_dice": scores.mean_dice, "dice": scores.dice, "grid": _GRID} if self.cases else {}
        self._note(**found, **watch.taken(), final=True)
        self.journal.save()
        self.journal.draw()
        return {name: value.cpu() for name, value in self.average.net.state_dict().items()}, scores

    def _note(self, **values: Any) -> None:
        self.journal.note(self.iteration, self.elapsed, **values)

    def _require_number(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise MedsegError(
                f"the loss is {loss} at iteration {self.iteration}; lower training.learning_rate or check the "
                f"intensities of the data; the last good state is in {self.last}"
            )


def _restored(path: Path, take: Callable[[], Any]) -> None:
    try:
        take()
    except (
        Exception
    ) as error:  # An altered file may contain anything, and every state dict fails with errors of its own.
        raise CheckpointError(
            f"{path}: does not fit this training ({first_line(error)}); delete it to train from the start, or restore "
            "it from a backup"
        ) from None
