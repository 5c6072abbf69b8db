"""A folder of images without any labels, planned and stored so that a network can be pretrained on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.config import RunConfig
from medseg.io.images import read_image
from medseg.labels import LabelScheme
from medseg.preparation.checks import check_consistent, check_units
from medseg.preparation.fingerprint import Fingerprint, fingerprint_case
from medseg.preparation.kept_plan import PlannedFor, kept_or_new_plan
from medseg.preparation.plan import Plan
from medseg.preparation.store import CaseOrigin, PreparedCase, case_folder, open_case, remove_leftovers
from medseg.preparation.unlabelled import find_unlabelled, write_image

__all__ = ["IMAGE", "PreparedImages", "prepare_images"]

IMAGE = LabelScheme.from_mapping({"image": 1})
"""The only label of such images, which all voxels have: the plan is made from it."""


@dataclass(frozen=True, slots=True)
class PreparedImages:
    """Images on the network's grid.

    Args:
        plan: as written into the folder's `plan.yaml`.
        cases: memory-mapped; their label maps are empty.
    """

    plan: Plan
    cases: list[PreparedCase]


def prepare_images(
    config: RunConfig, folder: Path, planned_for: PlannedFor, progress: Callable[[int, int, str], None]
) -> PreparedImages:
    """Read the images of `data.root`, plan, and store them below `folder`.

    Args:
        config: of the run that the weights are for, as far as it is known.
        folder: gets `plan.yaml` and the prepared images; a plan that is there is kept.
        planned_for: the device.
        progress: called as `progress(done, total, what)`.

    Raises:
        ConfigError: no such folder, or a plan that does not fit.
        DatasetError: no image, or images of several kinds.
        ReadError: a file that cannot be read.
        WriteError: disk full, no permission.
    """
    cases = find_unlabelled(config.data.root, "pretrain")
    store = folder / "prepared"
    remove_leftovers(store)
    found = []
    for number, case in enumerate(cases):
        image = read_image(case.images, config.data.nan)
        everything = image.with_array(np.ones(image.array.shape[image.channels and 1 :], np.uint8))
        found.append(fingerprint_case(case.name, "", image, everything, IMAGE))
        progress(number + 1, 2 * len(cases), f"checked {case.name}")
    check_consistent(found)
    check_units(found)
    modality = config.data.modality
    names = () if modality is None else (modality,) if isinstance(modality, str) else modality
    names = names * len(found[0].channels) if len(names) == 1 else names
    plan = kept_or_new_plan(folder / "plan.yaml", Fingerprint(tuple(found), names), config, IMAGE, planned_for)
    for number, case in enumerate(cases):
        place = case_folder(store, case.name)
        write_image(read_image(case.images, config.data.nan), plan, place, CaseOrigin(case.name, "", ""))
        progress(len(cases) + number + 1, 2 * len(cases), f"prepared {case.name}")
    return PreparedImages(plan, [open_case(case_folder(store, case.name)) for case in cases])
