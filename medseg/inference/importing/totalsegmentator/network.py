"""One nnU-Net folder of TotalSegmentator as a bundle: windows, folds and names of the labels are those of its task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medseg.errors import CheckpointError
from medseg.inference.bundle import save_bundle
from medseg.inference.bundle_info import BundleInfo, PredictionInfo, Provenance
from medseg.inference.bundle_parts import SourceInfo
from medseg.inference.importing.nnunet import read_json, read_model
from medseg.inference.importing.nnunet_folders import CHECKPOINT, checkpoints_in
from medseg.version import __version__

__all__ = ["dataset_labels", "write_network"]


def dataset_labels(folder: Path) -> dict[str, int]:
    """The labels of a model folder without background, by rising value.

    Raises:
        CheckpointError: a damaged `dataset.json`, or regions.
    """
    labels = read_json(folder / "dataset.json").get("labels")
    if not isinstance(labels, dict) or not all(type(value) is int for value in labels.values()):
        raise CheckpointError(f"{folder / 'dataset.json'}: expected labels with a number each")
    found = {str(name): int(value) for name, value in labels.items() if value != 0}
    if sorted(found.values()) != list(range(1, len(found) + 1)):
        raise CheckpointError(f"{folder / 'dataset.json'}: its labels are not numbered from 1 without a gap")
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


def write_network(folder: Path, target: Path, labels: Mapping[str, int], step: float, folds: str, licence: str) -> Path:
    """Write a model folder as a bundle.

    Args:
        folder: `TRAINER__PLANS__CONFIGURATION`.
        target: the bundle.
        labels: names and values, from 1.
        step: of the windows, as a share of the patch.
        folds: '0', or 'all' that the folder holds.
        licence: of the weights.

    Raises:
        CheckpointError: what is absent, damaged, or a network that medseg does not build.
    """
    checkpoints = checkpoints_in(folder)
    if folds == "0":
        if "0" not in checkpoints:
            raise CheckpointError(f"{folder / 'fold_0' / CHECKPOINT} is missing; download the weights again")
        checkpoints = {"0": checkpoints["0"]}
    read = read_model(folder, checkpoints)
    told = read.described
    if len(told.labels) != len(labels):
        raise CheckpointError(
            f"{folder} has {len(told.labels)} labels, its task {len(labels)}; these are other weights"
        )
    overlap = round(1 - step, 6)
    windows = told.plan.windows.model_copy(update={"overlap": overlap})
    info = BundleInfo(
        labels=dict(labels),
        plan=told.plan.model_copy(
            update={
                "windows": windows,
                "unmirrored": (),
                # TotalSegmentator turns every image to RAS, so the order of the file is known.
                "axes": "RAS",
                "orientation": "".join("RAS"[axis] for axis in told.plan.transpose),
                "transpose": (0, 1, 2),
            }
        ),
        net=told.net,
        # TotalSegmentator never mirrors in prediction.
        prediction=PredictionInfo(overlap=overlap),
        provenance=Provenance(medseg=__version__, dataset={"channels": list(told.channels)}),
        source=SourceInfo(kind="totalsegmentator", hash=read.hash, licence=licence),
        weight_license=licence,
        folds=read.folds,
    )
    return save_bundle(target, info, read.weights)
