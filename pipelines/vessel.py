"""Vessels: from images and masks to a model, masks of cases it never saw, recall by calibre, lengths and a report.

Why: most of a vessel's voxels lie in its trunk, so Dice hides that thin branches are missed; clDice, the recall of the
centreline by calibre, length and diameter show it. Run it as it is on synthetic retinas, or with your own data:

    python pipelines/vessel.py --out vessel_run
    python pipelines/vessel.py --out vessel_run --data my_cases --minutes 60 --folds 5

`--data` is a folder as it was delivered: `images/` with `labels/` or `masks/`, a CSV, a folder per patient, or images
with masks beside them (`layouts/find.py` distinguishes them; the program prints how it read each). Photographs
(2D) or CT in Hounsfield units (3D). Both eyes of a person stay on one side of a split.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from layouts.dataset import arrange
from layouts.run import run
from layouts.samples import integers, samples

import medseg
from medseg.config import load_config
from medseg.tasks import get_task

SAMPLES = Path(__file__).resolve().parents[1] / "data_samples" / "retina"
# What vessels are called where a folder holds masks of many structures: their union is segmented.
WORDS = ("vessel", "aort", "arter", "vein", "ven", "carotid", "coronar", "iliac", "trunk")


def main() -> None:
    """Parse the arguments and run the four steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for models, masks and the report")
    parser.add_argument("--data", type=Path, default=SAMPLES, help="images and masks, as they were delivered")
    parser.add_argument("--mask", default="", help="a part of the masks' name, where there are several kinds")
    parser.add_argument("--values", type=integers, default=(), help="the masks' values that count, as 1,2; else all")
    parser.add_argument("--config", help="preset or file; by default vessel2d or vessel3d")
    parser.add_argument("--minutes", type=float, default=2, help="training time of all folds together")
    parser.add_argument("--folds", type=int, default=2, help="each patient is held out once")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    arguments = parser.parse_args()
    out = arguments.out

    # 1. One layout: images/ and labels/ of the same names, who is a patient, and a second observer where there is one.
    scheme = get_task("vessel").labels
    if arguments.config:
        scheme = load_config(arguments.config, {"data.root": str(arguments.data)}).label_scheme()
    data = arrange(samples(arguments.data, scheme, WORDS, arguments.mask, arguments.values), out / "data")
    print(
        f"{len(data.patients)} case(s) of {len(set(data.patients.values()))} patient(s)", data.demonstration, sep="\n"
    )

    # 2. Train a model per fold, and let it segment the cases that it never saw.
    config = arguments.config or f"vessel{len(data.shape)}d"
    folds = data.folds(arguments.folds)
    for number, fold in enumerate(folds):
        overrides = {
            "data.root": str(data.root),
            "data.layout": "csv",
            "data.csv": str(fold.training),
            "output": str(out / f"fold{number}"),
            "device": arguments.device,
            "training.max_minutes": arguments.minutes / len(folds),
            "training.folds": 8,
        }
        trained = medseg.train(config, overrides)
        model = medseg.load_model(trained.bundle, arguments.device)
        for case, part in fold.scored:
            image = data.image(case)
            logits, grid = model.predict_logits(image)
            mask = model.to_labels(logits, grid, image)
            data.keep(out, case, part, mask, model.to_probabilities(logits, grid, image))

    # 3. Score: overlap, centreline, topology, recall by calibre, AUC; a second observer shows how well people agree.
    result = medseg.evaluate(
        out / "masks",
        data.root / "labels",
        "vessel",
        out / "report",
        labels=scheme,
        images=data.root / "images",
        cases=data.root / "cases.csv",
        probabilities=out / "probabilities",
        second_reference=data.root / "second" if (data.root / "second").is_dir() else None,
        demonstration=data.demonstration,
    )
    print(result.text())

    # 4. What was missed, by its width, is in calibre.csv, and how long the trees are in centreline.csv.
    for label, figures in result.summary["labels"].items():
        recalls = {name: found for name, found in figures.items() if name.startswith("recall_")}
        for name, found in recalls.items():
            print(label, name, "-" if found["mean"] is None else f"{found['mean']:.3f}")


if __name__ == "__main__":
    run(main)
