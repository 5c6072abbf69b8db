"""How a command ends: every error becomes one line and an exit code."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from medseg.errors import MedsegError, WriteError
from medseg.faults import internal_error, is_fault_of_a_file

__all__ = ["ended_by_errors"]

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
_SIGNALLED = 128  # plus the signal: 130 for Ctrl-C, 143 for SIGTERM


def ended_by_errors(command: Callable[[], object], debug: bool) -> None:
    """Run a command; an error ends the process with its line on standard error and its exit code.

    Args:
        command: what to run.
        debug: let the error through, so that Python shows its traceback.
    """
    try:
        command()
    except (KeyboardInterrupt, SystemExit) as ended:
        number = _signal_behind(ended)
        if number is None:
            raise
        _end("stopped", _SIGNALLED + number)
    except Exception as error:  # nothing may reach the user as a traceback, unless asked for
        if debug:
            raise
        _end(*_line_and_code(error))


def _signal_behind(ended: BaseException | None) -> signal.Signals | None:
    """The signal that ended a command; typer turns each into an exit as after Ctrl-C."""
    while ended is not None and not isinstance(ended, KeyboardInterrupt):
        ended = ended.__context__
    if ended is None:
        return None
    return next((each for each in ended.args if isinstance(each, signal.Signals)), signal.SIGINT)


def _line_and_code(error: Exception) -> tuple[str, int]:
    if isinstance(error, MedsegError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        text = f"{error.filename or 'output'}: {error.strerror}; free some space or choose another folder"
        return text, WriteError.exit_code
    if is_fault_of_a_file(error):
        return f"the input cannot be read ({type(error).__name__}: {error})", MedsegError.exit_code
    ours = internal_error(error)
    return str(ours), ours.exit_code


def _end(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"medseg: {' '.join(message.split())}\n")
    sys.exit(code)
