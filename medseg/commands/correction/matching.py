"""Corrected masks and the studies that they belong to: by UID, by name, by what the ledger says, by their place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medseg.commands.correction.masks import CorrectedMask, Found
from medseg.datasets.cases import Case, Dataset
from medseg.datasets.layouts import images_in
from medseg.errors import DatasetError, GeometryError, MedsegError
from medseg.io.images import read_image
from medseg.io.naming import composed
from medseg.labels import LabelScheme
from medseg.preparation.sources import Reading
from medseg.studies.sources import Source, find_studies, input_hash
from medseg.volume import Volume

__all__ = ["CorrectedStudy", "LeftOut", "Studies", "match"]

_EXPECTED = "give the folder of its image with --images, or name the mask after its study"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A mask that is not used, and why, in words for the user."""

    file: Path
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class CorrectedStudy:
    """A study with its corrected mask on the grid of its image.

    Args:
        case: the study; where the run has it, the run's case, with its label map of before.
        of_run: whether the run has it.
        mask: the corrected mask.
        image: with channels.
        label_map: the corrected label map.
        matched_by: 'series', 'name', 'ledger', 'place' or 'data set'.
    """

    case: Case
    of_run: bool
    mask: CorrectedMask
    image: Volume
    label_map: Volume
    matched_by: str


class Studies:
    """All images that a mask may belong to: those of the run, and those of further places.

    Args:
        dataset: of the run.
        places: files and folders of further studies.
        channels: names of the model's channels.

    Raises:
        ReadError: a place that contains no image.
    """

    def __init__(self, dataset: Dataset, places: Iterable[Path], channels: Sequence[str]) -> None:
        self.dataset = dataset
        self.of_run = {composed(case.name): case for case in dataset.cases}
        self.further: dict[str, Case] = {}
        self.sources: dict[str, Source] = {}
        for place in places:
            self._add(place, channels)

    def _add(self, place: Path, channels: Sequence[str]) -> None:
        known = {path.resolve() for case in self.dataset.cases for path in case.images}
        if place.is_dir() and not any(path.is_dir() for path in place.iterdir()):
            # Files are grouped into channels as training groups them.
            for name, paths in images_in(place).items():
                if not {path.resolve() for path in paths} <= known:
                    self.further.setdefault(composed(name), Case(name, paths, ()))
        for source in find_studies(place, None, channels):
            for each in _choices(source):
                case = _case_of(each)
                if case is None or ({path.resolve() for path in case.images} <= known and not case.series):
                    continue
                self.further.setdefault(composed(case.name), case)
                self.sources[composed(case.name)] = each

    def by_series(self, uids: Sequence[str]) -> Case | None:
        """The study with one of these series."""
        wanted = {uid.partition("#")[0] for uid in uids}
        cases = (*self.further.values(), *self.of_run.values())
        found = [case for case in cases if case.series.partition("#")[0] in wanted and case.series]
        return found[0] if found else None

    def by_name(self, name: str) -> Case | None:
        """The study of this name; further studies go before those of the run, as they were given for it."""
        key = composed(name)
        return self.further.get(key) or self.of_run.get(key)

    def by_hash(self, digest: str) -> Case | None:
        """The further study whose files have this hash."""
        return next((self.further[key] for key, each in self.sources.items() if input_hash(each) == digest), None)

    def by_place(self, label_map: Volume) -> Case | None:
        """The only study on this grid, if the grid says where in a scanner it lies."""
        origin = label_map.affine[:3, 3]
        # Crops and files without a place begin at whole numbers, and many of them are alike.
        if label_map.dims != 3 or not label_map.spacing_known or np.allclose(origin, np.rint(origin), atol=1e-3):
            return None
        found = []
        for case in (*self.further.values(), *self.of_run.values()):
            try:
                image = read_image(case.images, np.nan, case.series or None)
            except MedsegError:
                continue
            if image.same_geometry(label_map, tolerance_mm=1e-2):
                found.append(case)
        return found[0] if len(found) == 1 else None


