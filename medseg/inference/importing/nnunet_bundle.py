"""A model of nnU-Net v2 as a bundle: one network, the stages of a cascade, or an ensemble."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from medseg.errors import CheckpointError
from medseg.inference.bundle import save_bundle
from medseg.inference.bundle_info import BundleInfo, PredictionInfo, Provenance
from medseg.inference.bundle_parts import CompositeInfo, SourceInfo
from medseg.inference.composites.saving import save_composite
from medseg.inference.importing.nnunet import Contents, read_model
from medseg.inference.importing.nnunet_folders import checkpoints_in, opened_source
from medseg.inference.importing.nnunet_layout import Layout, layout_of
from medseg.inference.importing.nnunet_postprocessing import postprocessing_rules
from medseg.version import __version__

__all__ = ["import_nnunet"]


def import_nnunet(source: str | Path, target: str | Path) -> Path:
    """Write a model of nnU-Net v2 as a bundle.

    Args:
        source: the folder `TRAINER__PLANS__CONFIGURATION`; one above it that holds just one, the stages of a cascade,
            or the models that nnU-Net's `inference_information.json` recommends; or a zip.
        target: the bundle.

    Returns:
        The bundle's folder.

    Raises:
        CheckpointError: a model that is damaged, hostile, or of a kind that medseg does not know.
        WriteError: disk full, no permission, or a folder that holds something else.
    """
    with opened_source(Path(source)) as folder:
        layout = layout_of(folder)
        infos = {each.folder: _read(each) for each in _networks(layout)}
        return _write(layout, infos, Path(target))


def _networks(layout: Layout) -> list[Layout]:
    """Of a cascade each stage stands after those before it."""
    return [each for member in layout.members for each in _networks(member)] if layout.members else [layout]


def _read(layout: Layout) -> Contents:
    return read_model(layout.folder, checkpoints_in(layout.folder))


def _write(layout: Layout, read: Mapping[Path, Contents], target: Path, previous: int = 0) -> Path:
    if layout.kind == "single":
        content = read[layout.folder]
        _check_previous(layout, content, previous)
        return save_bundle(target, _info(layout, content), content.weights)
    last = read[_networks(layout)[-1].folder]
    names = _names(layout)
    members: dict[str, Callable[[Path], object]] = {}
    before = 0
    for name, member in zip(names, layout.members, strict=True):
        members[name] = partial(_write, member, read, previous=before)
        before = len(read[member.folder].described.labels) if layout.kind == "cascade" else 0
    digest = hashlib.sha256("".join(read[each.folder].hash for each in _networks(layout)).encode()).hexdigest()
    info = CompositeInfo(
        kind=layout.kind,
        labels=last.described.labels,
        ignore=last.described.ignore,
        members=tuple(members),
        source=SourceInfo(kind="nnunet", hash=digest, licence=last.licence),
        weight_license=last.licence,
        keep_largest=_rules(layout, last) if layout.kind == "ensemble" else (),
    )
    return save_composite(target, info, members)


def _names(layout: Layout) -> list[str]:
    """Of the members: what tells their folders apart."""
    names = [each.folder.name.rpartition("__")[2] for each in layout.members]
    if len({name.casefold() for name in names}) < len(names):
        names = [f"member{number}" for number in range(len(names))]
    return names


def _check_previous(layout: Layout, content: Contents, previous: int) -> None:
    expected = content.described.previous_labels
    if expected and not previous:
        raise CheckpointError(
            f"{layout.folder} is a stage of a cascade, and its folder's name does not say which; give the folder of "
            "the data set, with the names that nnU-Net gave to the folders in it"
        )
    if previous != expected:
        raise CheckpointError(f"{layout.folder} expects {expected} labels of the stage before, which has {previous}")


def _rules(layout: Layout, content: Contents) -> tuple[tuple[str, ...], ...]:
    if layout.postprocessing is None:
        return ()
    return postprocessing_rules(layout.postprocessing, content.described.scheme)


def _info(layout: Layout, read: Contents) -> BundleInfo:
    told = read.described
    try:
        return BundleInfo(
            labels=told.labels,
            ignore=told.ignore,
            plan=told.plan,
            net=told.net,
            prediction=PredictionInfo(mirror_axes=told.mirror_axes, keep_largest=_rules(layout, read)),
            provenance=Provenance(medseg=__version__, dataset={"channels": list(told.channels)}),
            source=SourceInfo(kind="nnunet", hash=read.hash, licence=read.licence),
            weight_license=read.licence,
            folds=read.folds,
            previous_labels=told.previous_labels,
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CheckpointError(
            f"{layout.folder}: what it describes is not a model that medseg can keep ({place!r}: {first['msg']})"[:600]
        ) from None
