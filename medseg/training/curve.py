"""`progress.png`: loss, validation Dice, learning rate, seconds and memory over the minutes of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg.disk.atomic import atomic_path
from medseg.legend import COLOURS, OTHERS, as_text, named_labels

__all__ = ["write_curve"]

Entries = Sequence[Mapping[str, Any]]

# Characters that fit beside each other below the axes.
_LINE = 130
# Colour, and the words for it.
_PARTS = {"step": ("#35617f", "step"), "wait": ("#c2410c", "waiting"), "validate": ("#4d7c0f", "validation")}
# Entries of the log that the mean loss runs over.
_SMOOTHED = 9
_NOT_RECORDED = "not recorded"


def write_curve(entries: Entries, path: Path) -> None:
    """Draw the log's entries to a PNG: what entries of earlier releases lack stays empty.

    Of more than eight labels those with the lowest Dice at the last validation are named, the others are grey.

    Args:
        entries: as `medseg.training.journal.Journal` describes them.
        path: of the file.

    Raises:
        WriteError: disk full or no permission.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.9, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(6, 2, width_ratios=(1.7, 1.0))
    panels: dict[str, Any] = {}
    for name, place in (("loss", grid[:2, 0]), ("dice", grid[2:, 0])):
        panels[name] = figure.add_subplot(place, sharex=panels.get("loss"))
    for row, name in enumerate(("rate", "seconds", "memory")):
        panels[name] = figure.add_subplot(grid[2 * row : 2 * row + 2, 1], sharex=panels["loss"])
    _loss(panels["loss"], entries)
    _dice(panels["dice"], entries)
    _line(panels["rate"], entries, "learning_rate", "learning rate", "#35617f")
    panels["rate"].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    _seconds(panels["seconds"], entries)
    _line(panels["memory"], entries, "memory_gb", "peak memory (GB)", "#6d28d9")
    for name, axes in panels.items():
        axes.grid(color="#e2e8f0")
        axes.yaxis.label.set_size(9)
        axes.set_axisbelow(True)
        if name in ("dice", "memory"):
            axes.set_xlabel("minutes")
        else:
            axes.tick_params(axis="x", labelbottom=False)
    end = max((entry["seconds"] for entry in entries), default=0) / 60
    panels["loss"].set_xlim(0, end or 1)
    _iterations_above(panels["loss"], entries, end)
    handles = panels["dice"].get_legend_handles_labels()[0]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=_columns(handles), frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _loss(axes: Any, entries: Entries) -> None:
    """Each entry's mean in grey, and the mean over it and its neighbours."""
    steps = [e for e in entries if "loss" in e]
    minutes, losses = [e["seconds"] / 60 for e in steps], [e["loss"] for e in steps]
    axes.plot(minutes, losses, color="0.75", linewidth=1)
    if unlabelled := [e for e in steps if "consistency" in e]:
        axes.plot([e["seconds"] / 60 for e in unlabelled], [e["consistency"] for e in unlabelled], color="#6d28d9")
        _note(axes, 2, "#6d28d9", f"on unlabelled images {unlabelled[-1]['consistency']:.3f}")
    half = _SMOOTHED // 2
    smooth = [float(np.mean(losses[max(0, n - half) : n + half + 1])) for n in range(len(losses))]
    axes.set_ylabel("training loss")
    if losses:
        _note(axes, 0, "0.45", f"last {losses[-1]:.3f}")
    if len(losses) > _SMOOTHED:
        axes.plot(minutes, smooth, color="#35617f", linewidth=1.8)
        _note(axes, 1, "#35617f", f"mean of {_SMOOTHED} entries {smooth[-1]:.3f}")


