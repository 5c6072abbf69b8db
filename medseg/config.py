"""The configuration of a run: frozen pydantic models, one per part, composed in `RunConfig`.

A YAML file holds only what differs from the defaults; dotted overrides (`training.max_minutes=10`) come on top.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.windowing import PRESETS

__all__ = [
    "AugmentationConfig",
    "DataConfig",
    "LossConfig",
    "NetConfig",
    "PlanConfig",
    "PredictionConfig",
    "RunConfig",
    "SplitConfig",
    "TrainingConfig",
    "WindowConfig",
    "load_config",
    "packaged",
    "packaged_configs",
    "parse_overrides",
    "validate_model",
]

FORMAT_VERSION = 1
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def _ascending(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] > values[1]:
        raise ValueError("the first value must not be above the second")
    return values


Range = Annotated[tuple[Positive, Positive], AfterValidator(_ascending)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class SplitConfig(_Part):
    """Which cases validate: by name, or every n-th of the sorted cases, beginning with `start` (from 0)."""

    validation: tuple[str, ...] | None = None
    every: Annotated[int, Field(ge=2)] | None = None
    start: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_way(self) -> SplitConfig:
        if (self.validation is None) == (self.every is None):
            raise ValueError("give either validation: [case names] or every: n")
        if self.every is not None and self.start >= self.every:
            raise ValueError("start must be smaller than every")
        return self


class WindowConfig(_Part):
    """A fixed grey-level window in place of normalisation from the data."""

    center: float
    width: Positive
    function: Literal["LINEAR", "LINEAR_EXACT"] = "LINEAR"

    @model_validator(mode="after")
    def _wide_enough(self) -> WindowConfig:
        if self.function == "LINEAR" and self.width < 1:
            raise ValueError("a LINEAR window is at least 1 wide")
        return self


class DataConfig(_Part):
    """Where the cases are and what their labels mean."""

    root: Path
    layout: Literal["auto", "msd", "nnunet", "folders", "csv"] = "auto"
    csv: Path | None = None
    labels: dict[str, int | tuple[int, ...]] | None = None
    ignore: int | None = None
    label_threshold: float | None = None
    modality: str | tuple[str, ...] | None = None
    window: str | WindowConfig | None = None
    split: SplitConfig | None = None

    @model_validator(mode="after")
    def _known_names(self) -> DataConfig:
        if isinstance(self.window, str) and self.window not in PRESETS:
            raise ValueError(f"window {self.window!r} is not a preset; there are: {', '.join(PRESETS)}")
        if self.labels is not None:
            LabelScheme.from_mapping(self.labels, self.ignore)
        return self


class PlanConfig(_Part):
    """Fixed points for planning; what is not given is derived from the data and the memory at hand."""

    spacing_mm: tuple[Positive, ...] | None = None
    patch_size: tuple[Count, ...] | None = None
    memory_gb: Positive | None = None


class NetConfig(_Part):
    """The network. `options` are passed to the builder of the net as they are.

    `norm`: the net's own default where it is not given (instance, but for monai's). `width` likewise: 1, and in 3D a
    quarter for FCN-32s to 8s, and on a CPU for every net with a backbone. `channels` is for U-Nets.
    """

    name: str = "unet"
    dims: Literal[2, 3] | None = None
    backbone: str | None = None
    width: Positive | None = None
    channels: tuple[Count, ...] | None = None
    norm: Literal["instance", "batch", "group", "none"] | None = None
    residual: bool = False
    deep_supervision: bool = False
    options: dict[str, Any] = Field(default_factory=dict)


class LossConfig(_Part):
    """The loss; `options` are passed to its builder as they are."""

    name: str = "dice_ce"
    options: dict[str, Any] = Field(default_factory=dict)


class AugmentationConfig(_Part):
    """How training samples vary. Probabilities are per sample; angles in degrees, lengths as fractions.

    `mirror`: true for every axis that keeps the labels right (never across left/right pairs), or a list of axes of the
    prepared case, e.g. [0] for left-right where its orientation is RAS; test-time mirroring follows it.
    """

    enabled: bool = True
    spatial_probability: Fraction = 0.9
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] | None = None
    scale: Range = (0.75, 1.33)
    elastic_probability: Fraction = 0.3
    elastic_magnitude: Annotated[float, Field(ge=0, le=0.5)] = 0.04
    elastic_grid: Annotated[int, Field(ge=2, le=32)] = 4
    mirror: bool | tuple[Annotated[int, Field(ge=0, le=2)], ...] = True
    noise_probability: Fraction = 0.15
    noise_std: Annotated[float, Field(ge=0)] = 0.15
    blur_probability: Fraction = 0.1
    blur_sigma: Range = (0.5, 1.0)
    brightness_probability: Fraction = 0.15
    brightness: Range = (0.75, 1.25)
    contrast_probability: Fraction = 0.15
    contrast: Range = (0.75, 1.25)
    gamma_probability: Fraction = 0.25
    gamma: Range = (0.7, 1.5)
    low_resolution_probability: Fraction = 0.1
    low_resolution: Range = (0.5, 1.0)
    custom: str | None = None


class TrainingConfig(_Part):
    """How long and how to train; with neither limit given, one hour."""

    init: Path | None = None
    max_minutes: Positive | None = None
    max_iterations: Count | None = None
    batch_size: Count | None = None
    learning_rate: Positive | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    schedule: Literal["poly", "constant"] = "poly"
    poly_power: Positive = 0.9
    warmup_iterations: Annotated[int, Field(ge=0)] = 20
    gradient_clip: Positive = 12.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    foreground_fraction: Fraction = 0.33
    mixed_precision: bool = True
    checkpoint: Literal["last", "best"] = "last"
    validate_every: Count | None = None
    validation_cases: Count | None = None
    save_every: Count = 100
    folds: Annotated[int, Field(ge=2)] = 5
    fold: Annotated[int, Field(ge=0)] | Literal["all"] = 0


class PredictionConfig(_Part):
    """How a model is applied."""

    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    mirror: bool = True


class RunConfig(_Part):
    """One run: everything that decides its result."""

    format_version: Literal[1] = 1
    output: Path | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    device: str = "auto"
    task: str | None = None
    data: DataConfig
    plan: PlanConfig = PlanConfig()
    net: NetConfig = NetConfig()
    loss: LossConfig = LossConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    training: TrainingConfig = TrainingConfig()
    prediction: PredictionConfig = PredictionConfig()

    def label_scheme(self) -> LabelScheme | None:
        """The label scheme that `data.labels` gives, or None where the data set itself must name its labels."""
        return None if self.data.labels is None else LabelScheme.from_mapping(self.data.labels, self.data.ignore)


Model = TypeVar("Model", bound=BaseModel)


def validate_model(model: type[Model], values: Any, source: str) -> Model:
    """A pydantic model from loaded values.

    Raises:
        ConfigError: naming the first wrong key, the file, and the nearest valid name or what was expected.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source}: expected keys and values, found {type(values).__name__}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_complaint(model, values, error.errors())}") from None


