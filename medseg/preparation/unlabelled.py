"""`semi.unlabelled`: images without labels, compared with the labelled ones and prepared by the same plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.config import RunConfig
from medseg.datasets.cases import Case
from medseg.datasets.layouts import images_in
from medseg.errors import ConfigError, DatasetError, MedsegError
from medseg.io.formats import is_there
from medseg.io.images import read_image
from medseg.preparation.checks import NAMED, raise_gathered
from medseg.preparation.fingerprint import Fingerprint
from medseg.preparation.grid import to_network_grid
from medseg.preparation.normalize import scales_for
from medseg.preparation.padding import stated_padding
from medseg.preparation.parallel import run_over_cases
from medseg.preparation.plan import Plan
from medseg.preparation.plan_upgrade import hashed_content
from medseg.preparation.prepare import STORE_VERSION, STORED, Preparation
from medseg.preparation.sources import stamp_of, state_of
from medseg.preparation.store import (
    CaseNotes,
    CaseOrigin,
    PreparedArrays,
    PreparedCase,
    case_folder,
    is_current,
    open_case,
    remove_leftovers,
    write_case,
)
from medseg.volume import Finding, Volume

__all__ = ["Unlabelled", "find_unlabelled", "prepare_unlabelled", "write_image"]

# Voxels so many times larger or smaller than those of every labelled image are refused.
OTHER_SPACING = 3.0
_SOURCE = "semi.unlabelled"


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """Prepared images without labels.

    Args:
        cases: name -> folder for `open_case`; their label maps are empty.
        findings: what the user should know.
    """

    cases: Mapping[str, Path]
    findings: tuple[Finding, ...]

    def open(self) -> list[PreparedCase]:
        """All cases, memory-mapped.

        Raises:
            DatasetError: a folder is missing or damaged.
        """
        return [open_case(folder) for folder in self.cases.values()]


def find_unlabelled(folder: Path, source: str = _SOURCE) -> tuple[Case, ...]:
    """The images of a folder, or of its `images` or `imagesTr`, sorted by name; channels are grouped by `_0000`.

    A sub-folder is a DICOM study.

    Args:
        folder: of images.
        source: what gave the folder, for messages.

    Raises:
        ConfigError: no such folder.
        DatasetError: no image in it.
    """
    if not is_there(folder) or not folder.is_dir():
        raise ConfigError(f"{source}: {folder} is not a folder; give a folder of images")
    inner = next((folder / name for name in ("imagesTr", "images") if (folder / name).is_dir()), folder)
    found = images_in(inner)
    if not found:
        raise DatasetError(f"{source}: {inner} contains no images; give a folder of images")
    return tuple(Case(name, images, ()) for name, images in sorted(found.items()))


def prepare_unlabelled(config: RunConfig, preparation: Preparation) -> Unlabelled:
    """Read, compare and store the images of `semi.unlabelled` below `config.output`.

    Images that are also cases of the data set are left out: what validates a training must not train it.

    Raises:
        ConfigError: no such folder.
        DatasetError: no images beside the labelled ones; other numbers of channels or axes, another modality, or
            another unit of length than the labelled images.
        ReadError: a file that cannot be read.
        WriteError: disk full, no permission.
    """
    assert config.semi.unlabelled is not None
    found = find_unlabelled(config.semi.unlabelled)
    known = {path.resolve() for case in preparation.dataset.cases for path in case.images}
    names = {case.name for case in preparation.dataset.cases}
    cases = [c for c in found if c.name not in names and known.isdisjoint(path.resolve() for path in c.images)]
    if not cases:
        raise DatasetError(
            f"{_SOURCE}: all {len(found)} images of {config.semi.unlabelled} are cases of the data set already; give "
            "a folder of other images"
        )
    store = preparation.folder / "prepared_unlabelled"
    remove_leftovers(store)
    folders = {case.name: case_folder(store, case.name) for case in cases}
    compared = _Compared(preparation.fingerprint)
    settings = (config.data.nan, hashed_content(preparation.plan, STORED))
    jobs = []
    for case in cases:
        stamp = stamp_of("unlabelled", STORE_VERSION, state_of(case), case.name, settings, compared.stamp)
        if not is_current(folders[case.name], stamp):
            jobs.append(_Job(case, stamp, folders[case.name], preparation.plan, config.data.nan, compared))
    errors: dict[str, MedsegError] = {}

    def on_done(job: _Job, error: MedsegError | None) -> None:
        if error is not None:
            errors[job.case.name] = error

    # One at a time, as the labelled cases may need all memory.
    run_over_cases(_write, jobs, workers=1, processes=False, on_done=on_done)
    raise_gathered(errors, len(cases))
    findings = [Finding("unlabelled", f"{len(cases)} images without labels train, too")]
    if len(found) > len(cases):
        without = f"{len(found) - len(cases)} of the {len(found)} images of {config.semi.unlabelled}"
        findings.append(Finding("unlabelled_known", f"{without} are cases of the data set and do not count twice"))
    unlabelled = Unlabelled(folders, ())
    findings += compared.differences(unlabelled.open())
    return Unlabelled(folders, tuple(findings))


@dataclass(frozen=True, slots=True)
class _Compared:
    """The labelled images, as unlabelled ones are compared with them."""

    fingerprint: Fingerprint

    @property
    def stamp(self) -> list[object]:
        first = self.fingerprint.cases[0]
        return [len(first.shape), len(first.channels), sorted({c.modality for c in self.fingerprint.cases})]

    def refuse(self, image: Volume, name: str) -> None:
        """Refuse an image that the network cannot take, or that is certainly of another kind."""
        labelled = self.fingerprint.cases
        for what, mine, theirs in (
            ("spatial axes", image.dims, len(labelled[0].shape)),
            ("channel(s)", image.channels, len(labelled[0].channels)),
        ):
            if mine != theirs:
                raise DatasetError(
                    f"{_SOURCE}: {name} has {mine} {what}, but the labelled images have {theirs}; give images of the "
                    "same kind"
                )
        modality = image.metadata.modality
        known = sorted({c.modality for c in labelled if c.modality})
        if modality and known and modality not in known:
            raise DatasetError(
                f"{_SOURCE}: {name} is of the modality {modality}, but the labelled images are of {', '.join(known)}; "
                "give images of the same modality"
            )
        spacings = [_mean(c.spacing_mm) for c in labelled if c.spacing_known]
        if image.spacing_known and spacings:
            size = _mean(image.spacing_mm)
            if not min(spacings) / OTHER_SPACING < size < max(spacings) * OTHER_SPACING:
                raise DatasetError(
                    f"{_SOURCE}: {name} has voxels of {size:.4g} mm on average over its axes, the labelled images of "
                    f"{min(spacings):.4g} to {max(spacings):.4g} mm; correct its header if the unit is wrong, or take "
                    "it out of the folder"
                )
        if image.spacing_known and not spacings:
            raise DatasetError(
                f"{_SOURCE}: {name} has a spacing in mm, but the labelled images have none; give images of the same "
                "kind"
            )

    def differences(self, cases: Sequence[PreparedCase]) -> list[Finding]:
        """Unlabelled images whose grey levels tell another modality: signed beside unsigned ones, or no overlap."""
        found = []
        for channel in range(len(self.fingerprint.cases[0].channels)):
            levels = [case.channels[channel] for case in self.fingerprint.cases]
            lowest, highest = min(each.minimum for each in levels), max(each.maximum for each in levels)
            signed = max(each.minimum for each in levels) < 0
            far = []
            for case in cases:
                low, high = float(case.image[channel].min()), float(case.image[channel].max())
                if (low < 0 <= lowest) or (signed and low >= 0) or low > highest or high < lowest:
                    far.append(case.name)
            if far:
                message = (
                    f"{_listed(far, len(cases))} grey levels unlike the labelled images', which lie from {lowest:g} to "
                    f"{highest:g}; if they are of another modality, take them out of {_SOURCE}"
                )
                found.append(Finding("unlabelled_levels", message, tuple(far)))
        return found


@dataclass(frozen=True, slots=True)
class _Job:
    case: Case
    stamp: str
    folder: Path
    plan: Plan
    nan: float | None
    compared: _Compared


def _write(job: _Job) -> None:
    image = read_image(job.case.images, job.nan)
    job.compared.refuse(image, str(job.case.images[0]))
    write_image(image, job.plan, job.folder, CaseOrigin(job.case.name, "", job.stamp))


def write_image(image: Volume, plan: Plan, folder: Path, origin: CaseOrigin) -> None:
    """Store an image on the network's grid, with an empty label map.

    Args:
        image: with channels.
        plan: gives grid and normalisation.
        folder: where the case is to lie.
        origin: what it was made from.

    Raises:
        WriteError: disk full, no permission.
    """
    array, grid = to_network_grid(image, plan)
    scales = scales_for(array, plan, stated_padding(image.metadata, image.channels))
    arrays = PreparedArrays(array, np.zeros(array.shape[1:], np.uint8), grid.network_spacing_mm, scales)
    write_case(folder, origin, arrays, None, CaseNotes(True, {}), None)


def _mean(spacing_mm: Sequence[float]) -> float:
    return float(np.exp(np.log(spacing_mm).mean()))


def _listed(names: Sequence[str], total: int) -> str:
    rest = len(names) - NAMED
    shown = ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
    return f"{len(names)} of {total} unlabelled images ({shown}) have"
