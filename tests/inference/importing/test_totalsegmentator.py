"""TotalSegmentator's tasks from its folders: small networks, beside what nnunetv2 and its own steps make of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from totalsegmentator_folders import COUNTS, FEATURES, canonical, image, write_folder

from medseg.errors import CheckpointError, ConfigError
from medseg.inference import load_model
from medseg.inference.importing.totalsegmentator.tasks import labels_of_dataset, tasks
from medseg.io import write
from medseg.nets import build_net
from medseg.studies import PredictOptions, predict_studies
from medseg.volume import Volume

# Made by nnunetv2 2.8.1 (`tests/fixtures/make_totalsegmentator.py`).
EXPECTED = np.load(Path(__file__).parents[2] / "fixtures" / "totalsegmentator.npz")


def shapes(number):
    with torch.device("meta"):
        net = build_net(
            "nnunet_plain", dims=3, in_channels=1, out_channels=COUNTS[number] + 1, channels=FEATURES,
            strides=((1, 1, 1), (2, 2, 2), (2, 1, 2)),
        )  # fmt: skip
    held = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    # As in nnU-Net's files, each tensor of the encoder stands under further names.
    again = {f"decoder.{key}": shape for key, shape in held.items() if key.startswith("encoder.")}
    units = {key.replace(".conv.", ".all_modules.0."): shape for key, shape in held.items() if ".convs." in key}
    return {**held, **again, **{key: shape for key, shape in units.items() if canonical(key) in held}}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "results"


def made(results, *numbers):
    for number in numbers:
        write_folder(results, number, shapes(number))
    return results


def study():
    array, affine = image()
    return Volume(array, affine)


def test_five_parts_on_their_grid_are_merged_as_by_nnunet_and_totalsegmentators_steps(results):
    model = load_model("totalsegmentator:total", "cpu", weights=made(results, 291, 292, 293, 294, 295))
    assert len(model.scheme.names) == 117 and model.scheme.mapping["liver"] == 5
    assert model.scheme.mapping["costal_cartilages"] == 117
    found = model.predict(study()).array
    # The steps written out, in the same precision; then nnunetv2 itself, whose sums are in half precision: of random
    # weights, five networks that all find something everywhere, that decides 1 near tie in 200.
    assert (found == EXPECTED["total_float32"]).mean() >= 0.9999
    assert (found == EXPECTED["total"]).mean() >= 0.995


def test_compatible_parts_are_those_of_nnunetv2_and_totalsegmentator(results):
    made(results, 291, 292, 293, 294, 295)
    model = load_model("totalsegmentator:total", "cpu", weights=results, compatible=True)
    assert (model.predict(study()).array != EXPECTED["total"]).mean() <= 1e-5


def test_windows_go_over_the_body_and_not_over_the_air_around_it(results):
    """Of a CT that is mostly air; nnU-Net's own steps see all of it."""
    made(results, 291, 292, 293, 294, 295)
    (file,) = results.glob("Dataset291*/*/plans.json")
    plans = json.loads(file.read_text())
    (levels,) = plans["foreground_intensity_properties_per_channel"].values()
    levels["percentile_00_5"] = -1000.0
    file.write_text(json.dumps(plans))
    array, affine = image()
    padded = np.full([3 * n for n in array.shape], -1000, dtype=np.int16)
    place = tuple(slice(n, 2 * n) for n in array.shape)
    padded[place] = array
    counts = {}
    for compatible in (False, True):
        model = load_model("totalsegmentator:total", "cpu", weights=results, roi=("spleen",), compatible=compatible)
        found = model.predict(
            Volume(padded, affine), progress=lambda done, total, key=compatible: counts.__setitem__(key, total)
        ).array
        if not compatible:
            far = np.ones(padded.shape, dtype=bool)
            far[tuple(slice(side.start - 12, side.stop + 12) for side in place)] = False
            assert found[place].any() and not found[far].any()
    assert counts[False] < counts[True] / 2


def test_a_task_with_a_crop_works_in_the_box_of_another_network(results):
    model = load_model("totalsegmentator:liver_vessels", "cpu", weights=made(results, 298, 8))
    found, expected = model.predict(study()).array, EXPECTED["liver_vessels"]
    assert 0 < (expected > 0).mean() < 0.5, "the box is the whole image, so nothing is shown"
    assert (found == expected).mean() >= 0.999
    assert [rule.name for rule in model.info.plan.select] == ["CT"]


def test_only_parts_with_a_wanted_label_are_read(results, tmp_path):
    made(results, 291, 292, 293, 294, 295)
    for part in results.glob("Dataset29[2345]*/*/fold_0/checkpoint_final.pth"):
        part.write_bytes(b"never read")
    model = load_model("totalsegmentator:total", "cpu", weights=results, roi=("spleen", "liver"))
    assert model.scheme.mapping == {"spleen": 1, "liver": 5} and len(model.members) == 1
    assert [path.name[:10] for path in (tmp_path / "cache" / "totalsegmentator").iterdir()] == ["Dataset291"]
    assert set(np.unique(model.predict(study()).array)) <= {0, 1, 5}


