"""The commands `accept` and `drift`: a model at a site, before it is used and while it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli_help import ADVANCED
from medseg.cli_options import AllowCode, AsJson, Debug

__all__ = ["ACCEPT_EXAMPLES", "DRIFT_EXAMPLES", "accept", "drift"]

ACCEPT_EXAMPLES = """\
medseg accept runs/lung/model local_cases -o acceptance
medseg accept runs/lung/model local -o accepted --cases cases.csv"""

DRIFT_EXAMPLES = """\
medseg drift predicted/ledger.jsonl --accepted acceptance
medseg drift predicted --accepted acceptance --false-alarms 0.01 --json"""


def accept(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", readable=False, help="A model bundle: the folder or zip that train wrote."),
    ],
    local: Annotated[
        Path, typer.Argument(metavar="LOCAL", help="Cases of the site with masks, in any layout that training reads.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="FOLDER", help="A new folder for acceptance.html, acceptance.json and cases.csv."
        ),
    ],
    cases: Annotated[
        Path | None,
        typer.Option(
            "--cases",
            metavar="CSV",
            help="Columns case, scanner, kernel, slice_thickness and others to group by; DICOM headers say the first.",
        ),
    ] = None,
    width: Annotated[
        float, typer.Option("--width", metavar="DICE", help="Wanted width of the 95% interval of the mean Dice.")
    ] = 0.05,
    least_dice: Annotated[
        float | None,
        typer.Option("--least-dice", metavar="DICE", help="What the interval of the mean Dice has to lie above."),
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")] = "auto",
    label_threshold: Annotated[
        float | None,
        typer.Option(
            "--label-threshold",
            metavar="VALUE",
            help="For masks of 0 and 255, or with soft edges: what is above it is label 1.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    allow_code: AllowCode = None,
    debug: Debug = False,
) -> None:
    """Try a model on cases of your own site: Dice, volume, bias by scanner, cases still needed, and a page to sign.

    The acceptance.json that it writes is what drift compares later studies with.
    """
    from medseg.commands.acceptance.run import AcceptOptions, run_acceptance
    from medseg.progress import console_progress

    options = AcceptOptions(cases, width, least_dice, label_threshold, device, tuple(allow_code or ()))
    with console_progress("accept") as progress:
        text = run_acceptance(model, local, out, options, progress)
    typer.echo(text)


def drift(
    ledger: Annotated[
        Path, typer.Argument(metavar="LEDGER", help="The ledger.jsonl that predict wrote, or the folder that holds it.")
    ],
    accepted: Annotated[
        Path | None,
        typer.Option(
            "--accepted",
            metavar="JSON",
            help="The acceptance.json of accept, or its folder; without it the first 50 studies take its place.",
        ),
    ] = None,
    false_alarms: Annotated[
        float,
        typer.Option("--false-alarms", metavar="SHARE", help="Chance of any false alarm within --studies studies."),
    ] = 0.05,
    studies: Annotated[int, typer.Option("--studies", metavar="N", help="See --false-alarms.")] = 1000,
    shift: Annotated[
        float, typer.Option("--shift", metavar="SD", help="Size of a change, in standard deviations, to be found.")
    ] = 1.5,
    outside_rate: Annotated[
        float,
        typer.Option(
            "--outside-rate",
            metavar="SHARE",
            help="Accepted share of studies outside the training ranges.",
            rich_help_panel=ADVANCED,
        ),
    ] = 0.1,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="DAY", help="Only studies of runs since this day, such as 2026-11-30."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Test whether scanner, protocol, noise, patients or masks have changed since the model was accepted.

    Exit code 0: no change. Exit code 4: an alarm, or too few studies to tell; the "state" in --json says which.
    """
    from medseg.commands.drift import drift_of_ledger
    from medseg.evaluation.drift import DriftOptions

    found = drift_of_ledger(ledger, accepted, since, DriftOptions(false_alarms, studies, shift, outside_rate))
    typer.echo(json.dumps(found.record(), indent=1) if as_json else found.text())
    found.raise_unless_steady()
