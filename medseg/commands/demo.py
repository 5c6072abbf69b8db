"""`medseg demo`: the main job on synthetic chest CTs, from labelled volumes to a scored mask on a DICOM study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medseg.config import load_config
from medseg.phantoms import sample_study, samples_folder

__all__ = ["MODEL", "run_demo", "run_quick_demo"]

Say = Callable[[str], object]
# Trained on the synthetic chest CTs; pipelines/demo_model.py makes it.
MODEL = Path(__file__).parent / "demo_model"
_OWN_DATA = """
With your own data, where FOLDER has images/ and labels/, or the layout of nnU-Net or the Decathlon:
    medseg train FOLDER --minutes 30
    medseg predict runs/FOLDER/model STUDIES -o masks
    medseg evaluate masks REFERENCES -o report"""


def run_demo(out: Path, say: Say) -> Path:
    """Train on the sample volumes, segment the held-out DICOM study, score it, write a report.

    A second call with the same folder continues where the first stopped.

    Args:
        out: folder for model, masks and report.
        say: receives one line per step.

    Returns:
        The report.
    """
    from medseg.training import train_run

    samples = samples_folder()
    say(f"1/3 training a 3D U-Net on the synthetic chest CTs in {samples / 'chest'}")
    overrides = {"data.root": str(samples / "chest"), "output": str(out / "run")}
    run = train_run(load_config("demo", overrides), resume=True)
    for scores in run.scores.values():
        say(f"    validation Dice {scores.mean_dice:.3f} on {scores.cases} synthetic case(s)")

    study, reference = sample_study(out / "samples")
    say(f"2/3 segmenting the DICOM study {study}")
    _predict(run.bundle, study, out)
    say("3/3 scoring the mask against the reference: synthetic, one case; it says nothing about patients")
    report = _score(study, reference, out, say)
    say(_OWN_DATA)
    return report


def run_quick_demo(out: Path, say: Say) -> Path:
    """Segment the sample study with the small model that comes with medseg, score it, write a report.

    Args:
        out: folder for masks and report.
        say: receives one line per step.

    Returns:
        The report.
    """
    study, reference = sample_study(out / "samples")
    say(f"1/2 segmenting the synthetic DICOM study {study} with a small model that comes with medseg")
    _predict(MODEL, study, out)
    say(f"    mask:    {out / 'masks' / 'study.nii.gz'}")
    say(f"    picture: {out / 'masks' / 'previews' / 'study.png'}")
    say("2/2 scoring the mask against the reference: synthetic, one case; it says nothing about patients")
    report = _score(study, reference, out, say)
    say("\nmedseg demo (without --quick) trains such a model in about 3 minutes.")
    say(_OWN_DATA)
    return report


def _predict(model: Path, study: Path, out: Path) -> None:
    from medseg.progress import console_progress
    from medseg.studies import PredictOptions, predict_studies

    with console_progress("predict") as progress:
        result = predict_studies(model, [study], out / "masks", PredictOptions(), progress=progress)
    result.raise_for_failures()


def _score(study: Path, reference: Path, out: Path, say: Say) -> Path:
    from medseg.evaluation import evaluate
    from medseg.io import read, write

    image = out / "images" / "study.nii.gz"
    image.parent.mkdir(parents=True, exist_ok=True)
    write(read(study), image)
    say(evaluate(out / "masks", reference, out=out / "report", images=image.parent).text())
    return out / "report" / "report.html"
