"""`compare`: several models on the same cases: paired tests, ranking, a picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ConfigError, DatasetError
from medseg.evaluation.case_list import listed
from medseg.evaluation.columns import columns_of, record_of, title_of
from medseg.evaluation.compare_files import write_comparison
from medseg.evaluation.comparison_result import ComparisonResult, PairedRow, RankingRow, few_patients
from medseg.evaluation.method_text import comparison_text, versions
from medseg.evaluation.non_inferiority import columns_with_margin
from medseg.evaluation.paired import Comparison, compare_paired, holm
from medseg.evaluation.ranking import Ranking, rank_models
from medseg.evaluation.stored_evaluation import Model, StoredEvaluation, read_models
from medseg.evaluation.summary import FORMAT_VERSION
from medseg.metrics.empty import bounded

__all__ = ["compare"]


def compare(
    folders: Sequence[str | Path] | Mapping[str, Sequence[str | Path]],
    out: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    margin: float | None = None,
) -> ComparisonResult:
    """Compare evaluations of the same references.

    Args:
        folders: two or more, each as `evaluate` wrote it, or a run folder that holds one. Or model -> folders, which
            are trainings of this model with different seeds: their scores enter as means, and seeds are drawn beside
            patients for the intervals.
        out: folder for `compare.csv`, `summary.json`, `report.html`, `table.tex`, `methods.txt`; None writes nothing.
        metrics: columns of `cases.csv`; by default the metrics that every evaluation was asked for.
        seed: of permutations and bootstrap.
        margin: how much worse a model may be to be called non-inferior, in the unit of the metric; of several metrics
            those from 0 to 1 are judged.

    Raises:
        ConfigError: fewer than two models, `out` being one of the folders, a metric that not all have, or a margin that
            fits no metric.
        DatasetError: a folder without an evaluation, no case in common, other references, or other conventions.

    Example:
        >>> result = compare(["report_unet/", "report_deeplab/"], out="comparison/")
        >>> result.ranking[0].first, result.n_patients
        (('report_deeplab',), 1)
    """
    models = read_models(folders)
    trained = [each for model in models for each in model.seeds]
    if out is not None and Path(out).resolve() in {each.folder.resolve() for each in trained}:
        raise ConfigError(f"-o {out} is one of the evaluations; give another folder")
    cases, notes = _shared_cases(trained)
    _check_conventions(trained)
    columns = _columns(trained, metrics)
    judged = () if margin is None else columns_with_margin(columns, margin)
    labels = [name for name in trained[0].summary["labels"] if all(name in m.summary["labels"] for m in trained)]
    if not labels:
        raise DatasetError(f"the evaluations have no label in common: {[list(m.summary['labels']) for m in trained]}")
    table = _Table.of(models, cases, labels, columns)
    rng = np.random.default_rng(seed)
    rows = _paired_rows(table, rng, dict.fromkeys(judged, margin))
    groups = [trained[0].summary["groups"][case] for case in cases]
    result = ComparisonResult(
        models=tuple(m.name for m in models),
        cases=tuple(cases),
        n_patients=len(set(groups)),
        rows=rows,
        ranking=_rankings(table, groups, rng),
        complete=not notes,
        notes=(*notes, *_seed_notes(models), *few_patients(len(set(groups)))),
        values=table.shown(),
        summary={},
        seeds={m.name: tuple(str(each.folder) for each in m.seeds) for m in models},
        seed_means=table.seed_means(),
    )
    result = replace(result, summary=_summary(result, models, columns, seed, margin))
    return result if out is None else write_comparison(Path(out), result)


def _seed_notes(models: Sequence[Model]) -> list[str]:
    """What the p values and intervals of a comparison of seeds leave out."""
    if all(len(model.seeds) == 1 for model in models):
        return []
    notes = ["intervals are over patients and seeds; p values and the ranking are of these trainings alone"]
    alone = [model.name for model in models if len(model.seeds) == 1]
    if alone:
        notes.append(f"{', '.join(alone)}: one training, whose variation by seed is not known and not in the intervals")
    return notes


def _shared_cases(models: Sequence[StoredEvaluation]) -> tuple[list[str], list[str]]:
    """The cases that all evaluations share, with one reference each, and notes about the others."""
    shared = [case for case in models[0].hashes if all(case in m.hashes for m in models)]
    if not shared:
        held = "; ".join(f"{m.name}: {listed(list(m.hashes), 'case')}" for m in models)
        raise DatasetError(f"the evaluations have no case in common: {held}")
    differing = [c for c in shared if len({m.hashes[c] for m in models}) > 1]
    if differing:
        raise DatasetError(
            f"the references of {listed(differing, 'case')} differ between the evaluations: scores against other "
            "references cannot be compared; evaluate all models against the same masks"
        )
    split = [c for c in shared if len({m.summary["groups"][c] for m in models}) > 1]
    if split:
        raise DatasetError(
            f"{listed(split, 'case')} belong to other patients in the evaluations; use one --cases for all"
        )
    notes = []
    for model in models:
        left_out = [case for case in model.hashes if case not in shared]
        if left_out:
            notes.append(f"{model.name}: {listed(left_out, 'case')} left out, as not all models have them")
        if not model.summary.get("complete", True):
            notes.append(f"{model.name}: its evaluation is not complete, see its notes")
        if model.summary.get("demonstration"):
            notes.append(f"{model.name}: a demonstration, no patient was held out: {model.summary['demonstration']}")
    return shared, notes


def _check_conventions(models: Sequence[StoredEvaluation]) -> None:
    for name in models[0].summary["options"]:
        found = {m.name: m.summary["options"].get(name) for m in models}
        if name != "metrics" and len({repr(v) for v in found.values()}) > 1:
            raise DatasetError(
                f"the evaluations were made with other conventions: {name} is {found}; evaluate again alike"
            )
    labels = {repr(m.summary.get("label_values")) for m in models}
    if len(labels) > 1:
        raise DatasetError(f"the labels mean other values in the evaluations: {', '.join(sorted(labels))}")


def _columns(models: Sequence[StoredEvaluation], metrics: Sequence[str] | None) -> list[str]:
    there = [_names(m) for m in models]
    shared = [name for name in there[0] if all(name in other for other in there)]
    if metrics is None:
        asked = columns_of(models[0].summary["options"]["metrics"])
        chosen = [name for name in shared if name in asked and record_of(name).better]
        if not chosen:
            raise DatasetError("the evaluations have no metric in common; evaluate again with the same --metrics")
        return chosen
    unusable = [name for name in metrics if name not in shared or record_of(name).better is None]
    if unusable or not metrics:
        usable = ", ".join(name for name in shared if record_of(name).better)
        raise ConfigError(f"metrics {list(unusable)} cannot be compared; all evaluations have {usable}")
    return list(metrics)


def _names(model: StoredEvaluation) -> dict[str, None]:
    return dict.fromkeys(m for found in model.summary["labels"].values() for m in found)


@dataclass(frozen=True, slots=True)
class _Table:
    """(label, column) -> cases with a score in every evaluation, and for each model `(seeds, cases)` finite scores."""

    models: tuple[str, ...]
    cases: tuple[str, ...]
    groups: Mapping[str, str]
    scores: Mapping[tuple[str, str], tuple[tuple[str, ...], tuple[NDArray[np.float64], ...]]]

    @classmethod
    def of(cls, models: Sequence[Model], cases: Sequence[str], labels: Sequence[str], columns: Sequence[str]) -> _Table:
        scores = {}
        trained = [each for model in models for each in model.seeds]
        ends = np.cumsum([len(model.seeds) for model in models])[:-1]
        for column, label in itertools.product(columns, labels):
            held = [c for c in cases if trained[0].holds(c, label)]
            found = np.array([[m.values[c, label].get(column, math.nan) for c in held] for m in trained]).reshape(
                len(trained), len(held)
            )
            finite, _ = bounded(found, np.array([trained[0].diagonals[c] for c in held]))
            known = np.flatnonzero(~np.isnan(finite).any(axis=0))
            scores[label, column] = (tuple(held[i] for i in known), tuple(np.split(finite[:, known], ends)))
        return cls(tuple(m.name for m in models), tuple(cases), trained[0].summary["groups"], scores)

    def shown(self) -> dict[tuple[str, str], dict[str, tuple[float, ...]]]:
        """(label, column) -> model -> scores, the mean over seeds."""
        return {
            key: {m: tuple(map(float, each.mean(axis=0))) for m, each in zip(self.models, values, strict=True)}
            for key, (_, values) in self.scores.items()
        }

    def seed_means(self) -> dict[tuple[str, str], dict[str, tuple[float, ...]]]:
        """(label, column) -> model -> mean over the cases for each seed."""
        return {
            (label, column): {
                m: tuple(map(float, _sized(column, each).mean(axis=1))) if cases else ()
                for m, each in zip(self.models, values, strict=True)
            }
            for (label, column), (cases, values) in self.scores.items()
        }


def _sized(column: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signed differences are compared by how far they are from zero."""
    return np.abs(values) if record_of(column).better == "zero" else values


