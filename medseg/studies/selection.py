"""Chooses the series of a study that a model uses, and explains why; an ambiguous study is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from medseg.config import SelectRule
from medseg.errors import MedsegError, ReadError
from medseg.io.channel_names import kind_of_name
from medseg.preparation.plan import Plan
from medseg.studies.candidates import Candidate, candidate_of, misfit
from medseg.studies.sources import Source

__all__ = ["channel_names", "select_series"]

# If there are several series, those with fewer slices are scouts, thumbnails and dose sheets.
FEWEST_SLICES = 8
# A series that covers less than this fraction of what the longest one covers shows only a detail.
SHORTEST_PART = 1 / 3
THICKNESS_STEP_MM = 0.05


def channel_names(plan: Plan) -> tuple[str, ...]:
    """Names of a model's channels, () if the plan has none."""
    names = tuple(rule.name for rule in plan.select)
    return names if all(names) else ()


def select_series(source: Source, plan: Plan, asked: bool = False) -> Source:
    """The source with its series chosen: `series`, `reason` and, for several channels, `channels` are set.

    The rules of `plan.select` are binding. Among the series that satisfy them, localizers, projections (MIP), series of
    fewer than 8 slices (volumes only) and those that cover less than a third of what the longest covers are excluded;
    then original is preferred to derived, axial to other orientations (unless the rule names one), thin to thick, many
    slices to few. If several are still equal, the study is refused.

    Args:
        source: from `find_studies`.
        plan: of the model.
        asked: whether the user named the series by its UID; a single series is then accepted unchecked.

    Returns:
        The source; with `error` if no series or more than one fits. Reasons contain UIDs, modality, orientation,
        thickness and number of slices, never free text.
    """
    members = source.candidates or ((source.series,) if source.series is not None else ())
    if not members or (source.error and not source.candidates):
        return source
    found = [candidate_of(each) for each in members]
    rules = plan.select or (SelectRule(),) * plan.in_channels
    try:
        if len(found) == 1 and (asked or len(rules) == 1 or found[0].series.slices[0].is_colour):
            return replace(source, reason=_alone(found[0], rules[0], asked))
        if len(rules) == 1:
            best, reason = _choose(found, rules[0], plan)
            return _narrowed(source, (best,), 0, reason)
        chosen = _channels(found, rules, plan)
    except MedsegError as error:
        return replace(source, error=str(error))
    reason = "; ".join(text for _, text in chosen)
    return _narrowed(source, [best for best, _ in chosen], plan.reference_channel, reason)


def _narrowed(source: Source, chosen: Sequence[Candidate], reference: int, reason: str) -> Source:
    parts = tuple(Source(source.case, tuple(s.path for s in each.series.slices), each.series) for each in chosen)
    paths = tuple(dict.fromkeys(path for part in parts for path in part.paths))
    return replace(
        source,
        paths=paths,
        series=chosen[reference].series,
        error="",
        candidates=(),
        channels=parts if len(parts) > 1 else (),
        reason=reason,
    )


def _alone(found: Candidate, rule: SelectRule, asked: bool) -> str:
    if asked:
        return "asked for by its UID"
    # A single series is refused only for an attribute that contradicts the rule; an absent one never excludes it.
    why = misfit(found, rule.model_copy(update={"name": "" if rule.description is None else rule.name}))
    if why:
        raise ReadError(
            f"the only image series, {_named(found)}, does not fit the model: {why}; see select in the "
            "model's plan, or name the series with --series UID"
        )
    return f"the only image series of the study ({found.looks})"


