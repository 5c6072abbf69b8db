"""Models of nnU-Net v2: the masks of nnunetv2 2.8.1 itself, and nothing of a hostile folder run.

The fixtures are written by tests/fixtures/make_nnunet_folders.py. Their weights are random, so that many voxels lie
between two labels: nnU-Net adds logits in half precision and decides a few of them otherwise.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import medseg
from medseg.cli import app
from medseg.disk.archive import unpack
from medseg.errors import CheckpointError, MedsegError
from medseg.inference.importing import cache, nnunet
from medseg.inference.importing.importer import import_model
from medseg.volume import Metadata, Volume

FIXTURES = Path(__file__).parents[2] / "fixtures" / "nnunet"
KINDS = sorted(path.name for path in FIXTURES.iterdir() if (path / "model.zip").is_file())
# Of 1,000 voxels, at most one may be decided otherwise.
ALIKE = 0.999


def image_of(kind: str) -> Volume:
    channels = [medseg.read(path) for path in sorted((FIXTURES / kind).glob("case_*.nii.gz"))]
    return channels[0].with_array(np.stack([each.array for each in channels]), channels=len(channels))


def folder_of(kind: str, target: Path) -> Path:
    target.mkdir()
    unpack(FIXTURES / kind / "model.zip", target)
    (folder,) = target.iterdir()
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_those_of_nnunet(kind: str, tmp_path: Path) -> None:
    model = medseg.load_model(import_model(FIXTURES / kind / "model.zip", tmp_path / "bundle"), "cpu")
    image, expected = image_of(kind), medseg.read(FIXTURES / kind / "mask.nii.gz")
    found = model.predict(image)
    assert np.allclose(found.affine, expected.affine)
    assert (found.array == expected.array).mean() >= ALIKE
    assert set(np.unique(found.array)) == set(np.unique(expected.array))


@pytest.mark.parametrize("kind", ["thick", "ignore", "transposed"])
def test_probabilities_and_whole_logits_agree_with_the_mask(kind: str, tmp_path: Path) -> None:
    model = medseg.load_model(import_model(FIXTURES / kind / "model.zip", tmp_path / "bundle"), "cpu")
    image = image_of(kind)
    held: list[Any] = []

    def probabilities(shape: tuple[int, ...]) -> Any:
        held.append(np.full(shape, np.nan, np.float16))
        return held[0]

    mask = model.predict(image, probabilities=probabilities).array
    logits, grid = model.predict_logits(image)
    assert np.array_equal(model.to_labels(logits, grid, image).array, mask)
    chances = np.concatenate([1 - held[0].astype(np.float32).sum(0, keepdims=True), held[0]])
    assert np.isfinite(chances).all()
    assert (chances.argmax(0) == mask).mean() > 0.999


def test_a_folder_predicts_by_command_and_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "cache"))
    folder = folder_of("small", tmp_path / "Dataset001_T")
    source = FIXTURES / "small" / "case_0000.nii.gz"
    result = CliRunner().invoke(app, ["predict", str(folder), str(source), "-o", str(tmp_path / "masks")])
    assert result.exit_code == 0, result.output
    (mask,) = (tmp_path / "masks").glob("*.nii.gz")
    assert np.array_equal(medseg.read(mask).array, medseg.read(FIXTURES / "small" / "mask.nii.gz").array)
    bundle = cache.converted(folder)
    monkeypatch.setattr(cache, "import_nnunet", None)
    assert cache.converted(folder.parent) == bundle
    # A copy is known by its contents.
    shutil.copytree(folder, tmp_path / "copy" / folder.name)
    assert cache.converted(tmp_path / "copy") == bundle


def test_an_exported_zip_predicts_by_command_and_is_converted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "cache"))
    place = FIXTURES / "small"
    arguments = ["predict", str(place / "model.zip"), str(place / "case_0000.nii.gz"), "-o", str(tmp_path / "masks")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    (mask,) = (tmp_path / "masks").glob("*.nii.gz")
    assert np.array_equal(medseg.read(mask).array, medseg.read(place / "mask.nii.gz").array)
    bundle = cache.converted(place / "model.zip")
    monkeypatch.setattr(cache, "import_nnunet", None)
    shutil.copy(place / "model.zip", tmp_path / "copy.zip")
    assert cache.converted(tmp_path / "copy.zip") == bundle


def test_a_changed_checkpoint_is_converted_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "cache"))
    folder = folder_of("small", tmp_path / "model")
    before = cache.converted(folder)
    checkpoint = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(checkpoint, weights_only=False)
    content["network_weights"]["decoder.seg_layers.1.bias"] += 1
    torch.save(content, checkpoint)
    after = cache.converted(folder)
    assert before != after and medseg.load_model(before).model_hash != medseg.load_model(after).model_hash


@pytest.mark.parametrize("name", ["dataset.json", "plans.json", "fold_0/checkpoint_final.pth"])
@pytest.mark.parametrize("how", ["absent", "a pipe", "a folder"])
def test_a_file_that_cannot_be_read_is_named_when_a_folder_is_predicted_with(
    name: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "cache"))
    folder = folder_of("small", tmp_path / "model")
    (folder / name).unlink()
    if how == "a pipe":
        os.mkfifo(folder / name)
    elif how == "a folder":
        (folder / name).mkdir()
    with pytest.raises(CheckpointError) as caught:
        medseg.load_model(folder, "cpu")
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_damaged_note_in_the_cache_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "cache"))
    folder = folder_of("small", tmp_path / "model")
    bundle = cache.converted(folder)
    (note,) = (tmp_path / "cache").rglob("*.txt")
    note.write_bytes(b"\xff\x00")
    assert cache.converted(folder) == bundle


def test_what_is_supposed_of_a_dicom_study_is_told(tmp_path: Path) -> None:
    folder = folder_of("small", tmp_path / "model")
    edited("dataset.json", "labels", value={"background": 0, "kidney_left": 1, "kidney_right": 2})(folder)
    checkpoint(inference_allowed_mirroring_axes=(0, 2))(folder)
    model = medseg.load_model(import_model(folder, tmp_path / "bundle"), "cpu")
    image = Volume(np.random.default_rng(0).normal(size=(9, 8, 7)).astype(np.float32), np.diag([-1.0, -1, 1, 1]))
    assert [each.kind for each in model.predict(image).findings] == ["mirroring_left_out"]
    study = replace(image, metadata=Metadata(series_instance_uid="1.2"))
    found = model.predict(study)
    assert {each.kind for each in found.findings} == {"assumed_orientation", "mirroring_left_out"}
    # Turned to RAS for the network, and back.
    turned = Volume(np.ascontiguousarray(image.array[::-1, ::-1]), np.diag([1.0, 1, 1, 1]))
    assert np.array_equal(found.array[::-1, ::-1], model.predict(turned).array)


def test_the_licence_of_the_data_set_is_kept(tmp_path: Path) -> None:
    folder = folder_of("small", tmp_path / "model")
    edited("dataset.json", "licence", value="CC-BY-SA 4.0\n")(folder)
    info = medseg.load_model(import_model(folder, tmp_path / "bundle"), "cpu").info
    assert (info.source.licence, info.weight_license) == ("CC-BY-SA 4.0", "CC-BY-SA 4.0")


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hostile",)


def edited(name: str, *keys: str, value: Any) -> Callable[[Path], None]:
    """A change of one value in a JSON file; None removes the key."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        part = content
        for key in keys[:-1]:
            part = part[key]
        if value is None:
            del part[keys[-1]]
        else:
            part[keys[-1]] = value
        (folder / name).write_text(json.dumps(content))

    return change