def _first_complaint(model: type[BaseModel], values: Any, errors: Sequence[ErrorDetails]) -> str:
    paths = [_path_in(values, each) for each in errors]
    # Each branch of a union complains; the one that got furthest into the values is the one that was meant.
    same = [n for n, path in enumerate(paths) if path[: len(paths[0])] == paths[0]]
    deepest = max(same, key=lambda n: (len(paths[n]), errors[n]["type"] == "extra_forbidden"))
    path, first = paths[deepest], errors[deepest]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        names = _names_beside(model, path[:-1])
        near = difflib.get_close_matches(path[-1], names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid here: {', '.join(names)}"
        return f"unknown key {key!r}; {hint}"
    if first["type"] == "missing":
        return f"{key} is missing; give it in the file or as {key}=VALUE"
    here = [e for n, e in enumerate(errors) if paths[n] == path]
    # Our own checks run only on values whose kind was right.
    own = [e for e in here if e["type"] == "value_error"]
    told = dict.fromkeys(e["msg"].removeprefix("Value error, ") for e in own or here)
    found = "" if isinstance(first["input"], dict) else f", found {first['input']!r}"
    return f"{key}: {', or '.join(told)}{found}"


def _path_in(values: Any, error: ErrorDetails) -> list[str]:
    """Where in the values an error lies, without the names pydantic gives to the branches of a union."""
    path, current = [], values
    for part in error["loc"]:
        is_list = isinstance(current, list | tuple)
        if part in (range(len(current)) if is_list else current if isinstance(current, Mapping) else ()):
            current = current[part]
        elif error["type"] != "missing" or part != error["loc"][-1]:
            continue
        path.append(str(part))
    return path


def _names_beside(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    current: type[BaseModel] = model
    for part in path:
        field = current.model_fields.get(part)
        if field is None:
            break
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not inner:
            break
        current = inner[0]
    return sorted(current.model_fields)


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`["training.max_minutes=10"]` as `{"training.max_minutes": 10}`, values read as YAML.

    Raises:
        ConfigError: for an entry without `=` or a value that is not YAML.
    """
    result: dict[str, Any] = {}
    for each in overrides:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise ConfigError(f"{each!r} is not an override; write key=value, e.g. training.max_minutes=10")
        try:
            result[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"override {each!r}: value is not valid YAML ({error.__class__.__name__})") from None
    return result


def packaged(name: str) -> Path | None:
    """A folder that comes with medseg: inside the installed package, or in the source tree; None if it did not come."""
    here = Path(__file__).parent
    inside = here / "_packaged" / name
    if inside.is_dir():
        return inside
    beside = here.parent / name
    # Next to an installed package lie other people's folders, so only a source tree is looked into.
    return beside if beside.is_dir() and (here.parent / "pyproject.toml").is_file() else None


def packaged_configs() -> dict[str, Path]:
    """Name -> file of the presets that come with medseg, e.g. 'lung'."""
    folder = packaged("configs")
    return {} if folder is None else {f.stem: f for f in sorted(folder.glob("*.yaml"))}


def load_config(source: str | Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """The configuration in a YAML file or preset, with dotted overrides on top.

    Relative paths in the file are relative to the current folder, as on the command line.

    Args:
        source: a file, or the name of a preset in `configs/`.
        overrides: dotted key -> value.

    Raises:
        ConfigError: for a missing or unreadable file, an unknown key, a wrong type or an impossible value.

    Example:
        >>> load_config("hippocampus", {"data.root": "cases", "training.max_minutes": 10}).training.max_minutes
        10.0
    """
    path = Path(source)
    if not path.is_file():
        presets = packaged_configs()
        if str(source) not in presets:
            near = difflib.get_close_matches(str(source), presets, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"no config file {path}; {hint}presets are: {', '.join(presets) or 'none'}")
        path = presets[str(source)]
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {str(error).replace(chr(10), ' ')}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(values).__name__}")
    values.setdefault("data", {})  # so that the message for an empty file names data.root
    for key, value in (overrides or {}).items():
        _set_dotted(values, key, value)
    config = validate_model(RunConfig, values, str(path))
    if config.output is None:
        config = config.model_copy(update={"output": Path("runs") / path.stem})
    return config


def _set_dotted(values: dict[str, Any], key: str, value: Any) -> None:
    parts = key.split(".")
    current = values
    for part in parts[:-1]:
        inner = current.get(part)
        if not isinstance(inner, dict):
            inner = {}
            current[part] = inner
        current = inner
    current[parts[-1]] = value
