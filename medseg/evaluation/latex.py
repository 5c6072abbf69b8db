r"""A comparison as a table for a paper: `table.tex`, which needs `\usepackage{booktabs}`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg.evaluation.columns import record_of, title_of
from medseg.evaluation.comparison_result import ComparisonResult, PairedRow

__all__ = ["latex_tables"]

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip
_HEAD = r"% \usepackage{booktabs}, and \usepackage[T1]{fontenc} for quotation marks in names"


def latex_tables(result: ComparisonResult) -> str:
    """Two tables: the means of each model, the best in bold, and the differences of every pair.

    Example:
        >>> from medseg.evaluation import compare
        >>> result = compare(["report_unet/", "report_deeplab/"])
        >>> latex_tables(result).count(r"\\begin{tabular}")
        2
    """
    return "\n".join([_HEAD, "", *_scores(result), "", *_differences(result)]) + "\n"


def _scores(result: ComparisonResult) -> list[str]:
    several = any(len(folders) > 1 for folders in result.seeds.values())
    spread = ", and after $\\pm$ the SD over seeds" if several else ""
    rows = []
    for (label, metric), found in result.seed_means.items():
        if not all(found.values()):
            continue
        means = {model: float(np.mean(each)) for model, each in found.items()}
        bad = {model: record_of(metric).badness(mean) or 0.0 for model, mean in means.items()}
        cells = []
        for model, each in found.items():
            text = f"{means[model]:.3f}"
            text = rf"\textbf{{{text}}}" if bad[model] == min(bad.values()) else text
            cells.append(text + (rf" $\pm$ {np.std(each, ddof=1):.3f}" if len(each) > 1 else ""))
        rows.append([_escaped(label), _escaped(title_of(metric)), *cells])
    caption = f"% Means over {len(result.cases)} case(s) of {result.n_patients} patient(s){spread}; the best in bold."
    return [
        caption,
        *_tabular("ll" + "r" * len(result.models), ["Label", "Metric", *map(_escaped, result.models)], rows),
    ]


def _differences(result: ComparisonResult) -> list[str]:
    rows = [
        [
            _escaped(row.label),
            _escaped(title_of(row.metric)),
            f"{_escaped(row.first)} $-$ {_escaped(row.second)}",
            f"${row.difference:+.3f}${_interval(row)}",
            "--" if row.p_permutation_holm is None else _p_value(row.p_permutation_holm),
        ]
        for row in result.rows
    ]
    several = any(len(folders) > 1 for folders in result.seeds.values())
    over = " over patients and seeds" if several else ""
    of = ", of these trainings alone" if several else ""
    caption = f"% Differences by patient with 95% intervals{over}; p: paired permutation test, corrected by Holm{of}."
    return [caption, *_tabular("lllrr", ["Label", "Metric", "Models", r"Difference [95\,\% interval]", "$p$"], rows)]


def _interval(row: PairedRow) -> str:
    return "" if row.ci_low is None else f" $[{row.ci_low:+.3f}, {row.ci_high:+.3f}]$"


def _p_value(p: float) -> str:
    return "$<0.001$" if p < 0.001 else f"{p:.3f}"


def _tabular(columns: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [" & ".join(row) + r" \\" for row in rows]
    start = rf"\begin{{tabular}}{{{columns}}}"
    return [start, r"\toprule", " & ".join(head) + r" \\", r"\midrule", *lines, r"\bottomrule", r"\end{tabular}"]


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)