def _paired_rows(table: _Table, rng: np.random.Generator, margins: Mapping[str, float | None]) -> tuple[PairedRow, ...]:
    rows: list[PairedRow] = []
    for column in dict.fromkeys(c for _, c in table.scores):
        family: list[PairedRow] = []
        for (label, _), (cases, values) in ((k, v) for k, v in table.scores.items() if k[1] == column):
            if not cases:
                continue
            groups = [table.groups[c] for c in cases]
            for a, b in itertools.combinations(range(len(table.models)), 2):
                pair = (_sized(column, values[a]), _sized(column, values[b]))
                found = compare_paired(pair[0], pair[1], groups, rng)
                row = _row((label, column), (table.models[a], table.models[b]), pair, found)
                family.append(_judged(row, margins.get(column)))
        corrected = zip(holm([r.p_permutation for r in family]), holm([r.p_wilcoxon for r in family]), strict=True)
        rows += [
            replace(row, p_permutation_holm=p, p_wilcoxon_holm=w) for row, (p, w) in zip(family, corrected, strict=True)
        ]
    return tuple(rows)


def _row(
    key: tuple[str, str], models: tuple[str, str], pair: tuple[NDArray[np.float64], ...], found: Comparison
) -> PairedRow:
    towards = record_of(key[1]).badness(1.0) or 1.0
    better = "" if found.difference == 0 else models[found.difference * towards >= 0]
    n_cases, means = pair[0].shape[1], (float(pair[0].mean()), float(pair[1].mean()))
    row = PairedRow(*key, *models, n_cases, *means, better, **asdict(found))
    return replace(row, n_seeds_first=len(pair[0]), n_seeds_second=len(pair[1]))


