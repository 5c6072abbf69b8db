"""`model.json`: everything about a model but its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import nn

from medseg.config import Labels, NetOptions, Overlap, PostprocessConfig
from medseg.inference.calibration import Calibration
from medseg.labels import LabelScheme
from medseg.nets import build_net
from medseg.nets.crf import CrfOptions
from medseg.preparation.plan import Plan
from medseg.preparation.training_range import TrainingRange

__all__ = ["BundleInfo", "NetInfo", "PredictionInfo", "Provenance"]


V = TypeVar("V")
Count = Annotated[int, Field(ge=0)]


def _on_one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("expected text without line breaks and other control characters")
    return value


Line = Annotated[str, Field(max_length=200), AfterValidator(_on_one_line)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class NetInfo(_Part):
    """What `medseg.nets.build_net` is called with; lists among `options` become tuples, which JSON does not know.

    What the options of medseg's own networks may be, `medseg.nets.limits` says, before anything is built of them.
    """

    name: Line
    dims: Literal[2, 3]
    in_channels: Annotated[int, Field(ge=1, le=1024)]
    out_channels: Annotated[int, Field(ge=1, le=1025)]
    backbone: Line | None = None
    width: Annotated[float, Field(gt=0, le=64)] = 1.0
    options: NetOptions = Field(default_factory=dict)

    @field_validator("options")
    @classmethod
    def _with_tuples(cls, value: dict[str, Any]) -> dict[str, Any]:
        return {key: _tuples(each) for key, each in value.items()}

    def build(self) -> nn.Module:
        """The network with fresh weights.

        Raises:
            ConfigError: for an unknown name or option.
        """
        return build_net(**self.arguments)

    @property
    def arguments(self) -> dict[str, Any]:
        """What `build_net` is called with."""
        return {**{key: value for key, value in self if key != "options"}, **self.options}

    @property
    def builder_arguments(self) -> dict[str, Any]:
        """What a builder that is no part of medseg is called with: `arguments`, but for the name and bare defaults."""
        left_out = {"name", *(["backbone"] if self.backbone is None else []), *(["width"] if self.width == 1 else [])}
        return {key: value for key, value in self.arguments.items() if key not in left_out}


class PredictionInfo(_Part):
    """Defaults of prediction.

    Args:
        overlap: least overlap of windows, up to 0.95.
        mirror_axes: the spatial axes along which mirroring is allowed.
        crf: options of the dense CRF that were fitted on validation cases (`medseg.nets.crf_fit`), None without.
        postprocess: what is mended in every mask.
    """

    overlap: Overlap = 0.5
    mirror_axes: Annotated[tuple[Annotated[int, Field(ge=0, le=2)], ...], Field(max_length=3)] = ()
    crf: CrfOptions | None = None
    postprocess: PostprocessConfig = PostprocessConfig()

    def joined(self, other: PredictionInfo) -> PredictionInfo:
        """For an ensemble: of what was fitted on validation cases only what the folds of both agree on."""
        mine, theirs = self.postprocess, other.postprocess
        shared = PostprocessConfig(
            inside={k: v for k, v in mine.inside.items() if theirs.inside.get(k) == v},
            minimum_volume_ml=_shared(mine.minimum_volume_ml, theirs.minimum_volume_ml, min),
            keep_components=_shared(mine.keep_components, theirs.keep_components, max),
            fill_holes=tuple(name for name in mine.fill_holes if name in theirs.fill_holes),
        )
        return self.model_copy(update={"crf": self.crf if other.crf else None, "postprocess": shared})


class Provenance(_Part):
    """Where the weights come from. `dataset` holds counts and fingerprint figures, no names of patients."""

    medseg: Line = ""
    torch: Line = ""
    config_hash: Line = ""
    dataset: dict[str, Any] = Field(default_factory=dict)
    iterations: Count = 0
    seconds: Annotated[float, Field(ge=0)] = 0.0


class BundleInfo(_Part):
    """`model.json`: everything about a model but its weights.

    Args:
        labels: name -> value, or list of values (regions), in the order of the channels.
        ignore: value that took part in no loss.
        plan: how an image becomes the network's input.
        net: how to build the network.
        prediction: defaults of prediction.
        provenance: how it was made.
        scores: per fold, by name ("fold0": {...}).
        fingerprint: how the training cases lie, for `medseg.inference.quality`; None in bundles of older versions.
        calibration: for `--estimate-quality`, where the training was asked for it; of several folds the last one's.
        data_license, weight_license: licence names, "unknown" where nobody said.
    """

    format_version: Literal[1] = 1
    labels: Labels
    ignore: Annotated[int, Field(ge=0, le=65535)] | None = None
    plan: Plan
    net: NetInfo
    prediction: PredictionInfo = PredictionInfo()
    provenance: Provenance = Provenance()
    scores: dict[str, Any] = Field(default_factory=dict)
    fingerprint: TrainingRange | None = None
    calibration: Calibration | None = None
    data_license: Line = "unknown"
    weight_license: Line = "unknown"

    @model_validator(mode="after")
    def _fits(self) -> BundleInfo:
        known = self.fingerprint
        if known is not None and self.calibration is not None and len(known.always_present) != len(self.scheme.names):
            raise ValueError("fingerprint.always_present does not fit the labels")
        return self

    @property
    def scheme(self) -> LabelScheme:
        """The labels as a scheme."""
        return LabelScheme.from_mapping(self.labels, self.ignore)

    def same_model(self, other: BundleInfo) -> bool:
        """Whether weights of both can stand in one ensemble: same labels, plan, net, windows and mirroring."""
        mine, theirs = (
            (list(i.labels.items()), i.ignore, i.plan, i.net, i.prediction.overlap, i.prediction.mirror_axes)
            for i in (self, other)
        )
        return mine == theirs

    def to_json(self) -> str:
        """`model.json`; NaN becomes null."""
        return self.model_dump_json(indent=2) + "\n"


def _shared(mine: dict[str, V], theirs: dict[str, V], milder: Callable[[V, V], V]) -> dict[str, V]:
    return {name: milder(value, theirs[name]) for name, value in mine.items() if name in theirs}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(each) for each in value) if isinstance(value, list | tuple) else value
