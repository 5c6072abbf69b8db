"""Parts of `model.json` beside labels, plan and network: the stored network, its source, and models made of others."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from medseg.config import Labels

__all__ = [
    "COMPOSITES",
    "CompositeInfo",
    "InfoPart",
    "Int8Info",
    "Line",
    "NetworkInfo",
    "ParityInfo",
    "SourceInfo",
    "TeacherInfo",
]

# Models made of others, and what a message calls several of them.
COMPOSITES = {"ensemble": "ensembles", "cascade": "cascades", "parts": "models made of parts"}
MOST_MEMBERS = 100
MEMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _on_one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("expected text without line breaks and other control characters")
    return value


Ignored = Annotated[int, Field(ge=0, le=65535)]
"""A value to ignore."""

Line = Annotated[str, Field(max_length=200), AfterValidator(_on_one_line)]


class InfoPart(BaseModel):
    """A part of `model.json`: frozen, without unknown keys, infinities or NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class ParityInfo(InfoPart):
    """How an exported network compares with the one that it was made of, over all folds.

    Args:
        windows: how many were compared in each fold.
        seen: 'cases': windows of prepared cases; 'noise': blurred noise, where none were at hand.
        probability: largest difference of a probability, 0 to 1.
        changed: share of the voxels that get another label, 0 to 1.
    """

    windows: Annotated[int, Field(ge=1)]
    seen: Literal["cases", "noise"]
    probability: Annotated[float, Field(ge=0, le=1)]
    changed: Annotated[float, Field(ge=0, le=1)]


class Int8Info(InfoPart):
    """What a network in INT8 costs and saves; of several folds the worst.

    Args:
        loss: mean Dice that it loses.
        against: what Dice was measured against: 'labels', or what the network finds in 'float32'.
        cases: how many it was measured on.
        size: of the files, as a share of those in float32.
        speed: how many times as fast a window is as in float32, on the machine of the export.
        floating: layers that stay float.
        seven_bits: whether weights keep to 7 bits, for processors whose 8-bit sums overflow.
    """

    loss: Annotated[float, Field(ge=-1, le=1)]
    against: Literal["labels", "float32"]
    cases: Annotated[int, Field(ge=1)]
    size: Annotated[float, Field(gt=0)]
    speed: Annotated[float, Field(gt=0)]
    floating: Annotated[tuple[Line, ...], Field(max_length=1024)] = ()
    seven_bits: bool = False


class NetworkInfo(InfoPart):
    """How the network is stored.

    Args:
        format: of the files: 'safetensors' are weights of a network that is built; 'onnx' and 'openvino' are networks
            as `medseg export` writes them.
        precision: of the weights; None where it was never recorded.
        engines_passed: engines whose masks were found to be those of the network itself.
        parity: of an exported network with the original; None for what was not exported.
        int8: of a network of this precision.
    """

    format: Literal["safetensors", "onnx", "openvino"] = "safetensors"
    precision: Literal["float32", "float16", "bfloat16", "int8"] | None = None
    engines_passed: Annotated[tuple[Line, ...], Field(max_length=32)] = ()
    parity: ParityInfo | None = None
    int8: Int8Info | None = None


class SourceInfo(InfoPart):
    """Where a model comes from.

    Args:
        kind: 'medseg': trained here; else the program whose model was imported.
        hash: SHA-256 of what was imported or exported, in hexadecimal digits; '' for models trained here.
        licence: of what was imported, "unknown" where not stated.
    """

    kind: Literal["medseg", "nnunet", "totalsegmentator", "monai", "deepbet"] = "medseg"
    hash: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    licence: Line = "unknown"


class TeacherInfo(InfoPart):
    """The model that a network learned from, beside the labels, see `medseg.losses.DistillationLoss`.

    Args:
        name: of its folder or file.
        hash: its `model_hash`: SHA-256 of `model.json` and weights.
        weight: of the distillation in the loss.
        temperature: of the probabilities.
    """

    name: Line
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    weight: Annotated[float, Field(ge=0, le=1)]
    temperature: Annotated[float, Field(gt=0)]


class CompositeInfo(InfoPart):
    """`model.json` of a model made of others, each a bundle of its own in `members/<name>/`.

    Args:
        kind: 'ensemble': the mean of the members' probabilities; 'cascade': each member sees the labels of the one
            before; 'parts': each member finds other labels.
        labels, ignore: of the whole.
        members: names of the members, in order: letters, digits, `.`, `_` and `-`.
        source: where it comes from.
        data_license, weight_license: as of `BundleInfo`.
    """

    format_version: Literal[2] = 2
    kind: Literal["ensemble", "cascade", "parts"]
    labels: Labels
    ignore: Ignored | Annotated[tuple[Ignored, ...], Field(max_length=1024)] | None = None
    members: Annotated[tuple[str, ...], Field(min_length=2, max_length=MOST_MEMBERS)]
    source: SourceInfo = SourceInfo()
    data_license: Line = "unknown"
    weight_license: Line = "unknown"

    @field_validator("members")
    @classmethod
    def _members(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not MEMBER.fullmatch(name):
                raise ValueError(f"{name[:80]!r} is not a member's name: expected letters, digits, '.', '_' and '-'")
        # Some file systems do not distinguish upper and lower case.
        if len({name.casefold() for name in value}) < len(value):
            raise ValueError("two members have the same name")
        return value
