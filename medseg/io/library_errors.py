"""Unexpected errors of libraries become errors that name the file; mistakes in medseg's own code stay as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from medseg.errors import MedsegError, ReadError
from medseg.faults import is_fault_of_a_file

__all__ = ["naming_file", "refuse_own_fault"]


@contextlib.contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Turn an unexpected error of a library into a `ReadError` of the file; medseg's own mistakes are not caught.

    Raises:
        ReadError: if a library called by a reader raised an error that the reader does not expect.

    Example:
        >>> from medseg.io.voxel_files.nifti import read_nifti
        >>> with naming_file(Path("ct.nii.gz")):
        ...     volume = read_nifti(Path("ct.nii.gz"))
        >>> volume.dims
        3
    """
    try:
        yield
    except (MedsegError, OSError, MemoryError):
        raise
    except Exception as error:
        if not is_fault_of_a_file(error):
            raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:200]
        kind = type(error).__name__
        raise ReadError(
            f"{path} cannot be read ({kind}{': ' if reason else ''}{reason}); it is damaged or unusual: export it again"
        ) from error


def refuse_own_fault(error: Exception) -> None:
    """Re-raise a mistake in medseg's own code, so that it is not reported as damage of the file.

    Of the exceptions that damaged files cause, only these two are also typical of mistakes.

    Raises:
        TypeError, AttributeError: `error`, if it is such a mistake.
    """
    if isinstance(error, TypeError | AttributeError) and not is_fault_of_a_file(error):
        raise error
