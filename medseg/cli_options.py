"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

__all__ = ["AsJson", "Debug", "Irregular"]

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON; no progress bar.")]
Irregular = Annotated[
    Literal["error", "resample", "allow"],
    typer.Option("--irregular", help="Missing or uneven slices: error (refuse), resample (interpolate) or allow."),
]
