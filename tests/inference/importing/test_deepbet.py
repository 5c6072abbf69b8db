"""deepbet's networks, from its wheel, beside its own masks; and archives that are not what they say."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import medseg
from medseg.errors import CheckpointError, MissingPartError
from medseg.geometry import reorient
from medseg.inference import load_model
from medseg.inference.importing import deepbet
from medseg.inference.importing.deepbet import import_deepbet
from medseg.nets import build_net
from medseg.nets.torchscript_file import load_torchscript_tensors

HEADS = Path(__file__).parents[4] / "shared" / "data" / "nifti_edge"
# What deepbet 1.0.2 itself found in the head (`tests/fixtures/make_deepbet.py`).
MASK = Path(__file__).parents[2] / "fixtures" / "deepbet" / "head_RAS.nii.gz"
# The archives of this test are written in the format that deepbet's have.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated:DeprecationWarning")


class _Plain(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(1, 3, 3)
        self.rest = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1, bias=False), torch.nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rest(self.first(x))


def archive(net: torch.nn.Module) -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(net, torch.zeros(1, 1, 8, 8)), file)
    return file.getvalue()


def with_pickle(content: bytes, pickled: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickled if name.count("/") == 1 and name.endswith("/data.pkl") else old.read(name))
    return out.getvalue()


def test_the_tensors_of_an_archive_are_read_as_data():
    net = _Plain()
    found = load_torchscript_tensors(io.BytesIO(archive(net)), "model.pt")
    assert set(found) == set(net.state_dict())
    for name, value in net.state_dict().items():
        assert torch.equal(found[name], value)


class _Runs:
    def __reduce__(self):
        return os.system, ("touch was_run",)


@pytest.mark.parametrize(
    "pickled",
    [pickle.dumps(_Runs()), pickle.dumps({"a": [_Runs()]}, 2), b"", b"\x80\x02", b"junk", pickle.dumps([1] * 3)[:-3]],
)
def test_an_archive_that_names_code_runs_nothing(tmp_path, monkeypatch, pickled):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load_torchscript_tensors(io.BytesIO(with_pickle(archive(_Plain()), pickled)), "model.pt")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_what_is_no_archive_is_refused_in_a_sentence():
    for content in (b"", b"no zip", with_pickle(archive(_Plain()), b"")[:200]):
        with pytest.raises(CheckpointError, match="cannot be read as a TorchScript archive"):
            load_torchscript_tensors(io.BytesIO(content), "model.pt")


def test_a_package_that_is_not_installed_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(deepbet.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPartError, match=r"pip install deepbet==1.0.2"):
        import_deepbet("deepbet", tmp_path / "brain")


def test_archives_of_another_version_are_refused_by_hash(tmp_path):
    for file in ("bbox_model.pt", "model.pt"):
        (tmp_path / "data" / "models").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "models" / file).write_bytes(archive(_Plain()))
    with pytest.raises(CheckpointError, match=r"is not that of deepbet 1\.0\.2"):
        import_deepbet(tmp_path, tmp_path / "brain")
    assert not (tmp_path / "brain").exists()


def test_the_steps_around_the_networks_are_those_of_the_package(tmp_path, monkeypatch):
    """With networks of random weights, by its own formulas: the published weights are not part of this repository."""
    monkeypatch.setattr(
        deepbet,
        "NETWORKS",
        {name: (file, "", 32 if name == "box" else 64) for name, (file, _, _) in deepbet.NETWORKS.items()},
    )
    nets = {}
    for seed, name in enumerate(deepbet.NETWORKS):
        torch.manual_seed(seed)
        nets[name] = build_net("linknet", dims=3, in_channels=1, out_channels=2).eval()
    monkeypatch.setattr(
        deepbet, "_archives", lambda source: {file: name.encode() for name, (file, _, _) in deepbet.NETWORKS.items()}
    )
    monkeypatch.setattr(deepbet, "_weights", lambda content, where: nets[content.decode()].state_dict())
    monkeypatch.setattr(deepbet.hashlib, "sha256", _NoHash)
    bundle = import_deepbet("deepbet", tmp_path / "brain")
    monkeypatch.undo()
    rng = np.random.default_rng(0)
    image = rng.normal(size=(40, 34, 29)).astype(np.float32) * 5
    image[10:30, 8:26, 9:24] += 30
    volume = medseg.Volume(image[::-1], np.diag([-2.0, 2, 2, 1]))
    expected = _by_formula(image, nets["box"], nets["brain"])
    found = load_model(bundle, "cpu").predict(volume).array[::-1]
    assert 0 < expected.mean() < 1
    assert (found == expected).mean() > 0.999


class _NoHash:
    def __init__(self, *_: bytes) -> None: ...

    def update(self, _: bytes) -> None: ...

    def hexdigest(self) -> str:
        return ""


def _by_formula(image, box_net, brain_net):
    """`BrainExtraction.run` of deepbet 1.0.2, bet.py, with the sizes of this test."""
    from scipy import ndimage

    x = torch.from_numpy(image)
    levels = {}

    def seen(part, size, net):
        small = torch.nn.functional.interpolate(part[None, None], (size,) * 3, mode="nearest-exact")
        low, high = levels.setdefault("of", (small.quantile(0.005), small.quantile(0.995)))
        y = ((small - low) / (high - low)).clamp(0, 1)
        with torch.no_grad():
            return net(0.226 * (y - y.mean()) / y.std() + 0.449).softmax(1)[0, 1]

    def largest(mask):
        labelled, _ = ndimage.label(mask, np.ones((3, 3, 3)))
        return labelled == np.bincount(labelled[labelled > 0]).argmax()

    small = torch.from_numpy(largest((seen(x, 32, box_net) > 0.5).numpy())).float()
    box = []
    for axis, n in enumerate(image.shape):
        rows = torch.where(small.mean(tuple(a for a in range(3) if a != axis)) > 0.02)[0]
        scale = torch.tensor(n) / torch.tensor(32)
        middle = (scale * ((rows.max() + 1 + rows.min()) / 2)).round()
        size = (1.2 * (scale * (rows.max() + 1 - rows.min()))).round()
        box.append(slice(max(0, int(middle - size / 2)), min(n, int(middle + size / 2))))
    part = x[tuple(box)]
    chance = seen(part, 64, brain_net)
    back = torch.nn.functional.interpolate(chance[None, None], tuple(part.shape), mode="nearest-exact")[0, 0] > 0.5
    mask = np.zeros(image.shape, dtype=bool)
    mask[tuple(box)] = ndimage.binary_fill_holes(largest(back.numpy()))
    return mask


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("DEEPBET"), reason="set DEEPBET to the path of deepbet-1.0.2-py3-none-any.whl")
@pytest.mark.skipif(not HEADS.is_dir(), reason="the heads of ../shared/data/nifti_edge are not here")
@pytest.mark.parametrize("orientation", ["RAS", "LAS", "LPS", "PIR", "ASR", "SLA"])
def test_masks_are_those_of_the_package(tmp_path, orientation):
    bundle = import_deepbet(os.environ["DEEPBET"], tmp_path / "brain")
    expected = reorient(medseg.read(MASK), orientation).array > 0
    found = load_model(bundle, "cpu").predict(medseg.read(HEADS / f"space_{orientation}.nii.gz")).array > 0
    assert (found == expected).mean() >= 0.999
