"""What the shell offers when Tab is pressed: names that can be listed without loading torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from medseg.output_formats import MASK_FORMATS, OUTPUT_FORMATS

__all__ = ["configs", "keys", "mask_formats", "nets", "output_formats", "settings", "tasks"]


def configs(incomplete: str) -> Iterator[str]:
    """Presets, YAML files and folders."""
    from medseg.config import packaged_configs

    yield from _beginning(incomplete, packaged_configs())
    folder, slash, start = incomplete.rpartition("/")
    for path in sorted(Path(f"{folder}{slash}").glob("*")):
        if path.name.startswith(start) and (path.is_dir() or path.suffix in (".yaml", ".yml")):
            yield f"{folder}{slash}{path.name}{'/' if path.is_dir() else ''}"


def keys(incomplete: str) -> Iterator[str]:
    """Keys of the configuration."""
    from medseg.config import all_keys

    return _beginning(incomplete, all_keys())


def settings(incomplete: str) -> Iterator[str]:
    """Keys of the configuration, each with the sign after which its value follows."""
    return (f"{key}=" for key in keys(incomplete))


def tasks(incomplete: str) -> Iterator[str]:
    """Names of tasks."""
    from medseg.tasks import TASKS

    return _beginning(incomplete, TASKS)


def nets(incomplete: str) -> Iterator[str]:
    """Names of networks."""
    from medseg.net_catalogue import NETS

    return _beginning(incomplete, NETS)


def mask_formats(incomplete: str) -> Iterator[str]:
    """Formats that predict writes."""
    return _beginning(incomplete, MASK_FORMATS)


def output_formats(incomplete: str) -> Iterator[str]:
    """Formats that convert writes."""
    return _beginning(incomplete, OUTPUT_FORMATS)


def _beginning(start: str, names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if name.startswith(start))
