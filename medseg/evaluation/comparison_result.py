"""What a comparison of models found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medseg.evaluation.columns import title_of
from medseg.evaluation.non_inferiority import NonInferiority, non_inferiority
from medseg.evaluation.ranking import Ranking
from medseg.evaluation.statistics import MIN_PATIENTS

__all__ = ["ComparisonResult", "PairedRow", "RankingRow", "few_patients"]


def few_patients(n_patients: int) -> list[str]:
    """The note that there are too few patients for intervals, tests and stability; none where there are enough."""
    if n_patients >= MIN_PATIENTS:
        return []
    return [f"too few patients for intervals, tests and stability: {n_patients}, at least {MIN_PATIENTS} are needed"]


@dataclass(frozen=True, slots=True)
class PairedRow:
    """Two models on one metric of one label: a line of `compare.csv`.

    Args:
        label, metric, first, second: what is compared. Signed differences enter by their size.
        n_cases: cases whose reference holds the label and that both scored.
        mean_first, mean_second: over these cases.
        better: the model whose patients' mean is better, "" for none.
        difference, ci_low, ci_high, p_permutation, p_wilcoxon, n_patients: as in `Comparison`, first minus second.
        p_permutation_holm, p_wilcoxon_holm: corrected over all pairs and labels of the metric.
        n_seeds_first, n_seeds_second: trainings of each model; their scores enter as means over the seeds.
        margin: of non-inferiority; None where none applies.
        first_non_inferior, second_non_inferior: whether the model is shown to be non-inferior to the other one; None
            without a margin or an interval.
    """

    label: str
    metric: str
    first: str
    second: str
    n_cases: int
    mean_first: float
    mean_second: float
    better: str
    difference: float
    ci_low: float | None
    ci_high: float | None
    p_permutation: float | None
    p_wilcoxon: float | None
    n_patients: int
    p_permutation_holm: float | None = None
    p_wilcoxon_holm: float | None = None
    n_seeds_first: int = 1
    n_seeds_second: int = 1
    margin: float | None = None
    first_non_inferior: bool | None = None
    second_non_inferior: bool | None = None

    def verdicts(self) -> tuple[NonInferiority, ...]:
        """Both directions of non-inferiority; () without a margin or an interval."""
        if self.margin is None or self.ci_low is None or self.ci_high is None:
            return ()
        return non_inferiority(self.metric, (self.first, self.second), (self.ci_low, self.ci_high), self.margin)


@dataclass(frozen=True, slots=True)
class RankingRow:
    """A ranking of all models: over every metric ("all"), or by one."""

    by: str
    models: tuple[str, ...]
    ranking: Ranking

    @property
    def first(self) -> tuple[str, ...]:
        """The model in the first place, several where they tie."""
        return tuple(name for name, place in zip(self.models, self.ranking.rank, strict=True) if place == 1)

    def record(self) -> dict[str, Any]:
        """For JSON."""
        found = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.ranking).items()}
        return {"by": self.by, "models": list(self.models), **found}


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """What a comparison found.

    Args:
        models: names, in the order given.
        cases: those that all evaluations share.
        n_patients: among them.
        rows: every pair, label and metric.
        ranking: over all metrics, then by each.
        complete: False where cases were left out, or an evaluation was not complete itself.
        notes: what is worth knowing.
        values: (label, metric) -> model -> scores, case by case, the mean over seeds.
        seeds: model -> the folders of its trainings.
        seed_means: (label, metric) -> model -> mean over the cases for each seed; signed differences by their size.
        summary: the content of `summary.json`.
        out, report: what was written, or None.

    Example:
        >>> from medseg.evaluation import compare
        >>> result = compare(["report_unet/", "report_deeplab/"])
        >>> result.models
        ('report_unet', 'report_deeplab')
    """

    models: tuple[str, ...]
    cases: tuple[str, ...]
    n_patients: int
    rows: tuple[PairedRow, ...]
    ranking: tuple[RankingRow, ...]
    complete: bool
    notes: tuple[str, ...]
    values: Mapping[tuple[str, str], Mapping[str, tuple[float, ...]]]
    summary: Mapping[str, Any]
    seeds: Mapping[str, tuple[str, ...]]
    seed_means: Mapping[tuple[str, str], Mapping[str, tuple[float, ...]]]
    out: Path | None = None
    report: Path | None = None

    def to_json(self) -> str:
        """The summary as JSON."""
        return json.dumps(self.summary, indent=2, ensure_ascii=False, allow_nan=False)

    def text(self) -> str:
        """For a terminal: the ranking, then a line per comparison."""
        lines = (
            [] if self.complete else ["NOT COMPLETE: not every case or prediction is in this comparison, see the notes"]
        )
        for row in self.ranking[:1]:
            found = row.ranking
            by = row.by if row.by == "all" else title_of(row.by)
            lines.append(f"ranking by {by}, {len(self.cases)} cases, {self.n_patients} patients")
            for i in sorted(range(len(row.models)), key=lambda i: (found.rank[i], row.models[i])):
                stable = ""
                if found.rank_low:
                    stable = (
                        f", place {found.rank_low[i]:.0f} to {found.rank_high[i]:.0f} in 95% of resamples, first in "
                        f"{found.first_share[i]:.0%}"
                    )
                lines.append(f"  {found.rank[i]}. {row.models[i]}: mean rank {found.mean_rank[i]:.2f}{stable}")
        for each in self.rows:
            interval = "" if each.ci_low is None else f" [{each.ci_low:+.3f}, {each.ci_high:+.3f}]"
            p = "" if each.p_permutation_holm is None else f", p {each.p_permutation_holm:.3g} (Holm)"
            title = title_of(each.metric)
            lines.append(
                f"{each.label} {title}: {each.first} {each.mean_first:.3f}, {each.second} {each.mean_second:.3f}, "
                f"difference {each.difference:+.3f}{interval}{p}"
            )
            lines += [f"  {verdict.text()}" for verdict in each.verdicts()]
        lines += [f"note: {note}" for note in self.notes]
        if self.report is not None:
            lines.append(f"report: {self.report}")
        return "\n".join(lines)
