"""`--orientation`: how the training files of a model of nnU-Net lay; DICOM studies have no order of a file."""

from __future__ import annotations

from medseg.config import validate_model
from medseg.errors import ConfigError
from medseg.inference.bundle_info import BundleInfo
from medseg.preparation.plan import Plan

__all__ = ["turned"]


def turned(info: BundleInfo, orientation: str, where: str) -> BundleInfo:
    """`model.json` of a model that sees DICOM studies in an orientation; files keep their order of axes.

    Args:
        info: of a model of nnU-Net.
        orientation: as 'LPS': the directions in which the axes of its training files point.
        where: names the model in messages.

    Raises:
        ConfigError: a model that turns images by itself, or letters that name none.
    """
    plan = info.plan
    if plan.axes != "file" or plan.spatial_dims == 2:
        raise ConfigError(
            f"--orientation is for models of nnU-Net that take volumes as they lie; {where} does not; leave it out"
        )
    letters = orientation.upper()
    planned = validate_model(Plan, {**plan.model_dump(), "study_orientation": letters}, "--orientation")
    if planned.unmirrored:
        sideways = next(n for n, letter in enumerate(letters) if letter in "LR")
        axis = planned.transpose.index(sideways)
        # Of a 2D network the last axis runs across its slices, and is never mirrored.
        kept = [each.model_copy(update={"axis": axis}) for each in planned.unmirrored if axis < plan.dims]
        planned = planned.model_copy(update={"unmirrored": tuple(kept)})
    return info.model_copy(update={"plan": planned})
