from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from inference_bundles import make_info, make_plan, threshold_weights, unet_weights

from medseg.config import PostprocessConfig
from medseg.errors import CheckpointError, ConfigError, MissingPartError, WriteError
from medseg.inference import PredictionInfo, load_bundle, load_model, save_bundle
from medseg.inference.bundle_info import BundleInfo
from medseg.inference.bundle_parts import NetworkInfo


def test_what_is_saved_is_loaded_again(tmp_path):
    info = make_info(make_plan(), scores={"fold0": {"dice": 0.9, "hd95": float("nan")}}, weight_license="CC-BY-4.0")
    weights = unet_weights(info)
    folder = save_bundle(tmp_path / "model", info, {0: weights})
    bundle = load_bundle(folder)
    written = {"folds": (0,), "network": NetworkInfo(precision="float32")}
    assert bundle.info == info.model_copy(update={"scores": {"fold0": {"dice": 0.9, "hd95": None}}, **written})
    assert list(bundle.info.labels.items()) == [("lung", 1), ("tumour", 7)]
    assert bundle.weights.keys() == {0}
    assert all(torch.equal(bundle.weights[0][key], value) for key, value in weights.items())
    assert sorted(f.name for f in folder.iterdir()) == ["README.md", "model.json", "weights_fold0.safetensors"]
    assert [f.name for f in tmp_path.iterdir()] == ["model"]
    card = (folder / "README.md").read_text()
    assert "tumour" in card and "CC-BY-4.0" in card and "1 x 1 x 1 mm" in card
    assert load_model(folder, "cpu").scheme.values == ((1,), (7,))


def test_the_hash_follows_weights_and_description_but_not_the_place(tmp_path):
    info = make_info(make_plan())
    first = save_bundle(tmp_path / "a", info, {0: unet_weights(info)})
    again = save_bundle(tmp_path / "b", info, {0: unet_weights(info)})
    other_weights = save_bundle(tmp_path / "c", info, {0: unet_weights(info, seed=1)})
    other_info = save_bundle(tmp_path / "d", make_info(make_plan(), data_license="CC0"), {0: unet_weights(info)})
    hashes = [load_bundle(f).model_hash for f in (first, again, other_weights, other_info)]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3


def test_a_fold_of_the_same_model_joins_the_others(tmp_path):
    info = make_info(make_plan(), scores={"fold0": {"dice": 0.8}})
    save_bundle(tmp_path / "model", info, {0: unet_weights(info)})
    more = info.model_copy(update={"scores": {"fold1": {"dice": 0.9}}})
    save_bundle(tmp_path / "model", more, {1: unet_weights(info, seed=1)})
    bundle = load_bundle(tmp_path / "model")
    assert bundle.weights.keys() == {0, 1}
    assert bundle.info.scores == {"fold0": {"dice": 0.8}, "fold1": {"dice": 0.9}}
    first = next(iter(bundle.weights[0]))
    assert torch.equal(bundle.weights[0][first], unet_weights(info)[first])
    assert "weights_fold0.safetensors, weights_fold1.safetensors" in (tmp_path / "model" / "README.md").read_text()
    other = make_info(make_plan(), labels={"lung": 1, "tumour": 8})
    save_bundle(tmp_path / "model", other, {1: unet_weights(other)})
    assert load_bundle(tmp_path / "model").weights.keys() == {1}


def test_the_order_of_labels_is_part_of_the_model():
    first = make_info(make_plan(), labels={"a": 1, "b": 2})
    assert not first.same_model(make_info(make_plan(), labels={"b": 2, "a": 1}))


def test_a_full_disk_leaves_the_old_bundle_and_nothing_else(tmp_path, monkeypatch):
    info = make_info(make_plan())
    folder = save_bundle(tmp_path / "model", info, {0: unet_weights(info)})
    before = load_bundle(folder).model_hash

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteError, match="disk is full"):
        save_bundle(folder, info, {0: unet_weights(info, seed=1)})
    assert load_bundle(folder).model_hash == before
    assert [f.name for f in tmp_path.iterdir()] == ["model"]


