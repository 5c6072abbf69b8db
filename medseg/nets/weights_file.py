"""Weight files: `.safetensors` by their header first, and what `torch.save` wrote, without running code from either.

A `.safetensors` file is 8 bytes (little-endian length of the header), a JSON header with name, dtype, shape and place
of each tensor, then the numbers. The header alone shows whether the file fits, before any memory is allocated.
Format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import argparse
import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from medseg.errors import CheckpointError

__all__ = ["StoredTensor", "first_line", "load_safetensors", "load_torch_file", "read_header", "read_tensors"]

# A header takes about 100 bytes a tensor; networks have hundreds of them.
LARGEST_HEADER = 4 << 20
# Read at a time: a file in a zip is copied once more on its way.
CHUNK = 16 << 20
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


# Training scripts, torchvision's among them, keep their command line beside the weights; it holds values only.
_PLAIN: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [argparse.Namespace]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """What the header says of a tensor; `begin` and `end` count bytes after the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(file: IO[bytes], size: int, seen: Callable[[bytes], Any] | None = None) -> dict[str, StoredTensor]:
    """The tensors of a `.safetensors` file in the order of their bytes; none of these is read.

    Args:
        file: at its beginning; afterwards at the first byte behind the header.
        size: bytes of the file.
        seen: called with what was read, e.g. a hash's `update`.

    Raises:
        ValueError: for anything that is not such a file; the message continues a sentence that begins with its name.
    """
    start = _exactly(file, 8)
    length = int.from_bytes(start, "little")
    if length > min(size - 8, LARGEST_HEADER):
        raise ValueError(f"its header would have {length} of its {size} bytes, at most {LARGEST_HEADER} are expected")
    header = _exactly(file, length)
    if seen is not None:
        seen(start + header)
    try:
        content = json.loads(header, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("its header names no tensors")
    content.pop("__metadata__", None)
    found = {name: _stored(name, entry) for name, entry in content.items()}
    ordered = dict(sorted(found.items(), key=lambda item: (item[1].begin, item[1].end)))
    place = 0
    for name, each in ordered.items():
        if each.begin != place:
            raise ValueError(f"{name[:80]!r} does not begin where the tensor before it ends")
        place = each.end
    if place != size - 8 - length:
        raise ValueError(f"its header promises {place} bytes of numbers, it holds {size - 8 - length}")
    return ordered


def read_tensors(
    file: IO[bytes], header: Mapping[str, StoredTensor], seen: Callable[[memoryview], Any] | None = None
) -> dict[str, Tensor]:
    """The tensors that `read_header` found, read from where it stopped, each into memory of its own.

    Args:
        file: behind its header.
        header: of this file.
        seen: called with the bytes of each tensor, in their order.

    Raises:
        ValueError: for a file that ends early or holds NaN or infinite numbers; the message continues a sentence that
            begins with its name.
    """
    tensors = {}
    for name, each in header.items():
        flat = torch.empty(each.end - each.begin, dtype=torch.uint8)
        place = flat.numpy().data
        done = 0
        while done < len(place):
            count = file.readinto(place[done : done + CHUNK])  # type: ignore[attr-defined]
            if not count:
                raise ValueError("it ends early")
            done += count
        if seen is not None:
            seen(place)
        tensor = flat.view(each.dtype).view(each.shape)
        # Both are NaN where any number is; `isfinite` would make two more tensors of the size.
        if tensor.is_floating_point() and tensor.numel() and not all(map(math.isfinite, map(float, tensor.aminmax()))):
            raise ValueError(f"it holds NaN or infinite weights ({name[:80]!r})")
        tensors[name] = tensor
    if file.read(1):
        raise ValueError("it has further bytes after its last tensor")
    return tensors


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file.

    Raises:
        CheckpointError: damaged, not such a file, or with NaN or infinite numbers.
    """
    try:
        with path.open("rb") as file:
            return read_tensors(file, read_header(file, os.fstat(file.fileno()).st_size))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable .safetensors file ({first_line(error)})") from None


def load_torch_file(path: Path, advice: str) -> Any:
    """What `torch.save` wrote, if it holds nothing but tensors and plain values; no code in it is run.

    Args:
        path: the file.
        advice: what to do about a file that cannot be read, for the message.

    Raises:
        CheckpointError: damaged, or more than tensors and plain values.
    """
    try:
        if not path.is_file():
            raise ValueError("not a file")
        _refuse_packed(path)
        with torch.serialization.safe_globals(_PLAIN):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Of a hostile pickle torch raises whatever its instructions lead to.
        raise CheckpointError(f"{path}: damaged, or more than weights ({first_line(error)}); {advice}") from None


def first_line(error: BaseException) -> str:
    """The first line of an error's message, shortened."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _refuse_packed(path: Path) -> None:
    """Refuse compressed entries: torch stores its own uncompressed, and these could expand without limit."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    unpacked = sum(each.file_size for each in entries)
    if any(each.compress_type != zipfile.ZIP_STORED for each in entries) or unpacked > path.stat().st_size:
        raise ValueError("its parts are compressed or overlap, as torch.save never writes them")


def _stored(name: str, entry: Any) -> StoredTensor:
    shown = repr(name[:80])
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"its header does not say dtype, shape and data_offsets of {shown}")
    dtype, shape, places = DTYPES.get(str(entry["dtype"])), entry["shape"], entry["data_offsets"]
    if dtype is None:
        raise ValueError(f"{shown} has numbers of type {str(entry['dtype'])[:20]!r}; expected F32")
    if not _are_counts(shape) or not _are_counts(places) or len(shape) > 8 or len(places) != 2:
        raise ValueError(f"the shape or the offsets of {shown} are invalid")
    if math.prod(shape) * dtype.itemsize != places[1] - places[0]:
        raise ValueError(f"the shape of {shown} does not match its number of bytes")
    return StoredTensor(dtype, tuple(shape), places[0], places[1])


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(each) is int and 0 <= each < 2**48 for each in values)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("its header has a duplicate key")
    return found


def _exactly(file: IO[bytes], count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise ValueError("it ends early")
    return content
