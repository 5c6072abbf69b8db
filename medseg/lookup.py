"""Look-up of names that users write; an unknown one is refused with a suggestion of the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from medseg.errors import ConfigError

__all__ = ["check_choice", "check_option_names", "known", "nearest", "nearest_hint"]

Value = TypeVar("Value")
# Below this similarity, names share letters by chance.
_ALIKE = 0.5


def nearest(name: str, names: Iterable[str], most: int = 1, alike: float = _ALIKE) -> list[str]:
    """The names most similar to `name`, at most `most`, the nearest first; case is ignored.

    Args:
        name: the name given.
        names: the known names.
        most: maximum number of results.
        alike: minimum similarity, 0 to 1 (`difflib.SequenceMatcher.ratio`).

    Example:
        >>> nearest("Lungs", ["vessel", "lung", "tumor"])
        ['lung']
    """
    by_lower: dict[str, str] = {}
    for each in names:
        by_lower.setdefault(each.lower(), each)
    return [by_lower[found] for found in difflib.get_close_matches(name.lower(), by_lower, n=most, cutoff=alike)]


def nearest_hint(name: object, names: Iterable[object]) -> str:
    """The end of a message about an unknown name; '' if no name is similar, or it is not text.

    Example:
        >>> nearest_hint("lungs", ["vessel", "lung", "tumor"])
        "; did you mean 'lung'?"
    """
    near = nearest(name, [each for each in names if isinstance(each, str)]) if isinstance(name, str) else []
    return f"; did you mean {near[0]!r}?" if near else ""


def known(name: str, table: Mapping[str, Value], key: str, what: str, otherwise: str = "") -> Value:
    """The value of a name in a table.

    Args:
        name: the name given.
        table: name -> value.
        key: where it was given, such as 'net.name'.
        what: the kind of thing, in the plural, such as 'nets'.
        otherwise: what may be given instead of a name, after a comma.

    Raises:
        ConfigError: if the table lacks the name, with the known names and the nearest one.
    """
    if name not in table:
        names = f"{', '.join(table)}{otherwise and f', {otherwise}'}"
        raise ConfigError(f"{key} is {name!r}; known {what} are {names}{nearest_hint(name, table)}")
    return table[name]


def check_choice(key: str, value: object, choices: Iterable[object]) -> None:
    """Refuse a value that is not one of the choices.

    Raises:
        ConfigError: naming the choices, and the nearest.
    """
    there = tuple(choices)
    if value not in there:
        listed = ", ".join(map(str, there))
        raise ConfigError(f"{key} is {value!r}; choose one of {listed}{nearest_hint(value, there)}")


def check_option_names(owner: str, options: Iterable[str], takes: Collection[str]) -> None:
    """Refuse an option that its owner does not have.

    Args:
        owner: the owner of the options, at the beginning of the message.
        options: the option names given.
        takes: the known option names.

    Raises:
        ConfigError: for the first unknown option, with the known ones and the nearest.
    """
    unknown = next((each for each in options if each not in takes), None)
    if unknown is not None:
        raise ConfigError(
            f"{owner} has no option {unknown!r}; it takes {', '.join(takes)}{nearest_hint(unknown, takes)}"
        )
