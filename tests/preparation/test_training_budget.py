"""How long a patch need be: thickness and length of the labels tell, unless they are long and thin."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plans import case

from medseg.preparation.case_features import CaseFeatures, Feature
from medseg.preparation.fingerprint import Fingerprint
from medseg.preparation.training_budget import reach_of


def measured(thickness: float, *lengths: float) -> Fingerprint:
    each = case((128, 128, 40), (1.0, 1.0, 1.0), thickness=thickness)
    features = tuple(Feature("length", f"length along axis {n}", value, label=0) for n, value in enumerate(lengths))
    return Fingerprint((replace(each, features=CaseFeatures(features, (), ())),), ())


@pytest.mark.parametrize(
    ("thickness", "lengths", "reach"),
    [(9, (16, 16, 8), 54), (14, (64, 86, 12), 129), (5, (500, 300, 15), 30), (150, (350, 340, 300), 900)],
    ids=["six times a nodule's thickness", "half as long again as a glioma", "vessels are told nearby", "lungs"],
)
def test_a_patch_reaches_as_far_as_thickness_or_length_ask_for(thickness, lengths, reach) -> None:
    assert reach_of(measured(thickness, *lengths)) == pytest.approx(reach)


def test_nothing_is_known_without_a_measurement() -> None:
    assert reach_of(Fingerprint((case((9, 9, 9), (1.0, 1.0, 1.0)),), ())) is None
