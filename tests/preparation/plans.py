"""Plans, and cases to plan from."""

from __future__ import annotations

import math

from medseg.labels import LabelScheme
from medseg.preparation import ChannelPlan, Plan
from medseg.preparation.case_features import CaseFeatures
from medseg.preparation.fingerprint import CaseFingerprint, ChannelFingerprint

SCHEME = LabelScheme.from_mapping({"thing": 1})
CHANNEL = ChannelFingerprint(0.0, 9.0, True, 4.0, 1.0, (4.0,) * 200)


def case(shape, spacing=None, orientation="RAS", channels=1, name="a", labelled=100, thickness=None) -> CaseFingerprint:
    known = spacing is not None
    spacing = spacing or (1.0,) * len(shape)
    voxels = {0: math.prod(shape) - labelled, 1: labelled}
    return CaseFingerprint(
        name,
        "",
        shape,
        spacing,
        known,
        orientation[: len(shape)],
        "",
        (CHANNEL,) * channels,
        voxels,
        {},
        CaseFeatures((), ((0.0,) * 8 ** len(shape),) * channels, ()),
        thickness_mm={} if thickness is None else {1: thickness},
    )


def plan_for(**changes) -> Plan:
    values = {
        "dims": 3,
        "orientation": "RAS",
        "spacing_mm": (1.0, 1.0, 2.0),
        "patch_size": (16, 16, 8),
        "batch_size": 2,
        "in_channels": 1,
        "normalization": (ChannelPlan(kind="zscore"),),
        "channels": (8, 16),
        "strides": ((1, 1, 1), (2, 2, 2)),
        **changes,
    }
    return Plan(**values)
