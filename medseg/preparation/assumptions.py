"""What a plan supposes of an image that neither of them says."""

from __future__ import annotations

from collections.abc import Collection

from medseg.preparation.plan import Plan
from medseg.volume import Finding, Volume

__all__ = ["findings_of_plan"]


def findings_of_plan(image: Volume, plan: Plan, mirrored: Collection[int] = ()) -> tuple[Finding, ...]:
    """Findings about an image that the plan of an imported model is applied to; () for models that were trained here.

    Args:
        image: to be predicted.
        plan: of the model.
        mirrored: axes of the network that the model itself would mirror.

    Example:
        >>> import numpy as np
        >>> image = Volume(np.zeros((4, 4, 4)), np.eye(4))
        >>> findings_of_plan(image, medseg.load_model("runs/lung/model").info.plan)
        ()
    """
    found = []
    assumed = plan.axes == "file" and plan.study_orientation is None
    if assumed and image.dims == 3 and image.metadata.series_instance_uid:
        message = (
            "the model takes axes in the order of its training files, which DICOM does not have: the study was turned "
            "to RAS; if those files had another orientation, give it by --orientation"
        )
        found.append(Finding("assumed_orientation", message))
    for each in plan.unmirrored or ():
        if each.axis in mirrored:
            message = f"the model mirrors along axis {each.axis} of its network, which was left out: {each.reason}"
            found.append(Finding("mirroring_left_out", message))
    return tuple(found)
