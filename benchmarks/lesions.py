"""Panoptic quality of lesions beside panoptica's, on the 300 random pairs of masks of the test suite.

    python -m venv peer && peer/bin/pip install panoptica pytest     # it pins an older NumPy than medseg's constraints
    PYTHONPATH=. peer/bin/python benchmarks/lesions.py

panoptica by default matches lesions from an IoU of 0.5, this value included, and joins 2D lesions by edges alone; here
lesions match above 0.5 (Kirillov et al., CVPR 2019) and touch by corners too. Both ways are compared: as it comes, and
set to match above 0.5 with 2D masks given as volumes of one slice.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "metrics"))

METRICS = ("pq", "sq", "rq")
Score = Callable[[np.ndarray, np.ndarray], list[float]]


def panoptica_with(threshold: float, as_volumes: bool) -> Score:
    """PQ, SQ, RQ by panoptica."""
    from panoptica import (  # pyrefly: ignore
        ConnectedComponentsInstanceApproximator,
        InputType,
        NaiveThresholdMatching,
        Panoptica_Evaluator,
    )
    from panoptica.metrics import Metric  # pyrefly: ignore

    evaluator = Panoptica_Evaluator(
        expected_input=InputType.SEMANTIC,
        instance_approximator=ConnectedComponentsInstanceApproximator(),
        instance_matcher=NaiveThresholdMatching(matching_threshold=threshold),
        instance_metrics=[Metric.IOU],
        verbose=False,
    )

    def score(pred: np.ndarray, ref: np.ndarray) -> list[float]:
        masks = [np.atleast_3d(m) if as_volumes else m for m in (pred, ref)]
        found = evaluator.evaluate(*(m.astype(np.uint8) for m in masks), verbose=False)["ungrouped"]
        return [float(getattr(found, metric)) for metric in METRICS]

    return score


def main() -> None:
    """Print how many of the scores are equal, for either way."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    from metric_pairs import mask_pair

    from medseg.metrics import score_case

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    pairs = [mask_pair(n) for n in range(300)]
    ours = [list(score_case(p.pred, p.ref, p.spacing, (1,), METRICS)[1].values()) for p in pairs]
    for name, peer in (
        ("as it comes", panoptica_with(0.5, as_volumes=False)),
        ("above 0.5, 2D as one slice", panoptica_with(float(np.nextafter(0.5, 1)), as_volumes=True)),
    ):
        with contextlib.redirect_stdout(io.StringIO()):
            theirs = [peer(p.pred, p.ref) for p in pairs]
        equal = np.isclose(ours, theirs, rtol=0, atol=1e-5, equal_nan=True)
        print(f"panoptica, {name}: {equal.sum()} of {equal.size} scores equal to 1e-5")


if __name__ == "__main__":
    main()
