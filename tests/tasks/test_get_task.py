"""Tasks are found by their name, and a wrong name is answered with the right ones."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.tasks import TASKS, TaskCase, get_task
from medseg.volume import Volume


def test_tasks_are_found_by_their_name_and_have_leading_scores() -> None:
    assert {"vessel", "lung", "tumor"} <= set(TASKS)
    for name, task in TASKS.items():
        assert get_task(name) is task and task.name == name
        assert task.leading and len(set(task.metrics)) == len(task.metrics)


def test_an_unknown_task_is_answered_with_the_tasks_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no task 'lungs'; did you mean 'lung'\? tasks are: vessel, lung, tumor"):
        get_task("lungs")


def test_the_codes_of_a_tumour_are_never_guessed() -> None:
    assert get_task("tumor").labels is None


def case(scheme: LabelScheme, probabilities: Volume | None = None) -> TaskCase:
    pred, ref = np.array([[1, 2, 9], [0, 1, 1]]), np.array([[1, 2, 2], [0, 1, 255]])
    return TaskCase(Volume(pred, np.eye(4)), Volume(ref, np.eye(4)), scheme, probabilities=probabilities)


def test_masks_leave_out_what_the_reference_ignores() -> None:
    pred, ref = case(LabelScheme.from_mapping({"a": 1, "b": 2}, ignore=255)).masks("a")
    assert pred.tolist() == [[True, False, False], [False, True, False]]
    assert ref.tolist() == [[True, False, False], [False, True, False]]


def test_probabilities_of_plain_labels_start_with_background_those_of_regions_do_not() -> None:
    volume = Volume(np.arange(18.0).reshape(3, 2, 3), np.eye(4), channels=3)
    plain = case(LabelScheme.from_mapping({"a": 1, "b": 2}), volume)
    assert plain.probability("a")[0, 0] == 6 and plain.probability("b")[0, 0] == 12
    regions = case(LabelScheme.from_mapping({"a": [1, 2], "b": [2], "c": [3]}), volume)
    assert regions.probability("a")[0, 0] == 0 and regions.probability("c")[0, 0] == 12
    assert case(LabelScheme.from_mapping({"a": 1})).probability("a") is None
