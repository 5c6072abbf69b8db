"""`medseg export --int8`: a bundle that predicts, with what it costs in it, or one line and nothing written."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import medseg
from medseg.cli import app
from medseg.commands.export import int8_options
from medseg.errors import CheckpointError, ConfigError, DatasetError, MissingPartError
from medseg.inference import load_model
from medseg.inference.bundle_parts import Int8Info
from medseg.inference.exporting import model as export
from medseg.inference.exporting import networks
from medseg.inference.exporting.int8 import Int8Options
from medseg.inference.exporting.model import export_model
from medseg.volume import Volume

# The networks here have random weights: their labels are ties, which 8 bits decide otherwise.
ANY_LOSS = 1.0


def _images(folder, count=3, channels=0, modality=""):
    folder.mkdir()
    (folder / "cases.txt").write_text("no image", encoding="utf-8")
    for seed in range(count):
        shape = (channels, 12, 11, 10) if channels else (12, 11, 10)
        image = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        medseg.write(Volume(image, np.eye(4), channels), folder / f"case{seed}.nii.gz")
    return folder


def test_an_export_in_int8_predicts_and_says_what_it_costs(unet_bundle, tmp_path):
    images = _images(tmp_path / "images")
    arguments = ["export", unet_bundle, tmp_path / "int8", "--format", "openvino", "--int8", "--max-loss", ANY_LOSS]
    result = CliRunner().invoke(app, [*map(str, arguments), "--calibration", str(images)])
    assert result.exit_code == 0, result.output
    assert "INT8: Dice" in result.output and "times as fast as float32" in result.output
    model, original = load_model(tmp_path / "int8"), load_model(unet_bundle, "cpu")
    stored = model.info.network
    assert (stored.format, stored.precision) == ("openvino", "int8")
    assert stored.int8 is not None and stored.int8.against == "float32" and 0 <= stored.int8.loss <= 1
    assert stored.int8.speed > 0 and stored.int8.size > 0 and stored.int8.cases == 1
    image = Volume(np.random.default_rng(9).normal(size=(12, 11, 10)).astype(np.float32), np.eye(4))
    found, expected = (np.asarray(each.predict_logits(image)[0]) for each in (model, original))
    assert found.shape == expected.shape and 0 < np.abs(found - expected).max() < np.abs(expected).max()


@pytest.mark.parametrize(
    ("flags", "seven_bits", "refused"),
    [({"avx2"}, False, True), ({"avx2"}, True, False), ({"avx2", "avx_vnni"}, False, False), (set(), False, False)],
)
def test_weights_of_eight_bits_are_refused_where_their_sums_overflow(monkeypatch, flags, seven_bits, refused):
    info = Int8Info(loss=0, against="labels", cases=1, size=0.3, speed=2, seven_bits=seven_bits)
    monkeypatch.setattr(networks, "processor", lambda: ("a processor", frozenset(flags)))
    expected = pytest.raises(MissingPartError, match="its sums would overflow") if refused else nullcontext()
    with expected:
        networks.refuse_overflowing(Path("model"), info)


def _refused(error, match, unet_bundle, tmp_path, *, format="openvino", **options):
    with pytest.raises(error, match=match):
        export_model(unet_bundle, tmp_path / "int8", format, int8=Int8Options(**options))
    assert not (tmp_path / "int8").exists() and not [each for each in tmp_path.iterdir() if each.name.startswith(".")]


def test_a_3d_network_is_not_written_in_int8_for_onnx_runtime(unet_bundle, tmp_path):
    _refused(ConfigError, "--format openvino", unet_bundle, tmp_path, format="onnx")


def test_a_model_without_its_run_needs_images_to_calibrate_with(unet_bundle, tmp_path):
    _refused(DatasetError, "give --calibration", unet_bundle, tmp_path)
    empty = _images(tmp_path / "images", count=0)
    _refused(DatasetError, "no image can be read", unet_bundle, tmp_path, calibration=empty)
    _refused(DatasetError, "No such file", unet_bundle, tmp_path, calibration=tmp_path / "missing")


def test_images_of_another_kind_are_refused(unet_bundle, tmp_path, monkeypatch):
    two = _images(tmp_path / "two", channels=2)
    _refused(DatasetError, "has 2 channels, the model takes 1", unet_bundle, tmp_path, calibration=two)
    from medseg.inference.quantisation import images

    read_all = images.read_all

    def as_mr(path):
        return [replace(each, metadata=replace(each.metadata, modality="MR")) for each in read_all(path)]

    monkeypatch.setattr(images, "read_all", as_mr)
    info = load_model(unet_bundle, "cpu").info
    ranges = type("Ranges", (), {"modalities": ("CT",)})()
    one = _images(tmp_path / "one", count=1)
    with pytest.raises(DatasetError, match=r"case0\.nii\.gz is MR, the model is for CT"):
        images.image_cases(one, info.model_copy(update={"reference_ranges": ranges}))


def test_a_network_that_loses_too_much_leaves_nothing_behind(unet_bundle, tmp_path, monkeypatch):
    def loses(*_, **__):
        raise CheckpointError("INT8 loses 0.1 of Dice")

    monkeypatch.setattr(export, "quantised", loses)
    images = _images(tmp_path / "images")
    _refused(CheckpointError, "loses", unet_bundle, tmp_path, calibration=images)


def test_options_of_int8_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="from 0 to 1"):
        int8_options(True, None, 2.0)
    with pytest.raises(ConfigError, match="--calibration is for --int8"):
        int8_options(False, tmp_path, 0.005)
