"""Pictures of a report as PNG bytes: contours on a slice, and how scores are distributed."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.legend import as_text
from medseg.reports.slices import SlicePicture

__all__ = ["distribution_png", "figure_png", "label_colours", "overlay_png"]

# Distinguishable with any colour vision (after Okabe and Ito), and bright enough on a dark image.
_HUES = ("#4fc3f7", "#ffb300", "#66e08a", "#f48fb1", "#fff176", "#ff7043", "#b39ddb", "#a1887f")
_INCHES, _DPI = 4.4, 120
# Up to as many rows a distribution has room between them.
_MOST_SPACED = 16


def label_colours(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Label -> colour of the reference's contour and of the prediction's.

    A single label gets two strong colours; several labels get one hue each, the prediction's paler (and dashed).
    """
    if len(labels) == 1:
        return {labels[0]: (_HUES[0], _HUES[1])}
    hues = [_HUES[n] if n < len(_HUES) else _spread(n) for n in range(len(labels))]
    return {label: (hue, _paler(hue)) for label, hue in zip(labels, hues, strict=True)}


def _spread(n: int) -> str:
    red, green, blue = colorsys.hsv_to_rgb((n * 0.618034) % 1.0, 0.55, 0.95)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _paler(colour: str) -> str:
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(p + (255 - p) * 0.6):02x}" for p in parts)


def overlay_png(picture: SlicePicture) -> bytes:
    """Contours of the reference (solid) and the prediction (dashed where there are several labels) on a slice.

    Args:
        picture: as `medseg.reports.slices.pick_slice` gives it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = label_colours(list(picture.ref))
    rows, columns = next(iter(picture.ref.values())).shape
    tall = rows * picture.aspect / columns
    size = (_INCHES, _INCHES * tall) if tall <= 1 else (_INCHES / tall, _INCHES)
    figure = Figure(figsize=(max(size[0], 1.2), max(size[1], 1.2)), dpi=_DPI, facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    shown = np.zeros((rows, columns), np.float32) if picture.image is None else picture.image
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, aspect=picture.aspect, interpolation="nearest")
    dashed: Any = "-" if len(colours) == 1 else (0, (2.2, 1.8))
    for label, (ref_colour, pred_colour) in colours.items():
        if picture.image is None:
            _tint(axes, picture.ref[label], ref_colour, picture.aspect)
        _contour(axes, picture.ref[label], ref_colour, 1.8, "-")
        _contour(axes, picture.pred[label], pred_colour, 1.2, dashed)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.98), (0.5, 0.02))
    aligned = (("left", "center"), ("right", "center"), ("center", "top"), ("center", "bottom"))
    for mark, place, (horizontal, vertical) in zip(picture.marks, places, aligned, strict=True):
        if mark:
            text = axes.text(*place, mark, transform=axes.transAxes, color="white", fontsize=11, weight="bold")
            text.set(horizontalalignment=horizontal, verticalalignment=vertical)
            text.set_bbox({"facecolor": "black", "alpha": 0.45, "edgecolor": "none", "pad": 1.5})
    return figure_png(figure)


def _contour(axes: Any, mask: NDArray[np.bool_], colour: str, width: float, style: Any) -> None:
    if not mask.any():
        return
    # The border of zeros closes contours that reach the edge of the picture.
    padded = np.pad(mask.astype(np.float32), 1)
    x, y = np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1)
    axes.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=[width], linestyles=[style])


def _tint(axes: Any, mask: NDArray[np.bool_], colour: str, aspect: float) -> None:
    layer = np.zeros((*mask.shape, 4), np.float32)
    layer[mask] = [*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 0.25]
    axes.imshow(layer, aspect=aspect, interpolation="nearest")


def distribution_png(values: Mapping[str, Sequence[float]], title: str, limits: tuple[float, float]) -> bytes:
    """Every case as a dot and a box with median and quartiles, one row per label.

    Args:
        values: label -> finite scores.
        title: of the horizontal axis.
        limits: ends of that axis.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = [label for label, found in values.items() if len(found)]
    many = len(labels) > _MOST_SPACED
    height = 0.25 if many else 0.5
    figure = Figure(figsize=(8.0, 1.0 + height * max(1, len(labels))), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rng = np.random.default_rng(0)
    for row, label in enumerate(labels):
        found = np.asarray(values[label], dtype=np.float64)
        if len(found) >= 5:
            box = axes.boxplot(found, positions=[row], orientation="horizontal", widths=0.55, showfliers=False,
                               patch_artist=True, manage_ticks=False)  # fmt: skip
            for patch in box["boxes"]:
                patch.set(facecolor="#dbe9f4", edgecolor="#35617f")
            for line in (*box["whiskers"], *box["caps"]):
                line.set_color("#35617f")
            for line in box["medians"]:
                line.set(color="#c2410c", linewidth=2)
        axes.scatter(
            found, row + rng.uniform(-0.16, 0.16, len(found)), s=16, color="#12344d", alpha=0.65, linewidths=0, zorder=3
        )
    axes.set_yticks(range(len(labels)), [as_text(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    span = limits[1] - limits[0]
    axes.set_xlim(limits[0] - 0.02 * span, limits[1] + 0.02 * span)
    axes.set_xlabel(as_text(title))
    axes.grid(axis="x", color="#e2e8f0")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0, labelsize=8 if many else None)
    # A tall picture is read where its lower edge is out of sight.
    axes.tick_params(axis="x", top=many, labeltop=many)
    figure.tight_layout()
    return figure_png(figure)


def figure_png(figure: Any) -> bytes:
    """A matplotlib figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    # Without metadata the same scores give the same bytes.
    figure.savefig(buffer, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None})
    return buffer.getvalue()
