"""What is measured: each model by each engine of this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import CheckpointError, ConfigError, MissingPartError
from medseg.inference.bundle_files import INFO, bundle_files
from medseg.inference.bundle_info import BundleInfo
from medseg.inference.bundle_json import read_info
from medseg.inference.device import resolve_device
from medseg.inference.engine import ENGINES, NetworkEngine

__all__ = ["BenchmarkModel", "Contender", "available_engines", "contenders_of", "read_models"]


@dataclass(frozen=True, slots=True)
class BenchmarkModel:
    """A model that takes part.

    Args:
        path: of its bundle.
        name: unlike that of any other.
        info: its `model.json`.
        size_bytes: of all its files.
    """

    path: Path
    name: str
    info: BundleInfo
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Contender:
    """A model and how its network is run.

    Args:
        model: which.
        engine: one of `medseg.inference.engine.ENGINES`; None: what the bundle itself is stored for.
    """

    model: BenchmarkModel
    engine: str | None

    @property
    def engine_name(self) -> str:
        """What the tables call the engine."""
        return self.engine or self.model.info.network.format

    @property
    def name(self) -> str:
        """Model and engine."""
        return f"{self.model.name} {self.engine_name}"


def read_models(paths: Sequence[Path]) -> tuple[BenchmarkModel, ...]:
    """The models, without their weights.

    Raises:
        CheckpointError: for what is not a bundle.
        ConfigError: for the same bundle twice.
    """
    found = []
    for path, name in zip(paths, _names(paths), strict=True):
        with bundle_files(path) as files:
            if INFO not in files.names:
                raise CheckpointError(f"{path} is not a model bundle: it contains no {INFO}")
            with files.open(INFO) as (file, _):
                info, _ = read_info(file, path)
            size = path.stat().st_size if path.is_file() else 0
            for each in () if size else files.names:
                with files.open(each) as (_, length):
                    size += length
        found.append(BenchmarkModel(path, name, info, size))
    return tuple(found)


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart, without the `model` that every run folder has."""
    parts = []
    for path in paths:
        whole = list(path.resolve().parts[1:])
        parts.append(whole[:-1] if whole[-1] == "model" and len(whole) > 1 else whole)
    if len({tuple(each) for each in parts}) < len(parts):
        raise ConfigError("a model is named twice; name each once")
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            break
    return names


def available_engines(device: str, asked: Sequence[str] | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """The engines of this machine, and why others are left out.

    Args:
        device: where the networks run.
        asked: names; None: all that there are.

    Raises:
        ConfigError: for an unknown name, or where none of those that were asked for is available.
    """
    place = resolve_device(device)
    left_out: dict[str, str] = {}
    for name in ENGINES if asked is None else asked:
        try:
            NetworkEngine(place, name, fast=True)
        except (ConfigError, MissingPartError) as error:
            if name not in ENGINES:
                raise
            left_out[name] = str(error)
    engines = tuple(name for name in (ENGINES if asked is None else asked) if name not in left_out)
    if not engines:
        raise ConfigError("; ".join(left_out.values()) or "--engines names no engine")
    return engines, left_out


def contenders_of(models: Sequence[BenchmarkModel], engines: Sequence[str]) -> tuple[Contender, ...]:
    """Each model by each engine; an exported one by the library that it was exported for."""
    exported: Mapping[bool, Sequence[str | None]] = {True: (None,), False: engines}
    return tuple(
        Contender(model, engine) for model in models for engine in exported[model.info.network.format != "safetensors"]
    )
