"""What synthesis is worth on contrasts that training never saw: Dice on real, inverted and randomly bent grey levels.

    medseg train hippocampus data.root=DATA output=runs/real training.max_minutes=10
    medseg train hippocampus data.root=DATA output=runs/mixed training.max_minutes=10 \\
        'augmentation.extra=[{name: synthesis}]'
    python benchmarks/contrast.py runs/real runs/mixed

Every held-out case of each run is predicted as it is, inverted, and with three random contrasts: the grey levels
between their percentiles 0.5 and 99.5 go through half a sine wave to one and a half, of random frequency and phase.
That is another family of curves than synthesis draws, so that a model is not tested on what it was trained on.
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import numpy as np

import medseg
from medseg.commands.correction.former import former_run
from medseg.metrics import score_case
from medseg.preparation.sources import read_case
from medseg.volume import Volume

RANDOM = 3


def inverted(image: Volume) -> Volume:
    """Bright becomes dark."""
    array = image.array.astype(np.float32)
    return image.with_array(array.max() + array.min() - array, image.channels)


def bent(image: Volume, rng: np.random.Generator) -> Volume:
    """A random contrast: which of two tissues is brighter is chance, and some become alike."""
    array = image.array.astype(np.float32)
    low, high = np.percentile(array, (0.5, 99.5))
    share = np.clip((array - low) / (high - low), 0, 1)
    waves, phase = rng.uniform(0.5, 1.5), rng.uniform(0, 2 * np.pi)
    return image.with_array(low + (high - low) * (1 + np.sin(2 * np.pi * waves * share + phase)) / 2, image.channels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--cases", type=int, default=None, help="of the held-out cases only so many")
    asked = parser.parse_args()
    for place in asked.runs:
        run = former_run(place, {})
        model = medseg.load_model(run.model, device="cpu")
        scores: dict[str, list[float]] = {"real": [], "inverted": [], "random": []}
        for case in [case for cases in run.held_out.values() for case in cases][: asked.cases]:
            image, reference = read_case(case, run.reading)
            seed = zlib.crc32(case.name.encode())
            shown = [("real", image), ("inverted", inverted(image))]
            shown += [("random", bent(image, np.random.default_rng([seed, n]))) for n in range(RANDOM)]
            for kind, each in shown:
                found = score_case(model.predict(each).array, reference.array, labels=model.scheme, metrics=("dice",))
                scores[kind].append(float(np.mean([label["dice"] for label in found.values()])))
        line = ", ".join(f"{kind} {np.mean(dice):.3f} (lowest {np.min(dice):.3f})" for kind, dice in scores.items())
        print(f"{place}: mean Dice of {len(scores['real'])} held-out cases: {line}", flush=True)


if __name__ == "__main__":
    main()
