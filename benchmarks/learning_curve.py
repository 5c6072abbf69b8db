"""What augmentation and class weights are worth with few images: Dice over the number of training cases.

    python benchmarks/learning_curve.py --data vessel2d_hrf --root ../shared/data --cases 8 16 24 --minutes 20 \\
        --seeds 0 1 2 3 4 --out runs/curve

Each seed draws the training cases (8 of them are among its 16) and begins its trainings; all variants of a seed train
on the same cases. Every fifth patient of the data set is held out and never trained on. Variants:

- `none`: no augmentation at all, so no mirroring in prediction either;
- `spatial`: rotation, scale, elastic deformation and mirroring alone;
- `cutmix`, `mixup`: `spatial`, and every second batch mixed;
- `weights`: `spatial`, and `loss.weights=inverse_frequency`, for rare labels;
- `default`: medseg's default, grey levels included.

The budget is CPU minutes of one core (--minutes) or steps (--steps), the rest medseg's plain default. `DATA.md` in
--out has the mean Dice, with the difference to `none` and its 95% interval over seeds and patients, and the Dice of
each label; `DATA.csv` has every case. Both are written anew after each training. The same command continues where it
was stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cpu_trainings import any_core, dice_of_cases, predict, train
from data_folders import Data, link_cases, open_data, patient

from medseg.datasets.cases import Case
from medseg.evaluation.paired import compare_paired

GREY = ("noise", "blur", "brightness", "contrast", "gamma", "low_resolution")
SPATIAL = {f"augmentation.{name}_probability": 0.0 for name in GREY}
VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"augmentation.enabled": False, "augmentation.mirror": False},
    "spatial": SPATIAL,
    "cutmix": SPATIAL | {"augmentation.cutmix_probability": 0.5},
    "mixup": SPATIAL | {"augmentation.mixup_probability": 0.5},
    "weights": SPATIAL | {"loss.weights": "inverse_frequency"},
    "default": {},
}


@dataclass(frozen=True)
class Trained:
    """One training; `dice`: case -> label -> Dice of the held-out cases."""

    variant: str
    count: int
    seed: int
    iterations: int
    dice: dict[str, dict[str, float]]

    def mean_of(self, case: str) -> float:
        """Mean over the labels."""
        return float(np.mean(list(self.dice[case].values())))


def drawn(training: list[Case], count: int, seed: int) -> list[Case]:
    """The first `count` of the seed's order of the training cases."""
    if count > len(training):
        raise SystemExit(f"{count} training cases asked for, and only {len(training)} are not held out")
    order = np.random.default_rng(seed).permutation(len(training))
    return [training[n] for n in sorted(order[:count])]


def trained(variant: str, count: int, seed: int, data: Data, asked: argparse.Namespace) -> Trained:
    """Train, predict and score, or read what was done before."""
    training, held = data.folds(5)[4]
    budget = f"{asked.steps}steps" if asked.steps else f"{asked.minutes:g}min"
    place = asked.out / data.name / f"{count}cases_seed{seed}"
    source = link_cases(drawn(training, count, seed), place / "train")
    test = link_cases(held, asked.out / data.name / "test")
    out = place / f"{variant}_{budget}"
    overrides = {
        "data.layout": "folders",
        **data.overrides(),
        **VARIANTS[variant],
        "training.fold": "full",
        "training.max_minutes": None if asked.steps else asked.minutes,
        "training.max_iterations": asked.steps,
        "seed": seed,
    }
    result = train(str(source), overrides, out, asked.core)
    scores = out / "scores.json"
    if not scores.exists():
        masks = predict(out, test / "images", out / "masks", asked.core)
        scores.write_text(json.dumps(dice_of_cases(masks, test / "labels", held, data.labels, data.threshold)))
    dice = {case: each for case, each in json.loads(scores.read_text()).items() if each}
    return Trained(variant, count, seed, int(result["iterations"]), dice)


def table(found: list[Trained], data: Data) -> str:
    """Markdown: a line per number of cases and variant."""
    names = list(data.labels) if len(data.labels) > 1 else []
    heads = ("cases", "variant", "seeds", "steps", "mean Dice", "more than none", *names)
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for count in dict.fromkeys(each.count for each in found):
        for variant in VARIANTS:
            mine = [each for each in found if (each.count, each.variant) == (count, variant)]
            if not mine:
                continue
            means = [np.mean([each.mean_of(case) for case in each.dice]) for each in mine]
            cells = [str(count), variant, str(len(mine)), f"{np.mean([each.iterations for each in mine]):.0f}"]
            cells += [f"{np.mean(means):.4f}", _gain(found, count, variant, data)]
            for name in names:
                values = [labels[name] for each in mine for labels in each.dice.values() if name in labels]
                cells.append(f"{np.mean(values):.4f}" if values else "-")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _gain(found: list[Trained], count: int, variant: str, data: Data) -> str:
    """The difference to `none` over the seeds that both have, with its interval."""
    by_seed = {(each.variant, each.seed): each for each in found if each.count == count}
    seeds = [seed for name, seed in by_seed if name == variant and ("none", seed) in by_seed]
    if variant == "none" or not seeds:
        return ""
    first, second = ([by_seed[name, seed] for seed in seeds] for name in (variant, "none"))
    cases = sorted(set.intersection(*(set(each.dice) for each in (*first, *second))))
    patients = {case.name: patient(case) for case in data.cases}
    scores = [np.array([[each.mean_of(case) for case in cases] for each in side]) for side in (first, second)]
    result = compare_paired(*scores, [patients[case] for case in cases], np.random.default_rng(0))
    if result.ci_low is None:
        return f"{result.difference:+.4f}, {result.n_patients} patients are too few for an interval"
    return f"{result.difference:+.4f} [{result.ci_low:+.4f}, {result.ci_high:+.4f}]"


def write_cases(found: list[Trained], path: Path) -> None:
    """A line per training, case and label."""
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(("variant", "cases", "seed", "case", "label", "dice"))
        for each in found:
            for case, labels in each.dice.items():
                lines.writerows((each.variant, each.count, each.seed, case, *pair) for pair in labels.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="name of the data set's folder")
    parser.add_argument("--root", type=Path, required=True, help="the folder that it lies in")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", type=int, nargs="+", required=True, help="numbers of training cases")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=float, help="CPU minutes per training")
    budget.add_argument("--steps", type=int, help="steps per training")
    parser.add_argument("--core", type=int, default=any_core())
    asked = parser.parse_args()
    asked.out = asked.out.resolve()
    data = open_data(asked.data, asked.root, asked.out)
    found: list[Trained] = []
    for count in asked.cases:
        for seed in asked.seeds:
            for variant in asked.variants:
                found.append(trained(variant, count, seed, data, asked))
                write_cases(found, asked.out / f"{data.name}.csv")
                (asked.out / f"{data.name}.md").write_text(table(found, data))
                each = found[-1]
                mean = np.mean([each.mean_of(case) for case in each.dice])
                print(f"{count} cases, seed {seed}, {variant}: {each.iterations} steps, Dice {mean:.4f}", flush=True)
    print(table(found, data))


if __name__ == "__main__":
    main()
