"""The commands between a model and the people who correct it: which studies to annotate, and what came back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg import cli_complete
from medseg.cli_help import ADVANCED
from medseg.cli_options import AllowCode, Debug

__all__ = ["CORRECT_EXAMPLES", "SUGGEST_EXAMPLES", "correct", "suggest"]

SUGGEST_EXAMPLES = """\
medseg suggest runs/lung studies/ -n 10 -o to_label
medseg suggest runs/lung studies/ -n 10 -o to_label --format dicom-seg"""

CORRECT_EXAMPLES = """\
medseg correct runs/lung corrected/ -o runs/lung2
medseg correct runs/lung predicted/ -o runs/lung2 --images studies/
medseg correct runs/lung segs/ -o runs/lung2 --max-loss 0.02 --minutes 20"""


def correct(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", readable=False, help="The folder of a finished training with its model.")
    ],
    corrected: Annotated[
        Path,
        typer.Argument(
            metavar="CORRECTED",
            readable=False,
            help="Corrected masks: label maps, DICOM SEG or RTSTRUCT, or annotations, named after their studies.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Settings of the training, such as training.learning_rate=0.0005; the others are the run's.",
            autocompletion=cli_complete.settings,
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="RUN2", help="A new folder for the corrected run.")],
    images: Annotated[
        list[Path] | None,
        typer.Option("--images", metavar="DIR", help="Images that the run does not have; may be repeated."),
    ] = None,
    max_loss: Annotated[
        float,
        typer.Option("--max-loss", metavar="DICE", help="What a label of any held-out case may lose."),
    ] = 0.05,
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="MINUTES", help="How long to train; as the run by default.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    accept_unchanged: Annotated[
        bool,
        typer.Option(
            "--accept-unchanged",
            help="Masks that are as they were predicted count as looked at and right.",
            rich_help_panel=ADVANCED,
        ),
    ] = False,
    allow_swaps: Annotated[
        bool,
        typer.Option(
            "--allow-swaps", help="Train although labels of corrected masks look swapped.", rich_help_panel=ADVANCED
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Train a model on with masks that people corrected; it ships only where no held-out case gets worse.

    Exit code 3: labels look swapped, nothing was trained. Exit code 4: the model does not ship, or masks were left out.
    """
    from medseg.commands.correction.run import CorrectOptions
    from medseg.commands.correction.run import correct as run_correction
    from medseg.config import parse_overrides
    from medseg.progress import console_progress

    values = parse_overrides(overrides or [])
    if minutes is not None:
        values["training.max_minutes"] = minutes
    options = CorrectOptions(
        tuple(images or ()), max_loss, values, allow_swaps=allow_swaps, accept_unchanged=accept_unchanged, resume=resume
    )
    with console_progress("correct") as progress:
        text = run_correction(run, corrected, out, options, progress)
    typer.echo(text)


def suggest(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", readable=False, help="A model bundle, or the run folder that holds it."),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", readable=False, help="Unlabelled studies: files, DICOM studies, or a zip.")
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", metavar="DIR", help="A new folder for the suggested studies with their masks."),
    ],
    count: Annotated[int, typer.Option("-n", "--count", metavar="N", help="How many studies to suggest.")] = 10,
    output_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Form of the masks: nifti, dicom-seg, labelme, cvat or supervisely.",
        ),
    ] = "nifti",
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")] = "auto",
    allow_code: AllowCode = None,
    debug: Debug = False,
) -> None:
    """Suggest the unlabelled studies that the model would learn most from, with its masks to correct."""
    from medseg.commands.suggestion.run import SuggestOptions
    from medseg.commands.suggestion.run import suggest as run_suggestion
    from medseg.progress import console_progress

    options = SuggestOptions(count, output_format, device, tuple(allow_code or ()))
    with console_progress("suggest") as progress:
        text = run_suggestion(model, folder, out, options, progress)
    typer.echo(text)
