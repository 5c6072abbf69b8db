"""A training with 24 labels: Dice of each, peak memory, and whether its pictures stay readable.

    python benchmarks/many_labels.py --out runs/many_labels [--minutes 4] [--labels 24]
    python benchmarks/many_labels.py --out runs/many_labels --root FOLDER        (a data set of your own)

Without --root the cases are made: 16 volumes of 48x36x24 voxels with 24 ellipsoids that lie in the same order in all
of them, moved, larger or smaller and of other grey levels in each; every fourth case validates. The minutes are CPU
minutes of one core. Printed are the Dice of each label over the validation cases, their mean, the steps and the peak
memory of training; --out then holds the run with `progress.png` and its pictures of validation masks, and
`report/report.html` of the same cases, for looking at.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from cpu_trainings import any_core, predict, train
from data_folders import link_cases, open_data

CASES, SHAPE, CELLS = 16, (48, 36, 24), (4, 3, 2)


def made_cases(folder: Path, labels: int) -> None:
    """Write the cases below `folder`, once."""
    import medseg

    order = np.random.default_rng(0)
    places = [(i, j, k) for i in range(CELLS[0]) for j in range(CELLS[1]) for k in range(CELLS[2])]
    if labels > len(places):
        raise SystemExit(f"{labels} labels asked for; the made cases have room for {len(places)}")
    places = [places[n] for n in order.permutation(len(places))[:labels]]
    levels = order.uniform(40, 160, labels)
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"))
    for number in range(CASES):
        image_path, label_path = (folder / kind / f"case_{number:02d}.nii.gz" for kind in ("images", "labels"))
        if label_path.exists():
            continue
        rng = np.random.default_rng([1, number])
        image, mask = rng.normal(0, 15, SHAPE).astype(np.float32), np.zeros(SHAPE, np.uint8)
        moved = rng.uniform(-2, 2, 3)
        for value, (place, level) in enumerate(zip(places, levels, strict=True), start=1):
            centre = (np.array(place) + 0.5) * np.array(SHAPE) / CELLS + moved + rng.uniform(-1.5, 1.5, 3)
            radii = rng.uniform(3, 5, 3)
            inside = (((grid - centre.reshape(3, 1, 1, 1)) / radii.reshape(3, 1, 1, 1)) ** 2).sum(0) < 1
            mask[inside] = value
            image[inside] += level + rng.normal(0, 10)
        for path, array in ((label_path, mask), (image_path, image)):
            path.parent.mkdir(parents=True, exist_ok=True)
            medseg.write(medseg.Volume(array, np.eye(4)), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--root", type=Path, help="a data set with many labels, in place of the made one")
    parser.add_argument("--labels", type=int, default=24, help="of the made cases")
    parser.add_argument("--minutes", type=float, default=4.0, help="CPU minutes of the training")
    parser.add_argument("--core", type=int, default=any_core())
    asked = parser.parse_args()
    out = asked.out.resolve()
    root = asked.root or out / "data"
    if asked.root is None:
        made_cases(root, asked.labels)
    data = open_data(root.name, root.parent, out)
    validation = data.folds(4)[3][1]
    settings = {
        **data.overrides(),
        "data.split": {"validation": [case.name for case in validation]},
        "training.max_minutes": asked.minutes,
        "training.validation_cases": 2,
    }
    run = out / "run"
    result = train(str(root), settings, run, asked.core)
    held = link_cases(validation, out / "held")
    import medseg

    masks = predict(run, held / "images", out / "masks", asked.core)
    found = medseg.evaluate(
        masks,
        held / "labels",
        out=out / "report",
        labels=data.labels,
        images=held / "images",
        label_threshold=data.threshold,
    )
    dice = {label: each["dice"].mean for label, each in found.summary.labels.items()}
    for label, value in dice.items():
        print(f"| {label} | {value:.3f} |")
    values = np.array(list(dice.values()))
    print(
        f"{len(dice)} labels, {len(data.cases) - len(validation)} training cases, {result['iterations']} steps in "
        f"{asked.minutes:g} CPU minutes: mean Dice {np.nanmean(values):.3f} over {len(validation)} cases, lowest "
        f"{np.nanmin(values):.3f}, peak memory {result['memory_gb']:.2f} GB"
    )
    (out / "dice.json").write_text(json.dumps(dice, indent=1))
    print(f"look at {run / 'progress.png'}, {run / 'validation'} and {found.report}")


if __name__ == "__main__":
    main()
