"""Which labels are annotated in which case, as `data.annotated` or a column of the CSV says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from medseg.config import DataConfig
from medseg.datasets.records import Case
from medseg.errors import ConfigError, DatasetError, MedsegError
from medseg.io.naming import composed
from medseg.labels import LabelScheme
from medseg.lookup import nearest_hint

__all__ = ["with_annotation"]


def with_annotation(data: DataConfig, cases: Sequence[Case], scheme: LabelScheme) -> tuple[Case, ...]:
    """The cases with the labels that are annotated in each, by `data.annotated` where it is given.

    A case's own name goes before patterns; `*`, `?` and `[...]` match as in a shell. What nothing matches has all
    labels annotated.

    Raises:
        ConfigError: a name or pattern that fits no case, a label that does not exist or is given twice, or two
            patterns that say different things of one case.
        DatasetError: the same in a CSV; a label that no case has annotated and no model teaches.
    """
    for case in cases:
        if case.annotated is not None:
            _check_names(case.annotated, scheme, f"{data.root}: column annotated of case {case.name!r}", DatasetError)
    if data.annotated:
        listed = next((case.name for case in cases if case.annotated is not None), None)
        if listed is not None:
            raise ConfigError(
                f"data.annotated is given, and the list of cases has a column annotated, too (case {listed!r}); leave "
                "one of them out"
            )
        cases = _by_pattern(data.annotated, cases, scheme)
    cases = tuple(_shortened(case, scheme) for case in cases)
    trained = [case for case in cases if case.split != "test"]
    for name in scheme.names:
        if name in data.taught:
            continue
        if trained and not any(case.annotated is None or name in case.annotated for case in trained):
            raise DatasetError(
                f"label {name!r} is annotated in none of the {len(trained)} cases of {data.root}; take it out of "
                "data.labels, or name it where it is annotated"
            )
    return cases


def _by_pattern(table: Mapping[str, Sequence[str]], cases: Sequence[Case], scheme: LabelScheme) -> tuple[Case, ...]:
    for pattern, names in table.items():
        _check_names(names, scheme, f"data.annotated: {pattern!r}", ConfigError)
    used: set[str] = set()
    result = []
    for case in cases:
        name = composed(case.name)
        found = [p for p in table if composed(p) == name] or [p for p in table if fnmatchcase(name, composed(p))]
        used |= {*found}
        if len({frozenset(table[p]) for p in found}) > 1:
            raise ConfigError(
                f"data.annotated: {found[0]!r} and {found[1]!r} name different labels for case {case.name!r}; let one "
                "of them match it, or give the case by its name"
            )
        result.append(replace(case, annotated=tuple(table[found[0]])) if found else case)
    unused = next((p for p in table if p not in used), None)
    if unused is not None:
        hint = nearest_hint(unused, [case.name for case in cases])
        raise ConfigError(f"data.annotated: {unused!r} is not a case and matches none of the {len(cases)} cases{hint}")
    return tuple(result)


def _check_names(names: Sequence[str], scheme: LabelScheme, where: str, error: type[MedsegError]) -> None:
    for name in names:
        if name not in scheme.names:
            hint = nearest_hint(name, scheme.names)
            raise error(f"{where} names the label {name!r}; there are {', '.join(scheme.names)}{hint}")
        if list(names).count(name) > 1:
            raise error(f"{where} names the label {name!r} twice; keep it once")


def _shortened(case: Case, scheme: LabelScheme) -> Case:
    """In the scheme's order, and None where all labels are annotated."""
    if case.annotated is None:
        return case
    names = tuple(name for name in scheme.names if name in case.annotated)
    return replace(case, annotated=None if names == scheme.names else names)
