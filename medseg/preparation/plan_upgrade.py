"""Plans of format_version 1: brought to version 2 before anything else happens, to mean exactly what they meant.

Hashes go the other way: a plan that does what version 1 did is hashed as version 1 wrote it, so that checkpoints and
prepared cases of older releases stay valid.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from medseg.errors import ConfigError

if TYPE_CHECKING:
    from medseg.preparation.plan import Plan

__all__ = ["hashed_content", "upgrade_plan"]

VERSION = 2
# What version 1 did without saying so.
IMPLIED: Mapping[str, Any] = {
    "crop": "none",
    "normalize_on": "network",
    "image": {"order": 1, "clip": True, "prefilter": "none", "thick_axis": "same"},
    "labels": {"method": "nearest", "ties": "lower"},
    "logits": {"order": 1, "thick_axis": "same"},
    "shape_rounding": "extent",
    "padding": "minimum",
    "low_resolution_ties": "upper",
    "windows": {"overlap": 0.5, "starts": "whole_step", "weights": "gaussian"},
    "unmirrored": None,
    "rotation_degrees": None,
    "scale": None,
    "seeding": "batch",
}
ADDED = (*IMPLIED, "axes", "transpose")
# Keys younger than version 2; a plan that does not use them is written without them.
YOUNGER = ("kernels", "size")


def upgrade_plan(values: Any) -> Any:
    """The values of a plan in the form of version 2; those of another version, or of no plan, come back as they are.

    Args:
        values: as read from YAML or JSON, not checked yet; not changed.

    Raises:
        ConfigError: for keys of version 2 in a plan that says it is of version 1, and for a later version.

    Example:
        >>> upgrade_plan({"dims": 2, "orientation": None, "normalization": [{"kind": "zscore"}]})["padding"]
        'minimum'
    """
    if not isinstance(values, Mapping):
        return values
    version = values.get("format_version", 1)
    if isinstance(version, int) and version > VERSION:
        raise ConfigError(f"the plan has format_version {version}, this medseg reads 1 to {VERSION}; update medseg")
    if version != 1:
        return values
    channels = values.get("normalization")
    channels = channels if isinstance(channels, list | tuple) else ()
    new = [key for key in (*ADDED, *YOUNGER) if key in values]
    added = ("region", "background")
    new += [key for channel in channels if isinstance(channel, Mapping) for key in added if key in channel]
    if new:
        raise ConfigError(
            f"{new[0]} is a key of plans of format_version 2, but this plan is of version 1; remove the key"
        )
    return {**values, **implied(values.get("orientation")), "format_version": VERSION}


def implied(orientation: Any) -> dict[str, Any]:
    """What version 1 did without saying so: the values of the parts that version 2 added."""
    pictures = orientation is None
    return {**IMPLIED, "axes": "file" if pictures else "RAS", "transpose": [0, 1] if pictures else [0, 1, 2]}


def hashed_content(plan: Plan, parts: Collection[str] | None = None) -> dict[str, Any]:
    """The content of a plan for hashes: as version 1 wrote it, and those newer parts that differ from what it did.

    Args:
        plan: any.
        parts: names of the parts that matter; None: all.

    Example:
        >>> plan = medseg.load_model("runs/lung/model").info.plan
        >>> hashed_content(plan, ("dims", "crop"))
        {'dims': 3}
    """
    values = plan.model_dump(mode="json")
    before = implied(plan.orientation)
    values = {key: each for key, each in values.items() if key not in ADDED or each != before[key]}
    values.pop("size", None)  # for people
    values["format_version"] = 1
    for channel in values["normalization"]:
        if channel["region"] == ("foreground" if channel["kind"] == "zscore" else "all"):
            del channel["region"]
        if channel["background"] in (None, "common"):
            del channel["background"]
    return values if parts is None else {key: each for key, each in values.items() if key in parts}
