"""The tensors of a TorchScript archive, read as data: its code is neither run nor looked at.

The archive is a zip. `data.pkl` pickles the modules, whose classes are in the archive's own code; here an inert
stand-in takes the place of each. The numbers lie in `data/0`, `data/1`, ...
Format: torch/csrc/jit/docs/serialization.md of PyTorch.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from medseg.errors import CheckpointError

__all__ = ["load_torchscript_tensors"]

LARGEST_PICKLE = 16 << 20
LARGEST_TENSOR = 1 << 30
DEEPEST = 64
DTYPES = {"FloatStorage": torch.float32, "HalfStorage": torch.float16, "LongStorage": torch.int64}


class _Module:
    """In place of a module of the archive: keeps what it is given, and does nothing."""

    def __setstate__(self, state: Any) -> None:
        self.held = state if isinstance(state, dict) else {}


class _Stored:
    """In place of a tensor: where its numbers are."""

    def __init__(self, storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> None:
        self.parts = (storage, offset, shape, stride)


class _Reader(pickle.Unpickler):
    """Knows the three names that the format needs, and refuses every other one."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Stored
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in DTYPES:
            return name
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no network needs"[:200])

    def persistent_load(self, pid: Any) -> Any:
        return pid


def load_torchscript_tensors(file: IO[bytes], where: str | Path) -> dict[str, Tensor]:
    """The parameters of a TorchScript archive, by the path of their modules.

    Args:
        file: the archive.
        where: it, for messages.

    Raises:
        CheckpointError: a file of another kind, a damaged one, or one that names code outside itself.
    """
    try:
        with zipfile.ZipFile(file) as opened:
            root = next(
                (
                    n.removesuffix("data.pkl")
                    for n in opened.namelist()
                    if n.count("/") == 1 and n.endswith("/data.pkl")
                ),
                None,
            )
            if root is None:
                raise ValueError("it has no data.pkl")
            read = _Reader(io.BytesIO(_content(opened, f"{root}data.pkl", LARGEST_PICKLE))).load()
            found: dict[str, Tensor] = {}
            _collect(read, "", opened, root, found, DEEPEST)
    except (zipfile.BadZipFile, pickle.UnpicklingError, KeyError, ValueError, TypeError, EOFError, OSError) as error:
        raise CheckpointError(f"{where} cannot be read as a TorchScript archive ({error}); install it again") from None
    except (AttributeError, IndexError, RecursionError, MemoryError, OverflowError) as error:
        # What a pickle that was tampered with makes the unpickler do.
        raise CheckpointError(f"{where} is damaged ({type(error).__name__}); install it again") from None
    return found


def _content(opened: zipfile.ZipFile, name: str, most: int) -> bytes:
    entry = opened.getinfo(name)
    if entry.file_size > most:
        raise ValueError(f"{name} has {entry.file_size / 1e6:.0f} MB, more than {most >> 20} MB")
    return opened.read(entry)


def _collect(held: Any, path: str, opened: zipfile.ZipFile, root: str, found: dict[str, Tensor], depth: int) -> None:
    if depth == 0:
        raise ValueError("its modules are nested too deeply")
    if isinstance(held, _Module):
        for name, each in getattr(held, "held", {}).items():
            _collect(each, f"{path}.{name}" if path else str(name), opened, root, found, depth - 1)
    elif isinstance(held, _Stored):
        found[path] = _tensor(held, opened, root)


def _tensor(stored: _Stored, opened: zipfile.ZipFile, root: str) -> Tensor:
    (_, kind, key, _, count), offset, shape, stride = stored.parts
    shape, size = tuple(int(n) for n in shape), math.prod(int(n) for n in shape)
    expected: list[int] = []
    step = 1
    for n in reversed(shape):
        expected.insert(0, step)
        step *= n
    if tuple(stride) != tuple(expected) or offset != 0 or count != size:
        raise ValueError("a tensor does not fill its storage in order")
    content = _content(opened, f"{root}data/{int(key)}", LARGEST_TENSOR)
    dtype = DTYPES[kind]
    if len(content) != size * dtype.itemsize:
        raise ValueError(f"data/{int(key)} has {len(content)} bytes, expected {size * dtype.itemsize}")
    return torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape)
