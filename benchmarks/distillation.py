"""What a teacher is worth to a small network: trainings with and without one, at equal steps, on the same samples.

    python benchmarks/distillation.py hippocampus --root FOLDER --teacher RUN --iterations 150 --out OUT
    python benchmarks/distillation.py vessel2d --root FOLDER --csv FILE --teacher RUN --iterations 150 --out OUT

For each seed the student is trained from the labels alone, and once for each way (weight and temperature) to distil;
all have the same plan (the teacher's grid, normalisation and patch), initial weights, order of samples and number of
steps. The last weights are scored on the validation cases, which the teacher must not have trained on, on the images'
own grids, without mirroring and post-processing. The interval of the gain is over seeds and cases
(`medseg.evaluation.seeds`). Trainings that the folder holds are not repeated, so that seeds can run side by side, and a
last call with all prints the table. Further arguments (key=value) are overrides for all trainings.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import medseg
from medseg.config import RunConfig, load_config, parse_overrides
from medseg.evaluation.seeds import seeds_interval
from medseg.preparation.kept_split import split_of_run
from medseg.preparation.prepare import Preparation
from medseg.training.run import prepare_run, train_run
from medseg.training.validation import validate

Scores = NDArray[np.float64]
MOST_PARAMETERS = 100_000
PLAIN = "labels alone"


def settings(asked: argparse.Namespace) -> dict[str, Any]:
    """What all trainings share."""
    found: dict[str, Any] = {
        "data.root": str(asked.root.resolve()),
        "net.name": "unet",
        "net.channels": asked.channels,
        "training.batch_size": asked.batch,
        "training.max_iterations": asked.iterations,
        "training.max_minutes": None,
        "training.validate_every": 10 * asked.iterations,
        "prediction.postprocess": "off",
        "distill.teacher": str(asked.teacher.resolve()),
    }
    if asked.csv is not None:
        found["data.csv"] = str(asked.csv.resolve())
    return found | parse_overrides(asked.overrides)


def dice_of(net: torch.nn.Module, preparation: Preparation, names: Sequence[str]) -> list[float]:
    """Mean Dice of the labels of each case."""
    plan, scheme, device = preparation.plan, preparation.dataset.labels, torch.device("cpu")
    return [validate(net, [preparation.open(name)], plan, scheme, device).mean_dice for name in names]


def trained(config: RunConfig, preparation: Preparation, names: Sequence[str]) -> tuple[list[float], float]:
    """Mean Dice of each validation case after one training in `config.output`, and its CPU seconds."""
    assert config.output is not None
    kept, values = config.output / "dice.json", config.model_dump(mode="json")
    if kept.is_file() and (found := json.loads(kept.read_text()))["config"] == values:
        return found["dice"], found["seconds"]
    started = time.process_time()
    shutil.rmtree(config.output, ignore_errors=True)
    shutil.copytree(preparation.folder, config.output)
    model = medseg.load_model(train_run(config).bundle, device="cpu")
    (net,) = model.nets
    count = sum(parameter.numel() for parameter in net.parameters())
    if count > MOST_PARAMETERS:
        raise SystemExit(f"the student has {count} parameters, expected {MOST_PARAMETERS} at most: fewer --channels")
    dice, seconds = dice_of(net, preparation, names), time.process_time() - started
    kept.write_text(json.dumps({"config": values, "dice": dice, "seconds": seconds}))
    return dice, seconds


def table(scores: Mapping[str, Scores], seconds: Mapping[str, float], seeds: Sequence[int]) -> str:
    """Dice of each way and seed, and the gain over the labels alone with its interval."""
    plain = scores[PLAIN]
    rows = ["| student | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean Dice | gain | 95 % | CPU s |"]
    rows.append("|" + "---|" * (len(seeds) + 5))
    for way, each in scores.items():
        cells = " | ".join(f"{value:.4f}" for value in each.mean(axis=1))
        gain = "- | -"
        if way != PLAIN:
            # Trainings of one seed begin alike and see the same samples: their difference is what varies by seed.
            low, high = seeds_interval(each - plain, np.zeros((1, each.shape[1])), np.random.default_rng(0))
            gain = f"{each.mean() - plain.mean():+.4f} | {low:+.4f} to {high:+.4f}"
        rows.append(f"| {way} | {cells} | {each.mean():.4f} | {gain} | {seconds[way] / len(seeds):.0f} |")
    return "\n".join(rows)


def ways_of(pairs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How each way is called in the table -> its configuration keys; the labels alone come first."""
    found: dict[str, dict[str, Any]] = {PLAIN: {"distill.teacher": None}}
    for pair in pairs:
        weight, temperature = (float(each) for each in pair.split(","))
        keys = {"distill.weight": weight, "distill.temperature": temperature}
        found[f"weight {weight:g}, temperature {temperature:g}"] = keys
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="preset or configuration")
    parser.add_argument("overrides", nargs="*", help="key=value, for all trainings")
    parser.add_argument("--root", type=Path, required=True, help="the data set")
    parser.add_argument("--csv", type=Path, help="its list of cases")
    parser.add_argument("--teacher", type=Path, required=True, help="a bundle or run folder")
    parser.add_argument("--channels", type=int, nargs="+", default=[8, 16, 32], help="of the student, a U-Net")
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--ways", nargs="*", default=["0.5,1"], help="weight,temperature of each way to distil")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    asked = parser.parse_intermixed_args()
    shared = settings(asked)
    first = load_config(asked.config, {**shared, "output": str(asked.out / "prepared")})
    preparation = prepare_run(first)
    names = sorted(split_of_run(preparation.dataset, first, 0).validation)
    ways = ways_of(asked.ways)
    found: dict[str, list[list[float]]] = {way: [] for way in ways}
    seconds = dict.fromkeys(ways, 0.0)
    for seed in asked.seeds:
        for way, keys in ways.items():
            output = str(asked.out / f"seed {seed}, {way}")
            config = load_config(asked.config, {**shared, **keys, "seed": seed, "output": output})
            dice, spent = trained(config, preparation, names)
            found[way].append(dice)
            seconds[way] += spent
            print(f"seed {seed}, {way}: {np.mean(found[way][-1]):.4f}", flush=True)
    teacher = np.mean([dice_of(net, preparation, names) for net in medseg.load_model(asked.teacher, "cpu").nets])
    print(
        f"\n{asked.config}: {asked.iterations} steps of {asked.batch} patches, {len(names)} validation cases, the ",
        end="",
    )
    print(f"teacher has Dice {teacher:.4f}\n")
    print(table({way: np.array(each) for way, each in found.items()}, seconds, asked.seeds))


if __name__ == "__main__":
    main()