def test_a_kill_between_the_renames_of_a_swap_loses_nothing(unet_bundle):
    before = load_bundle(unet_bundle).model_hash
    unet_bundle.rename(unet_bundle.with_name(f".{unet_bundle.name}.replaced"))
    assert load_bundle(unet_bundle).model_hash == before


def test_a_folder_with_other_things_is_never_replaced(tmp_path):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "picture.jpg").write_bytes(b"x")
    info = make_info(make_plan())
    with pytest.raises(WriteError, match="not a model bundle"):
        save_bundle(tmp_path / "holiday", info, {0: unet_weights(info)})
    assert (tmp_path / "holiday" / "picture.jpg").exists()


@pytest.mark.parametrize("prefix", ["", "unet/"])
def test_a_zip_of_the_folder_is_the_same_model(unet_bundle, tmp_path, prefix):
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for file in unet_bundle.iterdir():
            opened.write(file, f"{prefix}{file.name}")
    assert load_bundle(archive).model_hash == load_bundle(unet_bundle).model_hash
    load_model(archive, "cpu")
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="intact zip"):
        load_bundle(archive)


def test_a_run_folder_stands_for_the_bundle_in_it(unet_bundle, tmp_path):
    shutil.move(unet_bundle, tmp_path / "run" / "model")
    assert load_bundle(tmp_path / "run").weights.keys() == {0}


def _edit(folder, **changes):
    values = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**values, **changes}))


def test_bundles_that_cannot_be_used_are_refused_by_name(unet_bundle, tmp_path):
    def broken(change) -> Path:
        folder = tmp_path / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(unet_bundle, folder)
        change(folder)
        return folder

    weights = "weights_fold0.safetensors"
    cases = [
        ("no model bundle", shutil.rmtree),
        ("no model.json|no model bundle", lambda f: (f / "model.json").unlink()),
        ("no weights_fold0", lambda f: (f / weights).unlink()),
        ("damaged", lambda f: (f / weights).write_bytes((f / weights).read_bytes()[:-9])),
        ("damaged", lambda f: (f / weights).write_bytes(b"")),
        ("damaged", lambda f: (f / weights).write_bytes(b"\xff" * 100)),
        ("model.json is damaged", lambda f: (f / "model.json").write_text('{"format_version": 1')),
        ("format_version 3.*update medseg", lambda f: _edit(f, format_version=3)),
        ("format_version None", lambda f: (f / "model.json").write_text("[]")),
        ("surprise", lambda f: _edit(f, surprise=1)),
        ("net does not fit labels", lambda f: _edit(f, labels={"a": 1})),
        ("share a value", lambda f: _edit(f, labels={"a": 1, "b": 1})),
    ]
    for message, change in cases:
        with pytest.raises(CheckpointError, match=message) as caught:
            load_model(broken(change), "cpu")
        assert caught.value.exit_code == 5
        assert "broken" in str(caught.value) and "\n" not in str(caught.value)


def test_weights_that_do_not_fit_the_net_are_refused(tmp_path):
    info = make_info(make_plan(), "inference_nets:build_threshold", {"spot": 1})
    good = threshold_weights(2, 0.5)
    bad = {
        "bias is missing": {"slope": good["slope"]},
        "extra is not in the net": {**good, "extra": torch.ones(1)},
        "slope has shape": {**good, "slope": torch.ones(3)},
        "NaN": {**good, "slope": torch.tensor([0.0, float("nan")])},
    }
    for message, state in bad.items():
        folder = save_bundle(tmp_path / "model", info, {0: state})
        with pytest.raises(CheckpointError, match=message):
            load_model(folder, "cpu")