def test_parts_are_one_case_of_the_ledger_with_the_hash_of_all(results, tmp_path):
    made(results, 291, 292, 293, 294, 295)
    write(study(), tmp_path / "ct.nii.gz")
    options = PredictOptions(settle=0, device="cpu", preview=False, roi=("spleen",), weights=str(results))
    result = predict_studies("totalsegmentator:total", [tmp_path / "ct.nii.gz"], tmp_path / "out", options)
    result.raise_for_failures()
    rows = [json.loads(line) for line in (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()]
    assert [row["case"] for row in rows] == ["ct"]
    model = load_model("totalsegmentator:total", "cpu", weights=results, roi=("spleen",))
    assert rows[0]["model_hash"] == model.model_hash


def test_a_network_is_converted_once_and_anew_where_its_file_changed(results, tmp_path):
    made(results, 291, 292, 293, 294, 295)
    load_model("totalsegmentator:total", "cpu", weights=results, roi=("spleen",))
    cache = tmp_path / "cache" / "totalsegmentator"
    (first,) = cache.iterdir()
    state = (first / "model.json").stat()
    load_model("totalsegmentator:total", "cpu", weights=results, roi=("spleen",))
    assert [each.name for each in cache.iterdir()] == [first.name]
    assert (first / "model.json").stat().st_mtime_ns == state.st_mtime_ns
    (file,) = results.glob("Dataset291*/*/fold_0/checkpoint_final.pth")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"checkpoint_final\.pth is damaged"):
        load_model("totalsegmentator:total", "cpu", weights=results, roi=("spleen",))


@pytest.mark.parametrize(
    ("task", "present", "message"),
    [
        (
            "total",
            (291, 292),
            r"contains no folder Dataset293_\*.*fetches nothing; the weights are published at https://",
        ),
        ("total_fast", (), r"contains no folder Dataset297_\*"),
        ("brain_aneurysm", (), r"Dataset615_\*, which the task needs.*\(CC BY-NC\) need a licence"),
    ],
)
def test_a_missing_folder_is_named_with_where_it_is_published(results, task, present, message):
    results.mkdir()
    made(results, *present)
    with pytest.raises(CheckpointError, match=message):
        load_model(f"totalsegmentator:{task}", "cpu", weights=results)


def test_a_folder_without_weights_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere does not exist; give the folder"):
        load_model("totalsegmentator:total", "cpu", weights=tmp_path / "nowhere")
    made(tmp_path, 291, 292, 293, 294, 295)
    for file in tmp_path.glob("Dataset291*/*/fold_0/checkpoint_final.pth"):
        file.unlink()
    with pytest.raises(CheckpointError, match=r"has no fold_N/checkpoint_final\.pth"):
        load_model("totalsegmentator:total", "cpu", weights=tmp_path)


def test_a_checkpoint_that_names_code_runs_nothing(results, tmp_path, monkeypatch):
    import os

    class Runs:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'was_run'}",)

    made(results, 291, 292, 293, 294, 295)
    (file,) = results.glob("Dataset291*/*/fold_0/checkpoint_final.pth")
    torch.save({"network_weights": {}, "logging": Runs()}, file)
    with pytest.raises(CheckpointError) as caught:
        load_model("totalsegmentator:total", "cpu", weights=results)
    assert "\n" not in str(caught.value) and not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network_class_name": "os.system"}, "the network is 'os.system'"),
        ({"network_class_name": "unet.PlainConvUNet", "arch_kwargs": {}}, "not as nnU-Net writes them"),
    ],
)
def test_plans_that_name_anything_else_are_refused(results, change, message):
    made(results, 291, 292, 293, 294, 295)
    (file,) = results.glob("Dataset291*/*/plans.json")
    plans = json.loads(file.read_text())
    plans["configurations"]["3d_fullres"]["architecture"].update(change)
    file.write_text(json.dumps(plans))
    with pytest.raises(CheckpointError, match=message):
        load_model("totalsegmentator:total", "cpu", weights=results)


def test_what_cannot_be_run_or_does_not_exist_is_said_before_weights_are_looked_for(tmp_path):
    with pytest.raises(ConfigError, match=r"no task 'totla'.*did you mean 'total'"):
        load_model("totalsegmentator:totla", "cpu")
    with pytest.raises(ConfigError, match="crops the image around a structure"):
        load_model("totalsegmentator:teeth", "cpu", weights=tmp_path)
    with pytest.raises(ConfigError, match="--weights is for models such as totalsegmentator:total"):
        load_model(tmp_path, "cpu", weights=tmp_path)


def test_the_table_is_complete_and_names_every_label_of_total_once():
    names = [name for number in tasks()["total"].datasets for name in labels_of_dataset(number)]
    assert len(names) == len(set(names)) == 117
    assert list(labels_of_dataset(297)) == list(labels_of_dataset(298)) == names
    for task in tasks().values():
        if task.crop not in (None, "unknown"):
            rough = tasks()[task.crop.task]
            known = labels_of_dataset(rough.datasets[0])
            assert rough.crop is None and len(rough.datasets) == 1
            assert not known or set(task.crop.labels) <= set(known)
    assert not tasks()["brain_aneurysm"].is_free and tasks()["total"].is_free
