"""Tumours: from images and masks to a model, masks of cases it never saw, a list of lesions and a report.

Why: a tumour has the grey levels of what surrounds it, so no threshold finds it; and what counts is not voxels alone
but which lesions are found, how large they are, and how long in RECIST's sense. Run it as it is on synthetic chest CTs,
or with your own data:

    python pipelines/tumor.py --out tumor_run
    python pipelines/tumor.py --out tumor_run --data my_cases --config tumor3d --minutes 60 --folds 5

`--data` holds `images/` and `labels/`, one mask per case, channels as `_0000`, `_0001`; cases are named
`<patient>` or `<patient>__<number>`. What the integers mean is said by the configuration, never guessed.
"""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path

import numpy as np

import medseg
from medseg.config import load_config
from medseg.tasks import TaskCase, get_task

SAMPLES = Path(__file__).resolve().parents[1] / "data_samples" / "chest"
# The synthetic chests: lung and tumour, a small network, a small patch.
SAMPLE_CONFIG = "demo"


def main() -> None:
    """Parse the arguments and run the four steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for models, masks and the report")
    parser.add_argument("--data", type=Path, default=SAMPLES, help="folder with images/ and labels/")
    parser.add_argument("--config", default=SAMPLE_CONFIG, help="preset or file that says what the labels mean")
    parser.add_argument("--minutes", type=float, default=2, help="training time of all folds together")
    parser.add_argument("--folds", type=int, default=2, help="each patient is held out once")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    arguments = parser.parse_args()
    out, data = arguments.out, arguments.data

    # 1. The cases, and who is held out when: all cases of a patient together.
    labels = {p.name.split(".")[0]: p for p in sorted((data / "labels").iterdir())}
    pictures = sorted((data / "images").iterdir())
    images = {n: [p for p in pictures if re.fullmatch(rf"{n}(_\d{{4}})?", p.name.split(".")[0])] for n in labels}
    patients = {name: name.split("__")[0] for name in labels}
    order = sorted(set(patients.values()))
    if len(order) < 2:
        print("demonstration: one patient only, so the scores are those of the training cases")
    folds = [order[n :: arguments.folds] for n in range(arguments.folds)] if len(order) > 1 else [order]

    # 2. Train a model per fold, and let it segment the cases that it never saw.
    scheme = load_config(arguments.config, {"data.root": str(data)}).label_scheme()
    for number, held_out in enumerate(folds):
        names = [name for name in labels if patients[name] in held_out]
        overrides = {
            "task": "tumor",
            "data.root": str(data),
            "data.split": {"validation": names} if len(order) > 1 else None,
            "output": str(out / f"fold{number}"),
            "device": arguments.device,
            "training.max_minutes": arguments.minutes / len(folds),
        }
        model = medseg.load_model(medseg.train(arguments.config, overrides).bundle, arguments.device)
        for name in names:
            medseg.write(model.predict(read_case(images[name])), out / "masks" / labels[name].name)

    # 3. List the lesions: volume, long and short axis with their slice, and what was found of each.
    rows = []
    for name in labels:
        pred, ref = medseg.read(out / "masks" / labels[name].name), medseg.read(labels[name])
        columns, lesions = get_task("tumor").score(TaskCase(pred, ref, scheme)).tables["lesions"]
        rows += [(name, *lesion) for lesion in lesions]
    with (out / "lesions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("case", *columns), *rows])
    found = [row[-2] != "" for row in rows if row[3] == "reference"]
    print(f"lesions of the reference: {len(found)}, found: {sum(found)}; all are listed in {out / 'lesions.csv'}")

    # 4. Score, with intervals by patient where there are enough.
    with (out / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("case", "group"), *patients.items()])
    result = medseg.evaluate(
        out / "masks",
        data / "labels",
        out=out / "report",
        images=data / "images",
        cases=out / "cases.csv",
        labels=scheme,
    )
    print(result.text())


def read_case(files: list[Path]) -> medseg.Volume:
    """One image of one channel or of several, a file each."""
    volumes = [medseg.read(file) for file in files]
    if len(volumes) == 1:
        return volumes[0]
    return volumes[0].with_array(np.stack([v.array for v in volumes]), channels=len(volumes))


if __name__ == "__main__":
    main()
