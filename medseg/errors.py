"""All errors that a command can end with: those that user input causes, and one for internal errors.

MedsegError                      exit code
├── InternalError      RuntimeError  1     a bug in medseg
├── ConfigError        ValueError    2     unknown key, wrong type, impossible value
├── ReadError          OSError       3     a file that cannot be read as an image
├── GeometryError      ValueError    3     grids that do not fit together
├── DatasetError       ValueError    3     a data set that cannot be trained on or evaluated
├── AnnotationError    ValueError    3     an annotation file that cannot be turned into a label map
├── PartialFailure     RuntimeError  4     some cases done and some failed
├── CheckpointError    ValueError    5     a model or checkpoint that cannot be used
├── WriteError         OSError       6     disk full, no permission
├── MachineError       RuntimeError  6     too little memory, or a process of a training that has ended
└── MissingPartError   ImportError   6     an optional part that is not installed

A message is one readable line: what was found, what was expected, which file, what to do.
"""

from __future__ import annotations

__all__ = [
    "AnnotationError",
    "CheckpointError",
    "ConfigError",
    "DatasetError",
    "GeometryError",
    "InternalError",
    "MachineError",
    "MedsegError",
    "MissingPartError",
    "PartialFailure",
    "ReadError",
    "WriteError",
]


class MedsegError(Exception):
    """Base class of all errors; `exit_code` is the exit code of the command line.

    Args:
        message: one readable line.
        kind: for a refused image, the kind of the finding behind it, such as 'missing_slices'.
        files: names of the files concerned.

    Example:
        >>> MedsegError("no such file").exit_code, ConfigError("unknown key").exit_code
        (3, 2)
    """

    exit_code = 3

    def __init__(self, message: str = "", *, kind: str = "", files: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.files = files


class InternalError(MedsegError, RuntimeError):
    """A bug in medseg, which the user cannot fix; see `medseg.faults`."""

    exit_code = 1


class ConfigError(MedsegError, ValueError):
    """A configuration key, type or value that cannot be used."""

    exit_code = 2


class ReadError(MedsegError, OSError):
    """A file or folder that cannot be read as the expected image."""


class GeometryError(MedsegError, ValueError):
    """Grids, spacings or orientations that do not match."""


class DatasetError(MedsegError, ValueError):
    """A data set whose cases, labels or splits cannot be used as they are."""


class AnnotationError(MedsegError, ValueError):
    """An annotation file (Labelme, CVAT, Supervisely, COCO) whose shapes or classes cannot be used as they are."""


class PartialFailure(MedsegError, RuntimeError):
    """Some cases are done and some have failed; the ledger names each."""

    exit_code = 4


class CheckpointError(MedsegError, ValueError):
    """A model bundle, weight file or checkpoint that is damaged or does not match."""

    exit_code = 5


class WriteError(MedsegError, OSError):
    """An output that could not be written: disk full, no permission, no such folder."""

    exit_code = 6


class MachineError(MedsegError, RuntimeError):
    """The machine does not suffice, or a process that works with this one has ended."""

    exit_code = 6


class MissingPartError(MedsegError, ImportError):
    """An optional dependency that this call needs and that is not installed."""

    exit_code = 6
