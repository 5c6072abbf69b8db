"""Why a case failed: because of its files, of files still being written, or of an internal error."""

from __future__ import annotations

from functools import partial

from medseg.disk.snapshot import CaseSnapshot
from medseg.errors import ConfigError, InternalError, MedsegError, ReadError, WriteError
from medseg.faults import internal_error, is_fault_of_a_file, traceback_of
from medseg.io.dicom.deidentify.profile import Deidentifier
from medseg.io.dicom.deidentify.site_key import site_key
from medseg.studies.private import PrivateCases
from medseg.studies.sources import Source, images_of_study

__all__ = ["LOGS", "as_medseg", "refuse_change", "told_without_values"]

# Folder of the tracebacks of internal errors, next to the ledger.
LOGS = "logs"


def as_medseg(error: Exception, source: Source, snapshot: CaseSnapshot) -> MedsegError:
    """The error to report for a failed case, whatever exception was raised."""
    place = source.paths[0]
    reason = (str(error).strip() or type(error).__name__).split("\n")[0][:200]
    if isinstance(error, MemoryError) or "out of memory" in reason:
        return MedsegError(f"{place}: not enough memory for this case ({reason}); close other programs")
    if not isinstance(error, MedsegError | OSError) and not is_fault_of_a_file(error):
        return internal_error(error, _kept(source))
    # An incomplete file looks damaged.
    if change := _change_of(source, snapshot):
        return _still_written(source, change)
    return error if isinstance(error, MedsegError) else ReadError(f"{place}: {type(error).__name__}: {reason}")


def refuse_change(source: Source, snapshot: CaseSnapshot) -> None:
    """Refuse a case whose files have changed since: an incomplete study looks like a complete one.

    Raises:
        ReadError: saying what has changed.
    """
    if change := _change_of(source, snapshot):
        raise _still_written(source, change)


def told_without_values(error: InternalError, raised: Exception, source: Source) -> tuple[InternalError, str]:
    """An internal error and its traceback, without the values of the study that they may quote."""
    try:
        private = PrivateCases(Deidentifier.with_key(site_key()))
    except (ConfigError, WriteError):
        # Without the site's key nothing can be replaced, so only the place is reported.
        return internal_error(raised, with_text=False), ""
    text = private.error(MedsegError(traceback_of(raised)), source)
    return private.error(error, source), str(text)


def _kept(source: Source) -> str:
    return f"in {LOGS}/{source.case}.txt"


def _change_of(source: Source, snapshot: CaseSnapshot) -> str:
    return snapshot.change(partial(images_of_study, source))


def _still_written(source: Source, change: str) -> ReadError:
    first = source.paths[0]
    place = first.parent if source.series is not None or source.candidates else first
    return ReadError(
        f"{place} is still being written: {change}; run the same command again when it is complete, or wait for that "
        "with --settle SECONDS",
        kind="still_being_written",
    )
