"""The picture of a benchmark: quality against latency, with the front of what nothing beats."""

from __future__ import annotations

from collections.abc import Sequence

from medseg.commands.benchmark.row import Row, pareto_front
from medseg.legend import as_text
from medseg.reports.figures import figure_png, label_colours

__all__ = ["pareto_png"]

# Of points: one kind for each engine.
MARKERS = "osD^vPX*<>hp"
MOST_IN_A_COLUMN = 24
# Of the vertical axis.
LEAST_SPAN = 0.04


def pareto_png(rows: Sequence[Row], quality: str) -> bytes:
    """Every measured contender as a numbered point: its model gives the colour, its engine the kind of marker.

    Numbers stand beside the points and, with names, in a list on the right, the fastest first, so that any number of
    points can be distinguished.

    Args:
        rows: those without a quality are left out.
        quality: what the vertical axis is.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        """0.5 and 2 where the other shows a power of ten, and nothing where it shows nothing."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    shown = sorted((row for row in rows if row.quality is not None), key=lambda row: row.median_seconds)
    points = [(row.median_seconds, row.quality.mean) for row in shown if row.quality is not None]
    columns = 1 + (len(shown) - 1) // MOST_IN_A_COLUMN if shown else 1
    height = 4.2 + 0.13 * max(0, min(len(shown), MOST_IN_A_COLUMN) - 14)
    figure = Figure(figsize=(6.4 + 2.6 * columns, height), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    models = list(dict.fromkeys(row.contender.model.name for row in shown))
    engines = list(dict.fromkeys(row.contender.engine_name for row in shown))
    colours = {name: first for name, (first, _) in label_colours([*models, ""]).items()}
    front = pareto_front(points)
    axes.plot(
        [points[n][0] for n in front], [points[n][1] for n in front], color="#475569", linewidth=1.2, zorder=2,
        drawstyle="steps-post", label="nothing is faster and at least as good",
    )  # fmt: skip
    for number, (row, (seconds, mean)) in enumerate(zip(shown, points, strict=True), start=1):
        name = row.contender.model.name
        interval = row.quality.interval if row.quality is not None else None
        if interval is not None:
            axes.plot([seconds, seconds], interval, color=colours[name], linewidth=1, alpha=0.5, zorder=1)
        axes.scatter(
            [seconds], [mean], s=46, marker=MARKERS[engines.index(row.contender.engine_name) % len(MARKERS)],
            color=colours[name], edgecolors="#0f172a", linewidths=1.4 if number - 1 in front else 0.4, zorder=3,
            label=f"{number}  {as_text(name)}, {as_text(row.contender.engine_name)}",
        )  # fmt: skip
    _number(axes, points)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(Plain())
    axes.xaxis.set_minor_formatter(Plain(minor_thresholds=(2, 0.5)))
    axes.set_xlabel("median seconds for a case")
    axes.set_ylabel(as_text(quality))
    low, high = axes.get_ylim()
    # A ten-thousandth of Dice is nothing, and must not fill the picture.
    axes.set_ylim(min(low, (low + high - LEAST_SPAN) / 2), max(high, (low + high + LEAST_SPAN) / 2))
    axes.grid(which="both", color="#e2e8f0")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=columns)
    figure.tight_layout()
    return figure_png(figure)


def _number(axes: object, points: Sequence[tuple[float, float]]) -> None:
    """Numbers beside the points, each a step further from its point where the one before is close."""
    previous: tuple[float, float] | None = None
    span = max((y for _, y in points), default=1) - min((y for _, y in points), default=0) or 1.0
    level = 0
    for number, (x, y) in enumerate(points, start=1):
        close = previous is not None and x < 1.08 * previous[0] and abs(y - previous[1]) < 0.04 * span
        level = (level + 1) % 5 if close else 0
        axes.annotate(  # type: ignore[attr-defined]
            str(number), (x, y), textcoords="offset points", xytext=(0, 7 + 9 * level), fontsize=8, ha="center"
        )
        previous = (x, y)
