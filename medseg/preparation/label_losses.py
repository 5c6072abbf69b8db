"""What labels lose on the way to a coarser grid: volume, and components that are smaller than its voxels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.labels import LabelScheme
from medseg.preparation.fingerprint import count_labels, labelled_box
from medseg.resampling import resample_array
from medseg.volume import Finding

__all__ = ["LabelLoss", "label_losses", "loss_findings"]

# A label that keeps less of its volume is reported.
KEPT_VOLUME = 2 / 3
# Cases named in a finding.
MOST_NAMES = 5


@dataclass(frozen=True, slots=True)
class LabelLoss:
    """What a label of a case loses.

    Args:
        kept: its volume on the network's grid, as a part of that on its own grid.
        components: connected components on its own grid (neighbours touch by a face, an edge or a corner).
        vanished: those of them of which no voxel is left.
    """

    kept: float
    components: int
    vanished: int


def label_losses(native: NDArray[Any], network: NDArray[Any], ignore: int | None) -> dict[int, LabelLoss]:
    """Labels that lose more than a third of their volume, or a whole component.

    Args:
        native: `(I, J[, K])` label map, its axes in the network's order.
        network: the same on the network's grid, which covers the same extent.
        ignore: label value that is left out.

    Returns:
        label value -> its loss; empty where nothing is lost, or the grid is nowhere coarser.

    Example:
        >>> native = np.zeros((4, 8), int)
        >>> native[0, 0], native[:, 4:] = 1, 2
        >>> label_losses(native, native[::2, 1::2], None)
        {1: LabelLoss(kept=0.0, components=1, vanished=1)}
    """
    if all(m >= n for n, m in zip(native.shape, network.shape, strict=True)):
        return {}
    share = native.size / network.size
    back = resample_array(network, native.shape, order=0)
    whole = ndimage.generate_binary_structure(native.ndim, native.ndim)
    losses = {}
    for value, where in _boxes(native).items():
        if value == 0 or value == ignore:
            continue
        held = native[where] == value
        found = held & (back[where] == value)
        kept = float(np.count_nonzero(network == value) * share / np.count_nonzero(held))
        if found.all():
            continue
        numbers, count = ndimage.label(held, whole)
        vanished = int(count - len(np.unique(numbers[found])))
        if kept < KEPT_VOLUME or vanished:
            losses[value] = LabelLoss(round(kept, 4), int(count), vanished)
    return losses


def loss_findings(losses: Mapping[str, Mapping[int, LabelLoss]], scheme: LabelScheme) -> list[Finding]:
    """One finding per label that loses too much in any case, with the cases' names.

    Args:
        losses: case -> label value -> loss.
        scheme: names the labels.
    """
    findings = []
    for value in sorted({value for each in losses.values() for value in each}):
        held = {case: each[value] for case, each in losses.items() if value in each}
        parts = []
        shrunk = [f"{case} keeps {loss.kept:.0%}" for case, loss in held.items() if loss.kept < KEPT_VOLUME]
        if shrunk:
            parts.append(f"more than a third of its volume in {_cases(shrunk)}")
        gone = [f"{case} {loss.vanished} of {loss.components}" for case, loss in held.items() if loss.vanished]
        if gone:
            parts.append(f"whole components in {_cases(gone)}")
        findings.append(
            Finding(
                "label_loss",
                f"on the network's grid, label {_name(value, scheme)} loses {', and '.join(parts)}; to keep them, "
                "choose a finer plan.spacing_mm",
            )
        )
    return findings


def _cases(each: list[str]) -> str:
    named = ", ".join(each[:MOST_NAMES])
    more = f" and {len(each) - MOST_NAMES} more" if len(each) > MOST_NAMES else ""
    return f"{len(each)} case{'s' if len(each) > 1 else ''} ({named}{more})"


def _name(value: int, scheme: LabelScheme) -> str:
    names = [name for name, values in zip(scheme.names, scheme.values, strict=True) if value in values]
    return f"{value} ({', '.join(names)})" if names else str(value)


def _boxes(labels: NDArray[Any]) -> dict[int, tuple[slice, ...]]:
    """Label value -> the smallest box around it; 0 has none."""
    around = labelled_box(labels)
    inside = labels[around]
    if not inside.size:
        return {}
    values, _ = count_labels(inside)
    small = values[-1] < 65536
    boxes = ndimage.find_objects(inside if small else (np.searchsorted(values, inside) + 1).astype(np.int32))
    places = values if small else np.arange(1, len(values) + 1)
    return {int(v): _moved(boxes[n - 1], around) for v, n in zip(values, places, strict=True) if v > 0}


def _moved(box: tuple[slice, ...], around: tuple[slice, ...]) -> tuple[slice, ...]:
    """A box within another one, on the grid of that one."""
    return tuple(
        slice(inner.start + outer.start, inner.stop + outer.start) for inner, outer in zip(box, around, strict=True)
    )
