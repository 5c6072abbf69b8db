"""Changes to the folder of a good bundle; each gives what is then to be opened: the folder, or a zip of it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medseg.errors import MedsegError
from medseg.nets import build_net

WEIGHTS = "weights_fold0.safetensors"
Change = Callable[[Path], Path]


def harmful_code(canary: Path) -> str:
    """A module that leaves a file when it is imported, and again when its builder or hub entry is called."""
    return (
        f"from pathlib import Path\nPath({str(canary)!r}).write_text('imported')\n"
        f"def model(*a, **k):\n    Path({str(canary)!r}).write_text('called')\nbuild = model\n"
    )


def carry_code(folder: Path, canary: Path) -> None:
    """Code of every kind that a bundle could bring, so that nothing but the refusal keeps it from running."""
    for name in ("brought.py", "hubconf.py", "sitecustomize.py"):
        (folder / name).write_text(harmful_code(canary))
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text(harmful_code(canary))


def edited(*path: str | int, value: Any) -> Change:
    """Another value in `model.json`; `path` leads to it."""

    def change(folder: Path) -> Path:
        values = json.loads((folder / "model.json").read_text())
        inner = values
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        (folder / "model.json").write_text(json.dumps(values))
        return folder

    return change


def both(*changes: Change) -> Change:
    def change(folder: Path) -> Path:
        for each in changes:
            folder = each(folder)
        return folder

    return change


def net(name: str, **options: Any) -> Change:
    return both(edited("net", "name", value=name), edited("net", "options", value=options))


def options(**changes: Any) -> Change:
    """Options of the U-Net."""
    return both(*(edited("net", "options", key, value=value) for key, value in changes.items()))


def text(old: str, new: str) -> Change:
    """Another text in `model.json`, as JSON's own writer would not write it."""

    def change(folder: Path) -> Path:
        content = (folder / "model.json").read_text()
        assert old in content
        (folder / "model.json").write_text(content.replace(old, new, 1))
        return folder

    return change


def raw(content: bytes, name: str = WEIGHTS) -> Change:
    def change(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder

    return change


def link(name: str, target: str) -> Change:
    def change(folder: Path) -> Path:
        (folder / name).unlink()
        (folder / name).symlink_to(target)
        return folder

    return change


def moved_out(folder: Path) -> Path:
    """A link to a good `model.json` elsewhere."""
    (folder / "model.json").rename(folder.parent / "elsewhere.json")
    (folder / "model.json").symlink_to(folder.parent / "elsewhere.json")
    return folder


def folder_of_weights(folder: Path) -> Path:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()
    return folder


def pipe(name: str) -> Change:
    def change(folder: Path) -> Path:
        (folder / name).unlink()
        os.mkfifo(folder / name)
        return folder

    return change


def enormous(name: str, size: int) -> Change:
    """A file of zeros that takes no room on the disk."""

    def change(folder: Path) -> Path:
        with (folder / name).open("r+b") as file:
            file.truncate(size)
        return folder

    return change


def header(change_entry: Callable[[dict[str, Any]], Any]) -> Change:
    """Another header of the weights; the numbers stay."""

    def change(folder: Path) -> Path:
        content = (folder / WEIGHTS).read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        entries = json.loads(content[8 : 8 + length])
        changed = change_entry(entries)
        new = json.dumps(entries if changed is None else changed).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(new)) + new + content[8 + length :])
        return folder

    return change


def first(entries: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(value for key, value in entries.items() if key != "__metadata__")
    return found


def overlapping(entries: dict[str, Any]) -> None:
    """Two tensors of one size in one place."""
    for key, entry in entries.items():
        for other, twin in entries.items():
            if key != other and entry["shape"] == twin["shape"]:
                twin["data_offsets"] = entry["data_offsets"]
                return


def tensors(change_state: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    """Other weights, written as they should be."""

    def change(folder: Path) -> Path:
        from safetensors.torch import load_file, save_file

        state = load_file(folder / WEIGHTS)
        change_state(state)
        save_file(state, folder / WEIGHTS)
        return folder

    return change


def set_first(value: float) -> Change:
    def change(state: dict[str, torch.Tensor]) -> None:
        next(iter(state.values())).view(-1)[0] = value

    return tensors(change)


def retyped(dtype: torch.dtype) -> Change:
    def change(state: dict[str, torch.Tensor]) -> None:
        key = next(iter(state))
        state[key] = state[key].to(dtype)

    return tensors(change)


class Harm:
    """A pickle that runs a command where it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def pickled(folder: Path) -> Path:
    torch.save({"a": Harm(folder.parent / "canary")}, folder / WEIGHTS)
    return folder


def many_folds(folder: Path) -> Path:
    for n in range(1, 300):
        shutil.copy(folder / WEIGHTS, folder / f"weights_fold{n}.safetensors")
    return folder


def zipped(
    change_names: Callable[[str], str] = str, method: int = zipfile.ZIP_DEFLATED, **more: bytes
) -> Callable[[Path], Path]:
    def change(folder: Path) -> Path:
        archive = folder.with_suffix(".zip")
        with zipfile.ZipFile(archive, "w", method) as opened:
            for file in sorted(folder.iterdir()):
                if file.is_file():
                    opened.write(file, change_names(file.name))
            for name, content in more.items():
                opened.writestr(name, content)
        return archive

    return change


def zip_with(entry: zipfile.ZipInfo, content: bytes) -> Change:
    def change(folder: Path) -> Path:
        archive = zipped()(folder)
        with zipfile.ZipFile(archive, "a") as opened:
            opened.writestr(entry, content)
        return archive

    return change


def linked_entry() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("weights_fold1.safetensors")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def twice(folder: Path) -> Path:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of what is wanted here
        return zip_with(zipfile.ZipInfo("model.json"), b"{}")(folder)


def encrypted(folder: Path) -> Path:
    archive = zipped()(folder)
    content = bytearray(archive.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + place] |= 1
            at = content.find(mark, at + 4)
    archive.write_bytes(bytes(content))
    return archive


def zip_in_zip(folder: Path) -> Path:
    inner = zipped()(folder)
    outer = folder.with_name("outer.zip")
    with zipfile.ZipFile(outer, "w") as opened:
        opened.write(inner, "model.zip")
    return outer


def bomb(name: str, megabytes: int) -> Change:
    """A zip in which one file would grow a thousandfold."""

    def change(folder: Path) -> Path:
        (folder / name).unlink()
        archive = zipped()(folder)
        with (
            zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as opened,
            opened.open(name, "w") as f,
        ):
            for _ in range(megabytes):
                f.write(bytes(1 << 20))
        return archive

    return change


def deep(levels: int) -> Change:
    def change(folder: Path) -> Path:
        content = (folder / "model.json").read_text()
        nested = '"scores": {"a": ' + "[" * levels + "]" * levels + "}"
        (folder / "model.json").write_text(content.replace('"scores": {}', nested, 1))
        return folder

    return change


def refused(call: Callable[[], Any], code: int = 5) -> str:
    """The one line with which a call is refused."""
    with pytest.raises(MedsegError) as caught:
        call()
    message = str(caught.value)
    assert caught.value.exit_code == code, message
    assert message.isprintable() and len(message) < 1000, message[:2000]
    return message


def small_unet() -> torch.nn.Module:
    return build_net("unet", dims=3, in_channels=1, out_channels=3, channels=(4, 8), strides=((1, 1, 1), (2, 2, 2)))
