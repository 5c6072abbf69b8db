"""What images without labels are worth where few are labelled: semi-supervision and pretraining against labels alone.

    python benchmarks/few_labels.py --root ../shared/data/hippocampus --minutes 3.5 --out OUT
    python benchmarks/few_labels.py --root ../shared/data/hippocampus --seeds 0 --ways labels mean_teacher --out OUT

Of the cases sorted by name every fifth validates; of the others every eighth keeps its label, and the rest are images
alone (hippocampus: 12, 6 and 42). All trainings have the same minutes, counted in processor time, so that a busy
machine changes nothing. `cross_pseudo_steps` and `mean_teacher_steps` have as many steps as `labels`. `pretrained`
spends a third of its minutes on the images alone; `pretrained_more` fine-tunes as long as `labels` trains. `all` has
all labels, and `trivial` gives every case the mean place of the labels. Intervals are over seeds and cases
(`medseg.evaluation.seeds`). Trainings that the folder holds are not repeated; a last call with all prints the table.
Choose settings (key=value) with `--tune`, which scores other cases: every fourth of the images alone.
"""

from __future__ import annotations

import argparse
import json
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import medseg
from medseg.config import load_config, parse_overrides
from medseg.evaluation.seeds import seeds_interval
from medseg.preparation.prepare import Preparation
from medseg.resampling import resample_array
from medseg.training import loop
from medseg.training.pretraining import run as pretraining
from medseg.training.run import prepare_run, train_run
from medseg.training.validation import validate

BASE = "labels"
WAYS = (
    *("trivial", BASE, "mean_teacher", "cross_pseudo", "mean_teacher_steps", "cross_pseudo_steps"),
    *("pretrained", "pretrained_more", "all"),
)
PRETRAINING_SHARE = 1 / 3


def by_processor_time() -> None:
    """Trainings end by the seconds that this process has computed."""
    clock = types.SimpleNamespace(**{name: getattr(time, name) for name in dir(time) if not name.startswith("__")})
    clock.monotonic = time.process_time
    loop.time = clock  # type: ignore[attr-defined]
    pretraining.time = clock  # type: ignore[attr-defined]


def folders(asked: argparse.Namespace) -> tuple[list[str], list[str], list[str], Path]:
    """Names that validate, that are labelled, of images alone, and the folder of links that they lie in."""
    images = sorted(path for path in (asked.root / "images").iterdir() if not path.name.startswith("."))
    validation, rest = images[4::5], [path for n, path in enumerate(images) if n % 5 != 4]
    labelled = rest[::8]
    alone = [path for path in rest if path not in labelled]
    if asked.tune:
        validation, alone = alone[::4], [path for n, path in enumerate(alone) if n % 4]
    place = asked.out / "data"
    for name, files in (("few", [*labelled, *validation]), ("all", [*labelled, *alone, *validation])):
        for kind in ("images", "labels"):
            link([asked.root / kind / file.name for file in files], place / name / kind)
    link(alone, place / "alone")
    named = [[path.name.partition(".")[0] for path in each] for each in (validation, labelled, alone)]
    return named[0], named[1], named[2], place


