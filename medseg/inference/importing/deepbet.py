"""deepbet 1.0.2 (brain extraction in T1-weighted MR, MIT licence) as a bundle: two networks, the first finds the box.

Fisch et al., "deepbet: Fast brain extraction of T1-weighted MRI using Convolutional Neural Networks", 2024. The package
is neither imported nor run: its two TorchScript archives are read as tensors. What surrounds the networks follows its
`bet.py`: the image in RAS, grey levels limited to two quantiles, nearest neighbours to 128 voxels along each axis, the
box of the largest component, nearest neighbours to 256, the largest component, its holes filled.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from medseg.config import PostprocessConfig, SelectRule
from medseg.disk.archive import check_members, opened_zip
from medseg.errors import CheckpointError, MissingPartError, ReadError
from medseg.inference.bundle import save_bundle
from medseg.inference.bundle_info import BundleInfo, NetInfo, PredictionInfo, Provenance
from medseg.inference.bundle_parts import CompositeInfo, CropInfo, SourceInfo, WorkingGrid
from medseg.inference.composites.saving import save_composite
from medseg.preparation.plan import Plan
from medseg.preparation.plan_fields import ChannelPlan, WindowPlan
from medseg.version import __version__

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["import_deepbet", "is_deepbet"]

VERSION = "1.0.2"
# Member, its archive below `data/`, SHA-256 of the archive in the published wheel, voxels along each axis of its grid.
NETWORKS = {
    "box": ("models/bbox_model.pt", "39a7b2b5f799faa1391ea97bfcdc0b9299f20d84f2316a4ff8918dc4685e40aa", 128),
    "brain": ("models/model.pt", "de8ee7c69654d0dd3935dc4a5d84571d8ecf4637a6bfc01df399c4c2bc86e0fd", 256),
}
LARGEST_ARCHIVE = 64 << 20
CITATION = (
    "\nCite: Fisch L, Zumdick S, Barkhau C, et al. deepbet: Fast brain extraction of T1-weighted MRI using "
    "Convolutional Neural Networks. Computers in Biology and Medicine 179, 2024.\n"
)


def is_deepbet(source: str | Path) -> bool:
    """Whether a source of `medseg import` is the installed package, its wheel, or a folder with its networks."""
    if str(source) == "deepbet":
        return True
    path = Path(source)
    return (path.suffix == ".whl" and path.name.startswith("deepbet-")) or (
        path / "data" / NETWORKS["box"][0]
    ).is_file()


def import_deepbet(source: str | Path, target: str | Path) -> Path:
    """Write deepbet's networks as a bundle that finds the brain in T1-weighted MR.

    Args:
        source: 'deepbet' for the installed package; or its wheel, or the folder that holds `data/models/`.
        target: the bundle.

    Returns:
        The bundle's folder.

    Raises:
        MissingPartError: the package is not installed.
        CheckpointError: archives that are damaged, or not those of version 1.0.2.
        WriteError: disk full, no permission, or a folder that holds something else.
    """
    archives = _archives(source)
    digest = hashlib.sha256()
    members: dict[str, Callable[[Path], object]] = {}
    for name, (file, expected, _) in NETWORKS.items():
        content = archives[file]
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise CheckpointError(
                f"{source}: {file} is not that of deepbet {VERSION} (SHA-256 {found[:12]}, expected {expected[:12]}); "
                f"install it again: pip install deepbet=={VERSION}"
            )
        digest.update(content)
        members[name] = _writer(name, content, f"{source}: {file}")
    info = CompositeInfo(
        kind="parts",
        labels={"brain": 1},
        members=tuple(NETWORKS),
        source=SourceInfo(kind="deepbet", hash=digest.hexdigest(), licence="MIT"),
        weight_license="MIT",
        grid=_grid("brain"),
        crop=CropInfo(member="box", rule="bulk", grid=_grid("box"), margin_share=0.1),
        postprocess=PostprocessConfig(keep_components={"brain": 1}, fill_holes=("brain",)),
        postprocess_on="image",
        levels=(0.005, 0.995),
    )
    return save_composite(target, info, members, CITATION)


def _grid(name: str) -> WorkingGrid:
    return WorkingGrid(shape=(NETWORKS[name][2],) * 3, method="nearest")


def _writer(name: str, content: bytes, where: str) -> Callable[[Path], object]:
    size = NETWORKS[name][2]
    info = BundleInfo(
        labels={"brain": 1},
        plan=Plan(
            dims=3,
            orientation="RAS",
            spacing_mm=None,
            patch_size=(size,) * 3,
            batch_size=1,
            in_channels=1,
            normalization=(ChannelPlan(kind="zscore", region="all"),),
            channels=(16, 16, 16, 32, 64, 128),
            strides=((1, 1, 1), *[(2, 2, 2)] * 5),
            select=(SelectRule(name="T1", modality="MR"),),
            windows=WindowPlan(weights="uniform", overlap=0.0),
        ),
        net=NetInfo(
            name="linknet",
            dims=3,
            in_channels=1,
            out_channels=2,
            # Grey levels of ImageNet, as the networks were trained on.
            options={"input_scale": 0.226, "input_shift": 0.449},
        ),
        prediction=PredictionInfo(),
        provenance=Provenance(medseg=__version__, dataset={"channels": ["T1"]}),
        source=SourceInfo(kind="deepbet", hash=hashlib.sha256(content).hexdigest(), licence="MIT"),
        weight_license="MIT",
        folds="all",
    )
    weights = _weights(content, where)
    return lambda folder: save_bundle(folder, info, {0: weights})


def _weights(content: bytes, where: str) -> dict[str, Tensor]:
    """The archive's tensors; its norms have no weights of their own, ours leave what they get as it is."""
    import torch

    from medseg.nets import build_net
    from medseg.nets.torchscript_file import load_torchscript_tensors

    with torch.device("meta"):
        wanted = build_net("linknet", dims=3, in_channels=1, out_channels=2).state_dict()
    found: dict[str, Any] = dict(load_torchscript_tensors(io.BytesIO(content), where))
    for key, value in wanted.items():
        if key not in found and value.dim() == 1:
            found[key] = torch.full(value.shape, float(key.endswith("weight")))
    if {k: v.shape for k, v in found.items()} != {k: v.shape for k, v in wanted.items()}:
        raise CheckpointError(f"{where} holds another network than that of deepbet {VERSION}")
    return found


