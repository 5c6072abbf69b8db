"""Whether suggested studies teach more than random ones: rounds of a few cases, several seeds, the curve of both.

    python benchmarks/suggestions.py --root ../shared/data/hippocampus --out OUT
    python benchmarks/suggestions.py --root ../shared/data/hippocampus --out OUT --rounds 5 --cases 4

Of the cases sorted by name every fifth validates. A seed draws `--cases` of the others to begin with. In each round a
model is trained from scratch on what is labelled, for the same minutes of processor time, and scored on the
validation cases; then `--cases` more get their labels, by `medseg suggest`'s ranking or by chance. Trainings that the
folder holds are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from few_labels import by_processor_time

import medseg
from medseg.commands.suggestion.gain import gain_of, picked
from medseg.config import load_config
from medseg.io.formats import stem_of
from medseg.io.images import read_image
from medseg.training.run import train_run


def trained(asked: argparse.Namespace, labelled: list[str], held_out: list[str], out: Path, seed: int) -> float:
    """Dice on the held-out cases of a model trained on these cases; the run folder keeps it."""
    score = out / "score.json"
    if not score.exists():
        out.mkdir(parents=True, exist_ok=True)
        images = {stem_of(path): path for path in (asked.root / "images").iterdir() if not path.name.startswith(".")}
        table = out / "cases.csv"
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["case", "image", "label", "split"])
            for name in (*labelled, *held_out):
                image = images[name].resolve()
                split = "validation" if name in held_out else "train"
                writer.writerow([name, image, image.parent.parent / "labels" / image.name, split])
        settings = {
            "data.root": str(asked.root),
            "data.csv": str(table),
            "data.split": None,
            "output": str(out),
            "seed": seed,
            "training.max_minutes": asked.minutes,
            "training.validation_cases": 2,
        }
        run = train_run(load_config("hippocampus", settings), resume=(out / "last.pt").exists())
        score.write_text(json.dumps(run.scores[0].mean_dice))
    return float(json.loads(score.read_text()))


def suggested(asked: argparse.Namespace, run: Path, candidates: list[str]) -> list[str]:
    """The cases that the model would learn most from."""
    model = medseg.load_model(run, device="cpu")
    images = {stem_of(path): path for path in (asked.root / "images").iterdir()}
    gains = [gain_of(model, read_image([images[name]])) for name in candidates]
    return [candidates[each.index] for each in picked(gains, asked.cases)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=2.0)
    asked = parser.parse_args()
    by_processor_time()
    names = sorted(stem_of(path) for path in (asked.root / "images").iterdir() if not path.name.startswith("."))
    held_out = names[4::5]
    pool = [name for name in names if name not in held_out]
    curves: dict[str, list[list[float]]] = {"suggested": [], "random": []}
    for seed in range(asked.seeds):
        rng = np.random.default_rng(seed)
        begin = [pool[n] for n in rng.permutation(len(pool))[: asked.cases]]
        for way, curve in curves.items():
            labelled, curve_of_seed = list(begin), []
            for number in range(asked.rounds + 1):
                # Both ways begin alike, so the first training is made once.
                out = asked.out / (f"seed{seed}_begin" if number == 0 else f"seed{seed}_{way}_{number}")
                curve_of_seed.append(trained(asked, labelled, held_out, out, seed))
                left = [name for name in pool if name not in labelled]
                if number < asked.rounds:
                    chance = [left[n] for n in rng.permutation(len(left))[: asked.cases]]
                    labelled += suggested(asked, out, left) if way == "suggested" else chance
            curve.append(curve_of_seed)
    print("labelled  suggested  random  difference (lowest and highest of the seeds)")
    for number in range(asked.rounds + 1):
        one, other = (np.array([curve[number] for curve in curves[way]]) for way in ("suggested", "random"))
        apart = one - other
        print(
            f"{asked.cases * (number + 1):8d}  {one.mean():9.3f}  {other.mean():6.3f}  {apart.mean():+.3f} "
            f"({apart.min():+.3f} to {apart.max():+.3f})"
        )


if __name__ == "__main__":
    main()