def link(files: Sequence[Path], folder: Path) -> None:
    """Symbolic links to files."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if not (folder / file.name).is_symlink():
            (folder / file.name).symlink_to(file.resolve())


def settings(way: str, asked: argparse.Namespace, place: Path, validation: Sequence[str], seed: int) -> dict[str, Any]:
    """The configuration keys of a way."""
    found: dict[str, Any] = {
        "data.root": str(place / ("all" if way == "all" else "few")),
        "data.split": {"validation": list(validation)},
        "training.max_minutes": asked.minutes,
        "training.validate_every": 10**6,
        "prediction.postprocess": "off",
        "output": str(asked.out / f"{way}_{seed}"),
        "seed": seed,
        "device": "cpu",
    } | parse_overrides(asked.overrides)
    if way.startswith(("mean_teacher", "cross_pseudo")):
        found |= {"semi.unlabelled": str(place / "alone"), "semi.method": way.removesuffix("_steps")}
    else:
        found = {key: value for key, value in found.items() if not key.startswith("semi.")}
    if way.endswith("_steps"):
        found |= {"training.max_minutes": None, "training.max_iterations": steps_of(asked.out / f"{BASE}_{seed}")}
    if way.startswith("pretrained"):
        encoder = asked.out / f"encoder_{seed}"
        if not (encoder / "pretrained.safetensors").is_file():
            own = found | {"data.root": str(place / "alone"), "data.split": None}
            own["training.max_minutes"] = asked.minutes * PRETRAINING_SHARE
            pretraining.pretrain(load_config(asked.config, own), encoder)
        found["training.init"] = str(encoder)
        if way == "pretrained":
            found["training.max_minutes"] = asked.minutes * (1 - PRETRAINING_SHARE)
    return found


def steps_of(folder: Path) -> int:
    """The steps of a training."""
    return int(json.loads((folder / "dice.json").read_text())["steps"])


def trained(way: str, asked: argparse.Namespace, place: Path, validation: Sequence[str], seed: int) -> list[float]:
    """Mean Dice of each validation case after one training."""
    kept = asked.out / f"{way}_{seed}" / "dice.json"
    if kept.is_file():
        dice: list[float] = json.loads(kept.read_text())["dice"]
        return dice
    config = load_config(asked.config, settings(way, asked, place, validation, seed))
    started = time.process_time()
    model = medseg.load_model(train_run(config).bundle, device="cpu")
    seconds, preparation = time.process_time() - started, prepare_run(config)
    (net,) = model.nets
    dice = [dice_of(net, preparation, name) for name in validation]
    steps = model.info.provenance.iterations
    kept.write_text(json.dumps({"dice": dice, "steps": steps, "seconds": seconds}))
    return dice


def dice_of(net: torch.nn.Module, preparation: Preparation, name: str) -> float:
    """Mean Dice of the labels of a case."""
    cases = [preparation.open(name)]
    return validate(net, cases, preparation.plan, preparation.dataset.labels, torch.device("cpu")).mean_dice


def trivial(preparation: Preparation, labelled: Sequence[str], validation: Sequence[str]) -> list[float]:
    """Dice of the mean place of the labels: the most frequent label of each voxel over the labelled cases."""
    values = [value for each in preparation.dataset.labels.values for value in each]

    def at(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        labels = np.asarray(preparation.open(name).labels)
        return np.stack([resample_array((labels == v).astype(np.float32), shape, 1) for v in (0, *values)])

    found = []
    for name in validation:
        true = np.asarray(preparation.open(name).labels)
        mean = np.mean([at(each, true.shape) for each in labelled], axis=0)
        guess = np.array([0, *values])[mean.argmax(axis=0)]
        each = [2 * ((guess == v) & (true == v)).sum() / ((guess == v).sum() + (true == v).sum()) for v in values]
        found.append(float(np.mean(each)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="key=value, for all trainings; semi.* for those that use it")
    parser.add_argument("--config", default="hippocampus")
    parser.add_argument("--root", type=Path, required=True, help="a folder with images/ and labels/")
    parser.add_argument("--minutes", type=float, default=3.5, help="of processor time a training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--tune", action="store_true", help="score cases that the table does not use")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    asked = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    by_processor_time()
    validation, labelled, alone, place = folders(asked)
    asked.ways = [way for way in WAYS if way in asked.ways or way == BASE]
    scores: dict[str, list[list[float]]] = {way: [] for way in asked.ways}
    for seed in asked.seeds:
        for way in (each for each in asked.ways if each != "trivial"):
            scores[way].append(trained(way, asked, place, validation, seed))
            print(f"seed {seed}, {way}: {np.mean(scores[way][-1]):.4f}", flush=True)
    if "trivial" in scores:
        config = load_config(asked.config, settings(BASE, asked, place, validation, asked.seeds[0]))
        scores["trivial"] = [trivial(prepare_run(config), labelled, validation)] * len(asked.seeds)
    print(f"\n{len(labelled)} labelled cases, {len(alone)} images alone, {len(validation)} validation cases\n")
    print(table({way: np.array(each) for way, each in scores.items()}, asked.seeds))


def table(scores: dict[str, NDArray[np.float64]], seeds: Sequence[int]) -> str:
    """Dice of each way and seed, and the gain over the labels alone with its interval."""
    rows = ["| training | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean Dice | gain | 95 % |"]
    rows.append("|" + "---|" * (len(seeds) + 4))
    base = scores[BASE]
    for way, each in scores.items():
        cells = " | ".join(f"{value:.4f}" for value in each.mean(axis=1))
        gain = "- | -"
        if way != BASE:
            low, high = seeds_interval(each - base, np.zeros((1, each.shape[1])), np.random.default_rng(0))
            gain = f"{each.mean() - base.mean():+.4f} | {low:+.4f} to {high:+.4f}"
        rows.append(f"| {way} | {cells} | {each.mean():.4f} | {gain} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
