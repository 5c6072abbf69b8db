"""The gather kernel against torch's grid_sample and itself, and the B-spline basis against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from scipy.interpolate import BSpline

from medseg.augmentation import sampling
from medseg.augmentation.elastic import control_cells, cubic_basis, draw_displacement

SIZE = (21, 16, 18)


def problem(dims: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    rng = np.random.default_rng(0)
    size = SIZE[:dims]
    image = torch.from_numpy(rng.standard_normal((2, *size), dtype=np.float32))
    labels = torch.from_numpy(rng.integers(0, 7, (1, *size)).astype(np.int16))
    bases = [torch.from_numpy(cubic_basis(np.linspace(0, 3, n), 3)).float() for n in size]
    knots = np.stack(np.meshgrid(*[np.linspace(-4, n + 6, 6) for n in size], indexing="ij"))
    control = torch.from_numpy(knots + rng.uniform(-1.5, 1.5, knots.shape)).float()
    return image, labels, control, bases


@pytest.mark.parametrize("dims", [2, 3])
def test_the_image_is_what_grid_sample_gives(dims: int) -> None:
    image, labels, control, bases = problem(dims)
    moved, _ = sampling.resample(
        sampling.pad(image, [0.0, 0.0], torch.float32),
        sampling.pad(labels, 0, labels.dtype),
        control,
        bases,
        clamp=True,
    )
    points = (
        torch.matmul(bases[0], sampling.control_grid(control, bases)).view(dims, *SIZE[:dims]) - sampling.PAD_BEFORE
    )
    n = torch.tensor(SIZE[:dims]).view(-1, *[1] * dims)
    grid = torch.movedim(((2 * points + 1) / n - 1).flip(0), 0, -1)[None].contiguous()
    expected = functional.grid_sample(image[None], grid, align_corners=False, padding_mode="zeros")[0]
    torch.testing.assert_close(moved, expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_neither_slabs_nor_wide_indices_change_a_bit(dims: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels, control, bases = problem(dims)
    padded = sampling.pad(image, [-1.0, 2.0], torch.float32), sampling.pad(labels, 6, labels.dtype)
    whole = sampling.resample(*padded, control, bases, clamp=True)
    for slab in (1, 700, 10**9):
        moved = sampling.resample(*padded, control, bases, clamp=True, slab=slab)
        torch.testing.assert_close(moved[0], whole[0], atol=5e-5, rtol=0)
        assert (moved[1] == whole[1]).float().mean() > 0.999
    monkeypatch.setattr(sampling, "EXACT_FLOAT", 10)
    wide = sampling.resample(*padded, control, bases, clamp=True)
    assert torch.equal(wide[0], whole[0]) and torch.equal(wide[1], whole[1])


def test_padding_surrounds_the_box_channel_by_channel() -> None:
    padded = sampling.pad(torch.ones(2, 2, 3, dtype=torch.int16), [5.0, -5.0], torch.float32)
    assert padded.shape == (2, 5, 6) and padded.dtype == torch.float32
    assert (padded[:, 1:3, 1:4] == 1).all()
    padded[:, 1:3, 1:4] = 0
    assert padded[0].unique().tolist() == [0, 5] and padded[1].unique().tolist() == [-5, 0]


def test_the_cubic_basis_is_scipys_and_reproduces_straight_lines() -> None:
    at = np.linspace(0, 5, 41)
    basis = cubic_basis(at, 5)
    # the last position, 5, closes the last cell; scipy's half-open intervals need a hair less
    expected = BSpline.design_matrix(np.minimum(at, 5 - 1e-12), np.arange(-3, 9, dtype=float), 3).toarray()
    np.testing.assert_allclose(basis, expected, atol=1e-9)
    np.testing.assert_allclose(basis.sum(axis=1), 1)
    np.testing.assert_allclose(basis @ (np.arange(8) - 1.0), at, atol=1e-12)


def test_control_cells_are_cubes_in_millimetres() -> None:
    assert control_cells((64, 64, 16), (1.0, 1.0, 2.0), (0, 1, 2), 4) == (16.0, (4, 4, 2))
    assert control_cells((64, 64, 10), (0.5, 0.5, 8.0), (0, 1), 4) == (8.0, (4, 4, 10))


def test_no_magnitude_is_no_displacement() -> None:
    assert not draw_displacement(np.random.default_rng(0), (8, 8), (1.0, 1.0), (0, 1), 4, 0.0).any()
