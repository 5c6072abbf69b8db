"""Regular expressions of a configuration, refused where matching them could take forever."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from re import _parser  # type: ignore[attr-defined]  # the parsed pattern; no public module gives it
from typing import Annotated, Any

from pydantic import AfterValidator

__all__ = ["LONGEST_TEXT", "Pattern"]

LONGEST_TEXT = 64
"""Characters of a text that a pattern is matched with; DICOM's LO has at most 64."""
# Four `.*` in a row are accepted: 0.1 s.
MOST_STEPS = 2e9


def _pattern(value: str) -> str:
    try:
        re.compile(value)
        steps = _steps(_parser.parse(value), LONGEST_TEXT)[1] * LONGEST_TEXT
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{value!r} is not a regular expression ({error})") from None
    if steps > MOST_STEPS:
        raise ValueError(f"{value!r} could take forever to match; use fewer repeats (*, +, {{}}) and no nested ones")
    return value


def _steps(pattern: Iterable[tuple[Any, Any]], longest: int) -> tuple[float, float]:
    """Number of ways in which a parsed pattern can match at one position, and an upper bound of the steps to try them.

    Python's engine backtracks over every way in which the repeats before a position can divide the text.
    """
    ways, steps = 1.0, 0.0
    for kind, value in pattern:
        inner, tried = 1.0, 1.0
        if kind in (_parser.MAX_REPEAT, _parser.MIN_REPEAT):
            least, most, part = value
            most = min(int(most), longest)
            inner, tried = _steps(part, longest)
            # A part with one way adds a way per count; a part with several multiplies them at each repetition.
            if inner <= 1:
                inner = max(1.0, most - least + 1.0)
            else:
                inner = math.inf if most * math.log(inner) > 60 else inner**most + 1
            tried *= max(1.0, inner)
        elif kind is _parser.BRANCH:
            parts = [_steps(each, longest) for each in value[1]]
            inner, tried = sum(way for way, _ in parts), sum(step for _, step in parts)
        elif kind is _parser.SUBPATTERN:
            inner, tried = _steps(value[-1], longest)
        elif kind in (_parser.ASSERT, _parser.ASSERT_NOT):
            tried = _steps(value[1], longest)[1]
        elif kind not in (_parser.LITERAL, _parser.NOT_LITERAL, _parser.ANY, _parser.IN, _parser.AT):
            raise re.error("back references, conditions and atomic groups are not allowed")
        steps += ways * tried
        ways *= inner
        if steps > MOST_STEPS:
            break
    return ways, steps


Pattern = Annotated[str, AfterValidator(_pattern)]
"""A regular expression that can be matched in bounded time."""
