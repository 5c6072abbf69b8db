"""`model.json`: everything about a model but its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from warnings import warn

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from medseg.config import Labels, NetOptions, Overlap, PostprocessConfig
from medseg.config.crf_options import CrfOptions
from medseg.errors import ConfigError
from medseg.inference.bundle_parts import Ignored, InfoPart, KeepLargest, Line, NetworkInfo, SourceInfo, TeacherInfo
from medseg.inference.calibration import Calibration
from medseg.labels import LabelScheme
from medseg.preparation.plan import Plan
from medseg.preparation.training_range import TrainingRange

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MOST_FOLDS", "BundleInfo", "NetInfo", "PredictionInfo", "Provenance"]


V = TypeVar("V")
Count = Annotated[int, Field(ge=0)]
MOST_FOLDS = 100
Fold = Annotated[int, Field(ge=0, le=9999)]


class NetInfo(InfoPart):
    """What `medseg.nets.build_net` is called with; lists among `options` become tuples, which JSON does not know.

    Options of medseg's own networks are checked by `medseg.nets.limits` before anything is built.

    Args:
        name: of a network, or "package.module:function" for one that is not part of medseg.
        dims: spatial axes, 2 or 3.
        in_channels: of the image, 1 to 1024.
        out_channels: logits per voxel, 1 to 1025.
        backbone: of networks that have one to choose; None: its default.
        width: factor on the numbers of features, above 0 and at most 64.
        options: further arguments of the builder.

    Raises:
        pydantic.ValidationError: for values out of range.

    Example:
        >>> net = NetInfo(name="unet", dims=2, in_channels=1, out_channels=2, options={"channels": [4, 8]}).build()
        >>> sum(parameter.numel() for parameter in net.parameters()) < 10_000
        True
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
        from medseg.nets import build_net

        return build_net(**self.arguments)

    @property
    def arguments(self) -> dict[str, Any]:
        """What `build_net` is called with."""
        return {**{key: value for key, value in self if key != "options"}, **self.options}

    @property
    def builder_arguments(self) -> dict[str, Any]:
        """What a builder that is not part of medseg is called with: `arguments`, but for the name and bare defaults."""
        left_out = {"name", *(["backbone"] if self.backbone is None else []), *(["width"] if self.width == 1 else [])}
        return {key: value for key, value in self.arguments.items() if key not in left_out}


class PredictionInfo(InfoPart):
    """Defaults of prediction.

    Args:
        overlap: least overlap of windows, up to 0.95; None: the plan's.
        mirror_axes: the spatial axes along which mirroring is allowed.
        side_names: the names that forbid to mirror left to right, where the plan lists no unmirrored axes: 'all', or
            the 'few' that format_version 1 knew.
        crf: options of the dense CRF that were fitted on validation cases (`medseg.nets.crf_fit`), None without.
        postprocess: what is corrected in every mask.
        keep_largest: then, step by step: of the voxels of these labels together only the largest component stays, and
            the others become background (nnU-Net).

    Raises:
        pydantic.ValidationError: for values out of range.

    Example:
        >>> PredictionInfo(mirror_axes=(1, 2)).overlap is None
        True
    """

    overlap: Overlap | None = None
    mirror_axes: Annotated[tuple[Annotated[int, Field(ge=0, le=2)], ...], Field(max_length=3)] = ()
    side_names: Literal["all", "few"] = "all"
    crf: CrfOptions | None = None
    postprocess: PostprocessConfig = PostprocessConfig()
    keep_largest: KeepLargest = ()

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Only models of nnU-Net have it; without it, older releases read the others, too.
        values: dict[str, Any] = write(self)
        return {key: each for key, each in values.items() if key != "keep_largest" or each}

    def joined(self, other: PredictionInfo) -> PredictionInfo:
        """For an ensemble: of what was fitted on validation cases only what the folds of both agree on."""
        mine, theirs = self.postprocess, other.postprocess
        shared = PostprocessConfig(
            inside={k: v for k, v in mine.inside.items() if theirs.inside.get(k) == v},
            minimum_volume_ml=_shared(mine.minimum_volume_ml, theirs.minimum_volume_ml, min),
            keep_components=_shared(mine.keep_components, theirs.keep_components, max),
            keep_central=_shared(mine.keep_central, theirs.keep_central, max),
            fill_holes=tuple(name for name in mine.fill_holes if name in theirs.fill_holes),
        )
        return self.model_copy(update={"crf": self.crf if other.crf else None, "postprocess": shared})


class Provenance(InfoPart):
    """How the weights were made.

    Args:
        medseg, torch: versions.
        config_hash: SHA-256 of the configuration, without paths.
        dataset: numbers of cases and names of channels; no names of patients.
        iterations: training steps.
        seconds: time spent training.
        teacher: of a network that was distilled; None: it learned from the labels alone.

    Example:
        >>> medseg.load_model("runs/lung/model").info.provenance.medseg == medseg.__version__
        True
    """

    medseg: Line = ""
    torch: Line = ""
    config_hash: Line = ""
    dataset: dict[str, Any] = Field(default_factory=dict)
    iterations: Count = 0
    seconds: Annotated[float, Field(ge=0)] = 0.0
    teacher: TeacherInfo | None = None

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Without a teacher, older releases read it, too.
        values: dict[str, Any] = write(self)
        return {key: each for key, each in values.items() if key != "teacher" or each is not None}


