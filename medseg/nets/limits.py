"""Bounds on the options of the networks, checked before anything is built.

A builder given a million channels or stages would ask for all memory, or take for ever, before it fails. These bounds
lie far beyond every network that anybody trains; within them a network is built on the meta device in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from medseg.errors import ConfigError

__all__ = ["LARGEST_NUMBER", "MOST_CHANNELS", "MOST_STAGES", "check_options"]

# Of the image, and logits per voxel.
MOST_CHANNELS = 1024
MOST_STAGES = 16
# Residual blocks or convolutions of all stages; ResNet-152 has 50 blocks.
MOST_BLOCKS = 256
COUNTS = ("blocks", "convs", "decoder_convs")
# Features of a layer before `width`, dilations and the like; FCN has 4096 features.
LARGEST_NUMBER = 16384
LARGEST_WIDTH = 64.0
# Along each axis: a window of 16^3 voxels has a table of 17 million pairs in each layer.
LARGEST_WINDOW = 16
# Scales of DeepLab v2: memory grows with their cube.
LARGEST_SCALE = 2.0
LONGEST_TEXT = 64


def check_options(name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse options that are out of bounds.

    Args:
        name: of the network, for the message.
        arguments: of its builder: numbers, texts, and lists of them nested at most twice.

    Raises:
        ConfigError: naming the option and its bound.

    Example:
        >>> check_options("unet", {"dims": 3, "in_channels": 1, "out_channels": 2, "channels": (32, 64)})
    """
    for key, value in arguments.items():
        problem = _problem(key, value)
        if problem:
            raise ConfigError(f"{name}: option {key[:LONGEST_TEXT]!r} {problem}")


def _problem(key: str, value: Any) -> str:
    """What is wrong with an option, '' where nothing is."""
    if key in ("in_channels", "out_channels") and not (type(value) is int and 1 <= value <= MOST_CHANNELS + 1):
        return f"is {_shown(value)}; expected a whole number from 1 to {MOST_CHANNELS}"
    if key == "width" and not (_is_number(value) and 0 < value <= LARGEST_WIDTH):
        return f"is {_shown(value)}; expected a positive number up to {LARGEST_WIDTH:g}"
    if key == "window" and not (type(value) is int and 2 <= value <= LARGEST_WINDOW):
        return f"is {_shown(value)}; expected 2 to {LARGEST_WINDOW} voxels"
    if not _is_plain(value, 2):
        return (
            f"is {_shown(value)}; expected numbers up to {LARGEST_NUMBER}, short texts, or lists of at most "
            f"{MOST_STAGES} of them"
        )
    numbers = [each for each in value if _is_number(each)] if isinstance(value, list | tuple) else []
    if key in COUNTS and sum(numbers) > MOST_BLOCKS:
        return f"is {_shown(value)}; expected {MOST_BLOCKS} at most in all stages together"
    if key == "scales" and any(each > LARGEST_SCALE for each in numbers):
        return f"is {_shown(value)}; expected factors up to {LARGEST_SCALE:g}"
    return ""


def _is_plain(value: Any, depth: int) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT
    if isinstance(value, list | tuple):
        return depth > 0 and len(value) <= MOST_STAGES and all(_is_plain(each, depth - 1) for each in value)
    return _is_number(value)


def _is_number(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and math.isfinite(value) and abs(value) <= LARGEST_NUMBER


def _shown(value: Any) -> str:
    """A short form for a message, made without writing out what may be enormous."""
    if isinstance(value, int | float | bool) or value is None:
        # A whole number may have thousands of digits.
        return str(value) if not isinstance(value, int) or abs(value) < 10**18 else "an enormous number"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return repr(value[:LONGEST_TEXT]) if isinstance(value, str) else f"a {type(value).__name__}"
