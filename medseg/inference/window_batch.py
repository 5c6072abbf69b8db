"""How many windows go through a network at a time."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medseg.inference.bundle_info import NetInfo
from medseg.inference.device import Place, device_memory
from medseg.plugins import is_plugin

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SMALLEST_BATCH", "window_bytes", "windows_at_a_time"]

log = logging.getLogger(__name__)

# Voxels per forward pass: beyond this a larger batch no longer runs faster, it only takes memory.
BATCH_VOXELS = {"cpu": 2**18, "cuda": 2**22}
LARGEST_BATCH = 32
# torch leaves oneDNN for a far slower convolution where a batch of one meets a small feature map.
SMALLEST_BATCH = 2
# Maps of a window's size that no network holds at once: where these fit, nothing needs to be counted.
MAPS = 1024
# Of the device's memory that one pass may take; image, mask and what else there is need the rest.
SHARE = 0.3


def windows_at_a_time(net: NetInfo, patch: Sequence[int], device: Place, counted: bool = True) -> int:
    """Windows per forward pass: as many as still make it faster, fewer where the device's memory does not hold them.

    From all of the memory, not from what is free, so that a model gives the same bytes on every run: with another batch
    the last digits differ. What runs out of memory all the same is halved later, see `logit_slabs`; plug-ins always
    rely on that.

    Args:
        net: the network.
        patch: voxels of a window.
        device: where it runs.
        counted: whether the memory of its layers can be counted, which needs torch; else single windows are taken
            where a large network might not fit.
    """
    voxels = math.prod(patch)
    wanted = max(SMALLEST_BATCH, min(LARGEST_BATCH, BATCH_VOXELS.get(device.type, BATCH_VOXELS["cpu"]) // voxels))
    room = SHARE * device_memory(device)
    # A plug-in may compute with numbers, which the meta device does not have.
    if MAPS * 4 * voxels * wanted < room or is_plugin(net.name):
        return wanted
    if not counted:
        return 1
    from medseg.nets.profile import build_on_meta, forward_bytes

    each = forward_bytes(build_on_meta(**net.arguments), (1, net.in_channels, *patch))
    if each > room:
        log.warning("one window of the network takes about %.1f GB of %.1f GB", each / 1e9, room / SHARE / 1e9)
    return max(1, min(wanted, int(room / each)))


def window_bytes(net: nn.Module, channels: int, patch: Sequence[int], memory: int) -> int:
    """About how many bytes of maps one window takes; 0 where `memory` holds far more than any network needs.

    Args:
        net: on the meta device.
        channels: of the image.
        patch: voxels of a window.
        memory: bytes of the machine.
    """
    if MAPS * 4 * math.prod(patch) < SHARE * memory:
        return 0
    from medseg.nets.profile import forward_bytes

    return forward_bytes(net, (1, channels, *patch))
