"""How many cases like those of the training fall out of the training range, by the number of training cases.

    python benchmarks/training_range.py ../shared/data/lung2d_cxr

The folder holds `images/` and `labels/` or `masks/` (same names), and perhaps `cases.csv` with columns case, image and
group, of which each group gives one case. Any n cases are drawn as training cases, up to 24 others are held against
their range with their reference as the mask, and so on: what is flagged is flagged for nothing. `--as-stored` does
without the normalisation of z-scored channels, as versions did before it.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path

import numpy as np

import medseg
from medseg.labels import LabelScheme
from medseg.preparation.case_features import CaseFeatures, measure_case
from medseg.preparation.training_range import learn_range

SIZES = (4, 8, 20, 36)
DRAWS = 60
MOST_HELD = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--labels", type=int, nargs="+", default=[1], help="values; 0 and 255 are 0 and 1")
    parser.add_argument("--as-stored", action="store_true")
    options = parser.parse_args()
    scheme = LabelScheme.from_mapping({f"label {value}": value for value in options.labels})
    cases = [measured(options, image, scheme) for image in images_of(options.data)]
    rng = np.random.default_rng(0)
    for size in SIZES:
        flagged, held, kinds = 0, 0, Counter[str]()
        for _ in range(DRAWS if size + MOST_HELD // 4 <= len(cases) else 0):
            order = rng.permutation(len(cases))
            known = learn_range([cases[n] for n in order[:size]])
            for case in (cases[n] for n in order[size : size + MOST_HELD]):
                compared = {each.span.kind for each in known.compare(case) if each.distance > 1}
                compared |= {"channel_order"} if known.better_order(case) else set()
                flagged, held = flagged + bool(compared), held + 1
                kinds.update(compared)
        if held:
            print(f"{size:3d} training cases: {100 * flagged / held:4.1f} % of {held} flagged; {kinds.most_common(6)}")


def images_of(data: Path) -> list[Path]:
    if not (data / "cases.csv").exists():
        return sorted((data / "images").iterdir())
    groups: dict[str, Path] = {}
    with (data / "cases.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            groups.setdefault(row["group"], data / row["image"])
    return list(groups.values())


def measured(options: argparse.Namespace, path: Path, scheme: LabelScheme) -> CaseFeatures:
    folder = options.data / "labels"
    image = medseg.read(path)
    reference = medseg.read((folder if folder.exists() else options.data / "masks") / path.name)
    values = reference.array[0] if reference.channels else reference.array
    if values.max() == 255:
        values = values > 127
    case = measure_case(image, reference.with_array(values.astype(np.uint8), channels=0), scheme)
    return case if options.as_stored else case.normalized([True] * max(1, image.channels))


if __name__ == "__main__":
    main()
