"""medseg beside nnU-Net at equal CPU time: Dice of patients that neither tool has seen, over the minutes of a training.

    python benchmarks/against_nnunet.py --nnunet-python VENV/bin/python --root ../shared/data --out runs/against \\
        --data hippocampus --minutes 10

VENV holds nnunetv2 2.8.1. Per fold of patients, seed and budget each tool trains once, in a process of its own on one
core with one thread; the budget is CPU seconds of the training from its first step, so other work on the machine
matters little. Contenders (--tools):

- `plain`: `medseg train FOLDER --minutes M`, nothing but the labels given;
- `preset`: medseg's preset for the data set;
- `nnunet`: nnU-Net with half the features and a schedule that ends with the budget (`nnunet_fitted.py`).

Both plan on the training cases alone and train on all of them (medseg by `training.fold=full`, so that nothing is
validated within the budget), and predict the held-out cases with their defaults. Preparation is outside the budget. The
held-out patients are every n-th of the sorted ones; --only-folds 4 of --folds 5 gives the 48/12 split of the
hippocampi. Scores are those of `medseg.evaluate`, a case's Dice being the mean over its labels.

In --out: `cases.csv`, `table.md` (differences to nnU-Net with 95% intervals by bootstrap over patients and, with
several seeds, over seeds; non-inferior where no worse than 0.005) and `minutes.png`, all written anew after each
training. The same command continues where it was stopped, and finished trainings are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cpu_trainings import any_core, dice_of_cases, predict, start, train
from data_folders import PRESETS, Data, link_cases, open_data, patient

from medseg.datasets.cases import Case
from medseg.evaluation.non_inferiority import non_inferiority
from medseg.evaluation.paired import Comparison, compare_paired
from medseg.evaluation.statistics import describe_scores

TOOLS = ("plain", "preset", "nnunet")
TITLES = {"plain": "medseg, plain default", "preset": "medseg, preset", "nnunet": "nnU-Net, fitted"}
COLOURS = {"plain": "#35617f", "preset": "#4d7c0f", "nnunet": "#c2410c"}
MARGIN = 0.005
DATASET = "Dataset001_Benchmark"


@dataclass(frozen=True)
class Training:
    """One training of one tool and the Dice of the cases held out from it."""

    tool: str
    data: str
    fold: int
    seed: int
    minutes: float
    iterations: int
    memory_gb: float
    dice: dict[str, float]
    patients: dict[str, str]


@dataclass(frozen=True)
class Fold:
    """The cases of one fold as folders of links."""

    data: Data
    number: int
    folder: Path
    training: list[Case]
    held: list[Case]

    def linked(self) -> Fold:
        """Write `train` and `test`."""
        link_cases(self.training, self.folder / "train")
        link_cases(self.held, self.folder / "test")
        return self


class NnUNet:
    """nnU-Net in its own Python, with the folders that it wants for one fold."""

    def __init__(self, python: str, fold: Fold, core: int) -> None:
        self.python, self.fold, self.core = python, fold, core
        self.folder = fold.folder / "nnunet"
        self.configuration = "2d" if fold.data.pictures else "3d_fullres"

    def run(self, *words: str, results: Path, log: Path) -> None:
        """Run a step of `nnunet_fitted.py`."""
        places = {
            "nnUNet_raw": str(self.folder / "raw"),
            "nnUNet_preprocessed": str(self.folder / "preprocessed"),
            "nnUNet_results": str(results),
            "nnUNet_n_proc_DA": "0",
        }
        what, *rest = words
        script = str(Path(__file__).with_name("nnunet_fitted.py"))
        start([self.python, script, what, self.configuration, *rest], log, self.core, places)

    def prepare(self) -> None:
        """Convert the cases and let nnU-Net plan and preprocess them, once per fold."""
        done = self.folder / "prepared"
        if done.exists():
            return
        raw = self.folder / "raw" / DATASET
        channels = self._convert(self.fold.training, raw / "imagesTr", raw / "labelsTr")
        self._convert(self.fold.held, self.folder / "test", None)
        description = {
            "channel_names": {str(n): f"channel{n}" for n in range(channels)},
            "labels": {"background": 0, **self.fold.data.labels},
            "numTraining": len(self.fold.training),
            "file_ending": ".png" if self.fold.data.pictures else ".nii.gz",
        }
        (raw / "dataset.json").write_text(json.dumps(description))
        self.run("prepare", results=self.folder / "results", log=self.folder / "prepare.log")
        done.touch()

    def _convert(self, cases: list[Case], images: Path, labels: Path | None) -> int:
        """Write the cases under nnU-Net's names; the number of channels."""
        import medseg
        from medseg.io.label_maps import read_label_map

        images.mkdir(parents=True, exist_ok=True)
        if labels is not None:
            labels.mkdir(parents=True, exist_ok=True)
        channels = 1
        for case in cases:
            if self.fold.data.pictures:
                channels = _as_png(case.images[0], images / f"{case.name}_0000.png")
            else:
                medseg.write(medseg.read(case.images[0]), images / f"{case.name}_0000.nii.gz")
            if labels is not None:
                mask = read_label_map(case.labels, self.fold.data.threshold)
                ending = ".png" if self.fold.data.pictures else ".nii.gz"
                medseg.write(mask.with_array(np.asarray(mask.array, np.uint8)), labels / f"{case.name}{ending}")
        return channels

    def train(self, out: Path, minutes: float, seed: int, mirror: str) -> dict[str, Any]:
        """Train in `out` and say how it went; a finished training is not repeated."""
        result = out / "result.json"
        if not result.exists():
            self.prepare()
            settings = {"minutes": minutes, "seed": seed, "mirror": mirror, "result": str(result)}
            self.run("train", json.dumps(settings), results=out / "results", log=out / "output.log")
        return json.loads(result.read_text())

    def predict(self, out: Path) -> Path:
        """Masks of the held-out cases."""
        masks = out / "masks"
        self.run("predict", str(self.folder / "test"), str(masks), results=out / "results", log=out / "prediction.log")
        for path in (*masks.glob("*.json"), *masks.glob("*.pkl")):
            path.unlink()
        return masks


