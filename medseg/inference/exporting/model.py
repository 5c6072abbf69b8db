"""A trained model as a bundle that runs without torch: its networks as ONNX or OpenVINO files, all else as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from medseg.errors import CheckpointError, MissingPartError, WriteError
from medseg.inference.bundle_files import FOLD_NAMES, INFO, WEIGHTS, bundle_files
from medseg.inference.bundle_info import BundleInfo
from medseg.inference.bundle_parts import NetworkInfo, ParityInfo
from medseg.inference.exporting.files import StoredNetwork, open_network, partner
from medseg.inference.exporting.int8 import Int8Options, calibration_cases, int8_info, refuse_int8
from medseg.inference.exporting.parity import MOST_CHANGED, MOST_DIFFERENT, joined, measured_parity, parity_windows
from medseg.inference.exporting.target import new_bundle, refuse_target
from medseg.inference.importing.cache import as_bundle
from medseg.inference.load import load_model
from medseg.inference.model_card import model_card
from medseg.inference.onnx_network import require_onnxruntime
from medseg.inference.openvino_network import require_openvino
from medseg.inference.predictor import Model
from medseg.inference.quantisation import Int8Network, quantised
from medseg.nets.onnx_graph import onnx_graph
from medseg.progress import ProgressCallback

__all__ = ["Exported", "ExportedFile", "Format", "export_model"]

Format = Literal["onnx", "openvino"]
# The runtime of each format, by the name that engines have.
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """The network of one fold.

    Args:
        name: of the file.
        size: in bytes, with the weights that belong to it.
        parity: with the original.
        int8: what it is in INT8; None for float32.
    """

    name: str
    size: int
    parity: ParityInfo
    int8: Int8Network | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Args:
        folder: the bundle, or the zip.
        files: its networks.
    """

    folder: Path
    files: tuple[ExportedFile, ...]


def export_model(
    model: str | Path,
    target: str | Path,
    format: Format = "onnx",
    folds: Sequence[int] | None = None,
    allow_code: Sequence[str] = (),
    progress: ProgressCallback | None = None,
    int8: Int8Options | None = None,
) -> Exported:
    """Write a model as a bundle of exported networks, which `load_model` and `medseg predict` take like the original.

    Each network is written for windows of the plan's size and any number of them at a time, in float32, and compared
    with the original on three windows: of prepared cases where the model lies in its run folder, else of noise. What
    was found is in `model.json` under `network.parity`; for INT8, what that costs and saves is under `network.int8`.

    Args:
        model: the bundle; a folder, a zip, or a run folder.
        target: folder to write, or a name that ends in `.zip`, a zip of it; an exported model there is replaced.
        format: 'onnx', run by ONNX Runtime, or 'openvino'.
        folds: those wanted; None: all.
        allow_code: as for `load_model`.
        progress: called with (folds done, folds in all, the fold).
        int8: write it in 8-bit integers, see `medseg.inference.quantisation`; None: in float32.

    Raises:
        CheckpointError: as `load_model`; a model that is exported already; a network that the format cannot hold, or
            that answers otherwise there, or loses too much Dice in INT8.
        ConfigError: a fold that the bundle does not hold; INT8 of a 3D network as ONNX.
        DatasetError: nothing to calibrate with, or images that do not fit the model.
        MissingPartError: a package that writes or runs the format is not installed.
        WriteError: a target that holds something else, or weights; disk full, no permission.

    Example:
        >>> export_model("runs/lung/model", "lung_onnx").files[0].name
        'network_fold0.onnx'
    """
    folder = Path(target)
    refuse_target(folder)
    require_packages(format)
    model = as_bundle(model)
    loaded = load_model(model, "cpu", allow_code=allow_code, folds=folds)
    if loaded.info.network.format != "safetensors":
        raise CheckpointError(
            f"{model} is an exported model ({loaded.info.network.format}); give the model that it was exported from"
        )
    numbers = _held_folds(Path(model)) if loaded.folds is None else loaded.folds
    windows, seen = parity_windows(Path(model), loaded.info)
    cases = []
    if int8 is not None:
        refuse_int8(loaded.info, format)
        cases = calibration_cases(Path(model), loaded.info, int8)
    files: list[ExportedFile] = []
    with new_bundle(folder) as fresh:
        for number, (fold, net) in enumerate(zip(numbers, loaded.modules, strict=True)):
            file, where = fresh / FOLD_NAMES[format].format(fold), f"{model}: fold {fold}"
            graph, regions = _graph(net, loaded.info, where), loaded.scheme.is_regions
            made = None if int8 is None else quantised(graph, format, cases, regions=regions, max_loss=int8.max_loss)
            stored = _written(graph, file, where) if made is None else _kept(made, file, where)
            parity = measured_parity(net, open_network(stored, loaded.info), windows, seen, regions)
            if made is None:
                _refuse_other_answers(parity, stored.where)
            size = len(stored.content) + len(stored.weights or b"")
            files.append(ExportedFile(file.name, size, parity, made))
            if progress is not None:
                progress(number + 1, len(loaded.nets), f"fold {fold}")
        network = NetworkInfo(
            format=format,
            precision="float32" if int8 is None else "int8",
            engines_passed=(RUNTIMES[format],) if int8 is None else (),
            parity=joined([each.parity for each in files]),
            int8=None if int8 is None else int8_info([each.int8 for each in files if each.int8 is not None]),
        )
        info = _described(loaded, numbers, network)
        (fresh / INFO).write_text(info.to_json(), encoding="utf-8")
        names = [name for each in files for name in (each.name, *partner(each.name))]
        (fresh / "README.md").write_text(model_card(info, names), encoding="utf-8")
    return Exported(folder, tuple(files))


