"""Images drawn from label maps."""

import numpy as np
import pytest
import torch

from medseg.augmentation.sequence import SampleAugment
from medseg.augmentation.synthesis import Synthesis
from medseg.config import AugmentationConfig
from medseg.config.intensity import SynthesisConfig

OFF = {f"{name}_probability": 0 for name in ("noise", "blur", "brightness", "contrast", "gamma", "low_resolution")}


def sample(dims: int) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.zeros(1, *(16,) * dims, dtype=torch.uint8)
    labels[:, 4:8] = 1
    image = labels.float() + 0.1 * torch.randn(labels.shape, generator=torch.Generator().manual_seed(0))
    return image, labels


@pytest.mark.parametrize("dims", [2, 3])
def test_the_contrast_of_a_label_is_redrawn_and_the_same_seed_gives_the_same_image(dims: int) -> None:
    image, labels = sample(dims)
    before = image.clone()
    synthesis = Synthesis(SynthesisConfig(probability=1.0))
    drawn = [synthesis(np.random.default_rng(seed), image, labels) for seed in range(16)]
    brighter = {bool(each[labels > 0].mean() > each[labels == 0].mean()) for each in drawn}
    assert brighter == {True, False}
    assert torch.equal(drawn[3], synthesis(np.random.default_rng(3), image, labels))
    assert torch.equal(image, before)
    for each in drawn:
        assert each.dtype == torch.float32 and torch.isfinite(each).all()
        assert float(each.mean()) == pytest.approx(float(image.mean()), abs=1e-3)
        assert float(each.std()) == pytest.approx(float(image.std()), rel=1e-2)


@pytest.mark.parametrize("ignore", [0, 3, 255])
def test_ignored_voxels_are_drawn_as_their_neighbours_and_form_no_structure_of_their_own(ignore: int) -> None:
    image, labels = sample(3)
    labels = labels.clone()
    if ignore == 0:
        labels[labels == 0] = 2
    known = labels.clone()
    labels[:, 5:7, 3:9] = ignore
    labels[:, 12:14] = ignore
    for seed in range(6):
        settings = SynthesisConfig(probability=1.0, labels=1.0)
        with_ignored = Synthesis(settings, ignore)(np.random.default_rng(seed), image, labels)
        expected = Synthesis(settings)(np.random.default_rng(seed), image, known)
        assert torch.allclose(with_ignored, expected, atol=1e-5)


def test_a_sample_of_ignored_voxels_alone_is_drawn_as_background() -> None:
    image, labels = sample(2)
    all_ignored = torch.full_like(labels, 255)
    settings = SynthesisConfig(probability=1.0)
    drawn = Synthesis(settings, 255)(np.random.default_rng(1), image, all_ignored)
    expected = Synthesis(settings)(np.random.default_rng(1), image, torch.zeros_like(labels))
    assert torch.equal(drawn, expected)


def test_an_image_of_one_grey_level_stays_finite() -> None:
    image, labels = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)
    drawn = Synthesis(SynthesisConfig(probability=1.0))(np.random.default_rng(0), image, labels)
    assert torch.isfinite(drawn).all()


def test_the_share_that_is_not_drawn_stays_real() -> None:
    config = AugmentationConfig(**OFF, extra=[{"name": "synthesis", "probability": 0.5}])
    image, labels = torch.rand(1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)
    augment = SampleAugment(config)
    same = [torch.equal(augment(np.random.default_rng(n), image.clone(), labels)[0], image) for n in range(40)]
    assert 8 <= sum(same) <= 32


def test_synthesis_comes_before_all_other_changes_wherever_it_stands() -> None:
    image, labels = sample(2)
    synthesis = {"name": "synthesis", "probability": 1.0}
    noise = {"name": "noise", "probability": 1.0, "std": 2.0}
    last = AugmentationConfig(**{**OFF, "brightness_probability": 1.0}, extra=[noise, synthesis])
    first = AugmentationConfig(**{**OFF, "brightness_probability": 1.0}, extra=[synthesis, noise])
    one, two = (SampleAugment(each)(np.random.default_rng(5), image.clone(), labels)[0] for each in (last, first))
    assert torch.equal(one, two)
    # Noise that synthesis would have scaled back to the real image's spread is still there.
    assert float(one.std()) > 1.05 * float(image.std())
