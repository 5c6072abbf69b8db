"""Training: from prepared cases to a model bundle."""

from medseg.training.run import Run, prepare_run, train, train_run

__all__ = ["Run", "prepare_run", "train", "train_run"]
