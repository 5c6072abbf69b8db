"""`progress.png`: loss and validation Dice over the minutes of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.disk.atomic import atomic_path
from medseg.legend import OTHERS, as_text, named_labels

__all__ = ["write_curve"]


# Characters that fit beside each other below the axes.
_LINE = 96


def write_curve(entries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the log's entries (`seconds`, `loss`, `validation_dice`, `dice`) to a PNG.

    Of more than eight labels those with the lowest Dice at the last validation are named, the others are grey.

    Raises:
        WriteError: disk full or no permission.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes = figure.add_subplot()
    steps = [e for e in entries if "loss" in e]
    loss_axes.plot([e["seconds"] / 60 for e in steps], [e["loss"] for e in steps], color="0.6", label="training loss")
    loss_axes.set_xlabel("minutes")
    loss_axes.set_ylabel("training loss")
    dice_axes = loss_axes.twinx()
    checks = [e for e in entries if "validation_dice" in e]
    minutes = [e["seconds"] / 60 for e in checks]
    last = {name: math.nan if dice is None else dice for name, dice in (checks[-1]["dice"] if checks else {}).items()}
    named = named_labels(last)
    others = [name for name in last if name not in named]
    for name in others:
        text = f"Dice of {len(others)} other labels" if name == others[0] else None
        dice_axes.plot(minutes, [e["dice"][name] for e in checks], color=OTHERS, linewidth=0.8, label=text)
    for name in named:
        values = [e["dice"][name] for e in checks]
        dice_axes.plot(minutes, values, marker="o", markersize=3, label=f"Dice {as_text(name)}")
    if checks and len(checks[-1]["dice"]) > 1:
        dice_axes.plot(minutes, [e["validation_dice"] for e in checks], color="black", label="Dice, mean")
    dice_axes.set_ylabel("validation Dice (averaged weights)")
    dice_axes.set_ylim(0, 1)
    handles = [*loss_axes.get_legend_handles_labels()[0], *dice_axes.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=_columns(handles), frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _columns(handles: Sequence[Any]) -> int:
    """How many entries of a legend fit beside each other."""
    longest = max(len(handle.get_label()) for handle in handles)
    return max(1, min(4, _LINE // (longest + 6)))
