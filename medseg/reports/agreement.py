"""Agreement of sizes: Bland-Altman limits, and how Dice depends on size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medseg.legend import COLOURS, OTHERS, as_text, named_labels
from medseg.reports.figures import figure_png

__all__ = ["Agreement", "agreement_of", "agreement_png", "size_png"]

_FACTOR = 1.96


@dataclass(frozen=True, slots=True)
class Agreement:
    """Differences prediction - reference of `n` cases, in the unit of the sizes.

    Args:
        bias: their mean.
        low, high: limits of agreement, bias -+ 1.96 SD: 95% of the differences where they are normal.
        n: how many.
    """

    bias: float
    low: float
    high: float
    n: int


def agreement_of(prediction: ArrayLike, reference: ArrayLike) -> Agreement:
    """Bland-Altman limits of agreement (J. M. Bland, D. G. Altman, Lancet 327 (1986), 307-310).

    Args:
        prediction, reference: `(n,)` sizes, n >= 2.

    Example:
        >>> agreement_of([11.0, 9.0], [10.0, 10.0]).bias
        0.0
    """
    difference = np.asarray(prediction, dtype=float) - np.asarray(reference, dtype=float)
    bias, spread = float(difference.mean()), _FACTOR * float(difference.std(ddof=1))
    return Agreement(bias, bias - spread, bias + spread, len(difference))


def agreement_png(sizes: Mapping[str, Sequence[tuple[float, float]]], unit: str) -> bytes:
    """Bland-Altman plot: difference of each case against its mean size, a panel per label.

    Args:
        sizes: label -> (reference, prediction) of each case, at least two.
        unit: of the sizes.
    """
    figure, panels = _panels(len(sizes))
    for axes, (label, pairs) in zip(panels, sizes.items(), strict=True):
        reference, prediction = np.array(pairs, dtype=float).T
        found = agreement_of(prediction, reference)
        axes.axhline(0, color="#9aa7b3", linewidth=1)
        axes.axhline(found.bias, color="#c2410c", linewidth=1.6)
        for limit in (found.low, found.high):
            axes.axhline(limit, color="#c2410c", linewidth=1.1, linestyle="--")
        axes.scatter(
            (prediction + reference) / 2, prediction - reference, s=18, color="#12344d", alpha=0.7, linewidths=0
        )
        axes.set_title(
            f"{as_text(label)}: bias {found.bias:.3g}, limits {found.low:.3g} to {found.high:.3g} {unit}", fontsize=9
        )
        axes.set_xlabel(f"mean of prediction and reference ({unit})")
        axes.set_ylabel(f"prediction - reference ({unit})")
    figure.tight_layout()
    return figure_png(figure)


def size_png(points: Mapping[str, Sequence[tuple[float, float]]], unit: str) -> bytes:
    """Dice of each case against the size in the reference, on a logarithmic axis where sizes differ tenfold.

    Of many labels those with the lowest mean Dice are coloured and named, see `named_labels`.

    Args:
        points: label -> (size, Dice) of each case, sizes above 0.
        unit: of the sizes.
    """
    figure, (axes,) = _panels(1)
    named = named_labels({label: float(np.mean([dice for _, dice in pairs])) for label, pairs in points.items()})
    others = [label for label in points if label not in named]
    if others:
        size, dice = np.array([pair for label in others for pair in points[label]], dtype=float).T
        axes.scatter(size, dice, s=9, label=f"{len(others)} others", color=OTHERS, linewidths=0)
    for label, colour in zip(named, COLOURS, strict=False):
        size, dice = np.array(points[label], dtype=float).T
        axes.scatter(size, dice, s=20, label=as_text(label), color=colour, alpha=0.85, linewidths=0)
    sizes = [size for pairs in points.values() for size, _ in pairs]
    if max(sizes) > 10 * min(sizes):
        axes.set_xscale("log")
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(f"size in the reference ({unit})")
    axes.set_ylabel("Dice")
    if len(points) > 1:
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    return figure_png(figure)


def _panels(count: int) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(2, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.6 * columns + (2.4 if count == 1 else 0), 3.1 * rows), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    panels = [figure.add_subplot(rows, columns, n + 1) for n in range(count)]
    for axes in panels:
        axes.grid(color="#e2e8f0")
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure, panels
