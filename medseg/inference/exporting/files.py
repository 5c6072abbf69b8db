"""The networks of an exported bundle: their files read with bounds, then opened by the runtime that they are for."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import CheckpointError
from medseg.inference.bundle_files import MEND, BundleFiles
from medseg.inference.bundle_info import BundleInfo
from medseg.inference.onnx_network import OnnxNetwork
from medseg.inference.openvino_network import OpenvinoNetwork

__all__ = ["StoredNetwork", "open_network", "open_networks", "partner", "read_network"]

# Of one ONNX file protobuf allows no more; the XML of a network of a thousand layers has a megabyte.
LARGEST = {".onnx": 2**31, ".xml": 64 << 20, ".bin": 2**33}


@dataclass(frozen=True, slots=True)
class StoredNetwork:
    """The network of one fold as it was read.

    Args:
        where: bundle and file, for messages.
        content: an ONNX file, or the XML of OpenVINO.
        weights: what belongs to the XML.
    """

    where: str
    content: bytes
    weights: bytes | None = None


def partner(name: str) -> tuple[str, ...]:
    """The file that belongs to one of a bundle: of an XML its weights.

    Example:
        >>> partner("network_fold0.xml"), partner("network_fold0.onnx")
        (('network_fold0.bin',), ())
    """
    return (f"{name.removesuffix('.xml')}.bin",) if name.endswith(".xml") else ()


def read_network(files: BundleFiles, name: str, place: Path, seen: Callable[[bytes], object]) -> StoredNetwork:
    """The network of one fold; nothing of it is run.

    Args:
        files: the open bundle.
        name: the ONNX file, or the XML, whose weights are read, too.
        place: the bundle, for messages.
        seen: called with what was read, e.g. a hash's `update`.

    Raises:
        CheckpointError: a link or device, a file that ends early, or one larger than any network.
    """
    parts = []
    for each in (name, *partner(name)):
        largest = LARGEST[Path(each).suffix]
        with files.open(each) as (file, size):
            if size > largest:
                raise CheckpointError(
                    f"{place}: {each} has {size / 1e9:.1f} GB, the file of a network at most {largest / 1e9:.1f} GB; "
                    f"{MEND}"
                )
            content = file.read(size + 1)
        if len(content) != size:
            raise CheckpointError(f"{place}: {each} is damaged (it has {len(content)} of {size} bytes); {MEND}")
        seen(content)
        parts.append(content)
    return StoredNetwork(f"{place}: {name}", *parts)


def open_network(stored: StoredNetwork, info: BundleInfo) -> OnnxNetwork | OpenvinoNetwork:
    """The network, ready to run on the CPU.

    Args:
        stored: of one fold.
        info: the bundle's `model.json`.

    Raises:
        CheckpointError: damaged; of other files, code, loops or branches; not of this model's channels and patch.
        MissingPartError: the runtime is not installed.
    """
    network = (
        OnnxNetwork(stored.content, stored.where)
        if stored.weights is None
        else OpenvinoNetwork(stored.content, stored.weights, stored.where)
    )
    patch = info.plan.patch_size
    for what, found, channels in (
        ("takes", network.input_shape, info.net.in_channels),
        ("gives", network.output_shape, info.net.out_channels),
    ):
        wanted = (None, channels, *patch)
        if (
            len(found) != len(wanted)
            or found[0] is not None
            or any(n not in (None, w) for n, w in _pairs(found, wanted))
        ):
            raise CheckpointError(
                f"{stored.where} {what} arrays of shape {_shown(found)}, expected {_shown(wanted)} after model.json; "
                "the file belongs to another model"
            )
    return network


def open_networks(
    stored: Mapping[int, StoredNetwork], info: BundleInfo, folds: Container[int] | None = None
) -> tuple[OnnxNetwork | OpenvinoNetwork, ...]:
    """The networks of an exported bundle by rising fold, ready to run on the CPU without torch.

    Args:
        stored: fold -> network, as `read_bundle` gives it.
        info: the bundle's `model.json`.
        folds: those wanted; None: all.

    Raises:
        CheckpointError, MissingPartError: as `open_network`.
    """
    return tuple(open_network(each, info) for fold, each in sorted(stored.items()) if folds is None or fold in folds)


def _pairs(found: tuple[int | None, ...], wanted: tuple[int | None, ...]) -> list[tuple[int | None, int | None]]:
    return list(zip(found[1:], wanted[1:], strict=True))


def _shown(shape: tuple[int | None, ...]) -> str:
    return " x ".join("any" if n is None else str(n) for n in shape)
