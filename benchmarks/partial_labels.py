"""What partial labels cost, and what taking a missing label for background costs: three trainings of one data set.

    python benchmarks/partial_labels.py PRESET --root FOLDER --label NAME --iterations 300 --out FOLDER

A label is removed from the label maps of every second training case. Trained are: all labels as they are ("full"), the
reduced label maps with `data.annotated` ("partial"), and the reduced label maps alone ("background"). All three
validate on the same whole label maps, with the same seed, plan and number of iterations. Dice is the mean over the
validation cases, on the images' own grids; seconds are CPU seconds of each training.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import medseg
from medseg.config import load_config
from medseg.datasets.cases import Case, Dataset, find_cases
from medseg.io.label_maps import read_label_map
from medseg.preparation.split import split_cases
from medseg.training.validation import Scores

WAYS = ("full", "partial", "background")


def reduced(dataset: Dataset, training: list[str], label: str, folder: Path) -> list[str]:
    """Write images by link and label maps, those of every second training case without the label; names of these."""
    without = set(training[1::2])
    (value,) = dataset.labels.values[dataset.labels.names.index(label)]
    for case in dataset.cases:
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        _link(case, folder / "images")
        labels = read_label_map(case.labels)
        array = labels.array.copy()
        if case.name in without:
            array[array == value] = 0
        medseg.write(labels.with_array(array), folder / "labels" / f"{case.name}.nii.gz")
    return sorted(without)


def _link(case: Case, folder: Path) -> None:
    for channel, path in enumerate(case.images):
        suffix = "".join(path.suffixes[-2:])
        target = folder / f"{case.name}{f'_{channel:04d}' if len(case.images) > 1 else ''}{suffix}"
        target.unlink(missing_ok=True)
        target.symlink_to(path.resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="preset or configuration")
    parser.add_argument("--root", type=Path, required=True, help="the data set")
    parser.add_argument("--label", required=True, help="the label that half of the training cases lose")
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--out", type=Path, required=True, help="folder for data and runs")
    asked = parser.parse_args()
    config = load_config(asked.config, {"data.root": str(asked.root.resolve())})
    dataset = find_cases(config.data)
    split = split_cases(dataset, config, 0)
    without = reduced(dataset, sorted(split.train), asked.label, asked.out / "data")
    rest = [name for name in dataset.labels.names if name != asked.label]
    print(f"{len(split.train)} training cases, {len(without)} without {asked.label}; {len(split.validation)} validate")
    print("| training | CPU seconds | " + " | ".join(dataset.labels.names) + " | mean Dice |")
    for way in asked.ways:
        scores, seconds = trained(way, without, rest, asked)
        cells = " | ".join(f"{scores.dice[name]:.4f}" for name in dataset.labels.names)
        print(f"| {way} | {seconds:.0f} | {cells} | {scores.mean_dice:.4f} |", flush=True)


def trained(way: str, without: list[str], rest: list[str], asked: argparse.Namespace) -> tuple[Scores, float]:
    """Validation scores of one training, and its CPU seconds."""
    root = asked.root if way == "full" else asked.out / "data"
    overrides = {
        "data.root": str(root.resolve()),
        "data.annotated": dict.fromkeys(without, rest) if way == "partial" else {},
        "output": str(asked.out / way),
        "training.max_iterations": asked.iterations,
        "training.max_minutes": None,
    }
    started = time.process_time()
    run = medseg.train(asked.config, overrides=overrides)
    return run.scores[0], time.process_time() - started


if __name__ == "__main__":
    main()
