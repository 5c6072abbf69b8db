"""`model.json` read with bounds: of size and depth, no NaN, no key twice; then checked as `BundleInfo`, or as
`CompositeInfo` where the model is made of others."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from medseg.errors import CheckpointError, ConfigError
from medseg.inference.bundle_files import INFO, MEND
from medseg.inference.bundle_info import BundleInfo
from medseg.inference.bundle_parts import COMPOSITES, CompositeInfo
from medseg.inference.bundle_upgrade import VERSION, upgrade_info
from medseg.inference.postprocess import check_keep_largest, check_postprocess

__all__ = ["read_any_info", "read_info"]

# The reference ranges of a model of 100 labels take half a megabyte.
LARGEST_INFO = 8 << 20
DEEPEST = 24
LONGEST_KEY = 200


def read_info(file: IO[bytes], place: Path) -> tuple[BundleInfo, bytes]:
    """What `model.json` of a single model says, and its bytes; arguments as those of `read_any_info`.

    Raises:
        CheckpointError: as `read_any_info`; a model made of others.
    """
    info, content = read_any_info(file, place)
    if isinstance(info, CompositeInfo):
        raise CheckpointError(
            f"{place} is one of the {COMPOSITES[info.kind]}, which can be used for prediction only; give one of its "
            f"members, such as {place / 'members' / info.members[0]}"
        )
    return info, content


def read_any_info(file: IO[bytes], place: Path) -> tuple[BundleInfo | CompositeInfo, bytes]:
    """What `model.json` says, and its bytes.

    Args:
        file: at its beginning.
        place: the bundle, for messages.

    Raises:
        CheckpointError: damaged, larger than 8 MB, impossible values, or written by a newer medseg.
    """
    content = file.read(LARGEST_INFO + 1)
    if len(content) > LARGEST_INFO:
        raise CheckpointError(f"{place}: {INFO} has more than {LARGEST_INFO >> 20} MB, as that of no model; {MEND}")
    try:
        values = json.loads(content, object_pairs_hook=_without_repeats, parse_constant=_no_number, parse_float=_finite)
        if _deeper_than(values, DEEPEST):
            raise RecursionError("nested too deeply")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{place}: {INFO} is damaged ({error}); {MEND}") from None
    version = values.get("format_version") if isinstance(values, dict) else None
    if version not in range(1, VERSION + 1):
        raise CheckpointError(
            f"{place}: {INFO} has format_version {repr(version)[:20]}, this medseg reads 1 to {VERSION}; update medseg"
        )
    return _checked(values, place), content


def _checked(values: dict[str, Any], place: Path) -> BundleInfo | CompositeInfo:
    try:
        values = upgrade_info(values)
        kind = values.get("kind")
        if isinstance(kind, str) and kind in COMPOSITES:
            composite = CompositeInfo.model_validate(values)
            check_postprocess(composite.postprocess, composite.scheme)
            check_keep_largest(composite.keep_largest, composite.scheme)
            return composite
        info = BundleInfo.model_validate(values)
        channels = info.scheme.out_channels
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False, include_url=False)[0]
        key = ".".join(str(part)[:LONGEST_KEY] for part in first["loc"]) or "contents"
        text = first["msg"].removeprefix("Value error, ")
        raise CheckpointError(f"{place}: {INFO}: {_plain(key)}: {_plain(text)}; {MEND}") from None
    except ConfigError as error:
        raise CheckpointError(f"{place}: {INFO}: {_plain(str(error))}") from None
    if (info.net.out_channels, info.net.in_channels, info.net.dims) != (
        channels,
        info.plan.in_channels + info.previous_labels,
        info.plan.dims,
    ):
        raise CheckpointError(f"{place}: {INFO}: net does not fit labels and plan (channels or dims differ); {MEND}")
    if info.network.format == "safetensors" and info.network.precision == "int8":
        raise CheckpointError(f"{place}: this medseg cannot run weights stored as int8 yet; update medseg")
    return info


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{_plain(key[:LONGEST_KEY])!r} is given twice")
        found[key] = value
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _plain(text: str) -> str:
    """One line without control characters, whatever a file says."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))[:400]
