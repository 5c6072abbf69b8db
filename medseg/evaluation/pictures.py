"""The pictures of an evaluation's report: examples, every case, distributions, agreement of sizes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

from medseg.errors import MedsegError
from medseg.evaluation.case_rows import case_dice
from medseg.evaluation.pairs import Pair
from medseg.evaluation.scoring import CaseScores, read_pair
from medseg.evaluation.summary import FrocCurve
from medseg.io.images import read_image
from medseg.labels import LabelScheme
from medseg.legend import named_labels
from medseg.reports.agreement import agreement_of, agreement_png, size_png
from medseg.reports.curves import froc_png
from medseg.reports.figures import distribution_png, label_colours, overlay_png
from medseg.reports.html import Picture
from medseg.reports.slices import SlicePicture, pick_slice
from medseg.reports.thumbnails import FALSE_NEGATIVE, FALSE_POSITIVE, error_thumbnail
from medseg.reports.view3d import View3D, layers_of
from medseg.tasks.froc import FROC_RATES
from medseg.volume import Volume

__all__ = [
    "GALLERY_KEY",
    "MOST_PICTURED",
    "Cases",
    "agreement",
    "distributions",
    "examples",
    "froc_pictures",
    "gallery",
    "view3d",
]

# About 40 kB each, so that a report stays below 10 MB.
MOST_PICTURED = 100
_LEAST_CASES = 3
_MOST_PANELS = 6
GALLERY_KEY = {"predicted only": FALSE_POSITIVE, "missed": FALSE_NEGATIVE}


@dataclass(frozen=True, slots=True)
class Cases:
    """What the pictures are made from.

    Args:
        pairs, scores: cases in the same order.
        labels: names, in the order of the report.
        scheme: what the integers mean, None where labels are named by their number.
        threshold, resample: as in `medseg.evaluation.evaluate`.
    """

    pairs: Sequence[Pair]
    scores: Sequence[CaseScores]
    labels: Sequence[str]
    scheme: LabelScheme | None
    threshold: float | None = None
    resample: bool = False

    def values(self) -> dict[str, tuple[int, ...]]:
        """Label -> its integers."""
        if self.scheme is None:
            return {name: (int(name),) for name in self.labels}
        return dict(zip(self.scheme.names, self.scheme.values, strict=True))

    def shown(self, index: int, by: Literal["area", "difference"]) -> tuple[SlicePicture, bool, str]:
        """A slice of a case, whether its image lies under the contours, and what is wrong with the image."""
        pair = self.pairs[index]
        pred, ref = read_pair(pair, self.threshold, self.resample, self.scheme)
        image, problem = _image(pair, ref)
        ignore = self.scheme.ignore if self.scheme else None
        values = {name: each for name, each in self.values().items() if name in self.scores[index].labels}
        return pick_slice(image, pred, ref, values, by, ignore), image is not None, problem


def examples(cases: Cases) -> tuple[tuple[Picture, ...], list[str]]:
    """The best, the median and the worst case, large; and what could not be shown."""
    pictures, problems = [], []
    for title, index in _chosen(cases.scores):
        score = cases.scores[index]
        by: Literal["area", "difference"] = "difference" if title.startswith("Worst") else "area"
        shown, has_image, problem = cases.shown(index, by)
        if problem:
            problems.append(problem)
        mean = case_dice(score)
        dice = "no label in the reference" if math.isnan(mean) else f"mean Dice {mean:.3f}"
        why = ", where they differ most" if by == "difference" else ", where they cover most"
        why = why if len(score.spacing) == 3 else ""
        convention = ", radiological convention (the patient's right is on the left)" if "R" in shown.marks else ""
        under = "" if has_image else " Masks only."
        each = _dice_by_label(score)
        pictures.append(
            Picture(
                f"{title}: {score.case}",
                f"{dice}; {shown.place}{why}{convention}.{under}",
                f"Contours of reference and prediction, case {score.case}, {shown.place}. Dice: {each}.",
                overlay_png(shown),
            )
        )
    return tuple(pictures), problems


def gallery(cases: Cases) -> tuple[Picture, ...]:
    """A small picture of each case, contours beside an error map, the worst case first; of many the worst only."""
    ranked = sorted(range(len(cases.scores)), key=lambda i: (_rank(cases.scores[i]), cases.scores[i].case))
    colours = label_colours(list(cases.labels))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="pictures") as pool:
        return tuple(pool.map(partial(_thumbnail, cases, colours), ranked[:MOST_PICTURED]))


def _thumbnail(cases: Cases, colours: dict[str, tuple[str, str]], index: int) -> Picture:
    score = cases.scores[index]
    shown, _, _ = cases.shown(index, "difference")
    each = _dice_by_label(score)
    alt = f"Contours, and a map of what was predicted too much or missed: case {score.case}, {shown.place}."
    return Picture(score.case, f"Dice {each}; {shown.place}", alt, error_thumbnail(shown, colours))


def view3d(cases: Cases, script: str) -> View3D | None:
    """The worst case in 3D by NiiVue's `script`; None for pictures and without a script."""
    chosen = _chosen(cases.scores)
    if not script or not chosen or len(cases.scores[chosen[-1][1]].spacing) != 3:
        return None
    index = chosen[-1][1]
    pair = cases.pairs[index]
    pred, ref = read_pair(pair, cases.threshold, cases.resample, cases.scheme)
    image, _ = _image(pair, ref)
    title = f"{chosen[-1][0]}: {pair.case}, all labels together"
    return View3D(title, script, layers_of(image, ref, pred, label_colours(["all"])["all"]))


