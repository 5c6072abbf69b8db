"""Lungs: from chest CTs and masks to a model, masks of cases it never saw, volumes, densities and a report.

Why: a threshold finds lungs with Dice 0.98, so what counts is the surface, each side, and the worst case; the report
leads with these. Run it as it is on synthetic chests, or with your own data:

    python pipelines/lung.py --out lung_run
    python pipelines/lung.py --out lung_run --data my_chest_cts --minutes 60 --folds 5

`--data` holds `images/` and `labels/` (or `masks/`), one file per case: 3D CTs in Hounsfield units, or 2D pictures.
Masks are 0 and lung, 8-bit masks with soft edges will do. With one patient only, the model is scored on what it was
trained on: a demonstration.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

import medseg
from medseg.tasks import TaskCase, get_task

SAMPLES = Path(__file__).resolve().parents[1] / "data_samples" / "chest"
TASK = get_task("lung")
# The synthetic chests are small, and so may the network be.
SMALL = {"net.channels": [8, 16, 32], "plan.patch_size": [40, 40, 32]}


def find_cases(data: Path) -> dict[str, tuple[Path, Path]]:
    """Case -> image and mask: a folder of images and one of masks, or the Chest Imaging Platform's file names."""
    if (data / "images").is_dir():
        masks = data / "masks" if (data / "masks").is_dir() else data / "labels"
        return {p.name.split(".")[0]: (p, masks / p.name) for p in sorted((data / "images").iterdir())}
    return {p.stem: (p, p.with_name(p.name.replace("ct-", "wholeLung-"))) for p in sorted(data.glob("ct-*.nrrd"))}


def main() -> None:
    """Parse the arguments and run the five steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for models, masks and the report")
    parser.add_argument("--data", type=Path, default=SAMPLES, help="images and masks")
    parser.add_argument("--minutes", type=float, default=2, help="training time of all folds together")
    parser.add_argument("--folds", type=int, default=2, help="each case is held out once")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    arguments = parser.parse_args()
    out, folds = arguments.out, arguments.folds

    # 1. Masks of one kind: 1 is lung, on the grid of the image. The images stay where they are.
    cases = find_cases(arguments.data)
    flat = medseg.read(next(iter(cases.values()))[0]).dims == 2
    ending = ".png" if flat else ".nii.gz"
    for name, (image, mask) in cases.items():
        volume = medseg.read(mask)
        grey = volume.array[0] if volume.channels else volume.array
        lung = (grey > (127 if grey.max() > 2 else 0)).astype(np.uint8)
        medseg.write(volume.with_array(lung), out / "data" / "labels" / f"{name}{ending}")
        medseg.write(medseg.read(image), out / "data" / "images" / f"{name}{ending}")

    # 2. Who is held out when. One patient alone cannot be on both sides.
    names = sorted(cases)
    held_out = [names[fold::folds] for fold in range(folds)]
    if len(names) == 1:
        print("demonstration: one patient only, so the scores are those of the training case")
        held_out = [names]

    # 3. Train a model per fold, and let it segment the cases that it never saw.
    for fold, cases_out in enumerate(held_out):
        overrides = {
            "data.root": str(out / "data"),
            "output": str(out / f"fold{fold}"),
            "device": arguments.device,
            "training.max_minutes": arguments.minutes / len(held_out),
        }
        if arguments.data == SAMPLES:
            overrides |= SMALL
        if len(names) > 1:
            overrides["data.split"] = {"validation": cases_out}
        model = medseg.load_model(medseg.train("lung2d" if flat else "lung", overrides).bundle, arguments.device)
        for name in cases_out:
            prediction = model.predict(medseg.read(out / "data" / "images" / f"{name}{ending}"))
            medseg.write(prediction, out / "masks" / f"{name}{ending}")

    # 4. Measure each side; what makes a density doubtful is said.
    scored = sorted(name for fold in held_out for name in fold)
    for name in scored:
        parts = (out / "masks", out / "data" / "labels", out / "data" / "images")
        pred, ref, image = (medseg.read(part / f"{name}{ending}") for part in parts)
        found = TASK.score(TaskCase(pred, ref, TASK.labels, image))
        print(
            name, {k: round(v, 3) for k, v in found.values.get("lung", {}).items()}, *(f.kind for f in found.findings)
        )

    # 5. Score, with intervals by patient where there are enough, beside the threshold that needs no training.
    with (out / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("case", "group"), *((name, name) for name in scored)])
    common = {"images": out / "data" / "images", "cases": out / "cases.csv", "labels": {"lung": 1}}
    if not flat:
        for name in scored:
            image = medseg.read(out / "data" / "images" / f"{name}{ending}")
            medseg.write(image.with_array(TASK.baseline(image, TASK.labels)), out / "baseline" / f"{name}{ending}")
        baseline = medseg.evaluate(out / "baseline", out / "data" / "labels", out=out / "threshold", **common)
        print(f"threshold alone:\n{baseline.text()}")
    print(medseg.evaluate(out / "masks", out / "data" / "labels", out=out / "report", **common).text())


if __name__ == "__main__":
    main()
