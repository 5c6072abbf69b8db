"""How often each label is the centre of a sample, where cases lack labels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from medseg.labels import LabelScheme
from medseg.preparation.store import PreparedCase
from medseg.training.label_draw import LabelDraw

SCHEME = LabelScheme.from_mapping({"organ": 1, "other": 2, "lesion": 5})


def case(name: str, values: list[int], annotated: tuple[str, ...] | None = None) -> PreparedCase:
    empty = np.zeros((1, 1))
    foreground = {value: np.zeros((1, 2), np.int32) for value in values}
    return PreparedCase(name, "", empty[None], empty, (1.0, 1.0), (), foreground, {}, annotated=annotated)


def test_a_label_is_drawn_as_often_as_if_every_case_had_it_annotated() -> None:
    # other is annotated in one of four cases; lesion in all, but two hold none.
    cases = [
        case("a", [1, 2, 5]),
        *(case(n, [1], ("organ", "lesion")) for n in "bc"),
        case("d", [1, 5], ("organ", "lesion")),
    ]
    draw = LabelDraw.where_needed(cases, SCHEME)
    assert draw is not None
    assert dict(zip(draw.values, draw.shares, strict=True)) == pytest.approx({1: 0.4, 2: 0.4, 5: 0.2})
    rng = np.random.default_rng(0)
    drawn = Counter((value, found.name) for found, value in (draw.draw(rng) for _ in range(4000)))
    assert drawn[2, "a"] == pytest.approx(1600, rel=0.1)
    assert drawn[5, "a"] == pytest.approx(drawn[5, "d"], rel=0.2)
    assert {name for value, name in drawn if value == 1} == {*"abcd"}
    assert (5, "b") not in drawn


def test_a_value_of_several_regions_counts_where_one_of_them_is_annotated() -> None:
    regions = LabelScheme.from_mapping({"whole": [1, 2], "core": [2]})
    draw = LabelDraw.where_needed([case("a", [1, 2]), case("b", [2], ("core",))], regions)
    assert draw is not None
    assert dict(zip(draw.values, draw.shares, strict=True)) == pytest.approx({1: 0.5, 2: 0.5})


def test_nothing_changes_where_all_cases_have_all_labels_or_hold_none() -> None:
    assert LabelDraw.where_needed([case("a", [1]), case("b", [2])], SCHEME) is None
    assert LabelDraw.where_needed([case("a", [], ("organ",))], SCHEME) is None