def _as_png(source: Path, target: Path) -> int:
    from PIL import Image

    with Image.open(source) as picture:
        kept = picture.convert("RGB") if picture.mode in ("RGB", "RGBA", "P") else picture.convert("L")
        kept.save(target)
        return len(kept.getbands())


def trained(tool: str, fold: Fold, minutes: float, seed: int, asked: argparse.Namespace) -> Training:
    """Train, predict and score, or read what was done before."""
    out = fold.folder / f"{tool}_{minutes:g}min_seed{seed}"
    scores = out / "scores.json"
    if tool == "nnunet":
        contender = NnUNet(asked.nnunet_python, fold, asked.core)
        result = contender.train(out, minutes, seed, asked.mirror)
    else:
        overrides = {"data.layout": "folders", **fold.data.overrides(), "training.max_minutes": minutes, "seed": seed}
        overrides["training.fold"] = "full"
        source = str(fold.folder / "train")
        if tool == "preset":
            source, overrides["data.root"] = PRESETS[fold.data.name], source
        result = train(source, overrides, out, asked.core)
    if not scores.exists():
        images = fold.folder / "test" / "images"
        masks = contender.predict(out) if tool == "nnunet" else predict(out, images, out / "masks", asked.core)
        data = fold.data
        found = dice_of_cases(masks, fold.folder / "test" / "labels", fold.held, data.labels, data.threshold)
        scores.write_text(json.dumps(found))
    by_label: dict[str, dict[str, float]] = json.loads(scores.read_text())
    dice = {case: float(np.mean(list(each.values()))) for case, each in by_label.items() if each}
    patients = {case.name: patient(case) for case in fold.held}
    counted = (int(result["iterations"]), float(result["memory_gb"]))
    return Training(tool, fold.data.name, fold.number, seed, minutes, *counted, dice, patients)


def trainings(asked: argparse.Namespace) -> Iterator[Training]:
    """All that are asked for, the tools taking turns."""
    for name in asked.data:
        data = open_data(name, asked.root, asked.out)
        folds = [
            Fold(data, number, asked.out / name / f"fold{number}of{asked.folds}", *sides)
            for number, sides in enumerate(data.folds(asked.folds))
        ]
        chosen = [fold.linked() for fold in folds if asked.only_folds is None or fold.number in asked.only_folds]
        for minutes in asked.minutes:
            for seed in asked.seeds:
                for fold in chosen:
                    for tool in asked.tools:
                        yield trained(tool, fold, minutes, seed, asked)


