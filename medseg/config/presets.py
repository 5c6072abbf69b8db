"""Folders that come with medseg, and the presets in one of them."""

from __future__ import annotations

from pathlib import Path

from medseg.config.yaml_text import read_text

__all__ = ["packaged", "packaged_configs", "packaged_presets"]


def packaged(name: str) -> Path | None:
    """A folder that comes with medseg: inside the installed package, or in the source tree; None if it did not come."""
    here = Path(__file__).parents[1]
    inside = here / "_packaged" / name
    if inside.is_dir():
        return inside
    beside = here.parent / name
    # Next to an installed package lie other people's folders, so only a source tree is searched.
    return beside if beside.is_dir() and (here.parent / "pyproject.toml").is_file() else None


def packaged_configs() -> dict[str, Path]:
    """Name -> file of the presets that come with medseg, e.g. 'lung'."""
    folder = packaged("configs")
    return {} if folder is None else {f.stem: f for f in sorted(folder.glob("*.yaml"))}


def packaged_presets() -> dict[str, str]:
    """Name -> what it is for, in one line, of the presets that come with medseg: the first comment of each file."""
    lines = {name: read_text(path).splitlines() for name, path in packaged_configs().items()}
    return {name: next((line for line in each if line.startswith("#")), "").strip("# ") for name, each in lines.items()}
