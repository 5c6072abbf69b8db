"""What weak labels are worth: image-level labels, boxes and scribbles against full masks, at equal minutes.

    python benchmarks/weak_labels.py --root ../shared/data/tumor3d_lgg --out OUT

All labels are made from the masks of a set of 3D cases with `cases.csv`: whether a slice shows the lesion, a box around
each connected part in each slice, and scribbles (a line through each part, two lines through the rest). Every fifth
patient is held out, by whose real masks all trainings are judged. To cost little, slices are halved in plane, and of
those that show at least 60 % of the largest cross-section every second is kept: the ends of a head, which show lesions
rarely, would teach a classifier to look at its size.

All trainings have the same network and the same minutes, counted in processor time, so that a busy machine changes
nothing. `maps` trains on the activation maps alone, `refined` on what the refinements make of them.
Finished parts are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from cpu_trainings import any_core, cpu_seconds, dice_of_cases, predict, train
from numpy.typing import NDArray
from scipy import ndimage

import medseg
from medseg.config import load_config, parse_overrides
from medseg.datasets.cases import Case
from medseg.labels import LabelScheme
from medseg.preparation.background import frame_level
from medseg.resampling import average_array, resample_affine
from medseg.training.weak import classify
from medseg.training.weak.boxes import boxes_in
from medseg.training.weak.pseudo_labels import make_pseudo_labels

LABELS = {"lesion": 1}
IGNORE = 255
WAYS = ("masks", "maps", "refined", "boxes", "scribbles")
# What turns activation maps into label maps without any refinement.
ALONE = {"weak.walk_steps": 0, "weak.crf": False}
CRF_LOSS = [{"name": "dice_ce"}, {"name": "gated_crf", "weight": 0.1}]


def small(image: medseg.Volume, mask: medseg.Volume) -> tuple[medseg.Volume, medseg.Volume]:
    """Every second slice of the middle of the head, halved in plane."""
    inside = image.array > (frame_level(image.array).value or 0)
    area = inside.sum(axis=(0, 1))
    kept = np.flatnonzero(area >= 0.6 * area.max())[::2]
    shape = (image.shape[0] // 2, image.shape[1] // 2)
    array = average_array(np.moveaxis(image.array[..., kept].astype(np.float32), 2, 0), shape)
    labels = average_array(np.moveaxis(mask.array[..., kept].astype(np.float32), 2, 0), shape) > 0.5
    affine = resample_affine(image.affine, image.shape[:2], shape)
    moved = [np.moveaxis(each, 0, 2) for each in (np.rint(array).astype(np.uint8), labels.astype(np.uint8))]
    return medseg.Volume(moved[0], affine), medseg.Volume(moved[1], affine)


def build(root: Path, out: Path, patients: int) -> None:
    """`data` and `test` with images and masks, `boxes.csv`, and `scribbles` with images and label maps."""
    with (root / "cases.csv").open(encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["group"])
    held = sorted({row["group"] for row in rows})[4::5]
    training = [row for row in rows if row["group"] not in held][:patients]
    scheme = LabelScheme.from_mapping(LABELS)
    boxes = []
    for part, chosen in (("data", training), ("test", [row for row in rows if row["group"] in held])):
        for row in chosen:
            image, mask = small(medseg.read(root / row["image"]), medseg.read(root / row["label"]))
            name = f"{row['case']}.nii.gz"
            medseg.write(image, out / part / "images" / name)
            medseg.write(mask, out / part / "labels" / name)
            if part == "test":
                continue
            medseg.write(image, out / "scribbles" / "images" / name)
            medseg.write(scribbled(image, mask), out / "scribbles" / "labels" / name)
            for k in range(mask.shape[2]):
                for box in boxes_in(mask.array[..., k], scheme):
                    ends = [v for a, b in zip(box.start, box.stop, strict=True) for v in (a, b - 1)]
                    boxes.append([row["case"], box.label, *ends, k, k])
    with (out / "boxes.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["case", "label", "i_min", "i_max", "j_min", "j_max", "k_min", "k_max"], *boxes])


def scribbled(image: medseg.Volume, mask: medseg.Volume) -> medseg.Volume:
    """In each slice a line along each part of the label, a row and a column of the rest; all else is ignored."""
    found = np.full(mask.shape, IGNORE, np.uint8)
    for k in range(mask.shape[2]):
        label, plane = mask.array[..., k] > 0, found[..., k]
        far = ~ndimage.binary_dilation(label, iterations=2)
        i, j = (int(np.mean(each)) for each in np.nonzero(image.array[..., k]))
        for line in (np.s_[i, :], np.s_[:, j]):
            plane[line] = np.where(far[line], 0, plane[line])
        numbers, count = ndimage.label(label)
        for number in range(1, count + 1):
            plane[line_through(numbers == number)] = 1
    return mask.with_array(found)


def line_through(part: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The middle 70 % of the chord of a part through its innermost pixel, along the axis that it is longer on."""
    place = np.unravel_index(ndimage.distance_transform_edt(part).argmax(), part.shape)
    extents = [np.ptp(each) for each in np.nonzero(part)]
    line: list[Any] = list(place)
    line[int(np.argmax(extents))] = slice(None)
    chord = np.flatnonzero(part[tuple(line)])
    cut = int(0.15 * len(chord))
    line[int(np.argmax(extents))] = chord[cut : len(chord) - cut]
    found = np.zeros_like(part)
    found[tuple(line)] = True
    return found


