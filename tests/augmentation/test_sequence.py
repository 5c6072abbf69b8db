"""`augmentation.extra`: a list of augmentations, built in or one's own, applied in order after the others."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg.augmentation import Noise, SampleAugment
from medseg.config import AugmentationConfig, NoiseConfig, RunConfig, load_config, validate_model
from medseg.errors import ConfigError

STILL = {f"{kind}_probability": 0.0 for kind in ("noise", "blur", "brightness", "contrast", "gamma", "low_resolution")}


def augmented(*extra: dict[str, Any], seed: int = 0, **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
    augment = SampleAugment(AugmentationConfig(**{**STILL, "extra": extra, **settings}))
    return augment(np.random.default_rng(seed), torch.ones(2, 6, 7), torch.ones(1, 6, 7, dtype=torch.uint8))


def complaint(extra: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        validate_model(RunConfig, {"data": {"root": "x"}, "augmentation": {"extra": extra}}, "run.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix("run.yaml: ")


def test_an_entry_is_drawn_and_applied_after_all_others() -> None:
    rng = np.random.default_rng(0)
    rng.random(6)  # the six changes of the keys beside the list, none of them drawn
    noise = Noise(NoiseConfig(probability=1.0, std=0.5))
    drawn = noise.draw(rng, 2)
    assert drawn is not None
    expected = noise.apply(torch.ones(2, 6, 7), drawn)
    assert torch.equal(augmented({"name": "noise", "probability": 1, "std": 0.5})[0], expected)


def test_a_name_may_stand_in_the_list_repeatedly_and_the_order_counts() -> None:
    double = {"name": "brightness", "probability": 1, "factor": [2, 2]}
    assert torch.equal(augmented(double, double)[0], torch.full((2, 6, 7), 4.0))
    noise = {"name": "noise", "probability": 1}
    first, second = augmented(noise, double)[0], augmented(double, noise)[0]
    assert not torch.equal(first, second)


def test_without_its_draw_an_entry_changes_nothing() -> None:
    assert torch.equal(augmented({"name": "gamma", "probability": 0})[0], torch.ones(2, 6, 7))


def test_augmentations_of_ones_own_get_their_options_and_may_change_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin_listed.py").write_text(
        "class Shift:\n"
        "    def __init__(self, by=1): self.by = by\n"
        "    def draw(self, rng, shape): return self.by * len(shape)\n"
        "    def apply(self, image, labels, params): return image + params, labels + 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "plugin_listed", raising=False)
    entries = [{"name": "plugin_listed:Shift", "options": {"by": 3}}, {"name": "plugin_listed:Shift"}]
    image, labels = augmented(*entries)
    assert torch.equal(image, torch.full((2, 6, 7), 1.0 + 6 + 2)) and bool((labels == 3).all())
    with pytest.raises(ConfigError, match=r"augmentation\.extra\.1: 'plugin_listed:Shift' cannot be called .* far"):
        augmented(entries[0], {"name": "plugin_listed:Shift", "options": {"far": 3}})


def test_without_augmentation_the_list_has_no_effect() -> None:
    noise = {"name": "noise", "probability": 1}
    assert torch.equal(augmented(noise, enabled=False)[0], torch.ones(2, 6, 7))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([{"name": "nois"}], "augmentation.extra.0: unknown augmentation 'nois'; known are noise, blur, brightness"),
        ([{"name": "nois"}], "did you mean 'noise'?"),
        ([{"name": "noise"}, {"name": "Gama"}], "augmentation.extra.1: unknown augmentation 'Gama'"),
        ([{"name": "noise", "sdt": 0.3}], "unknown key 'augmentation.extra.0.sdt'; did you mean 'std'?"),
        (
            [{"name": "blur", "std": 0.3}],
            "unknown key 'augmentation.extra.0.std'; valid here: name, probability, sigma",
        ),
        ([{"name": "a.b:c", "option": {}}], "unknown key 'augmentation.extra.0.option'; did you mean 'options'?"),
        ([{"name": "noise", "noise_std": 1}], "unknown key 'augmentation.extra.0.noise_std'; did you mean 'std'?"),
        ([{"name": "noise", "std": -1}], "augmentation.extra.0.std: Input should be greater than or equal to 0"),
        ([{"name": "noise", "probability": 2}], "augmentation.extra.0.probability: Input should be less than or equal"),
        ([{"name": "low_resolution", "zoom": [0.5, 2]}], "augmentation.extra.0.zoom.1: Input should be less than or"),
        ([{"name": "gamma", "exponent": [2, 1]}], "augmentation.extra.0.exponent: the first value must not be above"),
        ([{"std": 1}], "augmentation.extra.0: expected a mapping with a name, which is one of noise, blur"),
        (["noise"], "augmentation.extra.0: expected a mapping with a name"),
        ({"noise": 1}, "augmentation.extra: expected a list of augmentations, e.g. [{name: noise, std: 0.3}]"),
        ([{"name": 3}], "augmentation.extra.0: unknown augmentation 3"),
    ],
)
def test_a_wrong_entry_is_refused_before_data_is_read(extra: Any, message: str) -> None:
    assert message in complaint(extra)


def test_the_list_reads_back_from_the_resolved_configuration() -> None:
    extra = [{"name": "noise", "std": 0.3}, {"name": "a.b:c", "options": {"k": [1]}}]
    config = load_config("hippocampus", {"data.root": "x", "augmentation.extra": extra})
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config
    entry = config.augmentation.extra[0]
    assert isinstance(entry, NoiseConfig) and math.isclose(entry.std, 0.3)