def write_cases(found: list[Training], path: Path) -> None:
    """A line per case and training."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("tool", "data", "fold", "seed", "minutes", "patient", "case", "dice"))
        for each in found:
            for case, dice in each.dice.items():
                row = (each.tool, each.data, each.fold, each.seed, f"{each.minutes:g}", each.patients[case], case, dice)
                table.writerow(row)


def scores_of(found: list[Training], tool: str, data: str, minutes: float) -> dict[int, dict[str, float]]:
    """seed -> case -> Dice."""
    scores: dict[int, dict[str, float]] = {}
    for each in found:
        if (each.tool, each.data, each.minutes) == (tool, data, minutes):
            scores.setdefault(each.seed, {}).update(each.dice)
    return scores


def compared(found: list[Training], tool: str, data: str, minutes: float) -> Comparison | None:
    """A tool less nnU-Net, over the cases that all their seeds have; None where one has none."""
    mine, theirs = scores_of(found, tool, data, minutes), scores_of(found, "nnunet", data, minutes)
    if not mine or not theirs:
        return None
    cases = sorted(set.intersection(*map(set, (*mine.values(), *theirs.values()))))
    patients = {case: name for each in found for case, name in each.patients.items() if each.data == data}
    first, second = (np.array([[seed[case] for case in cases] for seed in side.values()]) for side in (mine, theirs))
    return compare_paired(first, second, [patients[case] for case in cases], np.random.default_rng(0))


def table(found: list[Training]) -> str:
    """Markdown: a line per data set, budget and tool."""
    heads = (
        "data",
        "CPU minutes",
        "tool",
        "trainings",
        "steps",
        "memory (GB)",
        "cases",
        "mean Dice",
        "less nnU-Net",
        "",
    )
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for data, minutes in dict.fromkeys((each.data, each.minutes) for each in found):
        for tool in TOOLS:
            mine = [each for each in found if (each.tool, each.data, each.minutes) == (tool, data, minutes)]
            if not mine:
                continue
            values = [dice for each in mine for dice in each.dice.values()]
            steps, memory = np.mean([e.iterations for e in mine]), max(e.memory_gb for e in mine)
            cells = [data, f"{minutes:g}", TITLES[tool], str(len(mine)), f"{steps:.0f}", f"{memory:.2f}"]
            cells += [str(len({case for each in mine for case in each.dice})), f"{np.mean(values):.4f}"]
            cells += ["", ""] if tool == "nnunet" else list(_difference(compared(found, tool, data, minutes)))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _difference(found: Comparison | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    if found.ci_low is None or found.ci_high is None:
        return f"{found.difference:+.4f}", f"{found.n_patients} patients, too few for an interval"
    interval = (found.ci_low, found.ci_high)
    verdict, _ = non_inferiority("dice", ("medseg", "nnU-Net"), interval, MARGIN)
    words = "better" if found.ci_low > 0 else "non-inferior" if verdict.shown else "not shown to be non-inferior"
    return f"{found.difference:+.4f} [{found.ci_low:+.4f}, {found.ci_high:+.4f}]", words


def draw(found: list[Training], path: Path) -> None:
    """Mean Dice over minutes, a panel per data set; bars are 95% intervals over patients."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(each.data for each in found))
    figure = Figure(figsize=(4.6 * len(names) + 0.6, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for shift, tool in enumerate(TOOLS):
            mine = [each for each in found if (each.tool, each.data) == (tool, name)]
            points = [_point([e for e in mine if e.minutes == m]) for m in sorted({e.minutes for e in mine})]
            if not points:
                continue
            minutes, mean, low, high = np.array(points).T
            # A little beside each other, so that the bars can be told apart.
            at = minutes * (1 + 0.015 * (shift - 1))
            axes.errorbar(at, mean, (mean - low, high - mean), color=COLOURS[tool], marker="o", markersize=4,
                          linewidth=1.6, elinewidth=1, capsize=3, label=TITLES[tool])  # fmt: skip
        ticks = sorted({each.minutes for each in found if each.data == name})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlim(min(ticks) / 1.3, max(ticks) * 1.3)
        axes.set(title=name, xlabel="CPU minutes of the training", ylabel="mean Dice of held-out cases")
        axes.grid(color="#e2e8f0")
        axes.set_axisbelow(True)
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)


def _point(found: list[Training]) -> tuple[float, float, float, float]:
    """Minutes, mean, and the ends of its interval: the mean itself with too few patients for one."""
    seeds: dict[str, list[float]] = {}
    for each in found:
        for case, dice in each.dice.items():
            seeds.setdefault(case, []).append(dice)
    patients = {case: name for each in found for case, name in each.patients.items()}
    values = [float(np.mean(each)) for each in seeds.values()]
    stated = describe_scores(values, [patients[case] for case in seeds], np.random.default_rng(0), (0.0, 1.0))
    low, high = (stated.mean if end is None else end for end in (stated.ci_low, stated.ci_high))
    return found[0].minutes, stated.mean, low, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nnunet-python", required=True)
    parser.add_argument("--root", type=Path, required=True, help="the folder that holds the data sets")
    parser.add_argument("--data", nargs="+", required=True, help="names of folders in it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs="+", default=[10.0], help="CPU minutes per training")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=["plain", "nnunet"])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only-folds", type=int, nargs="+", help="by default all of them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--mirror", choices=("x", "all", "none"), default="x", help="what nnU-Net mirrors")
    parser.add_argument("--core", type=int, default=any_core(), help="that the trainings run on")
    asked = parser.parse_args()
    asked.out = asked.out.resolve()
    unset = [name for name in asked.data if name not in PRESETS] if "preset" in asked.tools else []
    if unset:
        parser.error(f"no preset is known for {', '.join(unset)}; leave preset out of --tools")
    asked.out.mkdir(parents=True, exist_ok=True)
    found: list[Training] = []
    for each in trainings(asked):
        found.append(each)
        write_cases(found, asked.out / "cases.csv")
        (asked.out / "table.md").write_text(table(found))
        draw(found, asked.out / "minutes.png")
        print(f"{each.data} fold {each.fold} seed {each.seed} {each.minutes:g} min {each.tool}: "
              f"{each.iterations} steps, Dice {np.mean(list(each.dice.values())):.4f}", flush=True)  # fmt: skip
    print(table(found))


if __name__ == "__main__":
    main()
