"""Classifies an unexpected exception: caused by a file that a library cannot handle, or a bug in medseg."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from types import TracebackType

from medseg.errors import InternalError

__all__ = ["internal_error", "is_fault_of_a_file", "traceback_of"]

_PACKAGE = str(Path(__file__).parent)
_READERS_AND_WRITERS = str(Path(_PACKAGE, "io"))
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")})


def is_fault_of_a_file(error: BaseException) -> bool:
    """Whether a library that `medseg/io` called raised the error: then the file is the cause, whatever its kind.

    Readers handle the expected effects of damaged files. An unexpected exception is classified by where it was raised:
    in a library, the file contains something its authors did not expect; in medseg's own code, it is a bug.
    """
    frames = _files_of(error)
    ours = [file for file in frames if _is_below(file, _PACKAGE)]
    return bool(ours) and _is_library(frames[-1]) and _is_below(ours[-1], _READERS_AND_WRITERS)


def internal_error(error: BaseException, kept: str = "that --debug shows", with_text: bool = True) -> InternalError:
    """The error as one line that names the place and asks for a report.

    Args:
        error: the exception.
        kept: where its traceback is stored, to complete the sentence "with the traceback".
        with_text: whether to include its text, which may quote a header.
    """
    frames = traceback.extract_tb(error.__traceback__)
    last = next((f for f in reversed(frames) if _is_below(f.filename, _PACKAGE)), frames[-1] if frames else None)
    where = f" in {_shown(last.filename)}, line {last.lineno}" if last else ""
    text = str(error) if with_text else ""
    reason = next((line.strip() for line in text.splitlines() if line.strip()), "")[:200]
    kind = type(error).__name__
    return InternalError(
        f"internal error{where} ({kind}{': ' if reason else ''}{reason}); this is a bug in medseg, please report it "
        f"with the traceback {kept}"
    )


def traceback_of(error: BaseException) -> str:
    """The traceback as Python prints it, with file names relative to the package."""
    return "".join(traceback.format_exception(error)).replace(str(Path(_PACKAGE).parent), "...")


def _shown(file: str) -> str:
    return Path(file).relative_to(Path(_PACKAGE).parent).as_posix() if _is_below(file, _PACKAGE) else Path(file).name


def _files_of(error: BaseException) -> list[str]:
    files = []
    step: TracebackType | None = error.__traceback__
    while step is not None:
        files.append(step.tb_frame.f_code.co_filename)
        step = step.tb_next
    return files


def _is_below(file: str, folder: str) -> bool:
    return Path(folder) in Path(file).parents


def _is_library(file: str) -> bool:
    if _is_below(file, _PACKAGE):
        return False
    # Compiled modules name their sources relative to the build folder.
    compiled = file.startswith("<frozen ") or Path(file).suffix in (".pyx", ".pxd", ".pxi")
    return compiled or any(_is_below(file, folder) for folder in _LIBRARIES)
