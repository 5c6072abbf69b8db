"""A recipe's end: what is wrong with the data is said in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable

import medseg

__all__ = ["run"]


def run(main: Callable[[], None]) -> None:
    """Run a recipe; an error that the input caused ends it with a line, and the exit code that the command line has."""
    try:
        main()
    except medseg.MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
