"""What can be imported here: run as a program of its own, since a broken library may end the process that loads it.

`python -m medseg.commands.probe STEP...` prints one JSON object a line: `{"start": step}` before each step, and after
it `{"step": ..., "found": ..., "error": ...}`. A step is `import:MODULE`, `torch` or `decoders`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import IO, Any

__all__ = ["main"]

# Transfer syntaxes by the name that people use, and the decoder of imagecodecs that reads them.
_SYNTAXES = {
    "JPEG": ("1.2.840.10008.1.2.4.70", "JPEG8"),
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", "JPEGLS"),
    "JPEG 2000": ("1.2.840.10008.1.2.4.90", "JPEG2K"),
    "HTJ2K": ("1.2.840.10008.1.2.4.201", "JPEG2K"),
    "RLE": ("1.2.840.10008.1.2.5", "DICOMRLE"),
}


def main(steps: list[str], out: IO[str]) -> None:
    """Go through the steps; what a step raises is reported, not raised."""
    for step in steps:
        print(json.dumps({"start": step}), file=out, flush=True)
        found: Any = None
        error = ""
        try:
            kind, _, name = step.partition(":")
            found = _STEPS[kind](name)
        except KeyboardInterrupt:
            raise
        except BaseException as problem:  # a library may raise anything while it is imported, even SystemExit
            error = f"{type(problem).__name__}: {problem}"
        print(json.dumps({"step": step, "found": found, "error": error}), file=out, flush=True)


def _import(name: str) -> bool:
    """Whether there is such a module; it is imported, too."""
    if importlib.util.find_spec(name) is None:
        return False
    importlib.import_module(name)
    return True


def _torch(name: str) -> dict[str, Any]:
    import torch

    # A sum shows what an import does not: kernels that the processor cannot run, or a driver too old for the devices.
    float(torch.ones(8, 8).matmul(torch.ones(8, 8)).sum())
    devices = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    broken = ""
    if devices:
        try:
            float(torch.ones(8, device="cuda").sum())
        except RuntimeError as error:
            broken = str(error).splitlines()[0]
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "devices": devices,
        "devices_broken": broken,
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def _decoders(name: str) -> dict[str, list[str]]:
    """For each compression, the libraries that can decode it here."""
    import imagecodecs
    from pydicom.pixels.decoders.base import get_decoder

    result = {}
    for title, (uid, codec) in _SYNTAXES.items():
        own = ["imagecodecs"] if getattr(getattr(imagecodecs, codec, None), "available", False) else []
        result[title] = own + sorted(get_decoder(uid).available_plugins)
    return result


_STEPS: dict[str, Callable[[str], Any]] = {"import": _import, "torch": _torch, "decoders": _decoders}


if __name__ == "__main__":
    # What libraries print while they are imported must not mix with the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warnings.simplefilter("ignore")
    main(sys.argv[1:], answers)
