"""`medseg prepare --show-augmentation`: a few cases as they are, beside samples as training would see them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medseg.augmentation import BatchMixing
from medseg.config import RunConfig
from medseg.disk.atomic import atomic_path
from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.legend import as_text
from medseg.preparation.normalize import Scale, normalize
from medseg.preparation.plan import Plan
from medseg.preparation.prepare import Preparation
from medseg.preparation.store import PreparedCase, open_case
from medseg.reports.figures import label_colours
from medseg.tasks.defaults import with_task_defaults
from medseg.training.augmentation_check import colours_are_shown
from medseg.training.data import BatchSource

__all__ = ["check_sheet_path", "write_augmentation_sheet"]

CASES, SAMPLES = 3, 5
_INCHES, _DPI = 2.2, 150
# Share of the voxels that are shown black, and white.
_DARKEST, _BRIGHTEST = 0.5, 99.5


@dataclass(frozen=True)
class _Panel:
    """One picture: `image` (C, I, J) normalised, and label maps (I, J) with the style of their contours."""

    image: NDArray[np.float32]
    labels: tuple[tuple[NDArray[Any], str], ...]


def check_sheet_path(path: Path) -> None:
    """Refuse, before a data set is prepared, a picture that is not a PNG.

    Raises:
        ConfigError: for another suffix than .png.

    Example:
        >>> check_sheet_path(Path("sheet.png"))
    """
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--show-augmentation {path}: the picture is a PNG; give a name that ends in .png")


def write_augmentation_sheet(config: RunConfig, preparation: Preparation, path: Path) -> None:
    """Draw at most three cases as a PNG: a row for each, the case and five augmented patches around its labels.

    Of a volume, the slice in the middle of those that hold a label is shown; of several channels that are not colours,
    the first. Grey levels of a row are shown alike.

    Args:
        config: of the run; its seed decides what is drawn.
        preparation: of the data set.
        path: of the picture; an existing file is replaced.

    Raises:
        WriteError: disk full or no permission.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    plan, scheme = preparation.plan, preparation.dataset.labels
    names = list(preparation.cases)
    picked = [names[n] for n in np.unique(np.linspace(0, len(names) - 1, CASES).round().astype(int))]
    cases = [open_case(preparation.cases[name]) for name in picked]
    columns = [[_whole(case, plan) for case in cases], *_samples(with_task_defaults(config), cases, plan, scheme)]
    figure = Figure(figsize=(_INCHES * len(columns), _INCHES * len(cases) + 0.4), layout="constrained", dpi=_DPI)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(cases), len(columns), squeeze=False)
    in_colour = colours_are_shown(config, preparation.fingerprint) and plan.normalize_on == "network"
    colours = {name: strong for name, (strong, _) in label_colours(list(scheme.names)).items()}
    for row, case in enumerate(cases):
        limits = None if in_colour else _limits(columns[0][row].image[0])
        for column, panels in enumerate(columns):
            _draw(axes[row, column], panels[row], plan, case.scales, limits, scheme, colours)
            if row == 0:
                axes[row, column].set_title(f"sample {column}" if column else "case", fontsize=8)
        axes[row, 0].set_ylabel(as_text(case.name[-30:]), fontsize=7)
    lines = [figure.axes[0].plot([], [], color=colour, label=as_text(name))[0] for name, colour in colours.items()]
    figure.legend(handles=lines[:8], loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _whole(case: PreparedCase, plan: Plan) -> _Panel:
    index = _middle_slice(case.labels) if case.labels.ndim == 3 else None
    place = (...,) if index is None else (..., index)
    image = normalize(np.asarray(case.image[place]), case.scales)
    return _Panel(image, ((np.asarray(case.labels[place]), "solid"),))


def _samples(config: RunConfig, cases: list[PreparedCase], plan: Plan, scheme: LabelScheme) -> Iterator[list[_Panel]]:
    """Columns of samples, one of each case; what is mixed in training is mixed between the cases of a column."""
    mixing = BatchMixing(config.augmentation)
    alone = {"cutmix_probability": 0.0, "mixup_probability": 0.0}
    training = config.training.model_copy(update={"foreground_fraction": 1.0})
    unmixed = config.model_copy(
        update={"augmentation": config.augmentation.model_copy(update=alone), "training": training}
    )
    single = plan.model_copy(update={"batch_size": 1})
    sources = [BatchSource([case], single, scheme, unmixed, number) for number, case in enumerate(cases)]
    for column in range(SAMPLES):
        batches = [source.batch(column) for source in sources]
        images, labels = torch.cat([b.images for b in batches]), torch.cat([b.labels for b in batches])
        params = mixing.draw(np.random.default_rng([config.seed, column]), len(images), images.shape[2:])
        mixed = mixing.apply(images, labels, params)
        panels = []
        for row in range(len(cases)):
            maps = [(mixed.labels[row, 0].numpy(), "solid")]
            maps += [] if mixed.others is None else [(mixed.others[row, 0].numpy(), "dotted")]
            index = _middle_slice(maps[0][0]) if plan.dims == 3 else None
            place = (...,) if index is None else (..., index)
            panels.append(_Panel(mixed.images[row].numpy()[place], tuple((m[place], style) for m, style in maps)))
        yield panels


def _middle_slice(labels: NDArray[Any]) -> int:
    """Along the last axis, the middle one of the slices that hold a label, or of all where none does."""
    held = np.flatnonzero(labels.any(axis=(0, 1)))
    return int(held[len(held) // 2]) if len(held) else labels.shape[2] // 2


def _limits(image: NDArray[np.float32]) -> tuple[float, float]:
    low, high = np.percentile(image, [_DARKEST, _BRIGHTEST])
    return float(low), float(high)


def _draw(
    axes: Any,
    panel: _Panel,
    plan: Plan,
    scales: tuple[Scale, ...],
    limits: tuple[float, float] | None,
    scheme: LabelScheme,
    colours: Mapping[str, str],
) -> None:
    """The picture upright, as a radiologist sees it: the patient's right on the left, front or head at the top.

    Without `limits` of the grey levels it is a photograph, whose colours are those of the file; else channel 0.
    """
    letters = plan.orientation or ""
    flips = tuple(n for n, letter in enumerate(letters[:2]) if letter in "RAS")
    if limits is None:
        levels = [(c * scale.std + scale.mean) / 255 for c, scale in zip(panel.image, scales, strict=True)]
        shown = np.clip(np.stack(levels, axis=-1), 0, 1)
    else:
        low, high = limits
        shown = np.clip((panel.image[0] - low) / max(high - low, 1e-6), 0, 1)
    spacing = plan.spacing_mm or (1.0, 1.0)
    axes.imshow(np.flip(shown, flips).swapaxes(0, 1), cmap="gray", vmin=0, vmax=1, aspect=spacing[1] / spacing[0])
    for labels, style in panel.labels:
        upright = np.flip(labels, flips).T
        for name, colour in colours.items():
            mask = scheme.mask(upright, name)
            if mask.any() and not mask.all():
                axes.contour(mask, levels=[0.5], colors=colour, linewidths=0.5, linestyles=style)
    axes.set(xticks=[], yticks=[])
