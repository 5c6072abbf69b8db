"""`model.json` of format_version 1, brought to version 2 before anything of it is checked, compared or joined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.errors import ConfigError
from medseg.preparation.plan_upgrade import upgrade_plan

__all__ = ["upgrade_info"]

VERSION = 2
ADDED = ("kind", "folds", "network", "source", "members", "reference_ranges")


def upgrade_info(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a `model.json` in the form of version 2; of version 2 only the plan is looked at.

    Args:
        values: as read, not checked yet; not changed.

    Raises:
        ConfigError: for keys of version 2 in a file that says it is of version 1, in it or in its plan.

    Example:
        >>> upgrade_info({"format_version": 1, "fingerprint": None})
        {'format_version': 2, 'kind': 'single', 'reference_ranges': None}
    """
    upgraded = dict(values)
    if "plan" in values:
        upgraded["plan"] = upgrade_plan(values["plan"])
    if values.get("format_version") != 1:
        return upgraded
    for key in ADDED:
        if key in values:
            raise ConfigError(f"{key} is a key of format_version 2, but this file is of version 1")
    upgraded |= {"format_version": VERSION, "kind": "single"}
    if isinstance(values.get("prediction"), Mapping):
        if "side_names" in values["prediction"]:
            raise ConfigError("prediction.side_names is a key of format_version 2, but this file is of version 1")
        upgraded["prediction"] = {**values["prediction"], "side_names": "few"}
    if "fingerprint" in upgraded:
        upgraded["reference_ranges"] = upgraded.pop("fingerprint")
    return upgraded