def require_packages(format: Format) -> None:
    """See that what writes and what runs a format is there, before anything is computed.

    Raises:
        MissingPartError: with the command that installs it.
    """
    extras = ".[onnx]" if format == "onnx" else ".[onnx,openvino]"
    try:
        # What torch writes ONNX with, from which OpenVINO's format is made.
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingPartError(
            f"medseg export --format {format} needs {error.name}: in the folder of medseg, "
            f"pip install -c constraints.txt '{extras}'"
        ) from None
    (require_onnxruntime if format == "onnx" else require_openvino)()


def _held_folds(model: Path) -> tuple[int, ...]:
    """The numbers of a bundle's folds; bundles of format_version 1 do not name them in `model.json`."""
    with bundle_files(model) as files:
        return tuple(sorted(int(found[1]) for name in files.names if (found := WEIGHTS.fullmatch(name))))


def _described(model: Model, folds: Sequence[int], network: NetworkInfo) -> BundleInfo:
    """`model.json` of the export: the original's, of the chosen folds."""
    info = model.info
    scores = {
        name: value
        for name, value in info.scores.items()
        if info.folds == "all" or not name.startswith("fold") or name in {f"fold{fold}" for fold in folds}
    }
    source = info.source.model_copy(update={"hash": model.model_hash})
    changes = {"scores": scores, "network": network, "source": source}
    return info.model_copy(update=changes if info.folds == "all" else changes | {"folds": tuple(folds)})


def _graph(net: nn.Module, info: BundleInfo, where: str) -> bytes:
    try:
        return onnx_graph(net, info.net.in_channels, info.plan.patch_size)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from None


def _kept(made: Int8Network, file: Path, where: str) -> StoredNetwork:
    """Write a network in INT8, and read again what lies on the disk."""
    file.write_bytes(made.content)
    if made.weights is None:
        return StoredNetwork(where, file.read_bytes())
    file.with_suffix(".bin").write_bytes(made.weights)
    return StoredNetwork(where, file.read_bytes(), file.with_suffix(".bin").read_bytes())


def _written(content: bytes, file: Path, where: str) -> StoredNetwork:
    """Write the ONNX graph of one fold in its format, and read again what lies on the disk."""
    if file.suffix == ".onnx":
        file.write_bytes(content)
        return StoredNetwork(where, file.read_bytes())
    openvino = require_openvino()
    try:
        model = openvino.Core().read_model(content, b"")
    except RuntimeError as error:
        raise CheckpointError(
            f"{where}: OpenVINO cannot read the network ({str(error).splitlines()[-1][:200]})"
        ) from None
    try:
        openvino.save_model(model, file, compress_to_fp16=False)
    except RuntimeError as error:  # Its only reasons here are the disk and permissions.
        raise WriteError(f"cannot write {file.name}: {str(error).strip().splitlines()[-1][:200]}") from None
    return StoredNetwork(where, file.read_bytes(), file.with_suffix(".bin").read_bytes())


def _refuse_other_answers(parity: ParityInfo, where: str) -> None:
    if parity.probability > MOST_DIFFERENT or parity.changed > MOST_CHANGED:
        raise CheckpointError(
            f"{where}: the exported network answers otherwise than the original (probabilities differ by up to "
            f"{parity.probability:.2g}, {parity.changed:.2%} of the voxels get another label; permitted are "
            f"{MOST_DIFFERENT:g} and {MOST_CHANGED:.1%}), so it was not written"
        )
