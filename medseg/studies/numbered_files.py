"""Image files numbered from `_0000`: channels of one case, or frames that are cases, by what the model takes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from medseg.errors import MedsegError
from medseg.io.formats import kind_of, stem_of
from medseg.io.naming import CHANNEL_NAME, safe_name
from medseg.studies.sources import Source, read_source

__all__ = ["cases_of_numbered_files"]

log = logging.getLogger(__name__)


def cases_of_numbered_files(found: Sequence[Source], channels: int) -> list[Source]:
    """The sources, with those of several numbered files split into cases where each file can be one.

    A model of one channel takes each file for a case, which is reported, because the files may be channels. A model of
    several takes as many files for one case, unless each file has all the channels, as colour frames of a video have. A
    case of another number of files gets an `error`.

    Args:
        found: from `find_studies`.
        channels: how many the model takes.
    """
    result: list[Source] = []
    for source in found:
        if source.series is not None or source.channels or source.error or len(source.paths) < 2:
            result.append(source)
        elif channels == 1 or _each_has_all(source, channels):
            result += _split(source)
            if channels == 1:
                names = f"{source.paths[0].name} to {source.paths[-1].name}"
                log.warning(
                    "%s: %s are %d cases, because the model takes one channel; if they are channels of one case, give "
                    "only the file of the channel that it was trained on",
                    *(source.paths[0].parent, names, len(source.paths)),
                )
        elif len(source.paths) != channels:
            result.append(replace(source, error=_doubt(source, channels)))
        else:
            result.append(source)
    return sorted(result, key=lambda each: each.case)


def _split(source: Source) -> list[Source]:
    return [replace(source, case=_case(source, n), paths=(path,)) for n, path in enumerate(source.paths)]


def _case(source: Source, n: int) -> str:
    match = CHANNEL_NAME.match(stem_of(source.paths[n]))
    return safe_name(f"{source.case}_{match['channel'] if match else n}")


def _each_has_all(source: Source, channels: int) -> bool:
    # As many files as channels are channels, but for pictures in colour.
    if len(source.paths) == channels and kind_of(source.paths[0]) != "raster":
        return False
    try:
        return read_source(replace(source, paths=source.paths[:1])).channels == channels
    except MedsegError:
        # What is wrong with the file is reported when the case is read.
        return False


def _doubt(source: Source, channels: int) -> str:
    first, last = source.paths[0], source.paths[-1]
    return (
        f"{first.name} to {last.name} in {first.parent} look like {len(source.paths)} channels of one case, and the "
        f"model takes {channels}; give only the files of its channels, numbered from _0000 in its order, or if each "
        "file is a case, other names"
    )