def distributions(cases: Cases) -> tuple[Picture, ...]:
    """Dice of every case, a row per label; nothing for fewer than two cases."""
    values = {label: [c.labels[label].overlap.dice for c in cases.scores if _holds(c, label)] for label in cases.labels}
    if max((len(v) for v in values.values()), default=0) < 2:
        return ()
    spread = "; ".join(f"{label}: {min(v):.3f} to {max(v):.3f}" for label, v in values.items() if v)
    caption = "Each dot is a case whose reference holds the label; the box shows median and quartiles."
    return (Picture("Dice", caption, f"Dice per case and label. {spread}", distribution_png(values, "Dice", (0, 1))),)


def _holds(case: CaseScores, label: str) -> bool:
    return label in case.labels and case.labels[label].overlap.in_ref > 0


def agreement(cases: Cases) -> tuple[Picture, ...]:
    """Bland-Altman plot of sizes, and Dice against size; for labels that at least three references hold."""
    if len({c.spacing_known for c in cases.scores}) != 1:
        return ()
    is_ml = cases.scores[0].spacing_known and len(cases.scores[0].spacing) == 3
    unit = "ml" if is_ml else "1000 mm2" if cases.scores[0].spacing_known else "pixels"
    sizes: dict[str, list[tuple[float, float]]] = {}
    points: dict[str, list[tuple[float, float]]] = {}
    for label in cases.labels:
        held = [(c, c.labels[label].overlap) for c in cases.scores if _holds(c, label)]
        if len(held) >= _LEAST_CASES:
            sizes[label] = [(o.in_ref * c.voxel_size, o.in_pred * c.voxel_size) for c, o in held]
            points[label] = [(o.in_ref * c.voxel_size, o.dice) for c, o in held]
    if not sizes:
        return ()
    agreements = {label: agreement_of([p for _, p in each], [r for r, _ in each]) for label, each in sizes.items()}
    widths = {label: (a.high - a.low) / sum(r for r, _ in sizes[label]) for label, a in agreements.items()}
    widest = sorted(widths, key=lambda label: -widths[label])[:_MOST_PANELS]
    shown = {label: pairs for label, pairs in sizes.items() if label in widest}
    limits = []
    for label in shown:
        found = agreements[label]
        limits.append(f"{label}: bias {found.bias:.3g}, limits {found.low:.3g} to {found.high:.3g} {unit}")
    caption = "Bland-Altman: difference against mean size; lines are the bias and the 95% limits of agreement."
    if len(shown) < len(sizes):
        caption += f" The {len(shown)} of {len(sizes)} labels whose limits are widest for their size."
    return (
        Picture("Agreement of sizes", caption, f"Bland-Altman plot. {'; '.join(limits)}.", agreement_png(shown, unit)),
        Picture(
            "Dice and size",
            "Dice of each case against its size in the reference: small structures score lower for the same error.",
            "Scatter plot of Dice against size.",
            size_png(points, unit),
        ),
    )


def froc_pictures(found: Mapping[str, FrocCurve]) -> tuple[Picture, ...]:
    """Sensitivity against false positives per case, where probabilities were given."""
    if not found:
        return ()
    curves = {label: (each.false_positives_per_case, each.sensitivity) for label, each in found.items()}
    caption = "FROC: each lesion counts once, whatever hits it; false positives are separate findings that hit none."
    best = "; ".join(f"{label}: at most {max(y):.3f}" for label, (_, y) in curves.items())
    return (
        Picture("FROC", caption, f"Sensitivity by false positives per case. {best}.", froc_png(curves, FROC_RATES)),
    )


def _rank(score: CaseScores) -> float:
    """Cases whose reference holds nothing come last."""
    dice = case_dice(score)
    return math.inf if math.isnan(dice) else dice


def _dice_by_label(score: CaseScores) -> str:
    """Dice of each label; of many those with the lowest."""
    found = {label: each.overlap.dice for label, each in score.labels.items()}
    named = named_labels(found)
    rest = f" (the lowest of {len(found)} labels)" if len(named) < len(found) else ""
    return ", ".join(f"{label} {_dice(found[label])}" for label in named) + rest


def _dice(value: float) -> str:
    return "\N{EN DASH}" if math.isnan(value) else f"{value:.3f}"


def _chosen(scores: Sequence[CaseScores]) -> list[tuple[str, int]]:
    """Best, median and worst case by mean Dice; fewer where there are fewer."""
    ranked = sorted((case_dice(c), i) for i, c in enumerate(scores) if not math.isnan(case_dice(c)))
    if not ranked:
        return [("Case", 0)] if scores else []
    if len(ranked) == 1:
        return [("Worst and only case", ranked[0][1])] if len(scores) > 1 else [("Case", ranked[0][1])]
    best, worst = ("Best", ranked[-1][1]), ("Worst", ranked[0][1])
    return [best, worst] if len(ranked) == 2 else [best, ("Median", ranked[(len(ranked) - 1) // 2][1]), worst]


def _image(pair: Pair, ref: Volume) -> tuple[Volume | None, str]:
    """The case's image where it can be shown; a report must not fail for want of a background."""
    if not pair.images:
        return None, ""
    try:
        image = read_image(pair.images)
    except MedsegError as error:
        return None, f"the image of case {pair.case} is not shown: {error}"
    if not image.same_geometry(ref, tolerance_mm=1e-2):
        return None, f"the image of case {pair.case} is not shown: it does not lie on the reference's grid"
    return image, ""
