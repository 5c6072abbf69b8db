"""The cases of a run: found among what the user gave, each with an output of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg.errors import DatasetError, MedsegError, ReadError
from medseg.io.formats import stem_of
from medseg.io.naming import safe_name
from medseg.io.sources import Source, find_studies

__all__ = ["find_cases"]


def find_cases(
    places: Sequence[Path], series: str | Sequence[str] | None, out: Path, channels: Sequence[str] = ()
) -> list[Source]:
    """All cases; where several places were given, one without a readable image is a failed case, not the end.

    `channels`: names of the model's channels, see `find_studies`.

    Raises:
        ReadError: nothing found, a series that no place holds, or a case name that leads out of `out`.
        DatasetError: two cases of one name.
    """
    found: list[Source] = []
    for place in places:
        try:
            found += find_studies(place, series, channels)
        except MedsegError as error:
            if len(places) == 1 or not place.exists():
                raise
            found.append(Source(safe_name(stem_of(place)), (place,), error=str(error)))
    if not found:
        raise ReadError("nothing to predict: give a file, a DICOM folder, a folder of studies or a zip")
    _check_asked((series,) if isinstance(series, str) else tuple(series or ()), found)
    _check_names(found, out)
    return found


def _check_asked(series: Sequence[str], found: Sequence[Source]) -> None:
    """A UID with a slip in it would leave its study out, and nobody would know."""
    if any(source.error and not source.candidates for source in found):
        return  # it may lie in what cannot be read, which is named anyway
    known = [each for source in found for each in (source.series, *source.candidates) if each is not None]
    missing = [uid for uid in series if not any(uid in (each.uid, each.key) for each in known)]
    if missing:
        raise ReadError(f"no study holds series {', '.join(missing)}; medseg inspect lists the series that are there")


def _check_names(sources: Sequence[Source], out: Path) -> None:
    seen: dict[str, Source] = {}
    for source in sources:
        if Path(source.case).is_absolute() or ".." in Path(source.case).parts:
            raise ReadError(f"case name {source.case!r} would lead out of {out}; rename the folder or file")
        twin = seen.setdefault(source.case.lower(), source)
        if twin is not source:
            raise DatasetError(
                f"{twin.paths[0]} and {source.paths[0]} would both become {source.case}; give them one by one"
            )
