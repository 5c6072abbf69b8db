"""The training loop: steps, validation with real sliding windows, checkpoints, log."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from medseg.augmentation import mixed_loss
from medseg.config import PostprocessConfig
from medseg.disk.atomic import atomic_path
from medseg.errors import CheckpointError, MachineError, MedsegError
from medseg.losses import distances_for, over_ranks, show_images
from medseg.nets.weights_file import load_torch_file
from medseg.progress import ProgressCallback
from medseg.training.checkpoint import Checkpoint, load_checkpoint, restored, save_checkpoint
from medseg.training.cost import Stopwatch, peak_memory_gb
from medseg.training.data import Batch, Batches, BatchSource, prefetched
from medseg.training.ema import WeightAverage
from medseg.training.failures import memory_explained, no_number, step_too_large, validation_too_large
from medseg.training.faster import channels_last, compiled
from medseg.training.fold import Fold, Setup
from medseg.training.identity import identity_of
from medseg.training.journal import Journal
from medseg.training.mask_pictures import MaskPictures
from medseg.training.optimizer import build_optimizer, set_rate
from medseg.training.postprocess_choice import PostprocessChoice, score_of_task
from medseg.training.precision import precision_for
from medseg.training.schedule import has_no_gain, is_over, learning_rate, progress_of, with_epochs
from medseg.training.semi.teaching import Teaching
from medseg.training.semi.views import WithUnlabelled
from medseg.training.stop_signals import StopSignals
from medseg.training.synced_batch_norm import with_synced_batch_norm
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
    net: nn.Module,
    loss: nn.Module,
    fold: Fold,
    setup: Setup,
    *,
    resume: bool,
    progress: ProgressCallback,
    second: nn.Module | None = None,
) -> Trained:
    """Train one network on one fold.

    Args:
        net: logits `(B, C, I, J[, K])`, or in training a tuple of main and auxiliary ones.
        loss: called with (logits, labels), a scalar; with a teacher, with ((logits, the teacher's logits), labels).
        fold: cases and folder.
        setup: what all folds share.
        resume: continue from the folder's last checkpoint where there is one.
        progress: called with how far the training is.
        second: of the same form, for cross pseudo supervision on the fold's unlabelled cases; None: mean teacher.

    Raises:
        CheckpointError: `resume` with a checkpoint that is damaged or belongs to another training.
        WriteError: disk full; the last good checkpoint stays.
        MachineError: too little memory, or another process of the training has ended.
        MedsegError: the loss has become NaN or infinite.
    """
    distances = distances_for(loss, setup.plan.net_spacing_mm or (1.0,) * setup.plan.dims)
    trainer = _Trainer(net, loss, fold, setup, second)
    if resume and trainer.last.exists():
        setup.ranks.from_first(trainer.restore)
        if setup.ranks.rank:
            trainer.restore()
        _log.info("resuming at iteration %d", trainer.iteration)
    numbers = [n for part in trainer.parts for n in part.numbers]
    labelled = BatchSource(fold.training, setup.plan, setup.scheme, setup.config, fold.number, distances, numbers)
    source: Batches = labelled
    if trainer.teaching is not None:
        source = WithUnlabelled(labelled, fold, setup, trainer.teaching.numbers)
    with trainer.signals.listening():
        trainer.run(source, progress)

    def shipped() -> Trained:
        choice = PostprocessChoice(setup.scheme, score_of_task(setup.config.task))
        weights, scores = trainer.shipped(choice)
        return Trained(weights, trainer.iteration, trainer.elapsed, scores, *choice.chosen())

    return setup.ranks.from_first(shipped)


class _Trainer:
    """State of one training; `restore` and `save` keep all of it."""

    def __init__(self, net: nn.Module, loss: nn.Module, fold: Fold, setup: Setup, second: nn.Module | None) -> None:
        self.plan, self.scheme, self.device, self.ranks = setup.plan, setup.scheme, setup.device, setup.ranks
        self.config, self.seed, self.cases = setup.config, (setup.config.seed, fold.number), fold.validation
        self.training = with_epochs(setup.config.training, len(fold.training), setup.plan.batch_size)
        self.parts = self.ranks.parts(setup.plan.batch_size, self.training.accumulate)
        self.net, self.loss, self.teacher = net.to(self.device), loss.to(self.device), setup.teacher
        if self.ranks.size > 1:
            self.net = with_synced_batch_norm(self.net, self.device)
            self.loss = over_ranks(self.loss, self.ranks.all_sum)
        if self.training.channels_last:
            for parameter in self.net.parameters():
                parameter.data = channels_last(parameter.data, self.plan.dims)
        self.forward: Callable[[torch.Tensor], Any] = self.net
        self.folder, self.identity = fold.folder, identity_of(self.net, fold, setup)
        self.last, self.best = (fold.folder / name for name in ("last.pt", "best.pt"))
        self.journal = Journal(fold.folder, self.training.logger if self.ranks.rank == 0 else None)
        self.average = WeightAverage(self.net, self.training.ema_decay)
        self.teaching = Teaching(self.net, self.average.net, second, fold, setup) if fold.unlabelled else None
        self.optimizer = build_optimizer(self.net, self.training)
        self.precision = precision_for(self.net, self.plan, self.device) if self.training.mixed_precision else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        self.iteration, self.elapsed, self.best_score = 0, 0.0, -1.0
        self.signals = StopSignals(several=self.ranks.size > 1)
        self.exhausted = False
        self._look_again()

    def _look_again(self) -> None:
        """Losses and times are collected from here on."""
        self.losses: list[torch.Tensor] = []
        self.watch = Stopwatch()

    def restore(self) -> None:
        """Continue where the last checkpoint stopped."""
        state = load_checkpoint(self.last)
        if state.identity != self.identity:
            raise CheckpointError(
                f"{self.last} belongs to a training with another plan, data set, split, labels, loss, augmentation, "
                "teacher or seed; give the same configuration, or choose another output folder"
            )

        def take() -> None:
            self.net.load_state_dict(state.net)
            self.average.net.load_state_dict(state.average)
            self.optimizer.load_state_dict(state.optimizer)
            self.scaler.load_state_dict(state.scaler)
            if self.teaching is not None:
                self.teaching.restore(state.semi)
            torch.set_rng_state(state.random_state)
            self.iteration, self.elapsed = int(state.iteration), float(state.elapsed_seconds)
            self.best_score = float(state.best_score)

        restored(self.last, take)
        restored(self.journal.path, lambda: self.journal.restore(self.iteration))
        validated = [entry for entry in self.journal.entries if "validation_dice" in entry]
        if any(case.native for case in self.cases) and any(entry.get("grid") != _GRID for entry in validated):
            # Measured on the network's grid by an older medseg: the scores to come cannot be compared with it.
            self.best_score = -1.0
        self.exhausted = self._is_exhausted()

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
            semi={} if self.teaching is None else self.teaching.state(),
        )
        save_checkpoint(state, self.last)
        self.journal.save()

    def run(self, source: Batches, progress: ProgressCallback) -> None:
        """Steps until the limit, saving and validating on the way; Ctrl-C or SIGTERM ends the step, then saves."""
        self.ranks.same_weights(self.net)
        if self.teaching is not None and self.teaching.second is not None:
            self.ranks.same_weights(self.teaching.second)
        if self.training.compile:
            zeros = torch.zeros(len(self.parts[0].numbers), self.plan.in_channels, *self.plan.patch_size)
            self.forward = compiled(self.net.train(), self._on_device(zeros), self.precision)
        numbers = [part.numbers for part in self.parts]
        batches = prefetched(source, self.iteration, self.device.type == "cuda")
        too_large = step_too_large(self.config, self.plan, max(map(len, numbers)), self.ranks.size)
        started = time.monotonic() - self.elapsed
        self._look_again()
        try:
            if self._validation_was_stopped():
                self._validate_in_time(source, started)
            while not self._is_over():
                done_before = progress_of(self.iteration, self.elapsed, self.training)
                rate = learning_rate(self.iteration, done_before, self.training)
                with self.signals.uninterrupted(), memory_explained(too_large):
                    with self.watch.measuring("wait"):
                        batch = next(batches)
                    with self.watch.measuring("step"):
                        self.losses.append(self._step(batch, rate))
                    self.iteration += 1
                    self.elapsed, stop = self.ranks.agreed(time.monotonic() - started, self.signals.caught)
                if stop:
                    raise KeyboardInterrupt(signal.Signals(stop))
                done = progress_of(self.iteration, self.elapsed, self.training)
                if self.iteration % _LOG_EVERY == 0:
                    self.ranks.from_first(partial(self._log_losses, source, rate, progress, done))
                    self._look_again()
                if self._validation_due(done_before, done) and not self._is_over():
                    self._validate_in_time(source, started)
                if self.iteration % self.training.save_every == 0:
                    self.ranks.from_first(partial(self._save_numbers, source))
        except KeyboardInterrupt:
            if self.ranks.rank == 0:
                self._save_numbers(source)
            _log.info("stopped at iteration %d; continue with --resume", self.iteration)
            raise
        finally:
            batches.close()  # type: ignore[attr-defined]
        self.ranks.from_first(partial(self._save_numbers, source))
        if self.exhausted:
            _log.info("stopped at iteration %d, as training.patience validations gave no better score", self.iteration)
        progress(1, 1, f"{self.iteration} iterations")

    def _is_over(self) -> bool:
        return self.exhausted or is_over(self.iteration, self.elapsed, self.training)

    def _is_exhausted(self) -> bool:
        measured = (e for e in self.journal.entries if e.get("grid") == _GRID and not e.get("final"))
        return has_no_gain([e["validation_dice"] for e in measured], self.training)

    def _step(self, batch: Batch, rate: float) -> torch.Tensor:
        set_rate(self.optimizer, rate)
        self.net.train()
        if self.ranks.size > 1:
            # Dropout: other masks on every rank, and the same ones after a resume.
            numbers = np.random.SeedSequence([*self.seed, self.iteration, self.ranks.rank]).generate_state(1)
            torch.manual_seed(int(numbers[0]))
        self.optimizer.zero_grad(set_to_none=True)
        if self.teaching is not None:
            self.teaching.begin(rate)
        counts = [len(part.numbers) for part in self.parts]
        others = [None] * len(counts) if batch.others is None else torch.split(batch.others, counts)
        split = zip(torch.split(batch.images, counts), torch.split(batch.labels, counts), others, strict=True)
        value = torch.zeros((), device=self.device)
        for part, (images, labels, mixed_in) in zip(self.parts, split, strict=True):
            value += self._gradients(Batch(images, labels, batch.cases, mixed_in, batch.share), part.share)
        if self.teaching is not None and batch.unlabelled is not None:
            done = progress_of(self.iteration, self.elapsed, self.training)
            value += self.teaching.add_gradients(batch.unlabelled, self.iteration, done, self.scaler, self.precision)
            self.teaching.end(self.scaler)
        self.ranks.sum_gradients(self.net)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), self.training.gradient_clip)
        if not self.scaler.is_enabled():
            value += 0 * norm  # so that a gradient which is not a number shows at its own batch, not at the next
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(self.net, self.iteration)
        return value

    def _gradients(self, batch: Batch, share: float) -> torch.Tensor:
        """Add the gradients of a part of the batch, which counts as its share of it."""
        images = self._on_device(batch.images)
        # Before the student keeps its own maps for the gradients.
        taught = None if self.teacher is None else self.teacher.logits(images, self.precision)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision is not None):
            logits = self.forward(images)
        outputs = logits if taught is None else (logits, taught)
        labels = batch.labels.to(self.device, non_blocking=True)
        others = None if batch.others is None else batch.others.to(self.device, non_blocking=True)
        show_images(self.loss, images)

        def loss(outputs: object) -> torch.Tensor:
            return mixed_loss(self.loss, outputs, labels, others, batch.share) * share

        value = loss(outputs)
        self.scaler.scale(value).backward()  # type: ignore[no-untyped-call]
        if self.teaching is not None:
            self.teaching.add_labelled(
                images, lambda own: loss(own if taught is None else (own, taught)), self.scaler, self.precision
            )
        return value.detach()

    def _on_device(self, images: torch.Tensor) -> torch.Tensor:
        images = images.to(self.device, non_blocking=True)
        return channels_last(images, self.plan.dims) if self.training.channels_last else images

    def _validation_was_stopped(self) -> bool:
        """Whether the training was stopped within a validation, which is made up for: it may choose the weights."""
        before, now = (progress_of(n, self.elapsed, self.training) for n in (self.iteration - 1, self.iteration))
        done = any("validation_dice" in e and e["iteration"] == self.iteration for e in self.journal.entries)
        return bool(self.iteration) and not done and now < 1 and self._validation_due(before, now)

    def _validation_due(self, before: float, now: float) -> bool:
        if self.training.validate_every is not None:
            return self.iteration % self.training.validate_every == 0
        return int(before * _VALIDATIONS) != int(now * _VALIDATIONS)

    def _validate_in_time(self, source: Batches, started: float) -> None:
        """Validate on rank 0, whose clock and patience count, while the others wait."""

        def validated() -> tuple[float, bool]:
            self._require_numbers(source)
            with self.signals.interruptible():
                self._validate()
            return time.monotonic() - started, self._is_exhausted()

        try:
            self.elapsed, self.exhausted = self.ranks.from_first(validated)
        except MachineError:
            if self.ranks.rank and self.signals.caught:  # Rank 0 has been stopped, as this one.
                raise KeyboardInterrupt(signal.Signals(self.signals.caught)) from None
            raise
        self._look_again()

    def _validate(self) -> None:
        if not self.cases:
            return
        limit = self.training.validation_cases or len(self.cases)
        picked = self.cases[:: math.ceil(len(self.cases) / limit)]
        pictures, watch = MaskPictures(picked, self.plan, self.scheme), Stopwatch()
        with memory_explained(validation_too_large(self.config)), watch.measuring("validate"):
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
            restored(self.best, lambda: self.average.net.load_state_dict(best))
        watch = Stopwatch()
        with memory_explained(validation_too_large(self.config)), watch.measuring("validate"):
            scores = validate(self.average.net, self.cases, self.plan, self.scheme, self.device, choice.add)
        found = {"validation_dice": scores.mean_dice, "dice": scores.dice, "grid": _GRID} if self.cases else {}
        self._note(**found, **watch.taken(), final=True)
        self.journal.save()
        self.journal.draw()
        return {name: value.cpu().contiguous() for name, value in self.average.net.state_dict().items()}, scores

    def _note(self, **values: Any) -> None:
        self.journal.note(self.iteration, self.elapsed, **values)

    def _log_losses(self, source: Batches, rate: float, progress: ProgressCallback, done: float) -> None:
        with self.watch.measuring("step"):  # A GPU ends its steps only here.
            self._require_numbers(source)
            loss = torch.stack(self.losses).mean().item()
        spent = self.watch.taken(len(self.losses))
        if self.teaching is not None:
            spent |= self.teaching.taken()
        self._note(loss=loss, learning_rate=rate, **spent, memory_gb=peak_memory_gb(self.device))
        progress(done, 1.0, self.journal.status())

    def _save_numbers(self, source: Batches) -> None:
        self._require_numbers(source)
        self.save()

    def _require_numbers(self, source: Batches) -> None:
        """Refuse to go on, to save or to validate after a loss that is not a number."""
        losses = torch.stack(self.losses) if self.losses else torch.zeros(1)
        wrong = (~losses.isfinite()).nonzero()
        if len(wrong):
            first = int(wrong[0])
            iteration = self.iteration - len(losses) + first
            cases = source.batch(iteration, range(self.plan.batch_size)).cases
            raise MedsegError(no_number(losses[first].item(), iteration + 1, cases, self.last))
