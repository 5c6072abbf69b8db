"""`model.json` of version 2: folds, how the network is stored, where it comes from, models made of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from inference_bundles import make_info, make_plan, unet_weights

from medseg.errors import CheckpointError
from medseg.inference import BundleInfo, load_bundle, save_bundle
from medseg.inference.bundle_parts import SourceInfo

PARTS = {"format_version": 2, "labels": {"lung": 1, "tumour": 2}, "members": ["first", "second"]}


def edited(folder: Path, **changes: object) -> Path:
    values = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**values, **changes}))
    return folder


def test_a_bundle_says_its_folds_precision_and_source(unet_bundle):
    info = make_info(make_plan(), source=SourceInfo(kind="nnunet", hash="ab" * 32, licence="CC-BY-4.0"))
    halves = {key: value.half() for key, value in unet_weights(info).items()}
    save_bundle(unet_bundle, info, {2: halves, 0: halves})
    written = json.loads((unet_bundle / "model.json").read_text())
    assert (written["format_version"], written["kind"], written["folds"]) == (2, "single", [0, 2])
    assert written["network"] == {"format": "safetensors", "precision": "float16", "engines_passed": []}
    assert written["source"] == {"kind": "nnunet", "hash": "ab" * 32, "licence": "CC-BY-4.0"}
    assert load_bundle(unet_bundle).info.source == info.source


def test_weights_of_a_fold_that_got_lost_are_missed(unet_bundle):
    info = load_bundle(unet_bundle).info
    save_bundle(unet_bundle, info, {0: unet_weights(info), 1: unet_weights(info)})
    (unet_bundle / "weights_fold1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"weights of the folds 0, but model.json names 0, 1"):
        load_bundle(unet_bundle)


def test_a_network_trained_on_all_cases_is_no_fold_of_another(unet_bundle):
    info = load_bundle(unet_bundle).info
    save_bundle(unet_bundle, info, {1: unet_weights(info)})
    whole = info.model_copy(update={"folds": "all"})
    save_bundle(unet_bundle, whole, {0: unet_weights(info)})
    loaded = load_bundle(unet_bundle)
    assert loaded.info.folds == "all" and loaded.weights.keys() == {0}
    with pytest.raises(CheckpointError, match="names 0;"):
        (unet_bundle / "weights_fold3.safetensors").write_bytes(
            (unet_bundle / "weights_fold0.safetensors").read_bytes()
        )
        load_bundle(unet_bundle)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"format": "onnx"}, "no network_fold0.onnx or other fold"),
        ({"format": "openvino"}, "no network_fold0.xml or other fold"),
        ({"parity": {"windows": 3, "seen": "noise", "probability": 2.0, "changed": 0.0}}, "network.parity.probability"),
        ({"precision": "int8"}, "stored as int8 yet; update medseg"),
        ({"format": "pickle"}, "network.format"),
        ({"engines_passed": ["a\nb"]}, "network.engines_passed"),
        ({"code": "os:system"}, "network.code"),
    ],
)
def test_a_network_that_is_not_run_here_is_refused(unet_bundle, stored, message):
    with pytest.raises(CheckpointError, match=message):
        load_bundle(edited(unet_bundle, network=stored))


@pytest.mark.parametrize(
    ("kind", "words"), [("ensemble", "ensembles"), ("cascade", "cascades"), ("parts", "models made of parts")]
)
def test_a_model_made_of_others_is_refused_as_a_single_one_in_a_sentence(tmp_path, kind, words):
    (tmp_path / "model.json").write_text(json.dumps({**PARTS, "kind": kind}))
    with pytest.raises(
        CheckpointError, match=f"is one of the {words}, which can be used for prediction only; give one of its"
    ):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    "members",
    [
        [],
        ["alone"],
        ["first", "../second"],
        ["first", "/etc"],
        ["first", "."],
        ["first", ".hidden"],
        ["first", "a/b"],
        ["first", "a\\b"],
        ["first", "a\nb"],
        ["first", ""],
        ["first", "l" * 65],
        ["first", "First"],
        ["first", 2],
        [f"m{n}" for n in range(101)],
        {"first": 1},
        None,
    ],
)
def test_members_are_plain_names_of_folders_in_the_bundle(tmp_path, members):
    (tmp_path / "model.json").write_text(json.dumps({**PARTS, "kind": "ensemble", "members": members}))
    with pytest.raises(CheckpointError, match=r"model.json: (contents: )?members") as caught:
        load_bundle(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_one_network_has_no_members_and_many_have_no_network(unet_bundle):
    with pytest.raises(CheckpointError, match=r"model.json: members"):
        load_bundle(edited(unet_bundle, members=["a", "b"]))
    with pytest.raises(CheckpointError, match=r"model.json: "):
        load_bundle(edited(unet_bundle, kind="ensemble"))
    with pytest.raises(CheckpointError, match=r"model.json: kind"):
        load_bundle(edited(unet_bundle, kind=["ensemble"], members=None))


def test_the_former_name_of_the_reference_ranges_still_works():
    info = make_info(make_plan())
    with pytest.warns(DeprecationWarning, match="reference_ranges"):
        again = BundleInfo(**{key: value for key, value in info if key != "reference_ranges"}, fingerprint=None)
    assert again == info
    with pytest.warns(DeprecationWarning, match="reference_ranges"):
        assert info.fingerprint is None


def test_a_plan_of_a_newer_version_in_a_bundle_asks_for_an_update(unet_bundle):
    plan = json.loads((unet_bundle / "model.json").read_text())["plan"]
    with pytest.raises(CheckpointError, match=r"format_version 7.*update medseg"):
        load_bundle(edited(unet_bundle, plan={**plan, "format_version": 7}))