def _dice(axes: Any, entries: Entries) -> None:
    checks = [e for e in entries if "validation_dice" in e]
    minutes = [e["seconds"] / 60 for e in checks]
    last = {name: _number(dice) for name, dice in (checks[-1]["dice"] if checks else {}).items()}
    named = named_labels(last)
    others = [name for name in last if name not in named]
    for name in others:
        text = f"Dice of {len(others)} other labels" if name == others[0] else None
        values = [_number(e["dice"].get(name)) for e in checks]
        axes.plot(minutes, values, color=OTHERS, linewidth=0.8, label=text)
    for name, colour in zip(named, COLOURS, strict=False):
        values = [_number(e["dice"].get(name)) for e in checks]
        text = f"Dice {as_text(name)} {_figure(last[name])}"
        axes.plot(minutes, values, color=colour, marker="o", markersize=3, label=text)
    if len(last) > 1:
        means = [e["validation_dice"] for e in checks]
        axes.plot(minutes, means, color="black", linewidth=2, label=f"Dice, mean {means[-1]:.3f}")
    axes.set_ylabel("validation Dice (averaged weights)")
    axes.set_ylim(0, 1)


def _line(axes: Any, entries: Entries, key: str, title: str, colour: str) -> None:
    held = [e for e in entries if e.get(key) is not None]
    axes.plot([e["seconds"] / 60 for e in held], [e[key] for e in held], color=colour, linewidth=1.5)
    axes.set_ylabel(title)
    if held:
        axes.set_ylim(0, 1.25 * max(e[key] for e in held) or 1.0)
        _note(axes, 0, colour, f"last {held[-1][key]:.3g}")
    elif entries:
        _note(axes, 0, "0.45", _NOT_RECORDED)


def _seconds(axes: Any, entries: Entries) -> None:
    """Seconds of an iteration, waiting on top of the step; and what share of all time each part took."""
    steps = [e for e in entries if "step_seconds" in e]
    minutes = [e["seconds"] / 60 for e in steps]
    below, totals = np.zeros(len(steps)), dict.fromkeys(_PARTS, 0.0)
    done = np.diff([e["iteration"] for e in steps], prepend=0)
    for part in ("step", "wait"):
        seconds = np.array([e.get(f"{part}_seconds", 0.0) for e in steps])
        totals[part] = float((seconds * done).sum())
        if len(steps):
            axes.fill_between(minutes, below, below + seconds, color=_PARTS[part][0], alpha=0.75, linewidth=0)
        below = below + seconds
    totals["validate"] = float(sum(e.get("validate_seconds", 0.0) for e in entries))
    axes.set_ylabel("seconds per iteration")
    # A few slow iterations, such as the first, must not flatten all others.
    axes.set_ylim(0, 1.9 * float(np.quantile(below, 0.9)) or 1.0 if len(steps) else 1.0)
    every = sum(totals.values())
    for row, (part, (colour, text)) in enumerate(_PARTS.items()):
        if every:
            _note(axes, row, colour, f"{text} {totals[part] / 60:.1f} min ({totals[part] / every:.1%})")
    if entries and not every:
        _note(axes, 0, "0.45", _NOT_RECORDED)


def _note(axes: Any, row: int, colour: str, text: str) -> None:
    """A figure in the upper right corner, in the colour of its line."""
    size = 8
    axes.annotate(text, (1, 1), (-6, -5 - row * 1.35 * size), xycoords="axes fraction", textcoords="offset points",
                  color=colour, fontsize=size, horizontalalignment="right", verticalalignment="top",
                  bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5})  # fmt: skip


def _iterations_above(axes: Any, entries: Entries, end: float) -> None:
    """Iterations along the upper edge, at the minutes when they were done."""
    from matplotlib.ticker import MaxNLocator

    top = axes.secondary_xaxis("top")
    top.set_xlabel("iterations")
    most = max((e["iteration"] for e in entries), default=0)
    ticks = [t for t in MaxNLocator(5, integer=True).tick_values(0, most) if 0 <= t <= most] if end else []
    at = ([0, *(e["iteration"] for e in entries)], [0.0, *(e["seconds"] / 60 for e in entries)])
    top.set_xticks([float(np.interp(t, *at)) for t in ticks], [f"{t:,.0f}" for t in ticks])


def _number(dice: float | None) -> float:
    return math.nan if dice is None else dice


def _figure(dice: float) -> str:
    return "not in the references" if math.isnan(dice) else f"{dice:.3f}"


def _columns(handles: Sequence[Any]) -> int:
    """How many entries of a legend fit beside each other."""
    longest = max(len(handle.get_label()) for handle in handles)
    return max(1, min(5, _LINE // (longest + 6)))
