"""Which rule of the site file fits a study: the first one with a series that satisfies its `match`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.config.patterns import LONGEST_TEXT
from medseg.config.site import RuleConfig
from medseg.io.dicom.series import scan
from medseg.studies.candidates import candidate_of, misfit

__all__ = ["Match", "match_study"]


@dataclass(frozen=True, slots=True)
class Match:
    """The rule for a study.

    Args:
        rule: its name, '' if none fits.
        series: keys of the series that fit, if others do not; () leaves the choice to the model.
        reasons: why a rule fits or does not, for each rule that was tried; no free text of a header.
    """

    rule: str
    series: tuple[str, ...]
    reasons: tuple[str, ...]


def match_study(folder: Path, calling_ae: str, rules: Sequence[RuleConfig]) -> Match:
    """Compare a study with the rules in order.

    Args:
        folder: with the objects of the study.
        calling_ae: the AE title that sent it, '' for a folder.
        rules: of the site file.

    Returns:
        The first rule that fits, or the reasons of all why they do not.
    """
    found = [candidate_of(each) for each in scan(folder).series]
    reasons: list[str] = [] if found else ["the study has no image that can be read"]
    for rule in rules if found else ():
        pattern = rule.match.calling_ae
        if pattern is not None and re.fullmatch(pattern, calling_ae[:LONGEST_TEXT], re.IGNORECASE) is None:
            reasons.append(f"{rule.name}: sent by another AE")
            continue
        out = [misfit(each, rule.match.series) for each in found]
        fit = tuple(each.series.key for each, why in zip(found, out, strict=True) if not why)
        if fit:
            reasons.append(f"{rule.name}: {len(fit)} of {len(found)} series fit")
            return Match(rule.name, fit if len(fit) < len(found) and all(fit) else (), tuple(reasons))
        reasons.append(f"{rule.name}: {'; '.join(dict.fromkeys(out))}")
    return Match("", (), tuple(reasons or ["the site file has no rule"]))
