"""Pretraining: what is hidden, what is learned from it, and that a training starts from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import medseg
from medseg.cli import app
from medseg.config import load_config
from medseg.errors import ConfigError, DatasetError
from medseg.training.pretraining.masking import draw_mask, masked
from medseg.training.pretraining.run import NETS, pretrain

SHORT = {"training.max_iterations": 3, "training.mixed_precision": False, "prediction.postprocess": "off"}


def test_the_share_of_blocks_is_hidden_whole() -> None:
    mask = draw_mask(np.random.default_rng(3), (16, 16, 16), block=8, share=0.5)
    blocks = mask.view(1, 2, 8, 2, 8, 2, 8).float().mean(dim=(2, 4, 6))
    assert sorted(blocks.flatten().tolist()) == [0.0] * 4 + [1.0] * 4
    assert draw_mask(np.random.default_rng(3), (10, 13), block=8, share=0.01).any()


def test_hidden_voxels_become_the_mean_and_others_stay() -> None:
    images, mask = torch.randn(1, 2, 8, 8), draw_mask(np.random.default_rng(0), (8, 8), 4, 0.5)[None]
    found = masked(images, mask)
    assert torch.equal(found[~mask.expand_as(images)], images[~mask.expand_as(images)])
    assert not found[mask.expand_as(images)].any()


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("net", NETS)
def test_a_training_starts_from_all_pretrained_weights(tiny_dataset: Path, net: str, dims: int) -> None:
    own = {"net.name": net, "net.dims": dims, "plan.patch_size": [16] * dims}
    config = load_config(tiny_dataset / "config.yaml", {**SHORT, **own, "data.root": str(tiny_dataset / "data")})
    made = pretrain(config, tiny_dataset / "encoder")
    weights = load_file(made.folder / "pretrained.safetensors")
    run = medseg.train(
        tiny_dataset / "config.yaml",
        {**SHORT, **own, "training.init": str(made.folder), "training.learning_rate": 1e-12},
    )
    found = load_file(run.bundle / "weights_fold0.safetensors")
    assert weights and set(weights) <= set(found)
    for name, value in weights.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)


def test_the_command_says_the_error_and_what_to_do_next(tiny_dataset: Path) -> None:
    arguments = ["pretrain", str(tiny_dataset / "data" / "images"), "-o", str(tiny_dataset / "encoder")]
    arguments += ["--config", str(tiny_dataset / "config.yaml"), "training.max_iterations=3", "device=cpu"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    error = float(done.output.split("mean squared error of ")[1].split()[0])
    assert error > 0 and f"training.init={tiny_dataset / 'encoder'}" in done.output


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(tiny_dataset: Path) -> None:
    config = load_config(tiny_dataset / "config.yaml", SHORT)
    first, second = (
        load_file(pretrain(config, tiny_dataset / name).folder / "pretrained.safetensors") for name in ("one", "two")
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_other_networks_used_folders_and_folders_without_images_are_refused(tiny_dataset: Path) -> None:
    other = load_config(tiny_dataset / "config.yaml", {"net.name": "enet", "net.channels": None})
    with pytest.raises(ConfigError, match="pretrain takes unet, unet_residual, nnunet_plain, nnunet_resenc"):
        pretrain(other, tiny_dataset / "encoder")
    (tiny_dataset / "encoder").mkdir()
    (tiny_dataset / "encoder" / "pretrained.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="already holds pretrained weights"):
        pretrain(load_config(tiny_dataset / "config.yaml", SHORT), tiny_dataset / "encoder")
    (tiny_dataset / "none").mkdir()
    with pytest.raises(DatasetError, match="contains no images"):
        pretrain(
            load_config(tiny_dataset / "config.yaml", {**SHORT, "data.root": str(tiny_dataset / "none")}),
            tiny_dataset / "new",
        )
