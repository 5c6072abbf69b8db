"""Lungs: from chest CTs and masks to a model, masks of cases it never saw, volumes, densities and a report.

Why: a threshold finds lungs with Dice 0.98, so what counts is the surface, each side, and the worst case; the report
leads with these and shows the threshold beside the model. Run it as it is on synthetic chests, or with your own data:

    python pipelines/lung.py --out lung_run
    python pipelines/lung.py --out lung_run --data my_chest_cts --minutes 60 --folds 5

`--data` is a folder as it was delivered: `images/` with `labels/` or `masks/`, a CSV, a folder per patient, or CTs with
masks beside them (`layouts/find.py` distinguishes them; the program prints how it read each). CTs in HU
(3D, files or DICOM folders), or slices as pictures (2D). Masks of 8 bits with soft edges will do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from layouts.dataset import arrange
from layouts.run import run
from layouts.samples import integers, samples

import medseg
from medseg.tasks import get_task

SAMPLES = Path(__file__).resolve().parents[1] / "data_samples" / "chest"
WORDS = ("lung", "pulmo")


def main() -> None:
    """Parse the arguments and run the four steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for models, masks and the report")
    parser.add_argument("--data", type=Path, default=SAMPLES, help="images and masks, as they were delivered")
    parser.add_argument("--mask", default="", help="a part of the masks' name, where there are several kinds")
    parser.add_argument("--values", type=integers, default=(), help="the masks' values that count, as 1,2; else all")
    parser.add_argument("--config", help="preset or file; by default lung or lung2d")
    parser.add_argument("--minutes", type=float, default=2, help="training time of all folds together")
    parser.add_argument("--folds", type=int, default=2, help="each patient is held out once")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    arguments = parser.parse_args()
    out = arguments.out

    # 1. One layout: images/ and labels/ of the same names, masks of 0 and 1, and who is a patient. In the samples the
    #    lungs hold a tumour, which has a value of its own.
    values = (1, 2) if arguments.data == SAMPLES else arguments.values
    cases = samples(arguments.data, get_task("lung").labels, WORDS, arguments.mask, values)
    data = arrange(cases, out / "data", slices=True)
    print(
        f"{len(data.patients)} case(s) of {len(set(data.patients.values()))} patient(s)", data.demonstration, sep="\n"
    )

    # 2. Train a model per fold, and let it segment the cases that it never saw.
    config = arguments.config or ("lung" if len(data.shape) == 3 else "lung2d")
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
            # Two lungs without holes are anatomy.
            "prediction.postprocess": {"keep_components": {"lung": 2}, "fill_holes": ["lung"]}
            if len(data.shape) == 3
            else "off",
        }
        trained = medseg.train(config, overrides)
        model = medseg.load_model(trained.bundle, arguments.device)
        for case, part in fold.scored:
            image = data.image(case)
            logits, grid = model.predict_logits(image)
            mask = model.to_labels(logits, grid, image)
            data.keep(out, case, part, mask, model.to_probabilities(logits, grid, image))

    # 3. Score: surfaces, each side, volumes and densities, and beside them the threshold that needs no training.
    result = medseg.evaluate(
        out / "masks",
        data.root / "labels",
        "lung",
        out / "report",
        images=data.root / "images",
        cases=data.root / "cases.csv",
        demonstration=data.demonstration,
    )
    print(result.text())

    # 4. What each lung holds, and what makes a density doubtful, is in density.csv.
    if (out / "report" / "density.csv").is_file():
        print((out / "report" / "density.csv").read_text())


if __name__ == "__main__":
    run(main)
