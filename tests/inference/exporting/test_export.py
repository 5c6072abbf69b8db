"""`export_model`: a bundle of ONNX or OpenVINO networks that predicts what the original does, or nothing at all."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from inference_bundles import make_info, make_plan, threshold_weights, unet_weights
from typer.testing import CliRunner

import medseg
from medseg.cli import app
from medseg.errors import CheckpointError, ConfigError, MedsegError, MissingPartError, WriteError
from medseg.inference import load_bundle, load_model, save_bundle
from medseg.inference.bundle_parts import ParityInfo
from medseg.inference.exporting import model as export
from medseg.inference.exporting import parity
from medseg.inference.exporting.model import export_model
from medseg.inference.openvino_network import OpenvinoNetwork, require_openvino
from medseg.nets import build_net
from medseg.nets.onnx_graph import onnx_graph
from medseg.preparation.normalize import Scale
from medseg.preparation.store import CaseNotes, CaseOrigin, PreparedArrays, write_case
from medseg.training.init_weights import initialise
from medseg.volume import Volume

openvino = require_openvino()
opset = openvino.opset13
FORMATS = {"onnx": ["network_fold{}.onnx"], "openvino": ["network_fold{}.bin", "network_fold{}.xml"]}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds of a small U-Net."""
    info = make_info(make_plan(), scores={"fold0": {"dice": 0.9}, "fold3": {"dice": 0.8}}, weight_license="CC0")
    weights = {fold: unet_weights(info, seed=fold) for fold in (0, 3)}
    return save_bundle(tmp_path_factory.mktemp("original") / "model", info, weights)


@pytest.fixture(scope="module")
def exports(original: Path) -> dict[str, Path]:
    """The exports of that model by format."""
    return {kind: export_model(original, original.parent / kind, kind).folder for kind in FORMATS}


