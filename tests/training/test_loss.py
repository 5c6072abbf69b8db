"""`loss` of a configuration: one loss, or `terms` that are summed; wrong ones are refused before data is read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import medseg
from medseg.config import LossConfig, LossTerm, RunConfig, load_config, validate_model
from medseg.errors import ConfigError
from medseg.losses import build_loss, build_loss_sum, distances_for
from medseg.training.data import BatchSource
from medseg.training.loss import _built, check_loss
from medseg.training.run import prepare_run

NET = nn.Conv2d(1, 2, 1)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 3, 9, 8, generator=generator), torch.randint(0, 3, (2, 1, 9, 8), generator=generator)


def test_a_sum_of_terms_is_the_weighted_sum_of_the_losses(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    terms = [("dice", 0.5, {"smooth": 2.0}), ("focal", 2.0, {"gamma": 1.0}), ("dice_ce", 1.0, {})]
    expected = sum(weight * build_loss(name, **options)(*batch) for name, weight, options in terms)
    assert build_loss_sum(terms)(*batch).item() == pytest.approx(float(expected), rel=1e-6)


def test_the_named_sums_are_sums_of_terms(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    named = build_loss("dice_ce", dice_weight=0.3, ce_weight=0.7, smooth=0.1)
    assert torch.equal(
        named(*batch), build_loss_sum([("dice", 0.3, {"smooth": 0.1}), ("cross_entropy", 0.7, {})])(*batch)
    )


def test_weights_by_inverse_frequency_reach_the_term_that_asks_for_them(
    batch: tuple[torch.Tensor, torch.Tensor],
) -> None:
    by_frequency = [("dice", 1.0, {}), ("cross_entropy", 1.0, {"weights": "inverse_frequency"})]
    by_hand = [("dice", 1.0, {}), ("cross_entropy", 1.0, {"weights": [4 / 3 / 2, 4 / 3, 4 / 3]})]
    frequencies = [0.5, 0.25, 0.25]
    assert build_loss_sum(by_frequency, frequencies=frequencies)(*batch).item() == pytest.approx(
        build_loss_sum(by_hand)(*batch).item(), rel=1e-5
    )


def test_a_loss_of_ones_own_may_be_a_term(
    batch: tuple[torch.Tensor, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin_loss.py").write_text(
        "from torch import nn\n"
        "class Squared(nn.Module):\n"
        "    def __init__(self, labels=None, power=2):\n"
        "        super().__init__()\n"
        "        self.power = power\n"
        "    def forward(self, logits, labels):\n"
        "        return (logits ** self.power).mean()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "plugin_loss", raising=False)
    own = ("plugin_loss:Squared", 0.5, {"power": 4})
    alone = build_loss_sum([own])(*batch)
    assert alone.item() == pytest.approx(0.5 * float((batch[0] ** 4).mean()), rel=1e-6)
    both = build_loss_sum([own, ("dice", 1.0, {})])(*batch)
    assert both.item() == pytest.approx(float(alone) + float(build_loss("dice")(*batch)), rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"name": "dsie"}, "did you mean 'dice'"),
        ({"name": "dsie", "options": {"weights": "inverse_frequency"}}, "did you mean 'dice'"),
        ({"name": "dice", "options": {"weights": "inverse_frequency"}}, "dice has no option 'weights'"),
        ({"terms": [{"name": "dice"}, {"name": "focla"}]}, "did you mean 'focal'"),
        ({"terms": [{"name": "focal", "options": {"gama": 1}}]}, "focal has no option 'gama'.*did you mean 'gamma'"),
        ({"terms": [{"name": "dice", "wieght": 1}]}, r"unknown key 'loss\.terms\.0\.wieght'; did you mean 'weight'"),
        ({"terms": [{"name": "dice", "weight": -1}]}, r"loss\.terms\.0\.weight: Input should be greater than or equal"),
        ({"terms": [{"weight": 1}]}, r"loss\.terms\.0\.name is missing"),
        ({"terms": [{"name": "dice", "weight": 0}]}, "no term has a weight above 0"),
        ({"name": "focal", "terms": [{"name": "dice"}]}, "give either name and options, or terms"),
        ({"options": {"smooth": 1}, "terms": [{"name": "dice"}]}, "give either name and options, or terms"),
        ({"name": "dice", "weights": "inverse_frequency"}, "loss.weights is given, but dice has no weights of classes"),
        ({"name": "dsie", "weights": [1, 2]}, "did you mean 'dice'"),
        ({"weights": [1, 2], "options": {"weights": [1, 2]}}, "give weights once"),
        ({"weights": [0, 0]}, "no weight is above 0"),
        ({"weights": [1, -2]}, r"loss\.weights.*greater than or equal to 0"),
        ({"weights": "inverse"}, r"loss\.weights"),
    ],
)
def test_a_wrong_loss_is_refused_before_data_is_read(loss: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_loss(validate_model(RunConfig, {"data": {"root": "x"}, "loss": loss}, "run.yaml").loss, NET)


def test_a_loss_with_frequencies_of_its_own_keeps_them() -> None:
    check_loss(LossConfig(name="cross_entropy", options={"weights": "inverse_frequency", "frequencies": [1, 2]}), NET)


def test_terms_and_listed_augmentations_are_trained_with_and_resumed(tiny_dataset: Path) -> None:
    overrides = {
        "loss.terms": [{"name": "dice"}, {"name": "cross_entropy", "options": {"weights": "inverse_frequency"}}],
        "augmentation.extra": [{"name": "noise", "probability": 1, "std": 0.5}, {"name": "gamma"}],
    }
    run = medseg.train(tiny_dataset / "config.yaml", overrides={"training.max_iterations": 2, **overrides})
    again = medseg.train(run.folder / "config.yaml", overrides={"training.max_iterations": 3}, resume=True)
    assert medseg.load_model(again.bundle, device="cpu").info.provenance.iterations == 3


def test_weights_of_the_loss_reach_every_term_made_of_cross_entropy(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    names = ("dice", "cross_entropy", "topk_cross_entropy", "dice_focal")
    config = LossConfig(terms=tuple(LossTerm(name=name) for name in names), weights=(1, 2, 4))
    options: list[dict[str, Any]] = [{} if name == "dice" else {"weights": [1, 2, 4]} for name in names]
    expected = build_loss_sum([(name, 1.0, each) for name, each in zip(names, options, strict=True)])
    assert torch.equal(_built(config, None, None, NET)(*batch), expected(*batch))


def test_a_number_of_weights_that_does_not_fit_the_labels_is_refused(tiny_dataset: Path) -> None:
    with pytest.raises(ConfigError, match="the loss has 3 weights or frequencies; this data set has 2 channels"):
        medseg.train(tiny_dataset / "config.yaml", overrides={"loss.weights": [1, 2, 3]})


@pytest.mark.parametrize(
    "loss",
    [
        {"loss.name": "generalized_dice"},
        {"loss.terms": [{"name": "tversky", "options": {"gamma": 4 / 3}}, {"name": "topk_cross_entropy"}]},
        {"loss.name": "dice_ce", "loss.options": {"label_smoothing": 0.1}, "loss.weights": "inverse_frequency"},
        {
            "loss.terms": [{"name": "dice_ce"}, {"name": "boundary", "weight": 0.01}],
            "net.deep_supervision": True,
            "net.channels": [4, 8, 16],
        },
    ],
)
def test_every_loss_trains(tiny_dataset: Path, loss: dict[str, Any]) -> None:
    run = medseg.train(tiny_dataset / "config.yaml", overrides={"training.max_iterations": 2, **loss})
    assert 0 <= run.scores[0].mean_dice <= 1


def test_distance_maps_are_made_with_the_batch(tiny_dataset: Path) -> None:
    config = load_config(tiny_dataset / "config.yaml")
    preparation = prepare_run(config)
    complete = distances_for(build_loss("boundary", preparation.dataset.labels), (1.0, 1.0, 1.0))
    cases = [preparation.open(name) for name in preparation.cases]
    source = BatchSource(cases, preparation.plan, preparation.dataset.labels, config, 0, complete)
    plain = BatchSource(cases, preparation.plan, preparation.dataset.labels, config, 0)
    batch, bare = source.batch(3), plain.batch(3)
    assert batch.labels.shape == (2, 2, 16, 16, 16)
    assert torch.equal(batch.labels[:, :1].long(), bare.labels.long())
    assert (batch.labels[:, 1:][bare.labels == 1] <= 0).all()