def checkpoint(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "fold_0" / "checkpoint_final.pth"
        content = torch.load(path, weights_only=False)
        torch.save({**content, **changes}, path)

    return change


def bytes_in(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


CONF = ("configurations", "3d_fullres")
ARCH = (*CONF, "architecture", "arch_kwargs")
PTH = "fold_0/checkpoint_final.pth"
HOSTILE: dict[str, Callable[[Path], None]] = {
    "a call in the checkpoint": checkpoint(logging=Hostile()),
    "a call in its weights": checkpoint(network_weights=Hostile()),
    "a bare pickle": bytes_in(PTH, pickle.dumps(Hostile())),
    "an empty checkpoint": bytes_in(PTH, b""),
    "no weights": checkpoint(network_weights=None),
    "weights that are no tensors": checkpoint(network_weights={"a": "b"}),
    "a configuration that is a number": checkpoint(init_args={"configuration": 3}),
    "a mirroring of text": checkpoint(inference_allowed_mirroring_axes=("x",)),
    "a network of any place": edited("plans.json", *CONF, "architecture", "network_class_name", value="os.system"),
    "a convolution of any place": edited("plans.json", *ARCH, "norm_op", value="os.system"),
    "a norm of another library": edited("plans.json", *ARCH, "norm_op", value="evil.InstanceNorm3d"),
    "an activation of any place": edited("plans.json", *ARCH, "nonlin", value="builtins.exec"),
    "resampling of any place": edited("plans.json", *CONF, "resampling_fn_data", value="os.system"),
    "images that were not resampled": edited("plans.json", *CONF, "resampling_fn_data", value="no_resampling_hack"),
    "an unknown normalization": edited("plans.json", *CONF, "normalization_schemes", value=["os.system"]),
    "an unknown reader": edited("plans.json", "image_reader_writer", value="os.system"),
    "absurd kernels": edited("plans.json", *ARCH, "kernel_sizes", value=[[10**9] * 3] * 3),
    "absurd features": edited("plans.json", *ARCH, "features_per_stage", value=[10**9] * 3),
    "absurd stages": edited("plans.json", *ARCH, "n_stages", value=10**9),
    "an absurd patch": edited("plans.json", *CONF, "patch_size", value=[10**9] * 3),
    "a patch of text": edited("plans.json", *CONF, "patch_size", value="large"),
    "a spacing of 0": edited("plans.json", *CONF, "spacing", value=[0, 1, 1]),
    "a spacing of NaN": edited("plans.json", *CONF, "spacing", value=[float("nan"), 1, 1]),
    "axes that are none": edited("plans.json", "transpose_forward", value=[0, 0, 1]),
    "a cyclic configuration": edited("plans.json", *CONF, "inherits_from", value="3d_fullres"),
    "a missing configuration": edited("plans.json", "configurations", value={}),
    "plans of another kind": bytes_in("plans.json", b"[1, 2]"),
    "plans that never end": bytes_in("plans.json", b"[" * 200_000),
    "plans that are not text": bytes_in("plans.json", b"\xff\xfe\x00"),
    "labels that are missing": edited("dataset.json", "labels", value=None),
    "labels with gaps": edited("dataset.json", "labels", value={"background": 0, "a": 1, "b": 7}),
    "a label too many": edited("dataset.json", "labels", value={"background": 0, "a": 1, "b": 2, "c": 3}),
    "a label that is a path": edited("dataset.json", "labels", value={"background": 0, "../a": 1, "b": 2}),
    "a label with control characters": edited(
        "dataset.json", "labels", value={"background": 0, "a\n\x1b[1m": 1, "b": 2}
    ),
    "a mirroring beyond the axes": checkpoint(inference_allowed_mirroring_axes=(3,)),
    "a mirroring counted from the end": checkpoint(inference_allowed_mirroring_axes=(-1,)),
    "a preprocessor of any place": edited("plans.json", *CONF, "preprocessor_name", value="os.system"),
    "a label manager of any place": edited("plans.json", "label_manager", value="os.system"),
    "a configuration that inherits from a list": edited("plans.json", *CONF, "inherits_from", value=["3d_lowres"]),
    "channels that are missing": edited("dataset.json", "channel_names", value=None),
    "a cascade's second stage": edited("plans.json", *CONF, "previous_stage", value="3d_lowres"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_damaged_model_is_one_line_and_nothing_is_run_or_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = folder_of("small", tmp_path / "model")
    HOSTILE[name](folder)
    with pytest.raises(MedsegError) as caught:
        import_model(folder, tmp_path / "bundle")
    assert isinstance(caught.value, CheckpointError), caught.value
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    assert "CheckpointError" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_file_that_is_too_large_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of("small", tmp_path / "model")
    monkeypatch.setattr(nnunet, "LARGEST_JSON", 100)
    with pytest.raises(CheckpointError, match=r"plans\.json is larger than 0 MB, as no file of nnU-Net is$"):
        import_model(folder, tmp_path / "bundle")


def test_a_pickle_of_post_processing_is_not_opened_and_needs_the_json_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = folder_of("small", tmp_path / "model")
    results = folder / "crossval_results_folds_0"
    results.mkdir()
    (results / "postprocessing.pkl").write_bytes(pickle.dumps(Hostile()))
    shutil.make_archive(str(tmp_path / "model"), "zip", tmp_path / "model")
    for source in (folder, tmp_path / "model.zip"):
        with pytest.raises(CheckpointError, match=r"postprocessing\.pkl is a pickle, .* copy postprocessing\.json"):
            import_model(source, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    (results / "postprocessing.json").write_text(json.dumps({"postprocessing_fns": [], "postprocessing_kwargs": []}))
    import_model(folder, tmp_path / "bundle")
    assert not (tmp_path / "hostile").exists()


def test_a_zip_that_leads_outside_is_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(FIXTURES / "small" / "model.zip") as source, zipfile.ZipFile(content, "w") as target:
        for entry in source.infolist():
            target.writestr(entry, source.read(entry))
        target.writestr("../outside/plans.json", "{}")
    (tmp_path / "evil.zip").write_bytes(content.getvalue())
    with pytest.raises(CheckpointError, match=r"evil\.zip"):
        import_model(tmp_path / "evil.zip", tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.zip"]


def test_copies_of_a_layer_that_differ_are_refused(tmp_path: Path) -> None:
    folder = folder_of("small", tmp_path / "model")
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    key = next(each for each in content["network_weights"] if "all_modules" in each)
    content["network_weights"][key] = content["network_weights"][key] + 1
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="differs from the layer that it is a copy of"):
        import_model(folder, tmp_path / "bundle")


def test_labels_with_sides_are_not_mirrored_across_them(tmp_path: Path) -> None:
    folder = folder_of("plain", tmp_path / "model")
    edited("dataset.json", "labels", value={"background": 0, "kidney_left": 1, "kidney_right": 2})(folder)
    model = medseg.load_model(import_model(folder, tmp_path / "bundle"), "cpu")
    # The network's last axis is the file's first.
    assert model.mirror_axes() == (0, 1)