def _choices(source: Source) -> list[Source]:
    """Each series of a study that has several, else the source itself."""
    if not source.candidates:
        return [] if source.error else [source]
    return [
        replace(source, case=f"{source.case}_{number}", series=each, candidates=(), error="")
        for number, each in enumerate(source.candidates)
    ]


def _case_of(source: Source) -> Case | None:
    """The source as a case of a data set; None for one inside an archive."""
    if source.series is None:
        return Case(source.case, source.paths, ()) if all(path.exists() for path in source.paths) else None
    paths = [each.path for each in source.series.slices]
    if not paths[0].exists():
        return None
    folder = Path(os.path.commonpath([path.parent for path in paths]))
    return Case(source.case, (folder,), (), series=source.series.key)


def match(
    found: Found, studies: Studies, reading: Reading, scheme: LabelScheme, unchanged_too: bool
) -> Iterator[CorrectedStudy | LeftOut]:
    """The study of each corrected mask, one at a time, or why the mask is left out.

    Args:
        found: the masks.
        studies: where to look.
        reading: how the run reads images and label maps.
        scheme: labels of the run.
        unchanged_too: whether masks count that are as they were predicted.
    """
    taken: dict[str, Path] = {}
    for mask in found.masks:
        try:
            each = _matched(mask, studies, reading, scheme, unchanged_too)
            other = taken.setdefault(composed(each.case.name), mask.file)
            if other != mask.file:
                raise DatasetError(f"{other} is a mask of the same study {each.case.name!r}; keep one of them")
        except MedsegError as error:
            yield LeftOut(mask.file, " ".join(str(error).split()))
        else:
            yield each


def _matched(
    mask: CorrectedMask, studies: Studies, reading: Reading, scheme: LabelScheme, unchanged_too: bool
) -> CorrectedStudy:
    if mask.unchanged and not unchanged_too:
        raise DatasetError("it is as it was predicted; with --accept-unchanged it counts as looked at and right")
    case, by = _study_of(mask, studies)
    image = read_image(case.images, reading.nan, case.series or None)
    label_map = mask.content.on_image(image, case)
    scheme.check_values([int(value) for value in np.unique(label_map.array)], str(mask.file))
    label_map = label_map.with_array(scheme.with_one_ignored(label_map.array))
    ours = studies.of_run.get(composed(case.name))
    if ours is not None and case is not ours:
        theirs = read_image(ours.images, reading.nan, ours.series or None)
        if not (image.same_geometry(theirs, 1e-2) and np.array_equal(image.array, theirs.array)):
            raise DatasetError(
                f"the run has a case called {case.name!r} with another image; give this study and its mask another name"
            )
        case = ours
    if ours is not None and ours.split == "test":
        raise DatasetError(f"{case.name!r} is a test case of the run, or takes no part in it, and never trains")
    return CorrectedStudy(case, ours is not None, mask, image, label_map, by)


def _study_of(mask: CorrectedMask, studies: Studies) -> tuple[Case, str]:
    if mask.case is not None:
        return mask.case, "data set"
    if mask.series_uids and (case := studies.by_series(mask.series_uids)) is not None:
        return case, "series"
    for name in mask.names:
        if (case := studies.by_name(name)) is None:
            continue
        source = studies.sources.get(composed(name))
        if mask.input_hash and source is not None and input_hash(source) != mask.input_hash:
            raise GeometryError(f"the image {source.paths[0]} is not the one that was predicted, as the ledger says")
        return case, "name"
    if mask.input_hash and (case := studies.by_hash(mask.input_hash)) is not None:
        return case, "ledger"
    grid = mask.content.grid()
    if grid is not None and (case := studies.by_place(grid)) is not None:
        return case, "place"
    raise DatasetError(f"no image is called {mask.names[0]!r}; {_EXPECTED}")
