"""Names that people write, looked up in the names there are; a wrong one is refused with the nearest right one."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from medseg.errors import ConfigError

__all__ = ["check_choice", "check_option_names", "known", "nearest", "nearest_hint"]

Value = TypeVar("Value")
# Below it, names share letters by chance.
_ALIKE = 0.5


def nearest(name: str, names: Iterable[str], most: int = 1, alike: float = _ALIKE) -> list[str]:
    """The names most like `name`, at most `most`, the nearest first; upper and lower case count as the same.

    Args:
        name: what somebody wrote.
        names: those there are.
        most: how many to give.
        alike: least likeness, 0 to 1 (`difflib.SequenceMatcher.ratio`).

    Example:
        >>> nearest("Lungs", ["vessel", "lung", "tumor"])
        ['lung']
    """
    by_lower: dict[str, str] = {}
    for each in names:
        by_lower.setdefault(each.lower(), each)
    return [by_lower[found] for found in difflib.get_close_matches(name.lower(), by_lower, n=most, cutoff=alike)]


def nearest_hint(name: object, names: Iterable[object]) -> str:
    """The end of a message about an unknown name; '' where no name is like it, or where it is no text.

    Example:
        >>> nearest_hint("lungs", ["vessel", "lung", "tumor"])
        "; did you mean 'lung'?"
    """
    near = nearest(name, [each for each in names if isinstance(each, str)]) if isinstance(name, str) else []
    return f"; did you mean {near[0]!r}?" if near else ""


def known(name: str, table: Mapping[str, Value], key: str, what: str, otherwise: str = "") -> Value:
    """What a table holds for a name.

    Args:
        name: what somebody wrote.
        table: name -> value.
        key: where it was written, such as 'net.name'.
        what: what the names stand for, in the plural, such as 'nets'.
        otherwise: what may be written instead of a name, after a comma.

    Raises:
        ConfigError: for a name that the table lacks, with those it has and the nearest.
    """
    if name not in table:
        names = f"{', '.join(table)}{otherwise and f', {otherwise}'}"
        raise ConfigError(f"{key} is {name!r}; known {what} are {names}{nearest_hint(name, table)}")
    return table[name]


def check_choice(key: str, value: object, choices: Iterable[object]) -> None:
    """Refuse a value that is none of a few.

    Raises:
        ConfigError: naming the choices, and the nearest.
    """
    there = tuple(choices)
    if value not in there:
        listed = ", ".join(map(str, there))
        raise ConfigError(f"{key} is {value!r}; choose one of {listed}{nearest_hint(value, there)}")


def check_option_names(owner: str, options: Iterable[str], takes: Collection[str]) -> None:
    """Refuse an option that its owner does not take.

    Args:
        owner: what the options are for, as the message begins.
        options: the names somebody gave.
        takes: the names there are.

    Raises:
        ConfigError: for the first option that does not exist, with those that do and the nearest.
    """
    unknown = next((each for each in options if each not in takes), None)
    if unknown is not None:
        raise ConfigError(
            f"{owner} has no option {unknown!r}; it takes {', '.join(takes)}{nearest_hint(unknown, takes)}"
        )