def _archives(source: str | Path) -> Mapping[str, bytes]:
    if str(source) == "deepbet":
        found = importlib.util.find_spec("deepbet")
        if found is None or found.origin is None:
            raise MissingPartError(
                f"deepbet is not installed: pip install deepbet=={VERSION}, or give the path of its wheel"
            )
        return _of_folder(Path(found.origin).parents[1])
    path = Path(source)
    return _of_wheel(path) if path.is_file() else _of_folder(path)


def _of_folder(folder: Path) -> dict[str, bytes]:
    found = {}
    for file, _, _ in NETWORKS.values():
        try:
            with (folder / "data" / file).open("rb") as opened:
                found[file] = _read(opened, folder / "data" / file)
        except OSError as error:
            raise CheckpointError(
                f"{folder / 'data' / file} cannot be read ({error.strerror}); install it again: "
                f"pip install deepbet=={VERSION}"
            ) from None
    return found


def _of_wheel(wheel: Path) -> dict[str, bytes]:
    try:
        with opened_zip(wheel) as opened:
            check_members(opened, wheel)
            return {file: _entry(opened, f"data/{file}", wheel) for file, _, _ in NETWORKS.values()}
    except ReadError as error:
        raise CheckpointError(str(error)) from None


def _entry(opened: zipfile.ZipFile, name: str, wheel: Path) -> bytes:
    if name not in opened.namelist():
        raise CheckpointError(f"{wheel} is not the wheel of deepbet {VERSION}: it has no {name}")
    with opened.open(name) as file:
        return _read(file, wheel)


def _read(file: IO[bytes], where: Path) -> bytes:
    content = file.read(LARGEST_ARCHIVE + 1)
    if len(content) > LARGEST_ARCHIVE:
        raise CheckpointError(f"{where} is larger than {LARGEST_ARCHIVE >> 20} MB, as no network of deepbet {VERSION}")
    return content
