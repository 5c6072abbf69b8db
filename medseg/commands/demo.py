"""`medseg demo`: the main job on synthetic chest CTs, from labelled volumes to a scored mask on a DICOM study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medseg.config import load_config
from medseg.phantoms import samples_folder

__all__ = ["run_demo"]


def run_demo(out: Path, say: Callable[[str], object]) -> Path:
    """Train on the sample volumes, segment the held-out DICOM study, score it, write a report.

    A second call with the same folder goes on where the first stopped.

    Args:
        out: folder for model, masks and report.
        say: receives one line per step.

    Returns:
        The report.
    """
    from medseg.evaluation import evaluate
    from medseg.io import read, write
    from medseg.progress import console_progress
    from medseg.studies import PredictOptions, predict_studies
    from medseg.training import train_run

    samples = samples_folder()
    say(f"1/3 training a 3D U-Net on the synthetic chest CTs in {samples / 'chest'}")
    overrides = {"data.root": str(samples / "chest"), "output": str(out / "run")}
    run = train_run(load_config("demo", overrides), resume=True)

    for scores in run.scores.values():
        say(f"    validation Dice {scores.mean_dice:.3f} on {scores.cases} synthetic case(s)")

    say(f"2/3 segmenting the DICOM study {samples / 'study'}")
    with console_progress("predict") as progress:
        result = predict_studies(run.bundle, [samples / "study"], out / "masks", PredictOptions(), progress=progress)
    result.raise_for_failures()

    say("3/3 scoring the mask against the reference: synthetic, one case; it says nothing about patients")
    (out / "images").mkdir(parents=True, exist_ok=True)
    write(read(samples / "study"), out / "images" / "study.nii.gz")
    evaluation = evaluate(out / "masks", samples / "study_reference", out=out / "report", images=out / "images")
    say(evaluation.text())
    return out / "report" / "report.html"
