"""Curves of a data set: FROC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medseg.legend import COLOURS, OTHERS, as_text, named_labels
from medseg.reports.figures import figure_png

__all__ = ["froc_png"]


def froc_png(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], rates: Sequence[float]) -> bytes:
    """Sensitivity for lesions against false positives per case, on a logarithmic axis; see `named_labels`.

    Args:
        curves: label -> false positives per case, ascending, and sensitivity.
        rates: where the curve is read; the axis ends there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 3.1), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    low, high = rates[0] / 2, rates[-1] * 2
    named = named_labels({label: max(y) for label, (_, y) in curves.items()})
    others = [label for label in curves if label not in named]
    hues = dict(zip(named, COLOURS, strict=False))
    for label in (*others, *named):
        x, y = curves[label]
        inside = [(max(a, low), b) for a, b in zip(x, y, strict=True) if a <= high]
        text = as_text(label) if label in hues else f"{len(others)} others" if label == others[0] else None
        axes.step([a for a, _ in inside] + [high], [b for _, b in inside] + [inside[-1][1]], where="post",
                  color=hues.get(label, OTHERS), label=text, linewidth=2 if label in hues else 1)  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.set_xlim(low, high)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("false positives per case")
    axes.set_ylabel("sensitivity")
    axes.grid(color="#e2e8f0")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(curves) > 1:
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    return figure_png(figure)
