"""`medseg export MODEL DST --format nnunet`: a model folder of nnU-Net, of what was imported from one.

That nnunetv2 2.8.1 itself predicts the same with such folders is shown by tests/fixtures/check_nnunet_export.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from inference_bundles import make_info, make_plan, unet_weights
from nnunet_fixtures import FIXTURES, KINDS, folder_of
from typer.testing import CliRunner

from medseg.cli import app
from medseg.errors import ConfigError, WriteError
from medseg.inference import import_model, load_bundle, save_bundle
from medseg.inference.exporting.nnunet import export_nnunet


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_as_the_same_model(kind: str, tmp_path: Path) -> None:
    bundle = import_model(FIXTURES / kind / "model.zip", tmp_path / "bundle")
    again = import_model(export_nnunet(bundle, tmp_path / "folder"), tmp_path / "again")
    one, other = load_bundle(bundle), load_bundle(again)
    for part in ("labels", "ignore", "plan", "net", "prediction", "folds"):
        assert getattr(one.info, part) == getattr(other.info, part), part
    assert one.weights.keys() == other.weights.keys()
    for fold, weights in one.weights.items():
        assert all(torch.equal(value, other.weights[fold][key]) for key, value in weights.items())


@pytest.mark.parametrize("kind", ["plain", "resenc", "batch"])
def test_weights_have_all_of_nnunets_names(kind: str, tmp_path: Path) -> None:
    """nnU-Net loads strictly: no name may be missing, and none be of its own."""
    original = folder_of(kind, tmp_path / "model")
    written = export_nnunet(original, tmp_path / "folder")
    names = [
        set(torch.load(each / "fold_0" / "checkpoint_final.pth", weights_only=False)["network_weights"])
        for each in (original, written)
    ]
    assert names[0] == names[1]


def test_the_command_writes_the_chosen_folds(tmp_path: Path) -> None:
    folder = folder_of("plain", tmp_path / "model")
    arguments = ["export", str(folder), str(tmp_path / "out"), "--format", "nnunet"]
    result = CliRunner().invoke(app, [*arguments, "--folds", "0,2"])
    assert result.exit_code == 0, result.output
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["dataset.json", "fold_0", "fold_2", "plans.json"]
    assert isinstance(CliRunner().invoke(app, [*arguments, "--int8"]).exception, ConfigError)
    with pytest.raises(WriteError, match="exists and holds something"):
        export_nnunet(folder, tmp_path / "out")
    with pytest.raises(ConfigError, match="has no fold 7"):
        export_nnunet(folder, tmp_path / "other", folds=(7,))


def test_post_processing_comes_along(tmp_path: Path) -> None:
    bundle = import_model(FIXTURES / "small" / "model.zip", tmp_path / "bundle")
    content = json.loads((bundle / "model.json").read_text())
    content["prediction"]["keep_largest"] = [["a", "b"], ["b"]]
    (bundle / "model.json").write_text(json.dumps(content))
    again = import_model(export_nnunet(bundle, tmp_path / "folder"), tmp_path / "again")
    assert load_bundle(again).info.prediction.keep_largest == (("a", "b"), ("b",))


def test_what_nnunet_cannot_do_is_refused_with_the_reason(tmp_path: Path) -> None:
    info = make_info(make_plan())
    model = save_bundle(tmp_path / "model", info, {0: unet_weights(info)})
    with pytest.raises(ConfigError, match="cannot be run by nnU-Net: its plan has axes: RAS"):
        export_nnunet(model, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