@pytest.fixture
def already_written(exports: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The network of fold 0 need not be written again."""
    content = (exports["onnx"] / "network_fold0.onnx").read_bytes()
    monkeypatch.setattr(export, "onnx_graph", lambda *_: content)


@pytest.fixture
def copy_of(exports: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda kind: shutil.copytree(exports[kind], tmp_path / kind)


def image() -> Volume:
    rng = np.random.default_rng(3)
    return Volume(rng.standard_normal((13, 11, 19)).astype(np.float32), np.eye(4))


@pytest.mark.parametrize("kind", FORMATS)
def test_an_exported_model_gives_the_masks_of_the_original(kind: str, original: Path, exports: dict[str, Path]) -> None:
    for folds in (None, (3,)):
        wanted, found = (load_model(path, "cpu", folds=folds).predict(image()) for path in (original, exports[kind]))
        assert len(np.unique(wanted.array)) > 1
        assert np.mean(wanted.array != found.array) <= 0.001
        np.testing.assert_array_equal(wanted.affine, found.affine)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_exported_bundle_says_what_it_is(kind: str, original: Path, exports: dict[str, Path]) -> None:
    before, after = load_bundle(original), load_bundle(exports[kind])
    files = [name.format(fold) for fold in (0, 3) for name in FORMATS[kind]]
    assert sorted(f.name for f in exports[kind].iterdir()) == sorted(["README.md", "model.json", *files])
    assert (after.info.network.format, after.info.network.precision) == (kind, "float32")
    assert after.info.source.hash == before.model_hash and after.model_hash != before.model_hash
    compared = after.info.network.parity
    assert compared is not None and compared.seen == "noise" and compared.probability < 1e-3 and compared.changed < 1e-3
    changed = {"network": before.info.network, "source": before.info.source}
    assert after.info.model_copy(update=changed) == before.info
    card = (exports[kind] / "README.md").read_text()
    assert before.model_hash[:12] in card and f"exported as {kind}" in card and "CC0" in card


def test_some_folds_can_be_exported_and_their_zip_is_a_model_too(original: Path, tmp_path: Path) -> None:
    done = export_model(original, tmp_path / "some", folds=(3,))
    assert [each.name for each in done.files] == ["network_fold3.onnx"]
    info = load_bundle(tmp_path / "some").info
    assert info.folds == (3,) and info.scores == {"fold3": {"dice": 0.8}}
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "some")
    assert load_bundle(packed).networks.keys() == {3}
    with pytest.raises(ConfigError, match="holds the folds 0, 3, asked for 1"):
        export_model(original, tmp_path / "other", folds=(1,))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["packed.zip", "some"]


def test_windows_of_prepared_cases_are_compared_where_they_lie_beside_the_model(tmp_path: Path) -> None:
    info = make_info(make_plan())
    model = save_bundle(tmp_path / "run" / "model", info, {0: unet_weights(info)})
    grey, labels = np.full((1, 20, 6, 9), 7.0, np.float32), np.zeros((20, 6, 9), np.uint8)
    labels[15, 2, 3], grey[0, 15, 2, 3] = 1, 11.0
    arrays = PreparedArrays(grey, labels, (1.0, 1.0, 1.0), (Scale(-np.inf, np.inf, 5.0, 2.0),))
    write_case(tmp_path / "run" / "prepared" / "a", CaseOrigin("a", "", ""), arrays, None, CaseNotes(True, {}), None)
    (tmp_path / "run" / "prepared" / "b").mkdir()
    (tmp_path / "run" / "prepared" / "b" / "case.json").write_text("damaged")
    for place in (model, tmp_path / "run"):
        windows, seen = parity.parity_windows(place, info)
        assert seen == "cases" and windows.shape == (3, 1, 8, 8, 8) and windows.dtype == np.float32
        # Around the label, normalised, and filled with the least grey level where the case is smaller.
        assert sorted(set(windows.ravel().tolist())) == [1.0, 3.0]
    done = export_model(tmp_path / "run", tmp_path / "onnx")
    assert done.files[0].parity.seen == "cases"


@pytest.mark.parametrize("regions", [False, True])
def test_parity_is_of_probabilities_and_labels(regions: bool) -> None:
    windows = np.full((3, 2, 4, 5), 1.0, np.float32)
    windows[:, 1] = 3.0

    def other(batch: np.ndarray) -> np.ndarray:
        changed = batch.copy()
        changed[:, 1, 0, 0] = -1.0
        return changed

    same = parity.measured_parity(torch.nn.Identity(), np.copy, windows, "noise", regions)
    assert (same.windows, same.probability, same.changed) == (3, 0.0, 0.0)
    found = parity.measured_parity(torch.nn.Identity(), other, windows, "noise", regions)
    before, after = (torch.tensor([1.0, last]) for last in (3.0, -1.0))
    apart = before.sigmoid() - after.sigmoid() if regions else before.softmax(0) - after.softmax(0)
    assert found.probability == pytest.approx(float(apart.abs().max()), abs=1e-6)
    assert found.changed == pytest.approx(1 / 20)
    for wrong in (lambda batch: batch[:, :1], lambda batch: batch * np.nan):
        with pytest.raises(CheckpointError, match="expected finite numbers"):
            parity.measured_parity(torch.nn.Identity(), wrong, windows, "noise", regions)


@pytest.mark.usefixtures("already_written")
def test_an_export_that_answers_otherwise_is_refused_and_not_kept(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ParityInfo(windows=3, seen="noise", probability=0.2, changed=0.03)
    monkeypatch.setattr(export, "measured_parity", lambda *_: other)
    with pytest.raises(CheckpointError, match=r"differ by up to 0\.2, 3\.00% of the voxels"):
        export_model(original, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_network_that_cannot_be_written_is_refused_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"the network cannot be written as ONNX \(\w+"):
        onnx_graph(Unexportable().eval(), 1, (4, 4))


class Unexportable(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 1 else x


def test_a_network_of_the_users_own_needs_its_permission_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDSEG_ALLOW_CODE")
    info = make_info(make_plan(spacing_mm=None), "inference_nets:build_threshold", {"spot": 1})
    model = save_bundle(tmp_path / "own", info, {0: threshold_weights(2, 0.5)})
    with pytest.raises(CheckpointError, match="inference_nets"):
        export_model(model, tmp_path / "onnx")
    export_model(model, tmp_path / "onnx", allow_code=("inference_nets",))
    bright = Volume(np.pad(np.ones((3, 3, 3), np.float32), 4), np.eye(4), spacing_known=False)
    assert load_model(tmp_path / "onnx", "cpu").predict(bright).array.sum() == 27


def test_only_an_export_is_replaced(original: Path, exports: dict[str, Path], tmp_path: Path) -> None:
    before = load_bundle(original).model_hash
    with pytest.raises(WriteError, match="holds a trained model, which an export would replace"):
        export_model(original, original)
    assert load_bundle(original).model_hash == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "text.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for taken in ("notes", "file"):
        with pytest.raises(WriteError, match="exists and is not a model bundle"):
            export_model(original, tmp_path / taken)
    with pytest.raises(CheckpointError, match="is an exported model"):
        export_model(exports["onnx"], tmp_path / "again")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["file", "notes"]


@pytest.mark.usefixtures("already_written")
@pytest.mark.parametrize("kind", FORMATS)
def test_a_zip_is_the_same_model_in_fewer_bytes(
    exports: dict[str, Path], original: Path, kind: str, tmp_path: Path, already_written: None
) -> None:
    target = tmp_path / "model.zip"
    assert export_model(original, target, kind, folds=[0]).folder == target
    export_model(original, target, kind, folds=[0])
    files = [exports[kind] / name.format(0) for name in FORMATS[kind]]
    assert target.stat().st_size < 0.97 * sum(file.stat().st_size for file in files)
    image = Volume(np.random.default_rng(0).normal(size=(24, 20, 16)).astype(np.float32), np.eye(4))
    whole, zipped = (load_model(each, folds=[0]).predict(image).array for each in (exports[kind], target))
    assert np.array_equal(whole, zipped)


def test_a_zip_of_something_else_is_left_alone(original: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "studies.zip", "w") as opened:
        opened.writestr("a.txt", "text")
    with pytest.raises(WriteError, match=r"studies\.zip exists and is not a model bundle"):
        export_model(original, tmp_path / "studies.zip")
    shutil.make_archive(str(tmp_path / "trained"), "zip", original)
    with pytest.raises(WriteError, match="holds a trained model"):
        export_model(original, tmp_path / "trained.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["studies.zip", "trained.zip"]


def test_a_full_disk_leaves_the_former_export_and_nothing_else(
    original: Path, copy_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of("onnx")
    before = load_bundle(folder).model_hash

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteError, match="disk is full"):
        export_model(original, folder, folds=(0,))
    assert load_bundle(folder).model_hash == before
    assert [f.name for f in folder.parent.iterdir()] == ["onnx"]


@pytest.mark.parametrize(
    ("kind", "module"),
    [("onnx", "onnxscript"), ("onnx", "onnxruntime"), ("openvino", "onnx"), ("openvino", "openvino")],
)
def test_a_missing_extra_is_named_with_its_command(
    kind: Any, module: str, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPartError, match=r"pip install -c constraints\.txt '\.\[onnx|openvino") as caught:
        export_model(original, tmp_path / "model", kind)
    assert caught.value.exit_code == 6 and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("kind", "module"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_an_exported_model_without_its_runtime_is_exit_6(
    kind: str, module: str, exports: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPartError, match="pip install"):
        load_model(exports[kind], "cpu")


def test_what_only_networks_of_torch_have_is_refused(exports: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="run by onnxruntime; leave"):
        load_model(exports["onnx"], "cpu", engine="winograd")
    net = build_net("unet", dims=3, in_channels=1, out_channels=3, channels=(4, 8))
    with pytest.raises(CheckpointError, match="no training can start from an exported model"):
        initialise(net, exports["onnx"])


def changed_model(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load_from_string(path.read_bytes())
    change(model)
    path.write_bytes(model.SerializeToString())


def outside(name: str) -> Callable[[onnx.ModelProto], None]:
    """The first weights lie in another file, here or above."""

    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        tensor.external_data.append(onnx.StringStringEntryProto(key="location", value=name))

    return change


def foreign_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.evil"


def loop(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("body", onnx.GraphProto(name="body")))


def functions(model: onnx.ModelProto) -> None:
    model.functions.append(onnx.FunctionProto(name="f", domain="own"))


def second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("mask", 1, [1]))


def of_numbers(kind: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for each in (*model.graph.input, *model.graph.output):
            each.type.tensor_type.elem_type = kind

    return change


def size_of_input(axis: int, size: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size

    return change


ONNX_FAULTS = {
    "external data above": (outside("../secret.bin"), "keeps weights in another file"),
    "external data beside": (outside("weights.bin"), "keeps weights in another file"),
    "external data anywhere": (outside("/etc/passwd"), "keeps weights in another file"),
    "operators of others": (foreign_operator, "needs operators of 'com.evil'"),
    "a loop": (loop, "contains loops or branches"),
    "functions": (functions, "contains functions"),
    "two inputs": (second_input, "2 inputs and 1 outputs|cannot be run"),
    "other channels": (size_of_input(1, 2), "expected any x 1 x 8 x 8 x 8|cannot be run"),
    "other patch": (size_of_input(3, 16), "expected any x 1 x 8 x 8 x 8|cannot be run"),
    "one window at a time": (size_of_input(0, 1), "expected any x 1 x 8 x 8 x 8|cannot be run"),
    "doubles": (of_numbers(onnx.TensorProto.DOUBLE), "both float32|cannot be run"),
}


def is_refused(place: Path, message: str, error: type[MedsegError] = CheckpointError) -> None:
    with pytest.raises(error, match=message) as caught:
        load_model(place, "cpu")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700, caught.value


@pytest.mark.parametrize("fault", ONNX_FAULTS)
def test_an_onnx_file_that_was_changed_is_refused(fault: str, copy_of: Callable[[str], Path]) -> None:
    change, message = ONNX_FAULTS[fault]
    folder = copy_of("onnx")
    changed_model(folder / "network_fold3.onnx", change)
    is_refused(folder, message)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_network_of_another_model_is_refused(kind: str, copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy_of(kind)
    info = make_info(make_plan(in_channels=2, normalization=make_plan().normalization * 2))
    other = save_bundle(tmp_path / "other", info, {0: unet_weights(info)})
    donor = export_model(other, tmp_path / "donor", kind).folder  # type: ignore[arg-type]
    for name in FORMATS[kind]:
        shutil.copy(donor / name.format(0), folder / name.format(0))
    is_refused(folder, "takes arrays of shape any x 2 x 8 x 8 x 8, expected any x 1 x 8 x 8 x 8 after model.json")


@pytest.mark.parametrize(
    "content",
    [b"", b"no protobuf", b"\x00" * 100, b"\x08" + b"\xff" * 50, b"cut"],
    ids=lambda content: str(content[:8]),
)
@pytest.mark.parametrize("name", ["network_fold0.onnx", "network_fold0.xml", "network_fold0.bin"])
def test_a_damaged_file_is_refused_in_one_line(name: str, content: bytes, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("onnx" if name.endswith("onnx") else "openvino")
    file = folder / name
    file.write_bytes(file.read_bytes()[: len(file.read_bytes()) // 2] if content == b"cut" else content)
    is_refused(folder, "not an intact ONNX file|cannot be run by")


def test_an_openvino_file_with_branches_is_refused(copy_of: Callable[[str], Path]) -> None:
    file = copy_of("openvino") / "network_fold0.xml"
    seen, first, second = (opset.parameter([-1, 1, 8, 8, 8], np.float32) for _ in range(3))
    bodies = openvino.Model([opset.relu(first)], [first]), openvino.Model([opset.exp(second)], [second])
    branch = opset.if_op(opset.constant(np.array(True)))
    branch.set_then_body(bodies[0])
    branch.set_else_body(bodies[1])
    branch.set_input(seen.output(0), first, second)
    branch.set_output(bodies[0].results[0], bodies[1].results[0])
    openvino.serialize(openvino.Model(branch.outputs(), [seen]), file)
    is_refused(file.parent, "contains loops or branches")


@pytest.mark.parametrize("kind", FORMATS)
def test_links_and_missing_or_further_files_are_refused(kind: str, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of(kind)
    file = folder / FORMATS[kind][0].format(0)
    content = file.read_bytes()
    (folder.parent / "elsewhere").write_bytes(content)
    file.unlink()
    is_refused(folder, "is missing|holds networks of the folds 3, but model.json names 0, 3")
    file.symlink_to(folder.parent / "elsewhere")
    is_refused(folder, "is a link")
    file.unlink()
    file.write_bytes(content)
    load_model(folder, "cpu")
    for name in FORMATS[kind]:
        shutil.copy(folder / name.format(0), folder / name.format(1))
    is_refused(folder, "networks of the folds 0, 1, 3, but")


def test_a_bundle_of_int8_weights_without_a_runtime_is_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("onnx")
    values = json.loads((folder / "model.json").read_text())
    values["network"] |= {"format": "safetensors", "precision": "int8"}
    (folder / "model.json").write_text(json.dumps(values))
    is_refused(folder, "cannot run weights stored as int8")


def test_a_missing_weight_file_in_a_zip_is_named(exports: dict[str, Path], tmp_path: Path) -> None:
    place = tmp_path / "model.zip"
    with zipfile.ZipFile(place, "w") as packed:
        for file in exports["openvino"].iterdir():
            if file.suffix != ".bin":
                packed.write(file, file.name)
    is_refused(place, r"network_fold0\.bin is missing")


def test_the_command_says_what_was_written_and_predict_takes_it(original: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(original), str(tmp_path / "onnx"), "--folds", "3"])
    assert done.exit_code == 0, done.output
    assert "network_fold3.onnx" in done.stdout and "largest difference" in done.stdout and "noise" in done.stdout
    assert len(done.output.splitlines()) < 8, "libraries say nothing"
    medseg.write(image(), tmp_path / "case.nii.gz")
    where = [str(tmp_path / name) for name in ("onnx", "case.nii.gz")]
    predicted = CliRunner().invoke(app, ["predict", *where, "-o", str(tmp_path / "masks")])
    assert predicted.exit_code == 0, predicted.output
    wanted = load_model(original, "cpu", folds=(3,)).predict(image())
    assert np.mean(medseg.read(tmp_path / "masks" / "case.nii.gz").array != wanted.array) <= 0.001


def test_the_command_ends_with_one_line_and_the_right_exit_code(
    original: Path, exports: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("mine")
    new = tmp_path / "new"
    for code, *arguments in [
        (2, original, new, "--folds", "1"),
        (2, original, new, "--folds", "all"),
        (2, original, new, "--format", "tensorrt"),
        (5, tmp_path / "none", new),
        (5, exports["onnx"], new),
        (6, original, tmp_path / "taken"),
        (6, original, original),
    ]:
        done = CliRunner().invoke(app, ["export", *map(str, arguments)])
        error = done.exception
        assert (error.exit_code if isinstance(error, MedsegError) else done.exit_code) == code, (arguments, error)
        assert "\n" not in str(error)
    assert [f.name for f in tmp_path.iterdir()] == ["taken"]


def test_openvino_finds_no_reporter_and_computes_in_float32(exports: dict[str, Path]) -> None:
    network = OpenvinoNetwork((exports["onnx"] / "network_fold0.onnx").read_bytes())
    assert sys.modules["openvino_telemetry"] is None
    assert network._model.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
