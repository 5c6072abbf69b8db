"""What a library trips over in a file becomes an error that names the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from medseg.errors import MedsegError, ReadError
from medseg.faults import is_fault_of_a_file

__all__ = ["naming_file", "refuse_own_fault"]


@contextlib.contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Turn what nobody foresaw in a file into a `ReadError` of that file; a mistake in medseg's own lines goes through.

    Raises:
        ReadError: a library called by a reader raised something else than the errors it is known for.

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
    """Let a mistake in medseg's own lines through, which is no damage of the file that is read.

    Of the errors that damage can raise, these two are what mistakes raise as well.

    Raises:
        TypeError, AttributeError: `error`, where it is such a mistake.
    """
    if isinstance(error, TypeError | AttributeError) and not is_fault_of_a_file(error):
        raise error
