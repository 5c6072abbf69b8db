"""Vessels: from images and masks to a model, masks of cases it never saw, recall by calibre, lengths and a report.

Why: most of a vessel's voxels lie in its trunk, so Dice hides that thin branches are missed; clDice, the recall of the
centreline by calibre, length and diameter show it. Run it as it is on synthetic retinas, or with your own data:

    python pipelines/vessel.py --out vessel_run
    python pipelines/vessel.py --out vessel_run --data my_cases --minutes 60 --folds 5

`--data` holds `images/` and `labels/` of the same names, photographs (2D) or CT in Hounsfield units (3D); masks are 0
and 1. Cases are named `<patient>` or `<patient>__<eye>`: both eyes of a person stay on one side of a split.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import medseg
from medseg.tasks import TaskCase, get_task

SAMPLES = Path(__file__).resolve().parents[1] / "data_samples" / "retina"
TASK = get_task("vessel")


def main() -> None:
    """Parse the arguments and run the four steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for models, masks and the report")
    parser.add_argument("--data", type=Path, default=SAMPLES, help="folder with images/ and labels/")
    parser.add_argument("--minutes", type=float, default=2, help="training time of all folds together")
    parser.add_argument("--folds", type=int, default=2, help="each patient is held out once")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    arguments = parser.parse_args()
    out, data = arguments.out, arguments.data

    # 1. The cases, and who is held out when.
    files = sorted(p.name for p in (data / "labels").iterdir())
    patients = {file: file.split(".")[0].split("__")[0] for file in files}
    order = sorted(set(patients.values()))
    if len(order) < 2:
        print("demonstration: one patient only, so the scores are those of the training case")
    folds = [order[n :: arguments.folds] for n in range(arguments.folds)] if len(order) > 1 else [order]
    preset = "vessel2d" if medseg.read(data / "labels" / files[0]).dims == 2 else "vessel3d"

    # 2. Train a model per fold, and let it segment the cases that it never saw.
    for number, held_out in enumerate(folds):
        theirs = [file for file in files if patients[file] in held_out]
        overrides = {
            "data.root": str(data),
            "data.layout": "folders",
            "output": str(out / f"fold{number}"),
            "device": arguments.device,
            "training.max_minutes": arguments.minutes / len(folds),
        }
        if len(order) > 1:
            overrides["data.split"] = {"validation": [file.split(".")[0] for file in theirs]}
        model = medseg.load_model(medseg.train(preset, overrides).bundle, arguments.device)
        for file in theirs:
            medseg.write(model.predict(medseg.read(data / "images" / file)), out / "masks" / file)

    # 3. Look at each vessel: what was missed, by its width, and how long the tree is.
    for file in files:
        pred, ref, image = (medseg.read(folder / file) for folder in (out / "masks", data / "labels", data / "images"))
        found = TASK.score(TaskCase(pred, ref, TASK.labels, image))
        print(file, {name: round(value, 3) for name, value in found.values["vessel"].items()})
        for finding in found.findings:
            print(" ", finding.message)

    # 4. Score, with intervals by patient where there are enough.
    with (out / "cases.csv").open("w", newline="") as table:
        rows = [(file.split(".")[0], patient) for file, patient in patients.items()]
        csv.writer(table).writerows([("case", "group"), *rows])
    result = medseg.evaluate(
        out / "masks",
        data / "labels",
        out=out / "report",
        images=data / "images",
        cases=out / "cases.csv",
        labels={"vessel": 1},
    )
    print(result.text())


if __name__ == "__main__":
    main()
