"""Numbers of lesions follow the lesions, however the volume is gone through."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medseg.tasks import lesions


@pytest.mark.parametrize("shape", [(20, 9, 7), (30, 40), (1, 12, 13)])
def test_numbers_are_the_same_slab_by_slab(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(5)
    mask = rng.random(shape) > 0.85
    affine = np.eye(4)
    affine[:3] = rng.normal(size=(3, 4))
    whole = lesions.label_lesions(mask, affine)
    monkeypatch.setattr(lesions, "_SLAB_VOXELS", 50)
    np.testing.assert_array_equal(lesions.label_lesions(mask, affine), whole)
    parts, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    assert whole.max() == count and not whole[~mask].any()
    assert (np.diff(np.bincount(whole.ravel())[1:]) <= 0).all()
    for part in range(1, count + 1):
        assert np.unique(whole[parts == part]).size == 1


def test_centres_of_parts_that_cross_slabs_are_those_of_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lesions, "_SLAB_VOXELS", 10)
    mask = np.zeros((12, 6, 6), bool)
    mask[1:10, 1, 2] = mask[4:6, 4, 4:6] = True
    found = lesions.find_lesions(mask, np.diag([2.0, 1.0, 3.0, 1.0]))
    centres = ndimage.center_of_mass(mask, lesions.label_lesions(mask, np.eye(4)), [1, 2])
    np.testing.assert_allclose([each.center_mm for each in found], np.array(centres) * [2.0, 1.0, 3.0])
