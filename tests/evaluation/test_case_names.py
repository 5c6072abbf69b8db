"""How cases of both sides find each other, and what their labels are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medseg.evaluation.labels import resolve_labels
from medseg.evaluation.pairs import find_pairs
from medseg.io.label_names import read_label_names


def test_names_whose_accents_are_composed_otherwise_are_one_case(tmp_path: Path) -> None:
    for folder, name in (("pred", "Müller"), ("ref", "Mu\u0308ller")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.png").touch()
    (pair,) = find_pairs(tmp_path / "pred", tmp_path / "ref")[0]
    assert pair.case == "Müller"


@pytest.mark.parametrize(
    "labels",
    [
        {"labels": {"background": 0, "a": 1, "ignore": 3}},
        {"labels": {"0": "background", "1": "a", "3": "ignore"}},
        {"a": 1, "ignore": 3},
        {"data": {"labels": {"a": 1, "ignore": 3}}},
        {"labels": {"a": 1}, "ignore": 3},
    ],
)
def test_a_label_called_ignore_is_the_value_to_ignore_in_every_file_of_labels(tmp_path: Path, labels: object) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(labels))
    scheme = read_label_names(path)
    assert (scheme.names, scheme.ignore) == (("a",), 3)
    assert resolve_labels({"a": 1, "ignore": 3}, tmp_path) == scheme
