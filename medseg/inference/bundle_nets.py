"""Networks of a bundle: those of the catalogue without running anything of the bundle's, others by permission.

A network of the catalogue is built on the meta device, where it takes no memory, compared with the header of the
weights, and given the tensors that were read. One that is not part of medseg is built as its builder does it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from medseg.config import MOST_VOXELS
from medseg.errors import CheckpointError, ConfigError, MedsegError, MissingPartError
from medseg.inference.bundle_info import BundleInfo, NetInfo
from medseg.inference.device import device_memory
from medseg.inference.window_batch import window_bytes
from medseg.nets import call_builder
from medseg.nets.profile import build_on_meta
from medseg.nets.weights_file import StoredTensor, first_line
from medseg.plugins import is_plugin, resolve_permitted

__all__ = ["catalogue_weights", "refuse_misfit", "unfilled_net", "with_weights"]

# Half-precision weights are accepted where the network has single precision; they are widened on loading.
HALVES = (torch.float16, torch.bfloat16)


def catalogue_weights(place: str | Path, info: BundleInfo) -> Mapping[str, Tensor] | None:
    """The weights, on the meta device, of a network of the catalogue; None for one that is exported or not of medseg.

    Raises:
        CheckpointError: for an unknown network, or options that it cannot be built with.
    """
    exported = info.network.format != "safetensors"
    return None if exported or is_plugin(info.net.name) else _on_meta(place, info).state_dict()


def unfilled_net(place: Path, folders: Sequence[Path], info: BundleInfo, permitted: Sequence[str]) -> nn.Module:
    """The network of a bundle before it has its weights.

    Args:
        place: the bundle, for messages.
        folders: where its files are; nothing is imported from there.
        info: its `model.json`.
        permitted: modules that may be imported, see `medseg.plugins.permitted_modules`.

    Returns:
        On the meta device, or, where the network is not part of medseg, in memory with weights of its own.

    Raises:
        CheckpointError: a network that is neither in the catalogue nor permitted, or cannot be built with its options,
            or needs more memory than there is.
        MissingPartError: one that was permitted but is not installed.
    """
    if not is_plugin(info.net.name):
        net = _on_meta(place, info)
        _refuse_what_does_not_fit(net, place, info)
        return net
    try:
        builder = resolve_permitted(info.net.name, str(place), permitted, folders)
    except ConfigError as error:
        raise MissingPartError(f"{error}; this model's net is not part of medseg") from None
    try:
        return call_builder(builder, info.net.name, info.net.builder_arguments)
    except MedsegError as error:
        raise CheckpointError(f"{place}: {error}") from None
    except Exception as error:  # Options of a bundle lead a builder into any error.
        raise _impossible(place, info.net, error) from None


def with_weights(net: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """The network with weights that fit it; of one on the meta device these tensors become its own, without a copy."""
    own = net.state_dict()
    on_meta = any(value.is_meta for value in own.values())
    taken = {key: value.to(own[key].dtype) for key, value in weights.items()}
    net.load_state_dict(taken, assign=on_meta)
    return net


def refuse_misfit(header: Mapping[str, StoredTensor], wanted: Mapping[str, Tensor], where: str, net_name: str) -> None:
    """Compare the header of a weight file with what a network has, before its numbers are read.

    Raises:
        CheckpointError: naming the first weight that is missing, superfluous, or of another shape or type.
    """
    wrong = [f"{k} is missing" for k in wanted if k not in header]
    wrong += [f"{_shown(k)} is not in the net" for k in header if k not in wanted]
    for key, value in wanted.items():
        found = header.get(key)
        if found is not None and found.shape != tuple(value.shape):
            wrong.append(f"{key} has shape {found.shape}, the net {tuple(value.shape)}")
        elif found is not None and found.dtype not in (value.dtype, *(HALVES if value.dtype == torch.float32 else ())):
            wrong.append(f"{key} is {found.dtype}, in the net {value.dtype}".replace("torch.", ""))
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise CheckpointError(f"{where} does not fit the net {net_name}: {wrong[0]}{more}")


def _on_meta(place: str | Path, info: BundleInfo) -> nn.Module:
    try:
        return build_on_meta(**info.net.arguments)
    except MedsegError as error:
        raise CheckpointError(f"{place}: {_shown(str(error), 400)}") from None
    except Exception as error:  # Each builder fails in its own way on options of a wrong kind.
        raise _impossible(place, info.net, error) from None


def _impossible(place: str | Path, net: NetInfo, error: Exception) -> CheckpointError:
    reason = f"{type(error).__name__}: {_shown(first_line(error), 120)}"
    return CheckpointError(f"{place}: the net {net.name} cannot be built with the options of this model ({reason})")


def _refuse_what_does_not_fit(net: nn.Module, place: Path, info: BundleInfo) -> None:
    """Refuse a model whose weights, or one window of it, take more memory than the machine has."""
    patch = info.plan.patch_size
    # What networks pad a window to.
    multiple = getattr(net, "total_stride", None) or getattr(net, "multiple", None) or (1,) * len(patch)
    if math.prod(-(-p // m) * m for p, m in zip(patch, multiple, strict=True)) > MOST_VOXELS:
        raise CheckpointError(
            f"{place}: the net {info.net.name} would fill a window of {list(patch)} voxels up to multiples of "
            f"{list(multiple)}, more than {MOST_VOXELS} voxels"
        )
    memory = device_memory(torch.device("cpu"))
    weights = sum(value.nbytes for value in net.state_dict().values())
    try:
        needed = weights + window_bytes(net, info.net.in_channels, patch, memory)
    except Exception as error:  # A network that cannot take its own window fails in a way of its own.
        raise _impossible(place, info.net, error) from None
    if needed > memory:
        raise CheckpointError(
            f"{place}: the weights and one window of this model take about {needed / 1e9:.1f} GB, this machine has "
            f"{memory / 1e9:.1f} GB; use a larger machine"
        )


def _shown(text: str, length: int = 80) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:length])
