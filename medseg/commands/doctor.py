"""`medseg doctor`: what this machine and this installation have, what is missing or broken, and what to do about it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from medseg.commands.requirements import Requirement, requirements
from medseg.errors import MissingPartError
from medseg.machine import VNNI, available_cpus, free_memory, processor
from medseg.version import __version__

__all__ = ["Check", "Report", "examine", "vector_extensions"]

State = Literal["ok", "missing", "broken"]
# A library that takes longer to load waits for something that will not come.
_SECONDS = 300
_VECTORS = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16"),
    "VNNI": VNNI,
}
# An environment of `requirements-deploy.txt` has none of these, and one of these runtimes.
FOR_TORCH = frozenset(("einops", "jinja2", "matplotlib", "monai", "safetensors", "scikit-image", "simpleitk", "torch"))
_RUNTIMES = ("onnxruntime", "openvino")
_WITHOUT_TORCH = "not installed: exported models predict without it, all else needs it"
_LEAST_DISK = 1 << 30
_LEAST_MEMORY = 2 << 30


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    Args:
        part: what it belongs to: 'machine', 'disk', 'torch', 'required', 'decoders' or 'optional'.
        name: of what was looked at.
        state: 'ok', 'missing' or 'broken'.
        found: what was found, or the error.
        advice: what to do; '' where all is well.
        required: whether medseg works without it.
    """

    part: str
    name: str
    state: State
    found: str
    advice: str = ""
    required: bool = True