def _judged(row: PairedRow, margin: float | None) -> PairedRow:
    """The row with what the margin of non-inferiority shows."""
    row = replace(row, margin=margin)
    shown = [each.shown for each in row.verdicts()]
    return replace(row, first_non_inferior=shown[0], second_non_inferior=shown[1]) if shown else row


def _rankings(table: _Table, groups: Sequence[str], rng: np.random.Generator) -> tuple[RankingRow, ...]:
    """One over everything, then one per metric."""
    columns = list(dict.fromkeys(c for _, c in table.scores))
    chosen = [("all", columns)] if len(columns) > 1 else []
    rows = []
    for name, members in [*chosen, *((c, [c]) for c in columns)]:
        keys = [key for key in table.scores if key[1] in members and table.scores[key][0]]
        if not keys:
            continue
        bad = np.full((len(table.models), len(table.cases), len(keys)), np.nan)
        where = {case: i for i, case in enumerate(table.cases)}
        for k, key in enumerate(keys):
            cases, values = table.scores[key]
            record = record_of(key[1])
            for m, each in enumerate(values):
                scores = _sized(key[1], each).mean(axis=0)
                bad[m, [where[c] for c in cases], k] = [record.badness(float(v)) for v in scores]
        found: Ranking = rank_models(bad, groups, rng)
        rows.append(RankingRow(name, table.models, found))
    return tuple(rows)


def _summary(
    result: ComparisonResult, models: Sequence[Model], columns: Sequence[str], seed: int, margin: float | None
) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "complete": result.complete,
        "models": {m.name: str(m.seeds[0].summary.get("task") or "") for m in models},
        "seeds": {name: list(folders) for name, folders in result.seeds.items()},
        "margin": margin,
        "metrics": list(columns),
        "n_cases": len(result.cases),
        "n_patients": result.n_patients,
        "cases": list(result.cases),
        "ranking": [row.record() for row in result.ranking],
        "paired": [asdict(row) for row in result.rows],
        "notes": list(result.notes),
        "non_inferiority": [
            f"{row.label} {title_of(row.metric)}: {verdict.text()}" for row in result.rows for verdict in row.verdicts()
        ],
        "method": comparison_text(len(result.cases), result.n_patients, result.seeds, margin),
        "options": dict(models[0].seeds[0].summary["options"]),
        "seed": seed,
        "versions": versions(),
    }
