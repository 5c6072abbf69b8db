"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from medseg.cli_help import ADVANCED

__all__ = ["AllowCode", "AsJson", "Debug", "Folds", "Irregular", "fold_numbers", "listed"]

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
Folds = Annotated[
    str | None,
    typer.Option(
        "--folds",
        metavar="N,N",
        help="The folds of the model to average, such as 0,2; all by default.",
        rich_help_panel=ADVANCED,
    ),
]
AllowCode = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-code",
        metavar="MODULE",
        help="A Python module that the model may take its network from; may be repeated.",
        rich_help_panel=ADVANCED,
    ),
]


def listed(names: str | None) -> list[str] | None:
    """The names in an option that takes several, separated by commas; None where it was not given."""
    return None if names is None else [name.strip() for name in names.split(",") if name.strip()]


def fold_numbers(text: str | None) -> tuple[int, ...] | None:
    """What `--folds` says; None where it is not given."""
    from medseg.errors import ConfigError

    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f"--folds is {text!r}; give the numbers of folds, separated by commas, such as 0,2")
    return tuple(int(part) for part in parts)
