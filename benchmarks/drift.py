"""Planted shifts and false alarms of `medseg drift`: how soon scanner scale, slice thickness and noise are found.

    python benchmarks/drift.py FOLDER [--sequences 200]

FOLDER holds images (NIfTI). Figures of each image are measured as `predict` does, unshifted and with each shift, and
sequences are drawn from these with replacement: 30 accepted cases, 100 unshifted studies, then shifted ones. Jitter of
1% of each figure's spread keeps drawing twice from looking like a tie.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from medseg.evaluation.drift import DriftOptions, find_drift
from medseg.io import read
from medseg.io.formats import image_files
from medseg.labels import LabelScheme
from medseg.preparation.case_features import measure_case
from medseg.volume import Volume

KINDS = ("spacing", "level", "grain")
ACCEPTED, BEFORE, AFTER = 30, 100, 100


def noisy(image: Volume, rng: np.random.Generator) -> Volume:
    """With noise of a tenth of the image's SD."""
    array = image.array.astype(np.float32)
    return image.with_array(array + rng.normal(0, 0.1 * array.std(), array.shape).astype(np.float32))


def scaled(image: Volume, rng: np.random.Generator) -> Volume:
    """Another scale of the scanner: all grey levels times 1.3."""
    return image.with_array(image.array.astype(np.float32) * 1.3)


def thick(image: Volume, rng: np.random.Generator) -> Volume:
    """Slices of double thickness along the last axis: means of two."""
    pairs = image.shape[2] // 2
    array = image.array[..., : 2 * pairs].astype(np.float32)
    affine = image.affine.copy()
    affine[:3, 2] *= 2
    return Volume(array.reshape(*array.shape[:2], pairs, 2).mean(axis=3), affine, metadata=image.metadata)


def figures(image: Volume) -> dict[str, float]:
    """Of the image alone."""
    empty = image.with_array(np.zeros(image.shape, np.uint8))
    found = measure_case(image, empty, LabelScheme.from_mapping({"a": 1})).features
    return {feature.what: feature.value for feature in found if feature.kind in KINDS}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sequences", type=int, default=200)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    images = [read(path) for path in image_files(arguments.folder)]
    plain = [figures(image) for image in images]
    spread = {name: 0.01 * float(np.std([case[name] for case in plain])) for name in plain[0]}

    def draw(pool: list[dict[str, float]], n: int) -> list[dict[str, float]]:
        chosen = [pool[i] for i in rng.integers(0, len(pool), n)]
        return [{name: value + spread[name] * rng.normal() for name, value in case.items()} for case in chosen]

    options = DriftOptions()
    count = arguments.sequences
    alarms = sum(
        find_drift(draw(plain, options.studies), draw(plain, ACCEPTED), options, "").state == "alarm"
        for _ in range(count)
    )
    print(f"unshifted: {alarms} of {count} sequences alarm, stated {options.false_alarms:.0%} in {options.studies}")
    shifts: dict[str, Callable[[Volume, np.random.Generator], Volume]] = {
        "noise 0.1 SD": noisy,
        "scale 1.3": scaled,
        "thickness x 2": thick,
    }
    for name, change in shifts.items():
        pool = [figures(change(image, rng)) for image in images]
        delays, named, early = [], [], 0
        for _ in range(count):
            drift = find_drift([*draw(plain, BEFORE), *draw(pool, AFTER)], draw(plain, ACCEPTED), options, "")
            first = drift.alarms[0] if drift.alarms else None
            early += first is not None and (first.alarm_after or 0) <= BEFORE
            after = [figure for figure in drift.alarms if (figure.alarm_after or 0) > BEFORE]
            delays.append((after[0].alarm_after or 0) - BEFORE if after else np.inf)
            named += [figure.name for figure in after[:1]]
        median, long = np.sort(delays)[[count // 2, int(0.9 * count)]]
        most = max(set(named), key=named.count) if named else "none"
        print(f"{name}: found after {median:g} studies (median), {long:g} (nine of ten); {most!r}; {early} early")
    stated = find_drift(draw(plain, BEFORE), draw(plain, ACCEPTED), options, "")
    print(f"stated for {options.shift} SD: {stated.median_delay:g} (median), {stated.long_delay:g} (nine of ten)")


if __name__ == "__main__":
    main()
