"""Checkpoints survive a round trip and refuse everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medseg.errors import CheckpointError
from medseg.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


def _checkpoint() -> Checkpoint:
    weights = {"weight": torch.arange(6.0)}
    return Checkpoint("abc", 7, 1.5, weights, weights, {"state": {}}, {}, torch.get_rng_state(), 0.5)


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    save_checkpoint(_checkpoint(), tmp_path / "last.pt")
    loaded = load_checkpoint(tmp_path / "last.pt")
    assert (loaded.identity, loaded.iteration, loaded.best_score) == ("abc", 7, 0.5)
    assert torch.equal(loaded.net["weight"], torch.arange(6.0))
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "other"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(_checkpoint(), path)
    content = path.read_bytes()
    if damage == "other":
        torch.save({"something": 1}, path)
    else:
        path.write_bytes({"cut": content[: len(content) // 2], "noise": b"x" * 500, "empty": b""}[damage])
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        load_checkpoint(path)