class BundleInfo(InfoPart):
    """`model.json`: everything about a model but its weights.

    Args:
        labels: name -> value, or list of values (regions), in the order of the channels.
        ignore: value, or values, that took part in no loss.
        spare: of the values of regions, those that no training case has: masks need them for combinations of regions
            without a value of their own. None: a bundle from before they existed, whose later regions win if each has
            a value of its own.
        plan: how an image becomes the network's input.
        net: how to build the network.
        prediction: defaults of prediction.
        provenance: how it was made.
        scores: per fold, by name ("fold0": {...}).
        kind: 'single': one network, in one or more folds; models made of others have a `CompositeInfo`.
        folds: whose weights there are; 'all': one network, in `weights_fold0.safetensors`, trained on all cases; None
            in bundles of format_version 1, and before the bundle is written.
        network: how the network is stored.
        source: where the model comes from.
        reference_ranges: of the training cases, for `medseg.inference.quality`; None where none were measured.
        calibration: for `--estimate-quality`, where the training was asked for it; of several folds the last one's.
        data_license, weight_license: licence names, "unknown" where not stated.
        previous_labels: of a member of a cascade: how many labels the member before it has, each of which is a further
            channel of the network; 0 for a model of its own.

    Raises:
        pydantic.ValidationError: for values out of range, or parts that do not fit together.

    Example:
        >>> info = medseg.load_model("runs/lung/model").info
        >>> info.scheme.names, info.plan.spacing_mm, info.folds
        (('lung', 'tumour'), (5.0, 5.0, 6.0), (0,))
    """

    format_version: Literal[2] = 2
    kind: Literal["single"] = "single"
    labels: Labels
    ignore: Ignored | Annotated[tuple[Ignored, ...], Field(max_length=1024)] | None = None
    spare: Annotated[tuple[Annotated[int, Field(ge=1, le=65535)], ...], Field(max_length=1024)] | None = None
    plan: Plan
    net: NetInfo
    prediction: PredictionInfo = PredictionInfo()
    provenance: Provenance = Provenance()
    scores: dict[str, Any] = Field(default_factory=dict)
    folds: Annotated[tuple[Fold, ...], Field(max_length=MOST_FOLDS)] | Literal["all"] | None = None
    network: NetworkInfo = NetworkInfo()
    source: SourceInfo = SourceInfo()
    reference_ranges: TrainingRange | None = None
    calibration: Calibration | None = None
    data_license: Line = "unknown"
    weight_license: Line = "unknown"
    previous_labels: Annotated[int, Field(ge=0, le=1024)] = 0

    @model_validator(mode="before")
    @classmethod
    def _former_name(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "fingerprint" not in values or "reference_ranges" in values:
            return values
        warn("BundleInfo(fingerprint=...) is now called reference_ranges", DeprecationWarning, stacklevel=4)
        return {("reference_ranges" if key == "fingerprint" else key): value for key, value in values.items()}

    @model_validator(mode="after")
    def _fits(self) -> BundleInfo:
        known = self.reference_ranges
        if known is not None and self.calibration is not None and len(known.always_present) != len(self.scheme.names):
            raise ValueError("reference_ranges.always_present does not fit the labels")
        return self

    @property
    def fingerprint(self) -> TrainingRange | None:
        """The former name of `reference_ranges`."""
        warn("BundleInfo.fingerprint is now called reference_ranges", DeprecationWarning, stacklevel=2)
        return self.reference_ranges

    @property
    def scheme(self) -> LabelScheme:
        """The labels as a scheme, as the masks of this model are written."""
        scheme = LabelScheme.from_mapping(self.labels, self.ignore)
        if not scheme.is_regions:
            return scheme
        if self.spare is None:
            former = replace(scheme, later_wins=True)
            # Without a value for each region the former way cannot write a mask.
            with suppress(ConfigError):
                return former if former.painted else scheme
        return replace(scheme, spare=self.spare or ()).written

    @property
    def overlap(self) -> float:
        """Least overlap of windows in prediction."""
        return self.plan.windows.overlap if self.prediction.overlap is None else self.prediction.overlap

    def same_model(self, other: BundleInfo) -> bool:
        """Whether weights of both can be folds of one model: same labels, plan, net, windows and mirroring."""
        if "all" in (self.folds, other.folds):
            return False
        mine, theirs = (
            (list(i.labels.items()), i.ignore, i.spare, i.plan, i.net, i.overlap, i.prediction.mirror_axes)
            for i in (self, other)
        )
        return mine == theirs

    def to_json(self) -> str:
        """`model.json`; NaN becomes null."""
        # Only exports are compared with an original, and only some are in INT8.
        without: dict[str, Any] = {"network": {n for n in ("parity", "int8") if getattr(self.network, n) is None}}
        if not self.previous_labels:
            without["previous_labels"] = True
        return self.model_dump_json(indent=2, exclude=without) + "\n"


def _shared(mine: dict[str, V], theirs: dict[str, V], milder: Callable[[V, V], V]) -> dict[str, V]:
    return {name: milder(value, theirs[name]) for name, value in mine.items() if name in theirs}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(each) for each in value) if isinstance(value, list | tuple) else value
