"""How well `predict --estimate-quality` knows the Dice of a mask, and how often right cases are flagged.

    python benchmarks/quality.py ../shared/data/hippocampus --work /tmp/quality
    python benchmarks/quality.py ../shared/data/hippocampus --work /tmp/quality --model BUNDLE

A second call with the same `--work` trains no longer, but learns the training range and the calibration anew.

The folder holds `images/` and `labels/`. Sorted cases 4, 9, 14 ... are held back (others by `--held`); of the others
every fourth validates and calibrates, the rest trains (`medseg train hippocampus prediction.quality=calibrate`), unless
a bundle of such a training is given. Each held-back case is then predicted as it is and with every damage of
`medseg.inference.quality.perturbations`, drawn anew: noise, blur, wrong spacing, cropped field of view, bent grey
levels.

Printed: Spearman's correlation of predicted and true Dice per label, on undamaged cases, on damaged ones and on all;
how many of those with a true Dice below 0.7 are flagged, and of the others. Then how many undamaged cases with a good
mask `predict` alone marks `needs_review` as they fall out of the training range, and why; good: Dice of at least 0.8,
in the mean over the labels, and in every label.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

import medseg
from medseg.inference.load import load_model
from medseg.inference.quality import check_case
from medseg.inference.quality.estimate import LEAST_DICE, estimate_quality
from medseg.inference.quality.perturbations import DAMAGES
from medseg.volume import Volume

GOOD_DICE = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for the data set of the training and its run")
    parser.add_argument("--model", type=Path, help="a calibrated bundle; default: train one")
    parser.add_argument("--held", type=int, default=4, choices=range(5), help="the first of the cases held back")
    parser.add_argument("--preset", default="hippocampus")
    parser.add_argument("--minutes", type=float, help="of the training; default: the preset's")
    options = parser.parse_args()
    names = sorted(p.name for p in (options.data / "images").glob("*.nii.gz"))
    held = names[options.held :: 5]
    model = load_model(options.model or trained(options, [n for n in names if n not in held]))
    rows: list[tuple[str, float, float]] = []
    checked: list[tuple[str, list[float], list[str]]] = []
    for number, name in enumerate(held):
        image, labels = (medseg.read(options.data / part / name) for part in ("images", "labels"))
        mask = model.predict(image)
        findings = [f"{f.kind}: {f.message}" for f in check_case(image, mask, model.info)]
        checked.append((name, [dice for dice in true_dice(model, mask, labels) if dice is not None], findings))
        rows += rows_of(model, image, labels, "")
        for index, (damage, apply) in enumerate(DAMAGES.items()):
            # Not the draws of the calibration.
            rows += rows_of(model, *apply(image, labels, np.random.default_rng([1000, number, index])), damage)
        print(f"{name}: {len(rows)} rows", flush=True)
    report(rows)
    report_checked(checked)


def trained(options: argparse.Namespace, names: list[str]) -> Path:
    """Train on the named cases, every fourth of which validates and calibrates."""
    data = options.work / "data"
    for part in ("images", "labels"):
        (data / part).mkdir(parents=True, exist_ok=True)
        for name in names:
            link = data / part / name
            if not link.exists():
                link.symlink_to((options.data / part / name).resolve())
    overrides = {
        "data.root": str(data),
        "data.layout": "folders",
        "data.split": {"every": 4, "start": 3},
        "output": str(options.work / "run"),
        "prediction.quality": "calibrate",
    }
    if options.minutes is not None:
        overrides["training.max_minutes"] = options.minutes
    return medseg.train(options.preset, overrides, resume=True).bundle


def rows_of(model: medseg.Model, image: Volume, labels: Volume, damage: str) -> list[tuple[str, float, float]]:
    """(damage, predicted, true Dice) of each label that the reference holds."""
    mask = model.predict(image)
    estimate = estimate_quality(model, image, mask)
    dice = true_dice(model, mask, labels)
    return [
        (damage, predicted, true)
        for predicted, true in zip(estimate.dice, dice, strict=True)
        if predicted is not None and true is not None
    ]


def true_dice(model: medseg.Model, mask: Volume, labels: Volume) -> list[float | None]:
    """Of each label, None where the reference lacks it."""
    dice: list[float | None] = []
    for name in model.scheme.names:
        found, reference = (model.scheme.mask(v.array, name) for v in (mask, labels))
        both = int(found.sum()) + int(reference.sum())
        dice.append(2 * int((found & reference).sum()) / both if reference.any() else None)
    return dice


def report_checked(checked: list[tuple[str, list[float], list[str]]]) -> None:
    """(case, Dice of its labels, why `predict` asks for review) of the undamaged cases."""
    for rule, judge in (("mean Dice", np.mean), ("Dice of each label", min)):
        good = [findings for _, dice, findings in checked if judge(dice) >= GOOD_DICE]
        print(
            f"good masks ({rule} >= {GOOD_DICE}): {len(good)} of {len(checked)}, needs_review: {sum(map(bool, good))}"
        )
    for name, dice, findings in checked:
        for finding in findings:
            print(f"  {name} (Dice {', '.join(f'{d:.3f}' for d in dice)}) {finding}")


def report(rows: list[tuple[str, float, float]]) -> None:
    damage = np.array([row[0] for row in rows], dtype=object)
    predicted, true = (np.array([row[n] for row in rows]) for n in (1, 2))
    heads = (f"{'':20s}", "   n", "  true", " error", "Spearman", " bad", " caught", " false flags")
    print(*heads)
    groups = {"undamaged": damage == "", "damaged": damage != "", "all": damage == damage}
    groups |= {f"  {name}": damage == name for name in DAMAGES}
    for name, rows_in in groups.items():
        print(line(name, predicted[rows_in], true[rows_in]))


def line(name: str, predicted: NDArray[np.float64], true: NDArray[np.float64]) -> str:
    bad, flagged = true < LEAST_DICE, predicted < LEAST_DICE
    caught = f"{100 * (bad & flagged).sum() / bad.sum():.0f} %" if bad.any() else "-"
    false = f"{100 * (~bad & flagged).sum() / (~bad).sum():.1f} %" if not bad.all() else "-"
    error = float(np.sqrt(np.mean((predicted - true) ** 2)))
    order = float(spearmanr(predicted, true).statistic)
    return (
        f"{name:20s} {len(true):4d} {np.median(true):6.3f} {error:6.3f} {order:8.3f} {bad.sum():4d} {caught:>7s} "
        f"{false:>12s}"
    )


if __name__ == "__main__":
    main()
