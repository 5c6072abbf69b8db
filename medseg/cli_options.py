"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from medseg.cli_help import ADVANCED

__all__ = ["AsJson", "Debug", "Irregular", "listed"]

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=ADVANCED)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, without a progress bar.")]
Irregular = Annotated[
    Literal["error", "resample", "allow"],
    typer.Option(
        "--irregular",
        metavar="POLICY",
        help="What to do about missing or unevenly spaced slices: error (refuse the series), resample (interpolate), "
        "or allow.",
        rich_help_panel=ADVANCED,
    ),
]


def listed(names: str | None) -> list[str] | None:
    """The names in an option that takes several, separated by commas; None where it was not given."""
    return None if names is None else [name.strip() for name in names.split(",") if name.strip()]