def _channels(found: Sequence[Candidate], rules: Sequence[SelectRule], plan: Plan) -> list[tuple[Candidate, str]]:
    told = [rule for rule in rules if kind_of_name(rule.name) or rule.description or rule.contrast is not None]
    if len(told) < len(rules) or len(found) < 2:
        what = "; ".join(_named(each) for each in found)
        names = ", ".join(rule.name or "?" for rule in rules)
        need = "its plan does not say which series they are: add select" if len(told) < len(rules) else "give them all"
        raise ReadError(f"the model needs {len(rules)} channels ({names}), found {what}; {need}")
    chosen: list[tuple[Candidate, str]] = []
    for number, rule in enumerate(rules):
        name = rule.name or f"channel {number}"
        try:
            best, reason = _choose(found, rule, plan)
        except ReadError as error:
            raise ReadError(f"channel {name}: {error}") from None
        twin = next((n for n, (other, _) in enumerate(chosen) if other.series.key == best.series.key), None)
        if twin is not None:
            raise ReadError(
                f"channels {rules[twin].name or twin} and {name} would both be series {_uid(best)}; "
                "make their rules in select differ"
            )
        chosen.append((best, f"{name}: {_uid(best)}, {reason}"))
    return chosen


def _choose(found: Sequence[Candidate], rule: SelectRule, plan: Plan) -> tuple[Candidate, str]:
    """The best series for a channel and why; ReadError if none fits or several fit equally."""
    out = {id(each): misfit(each, rule) or _unusable(each, rule, plan) for each in found}
    left = [each for each in found if not out[id(each)]]
    if not left:
        listed = "; ".join(f"{_named(each)}: {out[id(each)]}" for each in found)
        raise ReadError(f"none of {len(found)} series fits the model: {listed}; choose one with --series UID")
    longest = max(each.extent_mm for each in left)
    for each in left:
        if each.extent_mm < SHORTEST_PART * longest:
            out[id(each)] = f"covers {each.extent_mm:.0f} of {longest:.0f} mm"
    left = [each for each in left if not out[id(each)]]
    order = _order(rule)
    best = min(order(each) for each in left)
    equal = [each for each in left if order(each) == best]
    if len(equal) > 1:
        listed = "; ".join(_named(each) for each in equal)
        raise ReadError(
            f"{len(equal)} of {len(found)} series fit the model equally well: {listed}; choose one with --series UID, "
            "or separate them by select in the model's plan"
        )
    (winner,) = equal
    for each in left:
        if each is not winner:
            out[id(each)] = _behind(order(each), best)
    return winner, _reason(winner, left, found, out)


def _unusable(found: Candidate, rule: SelectRule, plan: Plan) -> str:
    if found.is_localizer:
        return "localizer"
    if found.is_projection:
        return "projection (MIP)"
    if found.series.slices[0].is_colour:
        return "colour"
    if rule.min_slices is None and plan.spatial_dims == 3 and found.slices < FEWEST_SLICES:
        return f"{found.slices} slices, fewer than {FEWEST_SLICES}"
    return ""


def _order(rule: SelectRule) -> Callable[[Candidate], tuple[float, ...]]:
    """Sorting key, best first: original, axial, thin, many slices."""

    def order(found: Candidate) -> tuple[float, ...]:
        turned = rule.orientation is None and found.orientation != "axial"
        derived = not rule.derived and not found.is_original
        thickness = round(found.thickness_mm / THICKNESS_STEP_MM) * THICKNESS_STEP_MM or float("inf")
        return float(derived), float(turned), thickness, -float(found.slices)

    return order


def _behind(order: tuple[float, ...], best: tuple[float, ...]) -> str:
    first = next(n for n, (a, b) in enumerate(zip(order, best, strict=True)) if a != b)
    return ("derived or secondary", "not axial", "thicker", "fewer slices")[first]


def _reason(winner: Candidate, left: Sequence[Candidate], found: Sequence[Candidate], out: dict[int, str]) -> str:
    others = [each for each in found if each is not winner]
    best = f"the best of {len(left)} that fit" if len(left) > 1 else "the only one that fits"
    listed = "; ".join(f"{_named(each)} because {out[id(each)]}" for each in others)
    return f"of {len(found)} series {best} ({winner.looks}); left out: {listed}"


def _named(found: Candidate) -> str:
    return f"{_uid(found)} ({found.looks})"


def _uid(found: Candidate) -> str:
    return found.series.key if found.series.uid else "(no SeriesInstanceUID)"