def pseudo_labels(asked: argparse.Namespace, way: str) -> Path:
    """The configuration that trains on the label maps of a way, and their quality beside it."""
    folder = asked.out / f"labels_{way}"
    if (folder / "train.yaml").is_file():
        return folder / "train.yaml"
    classify.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[attr-defined]
    values = {"weak.classifier_minutes": asked.classifier_minutes, "weak.longest": 64, **asked.settings}
    values |= ALONE if way == "maps" else {}
    values |= {"weak.boxes": str(asked.out / "boxes.csv")} if way == "boxes" else {}
    other = asked.out / ("labels_refined" if way == "maps" else "labels_maps") / "classifier.safetensors"
    if way != "boxes" and other.is_file():
        # One classifier serves both.
        folder.mkdir(exist_ok=True)
        shutil.copy(other, folder)
    started = cpu_seconds()
    print(make_pseudo_labels(load_config(asked.config, values), folder).text(), flush=True)
    print(f"{way}: {cpu_seconds() - started:.0f} CPU s for label maps", flush=True)
    return folder / "train.yaml"


def score(asked: argparse.Namespace, way: str) -> tuple[float, int, int]:
    """Mean Dice of the held-out cases, how many they are, and the steps of the training."""
    settings: dict[str, Any] = {
        "training.max_minutes": asked.minutes,
        "training.validate_every": 10**6,
        "prediction.postprocess": "off",
        "device": "cpu",
    }
    config = asked.config
    if way == "scribbles":
        settings |= {"data.root": str(asked.out / "scribbles"), "data.ignore": IGNORE, "loss.terms": CRF_LOSS}
    elif way != "masks":
        config = pseudo_labels(asked, way)
    run = asked.out / f"run_{way}"
    steps = train(str(config), settings, run, any_core())["iterations"]
    masks = asked.out / f"masks_{way}"
    cases = [Case(p.name.split(".")[0], (p,), ()) for p in sorted((asked.out / "test" / "images").iterdir())]
    if not masks.is_dir():
        predict(run, asked.out / "test" / "images", masks, any_core())
    dice = dice_of_cases(masks, asked.out / "test" / "labels", cases, LABELS, None)
    values = [each["lesion"] for each in dice.values() if "lesion" in each]
    return float(np.mean(values)), len(values), steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="key=value for the label maps, such as weak.map_threshold=0.3")
    parser.add_argument("--root", type=Path, required=True, help="a folder with cases.csv and one label of value 1")
    parser.add_argument("--patients", type=int, default=48, help="that train")
    parser.add_argument("--minutes", type=float, default=1.0, help="of processor time a training")
    parser.add_argument("--classifier-minutes", type=float, default=0.3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    asked.out = asked.out.resolve()
    asked.settings, asked.config = parse_overrides(asked.overrides), asked.out / "config.yaml"
    if not (asked.out / "boxes.csv").is_file():
        build(asked.root, asked.out, asked.patients)
    data = {"root": str(asked.out / "data"), "labels": LABELS}
    asked.config.write_text(json.dumps({"data": data, "net": {"dims": 2}}), encoding="utf-8")
    found = {way: score(asked, way) for way in asked.ways}
    print("\n| labels | steps | Dice of held-out cases | of masks |\n|---|---|---|---|")
    for way, (dice, cases, steps) in found.items():
        share = f"{dice / found['masks'][0]:.0%}" if "masks" in found else "-"
        print(f"| {way} | {steps} | {dice:.3f} ({cases} cases) | {share} |", flush=True)


if __name__ == "__main__":
    main()
