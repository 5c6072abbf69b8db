from __future__ import annotations

import numpy as np
import pytest

from medseg.config import PostprocessConfig
from medseg.labels import LabelScheme
from medseg.training.postprocess_choice import PostprocessChoice, dice_of_masks

SCHEME = LabelScheme.from_mapping({"organ": 1, "lesion": 2})


def _case(stray: bool) -> tuple[np.ndarray, np.ndarray]:
    reference = np.zeros((12, 12, 12), dtype=np.uint8)
    reference[1:7, 1:7, 1:7] = 1
    predicted = reference.copy()
    if stray:
        predicted[10:12, 10:12, 10:12] = 1
    return predicted, reference


def test_what_helps_is_chosen_and_its_gain_stated() -> None:
    choice = PostprocessChoice(SCHEME)
    for stray in (True, True, False):
        choice.add(*_case(stray), (1.0, 1.0, 1.0))
    rules, gains = choice.chosen()
    assert rules == PostprocessConfig(keep_components={"organ": 1})
    # Dice 2 * 216 / (216 + 224) becomes 1 in two cases of three.
    assert gains == {"organ: keep_components 1": pytest.approx(2 / 3 * (1 - 432 / 440), abs=1e-4)}


def test_of_crops_around_one_lesion_the_component_in_the_middle_is_kept() -> None:
    reference = np.zeros((20, 20, 20), dtype=np.uint8)
    reference[9:11, 9:11, 9:11] = 2
    predicted = reference.copy()
    predicted[1:5, 1:5, 1:5] = 2
    choice = PostprocessChoice(SCHEME)
    for _ in range(2):
        choice.add(predicted, reference, None)
    rules, gains = choice.chosen()
    assert rules == PostprocessConfig(keep_central={"lesion": 1})
    # Dice 2 * 8 / (8 + 72) becomes 1.
    assert gains == {"lesion: keep_central 1": pytest.approx(0.8)}


def test_what_holds_only_in_the_middle_of_images_is_not_chosen_where_what_holds_for_all_does_as_well() -> None:
    reference = np.zeros((20, 20, 20), dtype=np.uint8)
    reference[8:12, 8:12, 8:12] = 2
    predicted = reference.copy()
    predicted[1:3, 1:3, 1:3] = 2
    choice = PostprocessChoice(SCHEME)
    choice.add(predicted, reference, None)
    assert choice.chosen()[0] == PostprocessConfig(keep_components={"lesion": 1})


def test_nothing_is_chosen_where_nothing_helps() -> None:
    choice = PostprocessChoice(SCHEME)
    choice.add(*_case(stray=False), (1.0, 1.0, 1.0))
    assert choice.chosen() == (PostprocessConfig(), {})


def test_a_rule_that_helps_one_case_and_harms_two_is_not_chosen() -> None:
    choice = PostprocessChoice(SCHEME)
    choice.add(*_case(stray=True), None)
    predicted, reference = _case(stray=False)
    reference[9, 9, 9] = predicted[9, 9, 9] = 1
    choice.add(predicted, reference, None)
    choice.add(predicted, reference, None)
    assert "organ" not in choice.chosen()[0].keep_components


def test_small_lesions_survive_where_lesions_are_counted() -> None:
    """By Dice a small false lesion and a small true one weigh alike; by the count of lesions the true one counts."""
    reference = np.zeros((16, 16, 16), dtype=np.uint8)
    reference[1:5, 1:5, 1:5] = 2
    reference[10, 10, 10] = 2
    predicted = reference.copy()
    predicted[14, 14, 14] = predicted[14, 14, 13] = 2

    def found(pred: np.ndarray, ref: np.ndarray, spacing_mm: tuple[float, ...]) -> float:
        return float(pred[ref].sum() == ref.sum())

    choice = PostprocessChoice(SCHEME, found)
    choice.add(predicted, reference, (1.0, 1.0, 1.0))
    assert choice.chosen() == (PostprocessConfig(), {})


def test_holes_are_filled_where_the_reference_has_none() -> None:
    predicted, reference = _case(stray=False)
    predicted[3:5, 3:5, 3:5] = 0
    choice = PostprocessChoice(SCHEME)
    choice.add(predicted, reference, (1.0, 1.0, 1.0))
    assert choice.chosen()[0] == PostprocessConfig(fill_holes=("organ",))


def test_a_case_whose_reference_lacks_the_label_says_nothing_about_it() -> None:
    choice = PostprocessChoice(SCHEME)
    choice.add(*_case(stray=True), (1.0, 1.0, 1.0))
    assert choice.gains["lesion"] == {}


def test_dice_of_masks_is_hand_computed() -> None:
    assert dice_of_masks(np.array([1, 1, 0], bool), np.array([0, 1, 1], bool), (1.0,)) == 0.5
