"""From the members of a model to a `CompositeModel`, once they are known to fit together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from medseg.errors import CheckpointError, ConfigError
from medseg.inference.bundle_files import DEEPEST_MEMBER, INFO, bundle_files
from medseg.inference.bundle_info import PredictionInfo
from medseg.inference.bundle_json import read_any_info
from medseg.inference.bundle_parts import COMPOSITES, CompositeInfo
from medseg.inference.composites.engines import MemberEngines
from medseg.inference.composites.model import CompositeModel
from medseg.inference.predictor import Model
from medseg.labels import LabelScheme
from medseg.lookup import nearest_hint

__all__ = ["composite_of", "load_composite", "load_members"]

Load = Callable[[Path], Model]


def composite_of(path: Path) -> tuple[CompositeInfo, bytes, Path] | None:
    """`model.json` of a model made of others, its bytes, and where it lies; None for a single model.

    Raises:
        CheckpointError: as `load_bundle`.
    """
    with bundle_files(path) as files:
        if INFO not in files.names:
            return None
        with files.open(INFO) as (file, _):
            info, content = read_any_info(file, path)
        return (info, content, files.folders[-1]) if isinstance(info, CompositeInfo) else None


def load_composite(
    place: Path, info: CompositeInfo, content: bytes, load: Load, roi: Sequence[str] = ()
) -> CompositeModel:
    """Load the members that are needed.

    Args:
        place: where the bundle lies.
        info, content: its `model.json`.
        load: loads a member, of whatever kind.
        roi: of 'parts', the labels that are wanted, of which parts without any are not loaded; () for all.

    Raises:
        CheckpointError: members that do not fit together, or lie too deep in one another; what `load` raises.
        ConfigError: a wanted label that the model does not have, or any of another kind of model.
    """
    if place.parts[-2 * DEEPEST_MEMBER :].count("members") >= DEEPEST_MEMBER:
        raise CheckpointError(f"{place}: more than {DEEPEST_MEMBER} models lie in one another")
    labels = _wanted(place, info, roi)
    members: list[tuple[str, Model]] = []
    for name in info.members:
        member_place = place / "members" / name
        if member_place.is_symlink():
            raise CheckpointError(f"{member_place} is a link; put the member itself there")
        held = _labels_of(member_place) if roi and name in info.finders else labels.keys()
        if not labels.keys().isdisjoint(held):
            members.append((name, load(member_place)))
    return load_members(str(place), info, content + "".join(f"\n{name}" for name in roi).encode(), members, labels)


def load_members(
    place: str,
    info: CompositeInfo,
    content: bytes,
    members: Sequence[tuple[str, Model]],
    labels: dict[str, int | tuple[int, ...]],
) -> CompositeModel:
    """A model of members that are loaded.

    Args:
        place: of the model, for messages.
        info: its `model.json`.
        content: what its hash is of, beside the members' hashes.
        members: in order.
        labels: those that are wanted.

    Raises:
        CheckpointError: members that do not fit together.
    """
    digest = hashlib.sha256(content)
    for name, member in members:
        digest.update(f"\n{name}\n{member.model_hash}".encode())
    finders = [(name, member) for name, member in members if name in info.finders]
    if not finders:
        raise CheckpointError(f"{place}: no member has any of the labels {', '.join(list(labels)[:5])}")
    _check(place, info, members)
    last = finders[-1][1]
    whole = last.info.model_copy(
        update={
            "labels": labels,
            "ignore": info.ignore,
            "prediction": PredictionInfo(overlap=last.info.prediction.overlap),
            "reference_ranges": None,
            "calibration": None,
            "previous_labels": 0,
            "source": info.source,
            "data_license": info.data_license,
            "weight_license": info.weight_license,
        }
    )
    engine = MemberEngines([member.engine for _, member in members])
    return CompositeModel(
        whole,
        (),
        last.device,
        digest.hexdigest(),
        engine,
        last.folds,
        any(member.compatible for _, member in members),
        members=tuple(members),
        composite=info,
    )


def _wanted(place: Path, info: CompositeInfo, roi: Sequence[str]) -> dict[str, int | tuple[int, ...]]:
    if not roi:
        return dict(info.labels)
    if info.kind != "parts":
        raise ConfigError(f"{place} is one of the {COMPOSITES[info.kind]}, which find all labels at once; omit --roi")
    names = info.scheme.names
    for name in roi:
        if name not in names:
            raise ConfigError(
                f"{place} has no label {name[:80]!r}; its labels are {', '.join(names[:200])}"
                f"{nearest_hint(name, names)}"
            )
    return {name: value for name, value in info.labels.items() if name in roi}


def _labels_of(member: Path) -> Sequence[str]:
    """The names of a member's labels, without its weights."""
    with bundle_files(member) as files:
        if INFO not in files.names:
            raise CheckpointError(f"{member} is not a model bundle: it contains no {INFO}")
        with files.open(INFO) as (file, _):
            return read_any_info(file, member)[0].scheme.names


def _check(place: str, info: CompositeInfo, members: Sequence[tuple[str, Model]]) -> None:
    """Refuse members that do not fit together."""
    first = members[0][1]
    scheme = info.scheme
    before: LabelScheme | None = None
    for name, member in members:
        plan = member.info.plan
        if (plan.in_channels, plan.spatial_dims) != (first.info.plan.in_channels, first.info.plan.spatial_dims):
            raise CheckpointError(f"{place}: the members {members[0][0]} and {name} expect different images")
        if info.kind == "ensemble" or (info.kind == "cascade" and name == info.members[-1]):
            _refuse_other_labels(place, name, member.scheme, scheme)
        if info.kind == "parts" and member.scheme.is_regions and name in info.finders:
            raise CheckpointError(f"{place}: the member {name} finds regions, which a model of parts cannot merge")
        seen = member.info.previous_labels
        expected = len(before.names) if info.kind == "cascade" and before is not None else 0
        if seen != expected:
            raise CheckpointError(
                f"{place}: the member {name} expects {seen} labels of the member before it, which has {expected}"
            )
        before = member.scheme
    if info.crop is not None:
        found = dict(members)[info.crop.member].scheme.names
        if missing := [label for label in info.crop.labels if label not in found]:
            raise CheckpointError(f"{place}: the member {info.crop.member} has no label {missing[0]!r} to crop by")


def _refuse_other_labels(place: str, name: str, found: LabelScheme, expected: LabelScheme) -> None:
    if (found.names, found.trained.values) != (expected.names, expected.trained.values):
        raise CheckpointError(f"{place}: the member {name} has other labels than the model itself")
