"""A network that is no part of medseg is loaded where its module was permitted by name, and only there."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from hostile_changes import edited, harmful_code, net, refused, small_unet

from medseg.cli import main
from medseg.errors import ConfigError, MissingPartError
from medseg.inference import load_bundle, load_model
from medseg.studies import PredictOptions, predict_studies
from medseg.studies.ray_crew import RayWorker
from medseg.training.init_weights import initialise


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch):
    monkeypatch.delenv("MEDSEG_ALLOW_CODE", raising=False)


@pytest.fixture
def own(threshold_bundle) -> Path:
    return threshold_bundle(patch_size=(32, 32, 32))


def test_the_refusal_names_the_module_says_that_nothing_was_run_and_gives_the_option(own):
    message = refused(lambda: load_model(own, "cpu"))
    assert "inference_nets" in message and "nothing was run" in message
    assert "--allow-code inference_nets" in message


def test_it_is_given_by_argument_by_options_by_environment_or_on_the_command_line(
    own, empty_image, tmp_path, monkeypatch, capsys
):
    load_model(own, "cpu", allow_code=("inference_nets",))
    options = PredictOptions(allow_code=("inference_nets",), preview=False)
    predict_studies(own, [empty_image], tmp_path / "a", options).raise_for_failures()
    command = ["medseg", "predict", str(own), str(empty_image), "-o", str(tmp_path / "b"), "--no-preview"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 5 and not (tmp_path / "b").exists()
    monkeypatch.setattr(sys, "argv", [*command, "--allow-code", "json", "--allow-code", "inference_nets"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert (tmp_path / "b" / "case.nii.gz").read_bytes() == (tmp_path / "a" / "case.nii.gz").read_bytes()
    monkeypatch.setenv("MEDSEG_ALLOW_CODE", "json, inference_nets")
    load_model(own, "cpu")


def test_it_is_for_exactly_one_module(own, tmp_path, monkeypatch):
    package = tmp_path / "installed" / "my_nets"
    package.mkdir(parents=True)
    for name in ("__init__", "more"):
        (package / f"{name}.py").write_text(
            "from torch.hub import load\nimport torch\nfrom inference_nets import build_threshold as other\n"
            "from inference_nets import Threshold\n"
            "def build(dims, in_channels, out_channels):\n    return Threshold(out_channels)\n"
        )
    monkeypatch.syspath_prepend(package.parent)

    def called(name: str) -> Path:
        return net(name)(own)

    for name, permitted in {
        "my_nets:build": ("my_nets.more", "my", "my_net"),
        "my_nets.more:build": ("my_nets",),
        "my_nets:load": ("my_nets",),
        "my_nets:torch.hub.load": ("my_nets",),
        "my_nets:other": ("my_nets",),
        "my_nets:build.__call__": ("my_nets",),
    }.items():
        assert "nothing was run" in refused(lambda n=name, p=permitted: load_model(called(n), "cpu", allow_code=p))
    load_model(called("my_nets:build"), "cpu", allow_code=("my_nets",))
    load_model(called("my_nets.more:build"), "cpu", allow_code=("my_nets.more",))


def test_a_module_of_the_bundle_is_never_imported_wherever_python_looks(own, tmp_path, monkeypatch):
    (own / "inner_net.py").write_text(harmful_code(tmp_path / "canary"))
    run = tmp_path / "run"
    run.mkdir()
    shutil.move(own, run / "model")
    for folder, name in ((run / "model", "inner_net"), (run, "model.inner_net")):
        net(f"{name}:build")(run / "model")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.chdir(folder)
        for place in (run, run / "model"):
            assert "nothing was run" in refused(lambda p=place, n=name: load_model(p, "cpu", allow_code=(n,)))
    assert not (tmp_path / "canary").exists()


def test_a_bundle_does_not_put_the_current_folder_on_the_import_path(own, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    (here / "lying_here.py").write_text(harmful_code(tmp_path / "canary"))
    monkeypatch.chdir(here)
    before = list(sys.path)
    with pytest.raises(MissingPartError, match="lying_here"):
        load_model(net("lying_here:build")(own), "cpu", allow_code=("lying_here",))
    assert sys.path == before and not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["a.b:build", "", "a b", "../x"])
def test_what_is_no_module_cannot_be_permitted(name, own):
    with pytest.raises(ConfigError, match="name of a module"):
        PredictOptions(allow_code=(name,))
    with pytest.raises(ConfigError, match="sequence of module names"):
        load_model(own, "cpu", allow_code="inference_nets")


def test_options_that_a_permitted_builder_does_not_take_are_the_bundles_fault(own):
    for options in ({"surprise": 1}, {"nested": {"a": [1]}}):
        refused(
            lambda o=options: load_model(edited("net", "options", value=o)(own), "cpu", allow_code=("inference_nets",))
        )
    net("inference_nets:build_nothing")(own)
    assert "str" in refused(lambda: load_model(own, "cpu", allow_code=("inference_nets",)))


def test_workers_have_the_callers_permission_and_no_other(own, tmp_path, monkeypatch):
    def load(options: PredictOptions) -> str:
        return RayWorker().load(tmp_path, own, tmp_path / "out", options, None, 1)[1]

    permitted = PredictOptions(allow_code=("inference_nets",), device="cpu")
    assert load(permitted) == load_model(own, "cpu", allow_code=("inference_nets",)).model_hash
    none = PredictOptions(device="cpu")
    monkeypatch.setenv("MEDSEG_ALLOW_CODE", "inference_nets")
    refused(lambda: load(none))
    load(PredictOptions(device="cpu"))


def test_a_bundle_of_somebodys_own_net_gives_its_weights_without_being_imported(own):
    assert load_bundle(own).weights[0].keys() == {"slope", "bias"}
    message = refused(lambda: initialise(small_unet(), own))
    assert "no weight fits" in message
