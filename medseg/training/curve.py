"""`progress.png`: loss and validation Dice over the minutes of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.disk.atomic import atomic_path

__all__ = ["write_curve"]


def write_curve(entries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the log's entries (`seconds`, `loss`, `validation_dice`, `dice`) to a PNG.

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
    for name in checks[-1]["dice"] if checks else ():
        dice_axes.plot(minutes, [e["dice"][name] for e in checks], marker="o", markersize=3, label=f"Dice {name}")
    if checks and len(checks[-1]["dice"]) > 1:
        dice_axes.plot(minutes, [e["validation_dice"] for e in checks], color="black", label="Dice, mean")
    dice_axes.set_ylabel("validation Dice (averaged weights)")
    dice_axes.set_ylim(0, 1)
    handles = [*loss_axes.get_legend_handles_labels()[0], *dice_axes.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