def test_a_net_that_is_not_here_and_a_device_that_is_not_here_are_named(tmp_path, unet_bundle):
    info = make_info(make_plan(), "nowhere_at_all:build", {"spot": 1})
    folder = save_bundle(tmp_path / "model", info, {0: threshold_weights(2, 0.5)})
    with pytest.raises(MissingPartError, match="nowhere_at_all"):
        load_model(folder, "cpu", allow_code=("nowhere_at_all",))
    for device in ("gpu", "cuda:99"):
        with pytest.raises(ConfigError, match=device):
            load_model(unet_bundle, device)
    info = make_info(make_plan(), "spline", {"spot": 1})
    folder = save_bundle(tmp_path / "other", info, {0: threshold_weights(2, 0.5)})
    with pytest.raises(CheckpointError, match="spline"):
        load_model(folder, "cpu")


def test_code_that_comes_with_a_bundle_is_never_run(tmp_path, monkeypatch):
    info = make_info(make_plan(), "brought_along:build", {"spot": 1})
    folder = save_bundle(tmp_path / "model", info, {0: threshold_weights(2, 0.5)})
    (folder / "brought_along.py").write_text("raise SystemExit('code of the bundle was run')")
    monkeypatch.chdir(folder)
    with pytest.raises(CheckpointError, match="runs no code from a bundle"):
        load_model(folder, "cpu")


def test_prediction_defaults_are_checked():
    with pytest.raises(ValueError, match="less than 1"):
        PredictionInfo(overlap=1.0)


def test_of_what_folds_fitted_on_their_validation_cases_an_ensemble_keeps_what_they_agree_on(tmp_path):
    def with_rules(**rules):
        info = make_info(make_plan())
        prediction = info.prediction.model_copy(update={"postprocess": PostprocessConfig.model_validate(rules)})
        return info.model_copy(update={"prediction": prediction})

    folder = tmp_path / "model"
    first = with_rules(keep_components={"object": 1}, minimum_volume_ml={"object": 1.0}, fill_holes=("object",))
    save_bundle(folder, first, {0: unet_weights(first)})
    second = with_rules(keep_components={"object": 2}, minimum_volume_ml={"object": 0.3})
    save_bundle(folder, second, {1: unet_weights(second)})
    assert load_bundle(folder).info.prediction.postprocess == PostprocessConfig(
        keep_components={"object": 2}, minimum_volume_ml={"object": 0.3}
    )
    # A fold that is trained again stands alone, so its own rules hold.
    save_bundle(tmp_path / "again", first, {0: unet_weights(first)})
    save_bundle(tmp_path / "again", second, {0: unet_weights(second)})
    assert load_bundle(tmp_path / "again").info.prediction == second.prediction


def test_a_model_knows_every_value_that_its_training_ignored() -> None:
    for ignore in (9, (9, 8)):
        info = make_info(make_plan(), labels={"whole": (1, 2), "pen": (1,), "core": (2,)}, ignore=ignore, spare=())
        again = BundleInfo.model_validate_json(info.to_json())
        assert again.scheme == info.scheme and again.scheme.ignored == (ignore if isinstance(ignore, tuple) else (9,))


@pytest.mark.parametrize(
    ("labels", "spare", "later_wins", "painted"),
    [
        ({"a": [1, 2], "b": [2, 3]}, None, True, (1, 3)),
        ({"a": [1, 2], "b": [2, 3]}, (), False, (1, 3)),
        # Without values of their own the former way wrote no mask, so that there is nothing to keep.
        ({"whole": [1, 2], "pen": [1], "core": [2]}, None, False, (3, 1, 2)),
        ({"whole": [1, 2, 3], "pen": [1], "core": [2]}, (3,), False, (3, 1, 2)),
        ({"WT": [1, 2, 3, 4], "TC": [1, 3, 4], "ET": [4]}, None, True, (2, 1, 4)),
        ({"WT": [1, 2, 3, 4], "TC": [1, 3, 4], "ET": [4]}, (), False, (2, 1, 4)),
    ],
)
def test_bundles_from_before_spare_values_paint_as_they_did(
    labels: dict[str, list[int]], spare: tuple[int, ...] | None, later_wins: bool, painted: tuple[int, ...]
) -> None:
    scheme = make_info(make_plan(), labels=labels, spare=spare).scheme
    assert scheme.later_wins is later_wins and scheme.painted == painted
