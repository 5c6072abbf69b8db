"""Which cases are of one patient: as the data set or `data.group` says, else by DICOM PatientID and by names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from medseg.datasets.name_stems import has_lettered_twins, likeness_in, patient_in
from medseg.datasets.records import Case
from medseg.errors import ConfigError
from medseg.io.dicom.patient import patient_id_of
from medseg.io.formats import kind_of
from medseg.volume import Finding

__all__ = ["NO_GROUPS", "Patients", "find_patients"]

NO_GROUPS = "none"
"""The value of `data.group` that keeps every case a patient of its own, unless the data set itself says otherwise."""
_SHOWN = 3
_CHANGE = "data.group=REGEX on the names, or data.group=none where every case is a patient of its own"


@dataclass(frozen=True, slots=True)
class Patients:
    """The cases with their patients.

    Args:
        cases: each with a `group`: what the data set says, the name that its cases share, or the name of the
            patient's first case where a PatientID brings them together. A patient's only case is its own group.
        findings: what was taken for a patient, and what is in doubt.
        found: whether several cases were brought together that the data set itself does not call one patient's.
    """

    cases: tuple[Case, ...]
    findings: tuple[Finding, ...] = ()
    found: bool = False


def find_patients(cases: Sequence[Case], rule: str | None) -> Patients:
    """Give every case its patient.

    First that applies: `rule`; a group that the data set states for any case (the column of a CSV); else what is found:
    cases with one PatientID, one BIDS subject, or a common stem that names a patient (`patient001_frame01`).
    Identifiers are compared in memory and kept nowhere.

    Args:
        cases: sorted by name; a group of '' says that the data set does not know.
        rule: `data.group`: a regular expression whose group, or whole match, in the name is the patient; 'none';
            None to look.

    Raises:
        ConfigError: if the rule matches no name.

    Example:
        >>> cases = [Case(f"patient{n // 2}_frame{n}", (), (), "") for n in range(4)]
        >>> [case.group for case in find_patients(cases, None).cases]
        ['patient0', 'patient0', 'patient1', 'patient1']
    """
    if rule is not None and rule != NO_GROUPS:
        return _by_rule(cases, rule)
    if rule == NO_GROUPS or any(case.group for case in cases):
        return Patients(tuple(replace(case, group=case.group or case.name) for case in cases))
    return _found(cases)


def _by_rule(cases: Sequence[Case], rule: str) -> Patients:
    pattern = re.compile(rule)
    groups, without = {}, []
    for case in cases:
        match = pattern.search(case.name)
        text = (match[pattern.groups] if match else None) or ""
        groups[case.name] = text or case.name
        if not text:
            without.append(case.name)
    if len(without) == len(cases) and cases:
        raise ConfigError(
            f"data.group is {rule!r}, which matches no name of a case, e.g. {cases[0].name!r}; expected a regular "
            "expression that finds the patient in it, such as 'patient\\d+'"
        )
    several = _several(groups)
    findings = [_reported(several, len(cases), f"data.group ({rule})", "")] if several else []
    if without:
        message = f"data.group matches no part of {_names(without)}: each is taken for a patient of its own"
        findings.append(Finding("patients_in_doubt", message, tuple(without)))
    return Patients(_grouped(cases, groups), tuple(findings), found=bool(several))


def _found(cases: Sequence[Case]) -> Patients:
    names = [case.name for case in cases]
    sides = not has_lettered_twins(names)
    keys: dict[str, tuple[str, str]] = {}
    for case in cases:
        identifier = patient_id_of(case.images[0]) if case.images and kind_of(case.images[0]) in ("", "dicom") else ""
        keys[case.name] = ("PatientID", identifier) if identifier else ("name", patient_in(case.name, sides))
    by_key: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, key in keys.items():
        by_key[key].append(name)
    if len(by_key) == 1 and len(cases) > 1:
        origin, stem = next(iter(by_key))
        shared = "have the same PatientID" if origin == "PatientID" else f"are called {stem!r} and something more"
        message = (
            f"all {len(cases)} cases {shared}, as if they were of one patient: they are split as if each were of its "
            f"own, and validation says nothing about other patients; to group them otherwise, give {_CHANGE}"
        )
        return Patients(_grouped(cases, {}), (Finding("one_patient", message),))
    groups = {}
    for (origin, stem), members in by_key.items():
        for name in members:
            groups[name] = name if len(members) == 1 else members[0] if origin == "PatientID" else stem
    several = _several(groups)
    findings = []
    if several:
        origins = {keys[members[0]][0] for members in several.values()}
        where = " and ".join({"PatientID": "their PatientID", "name": "their names"}[each] for each in sorted(origins))
        findings.append(_reported(several, len(cases), where, f"; to change this, give {_CHANGE}"))
    if any(origin == "name" for origin, _ in keys.values()):
        findings += _doubt([name for name in names if groups[name] == name and keys[name][0] == "name"])
    return Patients(_grouped(cases, groups), tuple(findings), found=bool(several))


def _doubt(names: Sequence[str]) -> list[Finding]:
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[likeness_in(name)].append(name)
    several = {stem: members for stem, members in alike.items() if len(members) > 1}
    # One beginning that all names share is the name of the data set, as in hippocampus_003; '' are numbered slices.
    if not several or (len(alike) == 1 and "" not in alike):
        return []
    members = several[next(iter(several))]
    count = sum(map(len, several.values()))
    message = (
        f"{count} of the {len(names)} names do not tell whether they are of one patient, e.g. {_names(members)}: each "
        f"is taken for a patient of its own; otherwise give {_CHANGE}"
    )
    return [Finding("patients_in_doubt", message, tuple(name for each in several.values() for name in each))]


def _several(groups: Mapping[str, str]) -> dict[str, list[str]]:
    """Group -> its cases, where there are several."""
    members: dict[str, list[str]] = defaultdict(list)
    for name, group in groups.items():
        members[group].append(name)
    return {group: names for group, names in members.items() if len(names) > 1}


def _reported(several: Mapping[str, Sequence[str]], cases: int, where: str, change: str) -> Finding:
    patients = cases - sum(len(names) - 1 for names in several.values())
    group, names = next(iter(several.items()))
    message = f"the {cases} cases are of {patients} patients by {where}, e.g. {group!r}: {_names(names)}{change}"
    return Finding("patients", message)


def _grouped(cases: Sequence[Case], groups: Mapping[str, str]) -> tuple[Case, ...]:
    return tuple(replace(case, group=groups.get(case.name, case.name)) for case in cases)


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
