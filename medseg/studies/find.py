"""The cases of a run, found in the user's sources, each with an output of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from medseg.errors import MedsegError, ReadError
from medseg.io.formats import kind_of, stem_of
from medseg.io.naming import safe_name
from medseg.io.output_names import Owner, claim_names, owner_of_file, owner_of_folder, owner_of_series
from medseg.studies.sources import Source, find_studies

__all__ = ["find_sources", "with_own_names"]


def find_sources(
    places: Sequence[Path], series: str | Sequence[str] | None, out: Path, channels: Sequence[str] = ()
) -> list[Source]:
    """All cases, each once; among several places, one without a readable image is a failed case and not an error.

    `channels`: names of the model's channels, see `find_studies`.

    Raises:
        ReadError: if nothing is found, no place contains a requested series, or a case name leads out of `out`.
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
    return found if len(places) == 1 else _each_once(found)


def _each_once(found: Sequence[Source]) -> list[Source]:
    """Drop duplicates: a study given by its own folder and by a parent folder."""
    firsts: dict[tuple[str, str, int, str], Source] = {}
    for source in found:
        ends = (os.path.realpath(source.paths[0]), os.path.realpath(source.paths[-1]))
        firsts.setdefault((*ends, len(source.paths), source.series_uid), source)
    return list(firsts.values())


def _check_asked(series: Sequence[str], found: Sequence[Source]) -> None:
    """Refuse a requested series that does not exist: a mistyped UID would silently skip its study."""
    if any(source.error and not source.candidates for source in found):
        return  # it may be among the unreadable files, which are reported anyway
    known = [each for source in found for each in (source.series, *source.candidates) if each is not None]
    missing = [uid for uid in series if not any(uid in (each.uid, each.key) for each in known)]
    if missing:
        raise ReadError(f"no study contains series {', '.join(missing)}; medseg inspect lists the available series")


def _check_names(sources: Sequence[Source], out: Path) -> None:
    for source in sources:
        if Path(source.case).is_absolute() or ".." in Path(source.case).parts:
            raise ReadError(f"case name {source.case!r} would lead out of {out}; rename the folder or file")


def with_own_names(
    found: Sequence[Source], out: Path, owns: Callable[[int, str], bool | None], dry_run: bool
) -> list[Source]:
    """The cases under unique names in the output folder, see `medseg.io.output_names`.

    Args:
        found: from `find_sources`, with series chosen.
        out: the output folder.
        owns: called with (index of the case, name) for a name that is not recorded: whether the ledger says that it
            belongs to this case; None if the ledger has nothing of that name.
        dry_run: write nothing.

    Raises:
        WriteError: if permission is missing or the disk is full.
    """
    wanted = [(source.case, _owner(source)) for source in found]
    names = claim_names(out, wanted, owns, dry_run)
    return [
        replace(source, case=name, study_hash=owner.study)
        for source, name, (_, owner) in zip(found, names, wanted, strict=True)
    ]


def _owner(source: Source) -> Owner:
    series = (source.series,) if source.series is not None else source.candidates
    path = source.paths[0]
    if series:
        return owner_of_series(series, Path(os.path.commonpath([p.parent for p in source.paths])))
    if source.error and len(source.paths) == 1:
        return owner_of_folder(path if path.is_dir() or kind_of(path) == "zip" else path.parent)
    return owner_of_file(path)
