"""From the path of a bundle to a `Model`: networks of torch built and filled, exported ones opened by their runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.errors import CheckpointError, ConfigError
from medseg.inference.bundle_files import BundleFiles
from medseg.inference.bundle_info import BundleInfo
from medseg.inference.device import CPU, device_without_torch, resolve_device
from medseg.inference.importing.orientation import turned
from medseg.inference.importing.totalsegmentator.tasks import task_named
from medseg.inference.load_options import LoadOptions
from medseg.inference.postprocess import check_keep_largest, check_postprocess
from medseg.inference.predictor import Model
from medseg.plugins import permitted_modules

if TYPE_CHECKING:
    from torch import Tensor, nn

    from medseg.inference.bundle import Bundle

__all__ = ["load_by", "load_model"]

# Where networks of nnU-Net come from.
OF_NNUNET = ("nnunet", "totalsegmentator")


def load_model(
    path: str | Path,
    device: str = "auto",
    engine: str | None = None,
    fast: bool = False,
    allow_code: Sequence[str] = (),
    folds: Sequence[int] | None = None,
    roi: Sequence[str] = (),
    weights: str | Path | None = None,
    compatible: bool = False,
    ensemble: Sequence[str | Path] = (),
    orientation: str | None = None,
) -> Model:
    """A model from a bundle (folder, zip, or a run folder that holds one); no code of a bundle is run.

    Args:
        path: the bundle; a model folder of nnU-Net v2; or `totalsegmentator:TASK`. Networks of the latter two are
            converted once and kept in `MEDSEG_CACHE` (`~/.cache/medseg`).
        device: 'auto', 'cpu', 'cuda', 'cuda:1', ...
        engine: how the networks are run on a CPU: 'eager' (as they are), 'winograd' (faster 3D convolutions), 'frozen'
            (as a graph), 'bf16' (with `fast`), or as ONNX by 'onnxruntime', 'openvino' or 'openvino-bf16' (with `fast`)
            where these are installed. On a GPU 'eager', 'onnxruntime' or 'tensorrt'.
            None: as they are, unless `fast` is given; `predict_studies` measures what is faster where that pays.
        fast: permit bfloat16 where the CPU has it and it is faster: half the time, and up to 1 in 400 voxels of a mask
            got another label. Measured at the first image, on which it must change at most 2 % of the labelled voxels.
        allow_code: modules, by their exact names, from which the bundle may take a network that is not part of medseg,
            e.g. `("my_package.nets",)`; the environment variable `MEDSEG_ALLOW_CODE` permits further ones. Permit what
            you wrote or trust: the bundle chooses what is called in it, and with which options.
        folds: the folds of the bundle to average, e.g. `(0, 2)`; None: all.
        roi: the labels that are wanted of a model made of parts; parts without any are not loaded. () for all.
        weights: the folder of TotalSegmentator's weights; None: `~/.totalsegmentator/nnunet/results`.
        compatible: for models of nnU-Net: repeat its half-precision steps and mirror along all axes that its checkpoint
            names, to prove that the model is the original. Slower, and needs the memory of all logits.
        ensemble: further models with the same labels; the probabilities of all are averaged.
        orientation: for models of nnU-Net: how its training files lay, e.g. 'LPS', to which DICOM studies are turned;
            None: RAS.

    Raises:
        CheckpointError: missing, damaged or hostile bundle, unknown format, weights that do not fit the net, a net that
            is neither medseg's nor permitted.
        ConfigError: unknown device, an engine that it does not have, a fold or a label that the bundle does not hold,
            or `compatible` for another model than one of nnU-Net.
        MissingPartError: if the net was permitted, or the engine named, but is not installed here.

    Example:
        >>> load_model("runs/lung/model", device="cpu").scheme.names
        ('lung', 'tumour')
    """
    options = LoadOptions(
        device,
        engine,
        fast,
        permitted_modules(allow_code),
        None if folds is None else tuple(folds),
        tuple(roi),
        None if weights is None else str(weights),
        compatible,
        tuple(map(str, ensemble)),
        orientation,
    )
    return load_by(path, options)


def load_by(path: str | Path, options: LoadOptions) -> Model:
    """`load_model` by the options that a command, or a worker on another machine, was given."""
    if options.ensemble:
        from medseg.inference.composites.together import together

        each = replace(options, ensemble=())
        return together({str(one): load_by(one, each) for one in (path, *options.ensemble)})
    roi, weights = options.roi, options.weights
    from medseg.inference.bundle import read_bundle
    from medseg.inference.composites.loading import composite_of, load_composite
    from medseg.inference.importing.cache import as_bundle

    def load(member: Path) -> Model:
        return load_by(member, replace(options, roi=(), weights=None))

    if task := task_named(path):
        from medseg.inference.importing.totalsegmentator.bundle import load_task

        return load_task(task, weights, load, roi)
    if weights is not None:
        raise ConfigError(f"--weights is for models such as totalsegmentator:total; {path} brings its own")
    path = as_bundle(path)
    if made := composite_of(Path(path)):
        info, content, place = made
        return load_composite(place, info, content, load, roi)
    if roi:
        raise ConfigError(f"{path} is a single model, which finds all its labels at once; omit --roi")
    first: list[nn.Module] = []
    folders: list[Path] = []

    def expected(files: BundleFiles, info: BundleInfo) -> Mapping[str, Tensor] | None:
        folders.extend(files.folders)
        try:
            check_postprocess(info.prediction.postprocess, info.scheme)
            check_keep_largest(info.prediction.keep_largest, info.scheme)
        except ConfigError as error:
            raise CheckpointError(f"{path}: {error}") from None
        if info.network.format != "safetensors":
            device_without_torch(options.device)
            return None
        resolve_device(options.device)
        from medseg.inference.bundle_nets import unfilled_net

        first.append(unfilled_net(Path(path), folders, info, options.allow_code))
        return first[0].state_dict()

    bundle = read_bundle(Path(path), expected)
    chosen_folds = _chosen_folds(bundle, options.folds)
    single = bundle.info if options.orientation is None else turned(bundle.info, options.orientation, str(path))
    if options.compatible:
        _refuse_others(bundle)
    if bundle.networks:
        from medseg.inference.exporting.networks import exported_networks

        networks, given = exported_networks(bundle, options.engine, chosen_folds)
        return Model(single, networks, CPU, bundle.model_hash, given, chosen_folds)
    from medseg.inference.bundle_nets import unfilled_net, with_weights
    from medseg.inference.engine import NetworkEngine

    on_device = resolve_device(options.device)
    chosen = NetworkEngine(on_device, "eager" if options.compatible else options.engine, fast=options.fast)
    nets = []
    for fold, state in bundle.weights.items():
        if chosen_folds is not None and fold not in chosen_folds:
            continue
        net = first.pop() if first else unfilled_net(bundle.path, folders, bundle.info, options.allow_code)
        nets.append(with_weights(net, state).to(on_device).eval().requires_grad_(False))
    model = Model(single, tuple(nets), on_device, bundle.model_hash, chosen, chosen_folds)
    return replace(model, compatible=options.compatible)


def _refuse_others(bundle: Bundle) -> None:
    if bundle.info.source.kind not in OF_NNUNET or bundle.info.network.format != "safetensors":
        raise ConfigError(
            f"{bundle.path} is not a network of nnU-Net as it was imported, so there is nothing that --compatible "
            "could repeat; predict without it"
        )


def _chosen_folds(bundle: Bundle, folds: Sequence[int] | None) -> tuple[int, ...] | None:
    """The folds to load, rising; None for all of them."""
    if folds is None:
        return None
    if bundle.info.folds == "all":
        raise ConfigError(f"{bundle.path} is one network trained on all cases, so there are no folds to choose from")
    missing = sorted(set(folds) - bundle.held_folds)
    if missing or not folds:
        held = ", ".join(map(str, sorted(bundle.held_folds)))
        asked = ", ".join(map(str, missing)) or "none"
        raise ConfigError(f"{bundle.path} holds the folds {held}, asked for {asked}; choose among those")
    return None if bundle.held_folds <= set(folds) else tuple(sorted(set(folds)))