@dataclass(frozen=True, slots=True)
class Report:
    """All checks, in the order they are shown."""

    checks: tuple[Check, ...]

    @property
    def problems(self) -> tuple[Check, ...]:
        """What is required and missing or broken."""
        return tuple(check for check in self.checks if check.required and check.state != "ok")

    def text(self) -> str:
        """A table, a line for each check, with what to do below those that are not well."""
        width = max(len(check.name) for check in self.checks)
        lines = [f"medseg {__version__}"]
        part = ""
        for check in self.checks:
            if check.part != part:
                part = check.part
                lines += ["", part]
            lines.append(f"  {check.state:<7}  {check.name:<{width}}  {check.found}".rstrip())
            if check.advice:
                lines.append(f"  {'':<7}  {'':<{width}}  -> {check.advice}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """The same for programs."""
        checks = [asdict(check) for check in self.checks]
        values = {"format_version": 1, "medseg": __version__, "ok": not self.problems, "checks": checks}
        return json.dumps(values, indent=2, ensure_ascii=False)

    def raise_for_problems(self) -> None:
        """Raise what the command line ends with.

        Raises:
            MissingPartError: something required is missing or broken; it is named.
        """
        if self.problems:
            names = ", ".join(f"{check.name} ({check.state})" for check in self.problems)
            raise MissingPartError(f"this installation cannot work as it is: {names}; the report says what to do")


def examine() -> Report:
    """Look at the machine and the installation. Every library is loaded in another process, which may fail."""
    needed = requirements()
    names = dict.fromkeys(each.module for each in needed)
    answers = _probe([*(f"import:{name}" for name in names), "torch", "decoders"])
    # Where torch is installed and broken, it was meant to be there.
    without = not Requirement("torch").version and any(
        answers.get(f"import:{name}", (None, ""))[0] for name in _RUNTIMES
    )
    torch = [Check("torch", "build", "missing", _WITHOUT_TORCH, _install("torch"), False)] if without else None
    checks = [
        *_machine(),
        *_disk(),
        *(torch or _torch(*answers["torch"])),
        *(
            _package(each, *answers[f"import:{each.module}"], not (without and each.package.lower() in FOR_TORCH))
            for each in needed
            if not each.extra
        ),
        *_decoders(*answers["decoders"]),
        *(_package(each, *answers[f"import:{each.module}"]) for each in needed if each.extra),
    ]
    return Report(tuple(checks))


def _probe(steps: Sequence[str]) -> dict[str, tuple[Any, str]]:
    """What each step found, and its error. A step that ends the process does not keep the others from being taken."""
    answers: dict[str, tuple[Any, str]] = {}
    left = list(steps)
    # The paths of this process, and not the current folder on top of them.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    while left:
        command = [sys.executable, "-P", "-m", "medseg.commands.probe", *left]
        reason = ""
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL
            )
            output, code = done.stdout, done.returncode
        except subprocess.TimeoutExpired as late:
            output, code, reason = late.stdout or b"", 0, f"loading it takes longer than {_SECONDS} seconds"
        for line in output.decode(errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError):
                answer = json.loads(line)
                answers[answer["step"]] = answer["found"], answer["error"]
        left = [step for step in left if step not in answers]
        if left:
            # The first without an answer is the one that ended the process.
            answers[left.pop(0)] = None, reason or _ending(code)
    return answers


def _ending(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"it ends the process by {signal.Signals(-code).name}"
    return f"it ends the process with exit code {code}"


def _machine() -> Iterator[Check]:
    usable, total = available_cpus(), os.cpu_count() or 1
    model, flags = processor()
    yield Check("machine", "system", "ok", f"{platform.platform()}, Python {platform.python_version()}")
    yield Check("machine", "processors", "ok", f"{usable} of {total} usable, {model or platform.machine()}")
    if flags:
        has, lacks = vector_extensions(flags)
        text = ", ".join(has) or "none"
        yield Check("machine", "CPU features", "ok", f"{text}; not: {', '.join(lacks)}" if lacks else text)
    free = free_memory()
    if free is not None:
        enough = free >= _LEAST_MEMORY
        advice = (
            "" if enough else "close other programs, or take a machine with more memory: training needs 2 GB or more"
        )
        yield Check(
            "machine", "memory", "ok" if enough else "broken", f"{free / 2**30:.1f} GB free", advice, required=False
        )


def vector_extensions(flags: Set[str]) -> tuple[list[str], list[str]]:
    """Those that networks gain from and a processor with these flags has, and those that it lacks."""
    has = [name for name, any_of in _VECTORS.items() if not flags.isdisjoint(any_of)]
    return has, [name for name in _VECTORS if name not in has]


def _disk() -> Iterator[Check]:
    # Without it neither archives nor masks can be written; other folders can be chosen.
    yield _folder("temporary files", Path(tempfile.gettempdir()) if _has_temporary_folder() else None, True)
    yield _folder("current folder", Path.cwd(), False)
    yield _folder("settings", _existing(Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")), False)


def _has_temporary_folder() -> bool:
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return False
    return True


def _existing(path: Path) -> Path:
    """The folder, or the one above it in which it would be made."""
    return next((each for each in (path, *path.parents) if each.is_dir()), path)


def _folder(name: str, folder: Path | None, required: bool) -> Check:
    if folder is None:
        advice = "make a folder that you may write into and set TMPDIR to it"
        return Check("disk", name, "missing", "no folder that can be written into", advice, required)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"medseg")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        found = f"{folder}: cannot be written ({error.strerror})"
        return Check("disk", name, "broken", found, "choose another folder, or change its permissions", required)
    enough = free >= _LEAST_DISK
    advice = "" if enough else "free some space: results and prepared cases need 1 GB or more"
    found = f"{folder}: {free / 2**30:.1f} GB free"
    return Check("disk", name, "ok" if enough else "broken", found, advice, required and free < _LEAST_DISK / 10)


def _torch(found: dict[str, Any] | None, error: str) -> Iterator[Check]:
    if found is None:
        yield Check("torch", "build", "broken", error, _install("torch"))
        return
    kind = f"CUDA {found['cuda']}" if found["cuda"] else "CPU only"
    text = f"{found['version']} ({kind}), kernels for {found['kernels']}, {found['threads']} threads"
    yield Check("torch", "build", "ok", text)
    if found["devices_broken"]:
        advice = "update the driver, or use --device cpu"
        yield Check("torch", "GPU", "broken", found["devices_broken"], advice, required=False)
    elif found["devices"]:
        yield Check("torch", "GPU", "ok", ", ".join(found["devices"]), required=False)
    else:
        advice = "" if not found["cuda"] else "install the driver of the GPU, if there is one; everything works without"
        yield Check("torch", "GPU", "missing", "none; networks run on the CPU", advice, required=False)


def _package(needed: Requirement, found: bool | None, error: str, required: bool = False) -> Check:
    part = "optional" if needed.extra else "required"
    name = f"{needed.package} [{needed.extra}]" if needed.extra else needed.package
    advice = f'pip install "medseg[{needed.extra}]"' if needed.extra else _install(needed.package)
    if error:
        return Check(part, name, "broken", " ".join(error.split()), advice, required)
    if not found:
        return Check(part, name, "missing", f"no module {needed.module}", advice, required)
    if needed.is_too_old:
        text = f"{needed.version} is too old; {needed.at_least} or newer is needed"
        return Check(part, name, "broken", text, advice, required)
    return Check(part, name, "ok", needed.version, required=required)


def _decoders(found: dict[str, list[str]] | None, error: str) -> Iterator[Check]:
    advice = _install("imagecodecs pydicom")
    if found is None:
        yield Check("decoders", "all", "broken", " ".join(error.split()), advice)
        return
    for name, libraries in found.items():
        state: State = "ok" if libraries else "missing"
        yield Check("decoders", name, state, ", ".join(libraries) or "none", "" if libraries else advice)


def _install(packages: str) -> str:
    return f"pip install --force-reinstall {packages}"
