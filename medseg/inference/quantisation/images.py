"""Windows of images in a folder, prepared as prediction does it: what a model without its run is calibrated with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.errors import DatasetError, GeometryError, ReadError
from medseg.inference.bundle_info import BundleInfo
from medseg.inference.quantisation.windows import PER_CASE, CalibrationCase, case_from_arrays, window_count
from medseg.io import read_all
from medseg.preparation.grid import to_network_grid
from medseg.preparation.normalize import normalize, scales_for
from medseg.preparation.padding import stated_padding
from medseg.volume import Volume

__all__ = ["image_cases"]


def image_cases(folder: Path, info: BundleInfo) -> list[CalibrationCase]:
    """Windows of the images in a folder, in the order of their names, as many as are needed.

    Args:
        folder: of image files or studies; each image has all channels of the model.
        info: the model's `model.json`.

    Raises:
        DatasetError: no images, or images of another modality or number of channels than the model's.
    """
    wanted = 2 * max(1, window_count(info.plan.patch_size) // PER_CASE)
    cases: list[CalibrationCase] = []
    try:
        entries = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"--calibration is {folder}: {error.strerror}; expected a folder of images") from None
    for entry in entries:
        if len(cases) >= wanted:
            break
        try:
            volumes = read_all(entry)
        except (ReadError, GeometryError):
            continue  # A file of another kind, such as a table of the cases.
        cases += [_case(volume, info, entry.name) for volume in volumes[: wanted - len(cases)]]
    if not cases:
        raise DatasetError(f"--calibration is {folder}, where no image can be read; expected a folder of images")
    return cases


def _case(volume: Volume, info: BundleInfo, name: str) -> CalibrationCase:
    known = {each for each in (rule.modality for rule in info.plan.select) if each}
    if info.reference_ranges is not None:
        known |= set(info.reference_ranges.modalities)
    if volume.metadata.modality and known and volume.metadata.modality not in known:
        raise DatasetError(
            f"calibration image {name} is {volume.metadata.modality}, the model is for {', '.join(sorted(known))}; "
            "give images like those that it will see"
        )
    if (volume.channels or 1) != info.plan.in_channels:
        raise DatasetError(
            f"calibration image {name} has {volume.channels or 1} channels, the model takes {info.plan.in_channels}; "
            "calibrate with the run that it was trained in"
        )
    if volume.array.dtype.kind == "f" and not np.isfinite(volume.array).all():
        raise DatasetError(f"calibration image {name} holds NaN or infinite voxels; replace them, or leave it out")
    if not volume.channels:
        volume = volume.with_array(volume.array[None], channels=1)
    try:
        array, _ = to_network_grid(volume, info.plan)
    except GeometryError as error:
        raise DatasetError(f"calibration image {name} does not fit the model: {error}") from None
    scales = scales_for(array, info.plan, stated_padding(volume.metadata, volume.channels))
    return case_from_arrays(normalize(array, scales), info.plan)
