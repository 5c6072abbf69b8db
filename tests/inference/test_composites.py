"""Models made of others: ensembles, cascades and parts, run by `load_model` and as one case of `predict_studies`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from inference_bundles import make_info, make_plan, unet_weights
from scipy import ndimage

from medseg.errors import CheckpointError, ConfigError
from medseg.geometry import reorient
from medseg.inference import load_model, save_bundle
from medseg.inference.bundle_parts import CompositeInfo, CropInfo, WorkingGrid
from medseg.inference.composites.saving import save_composite
from medseg.studies import PredictOptions, predict_studies
from medseg.volume import Volume

LABELS = {"lung": 1, "tumour": 2}


def member(labels=LABELS, seed=0, previous=0, **plan):
    info = make_info(make_plan(**plan), labels=dict(labels), previous_labels=previous)
    if previous:
        net = info.net.model_copy(update={"in_channels": info.net.in_channels + previous})
        info = info.model_copy(update={"net": net})
    weights = unet_weights(info, seed)
    for name in ("bias", "weight"):
        # The last layer: background wins about as often as a label.
        head = [key for key, value in weights.items() if key.endswith(name) and len(value) == info.net.out_channels][-1]
        weights[head] = weights[head] * (3.0 if name == "weight" else 0.0)
    return lambda folder: save_bundle(folder, info, {0: weights})


def composite(folder, kind, members, labels=LABELS, **parts):
    info = CompositeInfo(kind=kind, labels=dict(labels), members=tuple(members), **parts)
    return save_composite(folder, info, members)


def image(shape=(14, 12, 10), spacing=(1.0, 1.5, 2.0), flips=(-1, 1, 1)):
    values = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=shape), 1.5) * 40
    return Volume(values.astype(np.float32), np.diag([f * s for f, s in zip(flips, spacing, strict=True)] + [1.0]))


def of(folder, name):
    return load_model(folder / "members" / name, "cpu")


def test_an_ensemble_is_the_mean_of_probabilities_on_the_images_grid(tmp_path):
    """The members have other grids than each other; no logits are averaged."""
    folder = composite(
        tmp_path / "model", "ensemble", {"fine": member(), "coarse": member(seed=1, spacing_mm=(2.0, 2.0, 2.0))}
    )
    wanted = []
    for name in ("fine", "coarse"):
        alone = of(folder, name)
        logits, grid = alone.predict_logits(image())
        wanted.append(alone.to_probabilities(logits, grid, image()).array.astype(np.float32))
    mean = np.mean(wanted, axis=0)
    expected = np.concatenate([1 - mean.sum(0, keepdims=True), mean]).argmax(0)
    kept = {}
    found = load_model(folder, "cpu").predict(image(), probabilities=lambda shape: kept.setdefault(0, np.zeros(shape)))
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(found.array, expected)
    np.testing.assert_allclose(kept[0], mean, atol=1e-3)


def test_a_member_of_a_cascade_sees_the_labels_before_it(tmp_path):
    folder = composite(
        tmp_path / "model",
        "cascade",
        {
            "low": member(seed=2, spacing_mm=(2.0, 2.0, 2.0)),
            "full": member(seed=3, previous=2),
        },
    )
    before = of(folder, "low").predict(image())
    alone = of(folder, "full")
    with pytest.raises(CheckpointError, match="member of a cascade; give the cascade"):
        alone.predict(image())
    expected = alone.predict(image(), previous=before).array
    changed = alone.predict(image(), previous=before.with_array(np.zeros_like(before.array))).array
    found = load_model(folder, "cpu")
    np.testing.assert_array_equal(found.predict(image()).array, expected)
    assert (expected != changed).any(), "the labels before make no difference"
    logits, grid = found.predict_logits(image())
    np.testing.assert_array_equal(found.to_labels(logits, grid, image()).array, expected)


def five_parts(tmp_path, **more):
    first, second = {"b": 1, "x": 2}, {"c": 1, "a": 2}
    members = {"one": member(first, seed=6), "two": member(second, seed=0)}
    return composite(tmp_path / "model", "parts", members, {"a": 1, "b": 3, "c": 9}, **more)


def test_parts_are_merged_by_name_and_the_later_part_wins(tmp_path):
    folder = five_parts(tmp_path)
    one, two = (of(folder, name).predict(image()).array for name in ("one", "two"))
    expected = np.zeros(image().shape, dtype=int)
    expected[one == 1] = 3
    expected[two == 1] = 9
    expected[two == 2] = 1
    assert len(np.unique(expected)) == 4
    np.testing.assert_array_equal(load_model(folder, "cpu").predict(image()).array, expected)


def test_only_parts_that_find_a_wanted_label_are_loaded(tmp_path):
    folder = five_parts(tmp_path)
    whole = load_model(folder, "cpu")
    (folder / "members" / "one" / "weights_fold0.safetensors").write_bytes(b"never read")
    found = load_model(folder, "cpu", roi=("c",))
    assert found.scheme.names == ("c",) and found.model_hash != whole.model_hash
    mask = whole.predict(image()).array
    np.testing.assert_array_equal(found.predict(image()).array, np.where(mask == 9, 9, 0))
    with pytest.raises(ConfigError, match="no label 'liver'"):
        load_model(folder, "cpu", roi=("liver",))


def test_parts_work_on_a_grid_between_the_centres_of_the_outermost_voxels(tmp_path):
    grid = WorkingGrid(spacing_mm=(1.3, 1.3, 1.3), order=1, whole_numbers=True)
    folder = five_parts(tmp_path, grid=grid)
    seen = reorient(image())
    shape = tuple(round(n * s / 1.3) for n, s in zip(seen.shape, seen.spacing_mm, strict=True))
    zoomed = ndimage.zoom(seen.array.astype(np.float64), np.divide(shape, seen.shape), order=1, mode="nearest").astype(
        np.int32
    )
    small = Volume(zoomed, np.diag([1.3, 1.3, 1.3, 1.0]))
    one, two = (of(folder, name).predict(small).array for name in ("one", "two"))
    merged = np.where(two == 2, 1, np.where(two == 1, 9, np.where(one == 1, 3, 0)))
    back = ndimage.zoom(merged, np.divide(seen.shape, shape), order=0, mode="nearest")
    np.testing.assert_array_equal(load_model(folder, "cpu").predict(image()).array, back[::-1])


def test_members_work_in_the_box_of_what_the_crop_member_found(tmp_path):
    members = {"rough": member({"b": 1, "x": 2}, seed=0), "one": member({"a": 1, "b": 2}, seed=6)}
    crop = CropInfo(member="rough", labels=("x",), margin_mm=3.1)
    folder = composite(tmp_path / "model", "parts", members, {"a": 1, "b": 2}, crop=crop)
    values = np.zeros((30, 24, 20), np.float32)
    values[10:18, 8:14, 7:12] = image((30, 24, 20)).array[10:18, 8:14, 7:12]
    study = image((30, 24, 20)).with_array(values)
    seen = reorient(study)
    rough = of(folder, "rough").predict(seen).array == 2
    box = []
    for axis, spacing in enumerate(seen.spacing_mm):
        rows = np.flatnonzero(rough.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = int(3.1 / spacing)
        box.append(slice(max(0, rows[0] - margin), rows[-1] + 1 + margin))
    part = Volume(seen.array[tuple(box)], np.diag([*seen.spacing_mm, 1.0]))
    assert part.array.size < seen.array.size, "the box is the whole image, so nothing is shown"
    expected = np.zeros(seen.shape, dtype=int)
    expected[tuple(box)] = of(folder, "one").predict(part).array
    model = load_model(folder, "cpu")
    assert model.scheme.names == ("a", "b")
    np.testing.assert_array_equal(model.predict(study).array, expected[::-1])


def test_a_composite_is_one_case_of_the_ledger_and_is_not_repeated(tmp_path):
    import nibabel

    folder = five_parts(tmp_path)
    study = image()
    nibabel.save(nibabel.Nifti1Image(study.array, study.affine), tmp_path / "ct.nii.gz")
    options = PredictOptions(settle=0, device="cpu", preview=False)
    result = predict_studies(folder, [tmp_path / "ct.nii.gz"], tmp_path / "out", options)
    result.raise_for_failures()
    rows = [json.loads(line) for line in (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()]
    assert [row["case"] for row in rows] == ["ct"]
    assert rows[0]["model_hash"] == load_model(folder, "cpu").model_hash
    again = predict_studies(folder, [tmp_path / "ct.nii.gz"], tmp_path / "out", options)
    assert again.skipped == ("ct",)
    with pytest.raises(ConfigError, match="made of parts has no probabilities"):
        predict_studies(folder, [tmp_path / "ct.nii.gz"], tmp_path / "out", PredictOptions(save_probabilities=True))


def test_the_hash_covers_all_members(tmp_path):
    folder = five_parts(tmp_path)
    before = load_model(folder, "cpu").model_hash
    shutil.rmtree(folder / "members" / "one")
    member({"b": 1, "x": 2}, seed=9)(folder / "members" / "one")
    assert load_model(folder, "cpu").model_hash != before


def test_a_zip_of_a_composite_is_read_like_its_folder(tmp_path):
    folder = five_parts(tmp_path)
    zipped = Path(shutil.make_archive(str(tmp_path / "zipped"), "zip", folder))
    mask = load_model(zipped, "cpu").predict(image()).array
    np.testing.assert_array_equal(mask, load_model(folder, "cpu").predict(image()).array)


@pytest.mark.parametrize(
    ("kind", "members", "message"),
    [
        ("ensemble", {"a": {"lung": 1}, "b": LABELS}, "the member a has other labels"),
        ("cascade", {"a": LABELS, "b": LABELS}, "expects 0 labels of the member before it, which has 2"),
    ],
)
def test_members_that_do_not_fit_together_are_refused(tmp_path, kind, members, message):
    folder = composite(tmp_path / "model", kind, {name: member(labels) for name, labels in members.items()})
    with pytest.raises(CheckpointError, match=message):
        load_model(folder, "cpu")


def test_a_missing_member_is_named(tmp_path):
    folder = five_parts(tmp_path)
    shutil.rmtree(folder / "members" / "two")
    with pytest.raises(CheckpointError, match="members/two"):
        load_model(folder, "cpu")


def test_models_in_models_end(tmp_path):
    inner = {"one": member({"a": 1})}
    for _ in range(3):
        before = inner
        inner = {"one": lambda folder, m=before: composite(folder, "parts", m, {"a": 1})}
    folder = composite(tmp_path / "model", "parts", inner, {"a": 1})
    with pytest.raises(CheckpointError, match="models lie in one another"):
        load_model(folder, "cpu")


def test_what_a_composite_cannot_do_is_said(tmp_path):
    from medseg.inference.exporting.model import export_model

    folder = five_parts(tmp_path)
    model = load_model(folder, "cpu")
    with pytest.raises(CheckpointError, match=r"\(parts\) has no network of its own; give one of its members"):
        export_model(folder, tmp_path / "exported")
    with pytest.raises(CheckpointError, match="no logits on one grid"):
        model.predict_logits(image())
    with pytest.raises(ConfigError, match="without --crf"):
        model.crf_options()
    with pytest.raises(CheckpointError, match="stream of frames"):
        model.stream()
