"""Tumours: from images and masks to a model, masks of cases it never saw, a list of lesions and a report.

Why: a tumour has the grey levels of what surrounds it, so no threshold finds it; and what counts is not voxels alone
but which lesions are found, how large they are, how long in RECIST's sense. On synthetic chest CTs, or your own data:

    python pipelines/tumor.py --out tumor_run
    python pipelines/tumor.py --out tumor_run --data BRATS_2013 --config tumor_brats2013 --minutes 60 --folds 5

`--data` is a folder as it was delivered: `images/` with `labels/` or `masks/`, a CSV, a folder per patient with a file
per channel, images with masks beside them, or patches in HDF5 (`layouts/find.py` distinguishes them; the program prints
how it read each). What the integers mean is said by the configuration, never guessed.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from layouts.dataset import arrange
from layouts.run import run
from layouts.samples import integers, samples

import medseg
from medseg.config import load_config

SAMPLES = Path(__file__).resolve().parents[1] / "data_samples" / "chest"
WORDS = ("tumor", "tumour", "lesion", "nodule", "cancer", "label", "seg", "truth")


def main() -> None:
    """Parse the arguments and run the four steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for models, masks and the report")
    parser.add_argument("--data", type=Path, default=SAMPLES, help="images and masks, as they were delivered")
    parser.add_argument("--mask", default="", help="a part of the masks' name, where there are several kinds")
    parser.add_argument("--values", type=integers, default=(), help="the masks' values that count, as 1,2; else all")
    parser.add_argument("--per-patient", type=int, default=0, help="HDF5: how many patches in a row are of one patient")
    parser.add_argument("--config", help="preset or file that says what the labels mean; else 1 is tumour")
    parser.add_argument("--minutes", type=float, default=2, help="training time of all folds together")
    parser.add_argument("--folds", type=int, default=2, help="each patient is held out once")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    arguments = parser.parse_args()
    out = arguments.out

    # 1. One layout: images/ and labels/ of the same names, a file per channel, and who is a patient.
    asked = arguments.config or ("demo" if arguments.data == SAMPLES else "tumor3d")
    scheme = load_config(asked, {"data.root": str(arguments.data)}).label_scheme()
    cases = samples(arguments.data, scheme, WORDS, arguments.mask, arguments.values, arguments.per_patient)
    data = arrange(cases, out / "data", slices=True)
    print(
        f"{len(data.patients)} case(s) of {len(set(data.patients.values()))} patient(s)", data.demonstration, sep="\n"
    )

    # 2. Train a model per fold, and let it segment the cases that it never saw.
    config = f"tumor{len(data.shape)}d" if asked == "tumor3d" else asked
    folds = data.folds(arguments.folds)
    for number, fold in enumerate(folds):
        overrides = {
            "task": "tumor",
            "data.root": str(data.root),
            "data.layout": "csv",
            "data.csv": str(fold.training),
            "data.split": None,
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

    # 3. Score: regions or lesions, FROC, volumes, RECIST axes, with intervals by patient where there are enough.
    result = medseg.evaluate(
        out / "masks",
        data.root / "labels",
        "tumor",
        out / "report",
        labels=scheme,
        images=data.root / "images",
        cases=data.root / "cases.csv",
        probabilities=out / "probabilities",
        demonstration=data.demonstration,
    )
    print(result.text())

    # 4. Each lesion stands in lesions.csv: volume, long and short axis with their slice, and what was found of it.
    with (out / "report" / "lesions.csv").open(newline="") as file:
        found = [(row["label"], row["matches"] != "") for row in csv.DictReader(file) if row["of"] == "reference"]
    for label in scheme.names:
        print(f"{label}: {sum(n == label for n, _ in found)} in the references, {found.count((label, True))} found")


if __name__ == "__main__":
    run(main)
