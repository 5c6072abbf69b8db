"""Lung tumours in chest CT: train, segment a DICOM study, measure and score, in a few lines of the public API.

Why: a tumour has the Hounsfield units of vessels and of the chest wall, so no threshold finds it. A small U-Net learns
it from eight synthetic volumes. Run it as it is, or with your own data:

    python pipelines/tumor.py --out tumor_run
    python pipelines/tumor.py --out tumor_run --data my_chest_cts --study my_study --reference my_masks --minutes 60

`--data` holds `images/` and `labels/` with the values 1 lung and 2 tumour, `--reference` a mask named like the study.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import medseg

SAMPLES = Path(__file__).resolve().parents[1] / "data_samples"


def main() -> None:
    """Parse the arguments and run the four steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model, the mask and the report")
    parser.add_argument("--data", type=Path, default=SAMPLES / "chest", help="labelled volumes to train on")
    parser.add_argument("--study", type=Path, default=SAMPLES / "study", help="DICOM study to segment")
    parser.add_argument(
        "--reference", type=Path, default=SAMPLES / "study_reference", help="its reference mask's folder"
    )
    parser.add_argument("--minutes", type=float, default=0.5, help="training time; the default shows the way, no more")
    arguments = parser.parse_args()

    # 1. Train. The preset names labels, modality and a small net; everything in it can be overridden by its dotted key.
    run = medseg.train(
        "demo",
        overrides={
            "data.root": str(arguments.data),
            "data.split": {"every": 5, "start": 4},
            "output": str(arguments.out / "run"),
            "training.max_minutes": arguments.minutes,
        },
    )

    # 2. Segment. The mask comes back on the study's own grid, whatever its orientation and spacing.
    study = medseg.read(arguments.study)
    labels = medseg.load_model(run.bundle).predict(study)
    medseg.write(labels, arguments.out / "masks" / f"{arguments.study.name}.nii.gz")
    print(study)
    print(labels)

    # 3. Measure. The volume of a voxel is the determinant of the affine: right for oblique grids, too.
    voxel_ml = abs(np.linalg.det(labels.affine[:3, :3])) / 1000
    for value, name in ((1, "lung"), (2, "tumour")):
        inside = labels.array == value
        if inside.any():
            print(f"{name}: {inside.sum() * voxel_ml:.1f} ml, mean {study.array[inside].mean():.0f} HU")
        else:
            print(f"{name}: none found")

    # 4. Score, with the definitions and the worst case to look at in report.html.
    scores = medseg.evaluate(
        arguments.out / "masks", arguments.reference, out=arguments.out / "report", labels={"lung": 1, "tumour": 2}
    )
    print(scores.text())


if __name__ == "__main__":
    main()
