from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import numpy as np
import pytest

import medseg
from medseg.disk.locks import FOLDER, Locks
from medseg.errors import CheckpointError, ConfigError, PartialFailure, ReadError, WriteError
from medseg.geometry import reorient
from medseg.inference import load_model
from medseg.preparation.plan import ChannelPlan
from medseg.studies import PredictOptions, outputs, predict_studies
from medseg.studies.ledger import FINISHED, Ledger, LedgerRow
from medseg.volume import Volume


def _write(path: Path, seed: int = 0, shape=(6, 7, 5), scale: float = 1.0) -> Volume:
    rng = np.random.default_rng(seed)
    volume = Volume((scale * rng.normal(size=shape)).astype(np.float32), np.diag([-1.0, 1.0, 2.0, 1.0]))
    path.parent.mkdir(parents=True, exist_ok=True)
    medseg.write(volume, path)
    return volume


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n, name in enumerate(("ann", "ben", "cid")):
        _write(tmp_path / "in" / f"{name}.nii.gz", seed=n)
    return tmp_path / "in"


def _rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]


def test_a_folder_of_cases_becomes_masks_labels_and_a_ledger(threshold_bundle, folder, tmp_path):
    seen = []
    out = tmp_path / "out"
    result = predict_studies(threshold_bundle(value=4), [folder], out, progress=lambda *a: seen.append(a))
    assert result.exit_code == 0
    result.raise_for_failures()
    assert sorted(f.name for f in out.iterdir()) == [
        "ann.nii.gz",
        "ben.nii.gz",
        "cid.nii.gz",
        "labels.json",
        "ledger.jsonl",
        "measurements.csv",
        "names.jsonl",
        "previews",
    ]
    image, mask = medseg.read(folder / "ben.nii.gz"), medseg.read(out / "ben.nii.gz")
    assert mask.same_geometry(image)
    assert np.array_equal(mask.array, np.where(image.array > 0.5, 4, 0))
    assert json.loads((out / "labels.json").read_text()) == {"format_version": 1, "labels": {"spot": 4}, "ignore": None}
    rows = _rows(out)
    assert [row["case"] for row in rows] == ["ann", "ben", "cid"]
    assert {row["state"] for row in rows} == {"done"}
    fields = "case state input_hash series_uid series_reason model_hash options output_hash seconds error versions"
    assert set(fields.split()) <= set(rows[0])
    assert seen[-1] == (3, 3, "cid") and [s[0] for s in seen] == sorted(s[0] for s in seen)
    assert "3 done" in result.text() and json.loads(result.to_json())["counts"] == {"done": 3}


def test_a_second_call_skips_what_is_done(threshold_bundle, folder, tmp_path):
    model, out = threshold_bundle(), tmp_path / "out"
    predict_studies(model, [folder], out)
    before = {f.name: (f.stat().st_mtime_ns, f.read_bytes()) for f in out.glob("*.nii.gz")}
    second = predict_studies(model, [folder], out)
    assert second.skipped == ("ann", "ben", "cid") and second.rows == () and len(_rows(out)) == 3
    assert before == {f.name: (f.stat().st_mtime_ns, f.read_bytes()) for f in out.glob("*.nii.gz")}
    assert "3 skipped" in second.text()

    (out / "ann.nii.gz").write_bytes(b"edited")
    (out / "ben.nii.gz").unlink()
    third = predict_studies(model, [folder], out)
    assert third.skipped == ("cid",) and [row.case for row in third.rows] == ["ann", "ben"]
    assert before["ann.nii.gz"][1] == (out / "ann.nii.gz").read_bytes()

    _write(folder / "cid.nii.gz", seed=99)
    assert [r.case for r in predict_studies(model, [folder], out).rows] == ["cid"]
    assert len(predict_studies(model, [folder], out, PredictOptions(overlap=0.25)).rows) == 3
    again = predict_studies(model, [folder], out, PredictOptions(overlap=0.25, overwrite=True))
    assert len(again.rows) == 3
    other = threshold_bundle("other", value=2)
    assert len(predict_studies(other, [folder], out).rows) == 3


def test_masks_are_the_same_bytes_on_every_run(unet_bundle, folder, tmp_path):
    model = load_model(unet_bundle, "cpu")
    for n in (1, 2):
        predict_studies(model, [folder], tmp_path / f"out{n}", PredictOptions(save_probabilities=True))
    for name in ("ann.nii.gz", "ann.npz", "cid.nii.gz", "labels.json"):
        assert (tmp_path / "out1" / name).read_bytes() == (tmp_path / "out2" / name).read_bytes()


def test_a_failing_case_is_recorded_and_the_rest_goes_on(threshold_bundle, folder, tmp_path):
    model, out = threshold_bundle(), tmp_path / "out"
    good = (folder / "ben.nii.gz").read_bytes()
    (folder / "ben.nii.gz").write_bytes(good[:40])
    result = predict_studies(model, [folder], out)
    assert result.exit_code == 4
    assert [(row.case, row.state) for row in result.rows] == [("ann", "done"), ("ben", "failed"), ("cid", "done")]
    assert "ben.nii.gz" in result.failed[0].error and "\n" not in result.failed[0].error
    assert not (out / "ben.nii.gz").exists()
    with pytest.raises(PartialFailure, match=r"1 of 3 cases failed.*ben"):
        result.raise_for_failures()

    retried = predict_studies(model, [folder], out)
    assert [row.case for row in retried.rows] == ["ben"] and retried.exit_code == 4
    (folder / "ben.nii.gz").write_bytes(good)
    mended = predict_studies(model, [folder], out)
    assert [(row.case, row.state) for row in mended.rows] == [("ben", "done")] and mended.exit_code == 0


def test_when_every_case_fails_the_error_is_that_of_bad_input(threshold_bundle, tmp_path):
    volume = Volume(np.full((4, 4, 4), np.nan, dtype=np.float32), np.eye(4))
    for name in ("a", "b"):
        (tmp_path / "in").mkdir(exist_ok=True)
        medseg.write(volume, tmp_path / "in" / f"{name}.nii.gz")
    result = predict_studies(threshold_bundle(), [tmp_path / "in"], tmp_path / "out")
    assert result.exit_code == 3
    with pytest.raises(ReadError, match=r"all 2 cases failed.*NaN"):
        result.raise_for_failures()
    single = predict_studies(threshold_bundle(), [tmp_path / "in" / "a.nii.gz"], tmp_path / "single")
    with pytest.raises(ReadError, match=r"a\.nii\.gz"):
        single.raise_for_failures()


def test_a_mask_without_any_label_is_called_empty(threshold_bundle, tmp_path):
    _write(tmp_path / "a.nii.gz", scale=0.001)
    result = predict_studies(threshold_bundle(), [tmp_path / "a.nii.gz"], tmp_path / "out")
    assert result.rows[0].state == "done_empty" and "mask is empty" in result.text()
    assert medseg.read(tmp_path / "out" / "a.nii.gz").array.max() == 0
    assert predict_studies(threshold_bundle(), [tmp_path / "a.nii.gz"], tmp_path / "out").skipped == ("a",)


def test_a_full_disk_ends_the_run_and_keeps_what_is_done(threshold_bundle, folder, tmp_path, monkeypatch):
    model, out = threshold_bundle(), tmp_path / "out"
    real = outputs.write

    def full_at_ben(volume, path):
        if path.name.startswith("ben"):
            try:
                raise OSError(28, "No space left on device")
            except OSError as error:
                raise WriteError(f"cannot write {path}: the disk is full") from error
        real(volume, path)

    monkeypatch.setattr(outputs, "write", full_at_ben)
    with pytest.raises(WriteError, match="disk is full"):
        predict_studies(model, [folder], out)
    assert [row["case"] for row in _rows(out)] == ["ann"]
    monkeypatch.undo()
    assert [row.case for row in predict_studies(model, [folder], out).rows] == ["ben", "cid"]


def test_an_interruption_leaves_no_half_file(threshold_bundle, folder, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def stop(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("medseg.studies.chain.hash_file", stop)
    with pytest.raises(KeyboardInterrupt):
        predict_studies(threshold_bundle(), [folder], out)
    # The first mask is whole, but not in the ledger: it is made again.
    assert sorted(f.name for f in out.iterdir()) == [
        "ann.nii.gz",
        "labels.json",
        "measurements.csv",
        "names.jsonl",
        "previews",
    ]


def test_photographs_become_png_with_label_values(threshold_bundle, tmp_path):
    plan = {"dims": 2, "patch_size": (8, 8), "strides": ((1, 1), (2, 2)), "orientation": None}
    picture = np.zeros((12, 9), dtype=np.uint8)
    picture[3, 4:6] = 200
    medseg.write(Volume(picture, np.eye(4), spacing_known=False), tmp_path / "in.png")
    model = threshold_bundle(value=3, **plan)
    assert predict_studies(model, [tmp_path / "in.png"], tmp_path / "out").exit_code == 0
    mask = medseg.read(tmp_path / "out" / "in.png")
    assert np.array_equal(mask.array, np.where(picture > 0, 3, 0))
    as_nifti = predict_studies(model, [tmp_path / "in.png"], tmp_path / "out2", PredictOptions(format="nifti"))
    assert as_nifti.exit_code == 0 and (tmp_path / "out2" / "in.nii.gz").is_file()


def test_a_format_that_cannot_hold_the_mask_fails_that_case_only(threshold_bundle, folder, tmp_path):
    result = predict_studies(threshold_bundle(), [folder], tmp_path / "out", PredictOptions(format="png"))
    assert len(result.failed) == 3 and result.rows[0].error


def test_a_dry_run_writes_nothing(threshold_bundle, folder, tmp_path):
    result = predict_studies(threshold_bundle(), [folder], tmp_path / "out", PredictOptions(dry_run=True))
    assert result.planned == ("ann", "ben", "cid") and not (tmp_path / "out").exists()
    assert "would do ann" in result.text()


def test_probabilities_lie_on_the_images_grid(threshold_bundle, folder, tmp_path):
    predict_studies(threshold_bundle(), [folder], tmp_path / "out", PredictOptions(save_probabilities=True))
    image = medseg.read(folder / "ann.nii.gz")
    with np.load(tmp_path / "out" / "ann.npz") as values:
        assert values["labels"].tolist() == ["spot"] and values["probabilities"].dtype == np.float16
        expected = 1 / (1 + np.exp(0.5 - image.array.astype(float)))
        assert np.abs(values["probabilities"][0] - expected).max() < 2e-3
    (tmp_path / "out" / "ann.npz").unlink()
    again = predict_studies(threshold_bundle(), [folder], tmp_path / "out", PredictOptions(save_probabilities=True))
    assert [row.case for row in again.rows] == ["ann"]


def test_several_places_may_hold_something_unreadable(threshold_bundle, folder, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    result = predict_studies(threshold_bundle(), [folder / "ann.nii.gz", tmp_path / "notes.txt"], tmp_path / "out")
    assert [(row.case, row.state) for row in result.rows] == [("ann", "done"), ("notes.txt", "failed")]
    for lonely in (tmp_path / "notes.txt", tmp_path / "nowhere"):
        with pytest.raises(ReadError):
            predict_studies(threshold_bundle(), [lonely], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_options_and_models_are_checked_before_anything_is_done(folder, tmp_path):
    with pytest.raises(ConfigError, match="nifti, png"):
        PredictOptions(format="gif")
    with pytest.raises(ConfigError, match="overlap"):
        PredictOptions(overlap=1.0)
    with pytest.raises(CheckpointError):
        predict_studies(tmp_path / "no_model", [folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_ledger_line_cut_short_by_a_kill_is_passed_over(tmp_path):
    path = tmp_path / "ledger.jsonl"
    Ledger(path).append(LedgerRow("a", "done"))
    with path.open("a") as file:
        file.write('{"case": "b", "sta')
    ledger = Ledger(path)
    assert ledger.latest("a").state == "done" and ledger.latest("b") is None
    ledger.append(LedgerRow("b", "failed", error="no"))
    ledger.append(LedgerRow("b", "done"))
    assert Ledger(path).latest("b").state == "done" and Ledger(path).latest("b").error == ""
    assert set(FINISHED) == {"done", "done_empty", "needs_review"}


def test_dicom_and_its_nifti_twin_give_the_same_mask_and_no_patient_is_named(threshold_bundle, tmp_path):
    samples = Path(__file__).resolve().parents[2] / "data_samples"
    found = sorted({f.parent for f in samples.rglob("*.dcm")})
    if not found:
        pytest.skip("the synthetic DICOM samples have not been made")
    model, out = threshold_bundle(), tmp_path / "out"
    result = predict_studies(model, [found[0]], out)
    assert result.exit_code == 0 and result.rows[0].series_uid
    volume = medseg.read(found[0])
    twin = tmp_path / "twin.nii.gz"
    medseg.write(volume, twin)
    predict_studies(model, [twin], tmp_path / "twin")
    mask, other = medseg.read(out / f"{result.rows[0].case}.nii.gz"), medseg.read(tmp_path / "twin" / "twin.nii.gz")
    assert mask.same_geometry(other) and np.array_equal(mask.array, other.array)
    if volume.metadata.patient_id:
        assert volume.metadata.patient_id not in (out / "ledger.jsonl").read_text()


def test_a_ct_from_dicom_gives_the_mask_of_its_nrrd_twin(threshold_bundle, data_folder, tmp_path):
    scale = ChannelPlan(kind="clip", low=-1000.0, high=1000.0, mean=0.0, std=400.0)
    model = load_model(threshold_bundle(spacing_mm=(2.5, 2.5, 2.5), patch_size=(160, 160, 64), normalization=(scale,)))
    places = [data_folder / "lung_ct_cip" / "ct-64Dicom", data_folder / "lung_ct_cip" / "ct-64.nrrd"]
    result = predict_studies(model, places, tmp_path, PredictOptions(mirror=False))
    assert result.exit_code == 0
    from_dicom, from_nrrd = (medseg.read(tmp_path / f"{row.case}.nii.gz") for row in result.rows)
    assert from_dicom.array.mean() > 0.01
    moved = reorient(from_dicom, from_nrrd.orientation)
    assert np.abs(moved.affine - from_nrrd.affine).max() < 1e-3
    assert np.array_equal(moved.array, from_nrrd.array)


def test_the_largest_case_comes_first_and_results_keep_the_order_of_names(threshold_bundle, tmp_path):
    for name, size in (("a", 4), ("b", 9), ("c", 6)):
        _write(tmp_path / "in" / f"{name}.nii.gz", shape=(size, size, size))
    result = predict_studies(threshold_bundle(), [tmp_path / "in"], tmp_path / "out")
    assert [row["case"] for row in _rows(tmp_path / "out")] == ["b", "c", "a"]
    assert [row.case for row in result.rows] == ["a", "b", "c"]


def test_a_case_beyond_its_time_limit_fails_and_the_rest_goes_on(threshold_bundle, folder, tmp_path, monkeypatch):
    _write(folder / "ben.nii.gz", seed=5, shape=(30, 30, 30))
    real = time.monotonic
    slow = itertools.count()
    monkeypatch.setattr("medseg.studies.chain.time.monotonic", lambda: real() + 0.01 * next(slow))
    result = predict_studies(threshold_bundle(), [folder], tmp_path / "out", PredictOptions(time_limit=0.1 / 60))
    assert [(row.case, row.state) for row in result.rows if row.state == "failed"] == [("ben", "failed")]
    assert "ben.nii.gz" in result.failed[0].error and "--time-limit" in result.failed[0].error
    assert not (tmp_path / "out" / "ben.nii.gz").exists() and result.exit_code == 4
    with pytest.raises(ConfigError, match="time limit"):
        PredictOptions(time_limit=0)


def test_what_another_run_works_on_is_left_to_it(threshold_bundle, folder, tmp_path):
    out = tmp_path / "out"
    with Locks(out) as other:
        assert other.take("ben")
        result = predict_studies(threshold_bundle(), [folder], out)
        assert result.locked == ("ben",) and [row.case for row in result.rows] == ["ann", "cid"]
        assert "ben: another run is working on it" in result.text() and result.exit_code == 0
        assert not (out / "ben.nii.gz").exists()
    assert [row.case for row in predict_studies(threshold_bundle(), [folder], out).rows] == ["ben"]


def test_half_written_files_of_dead_runs_are_cleared_unless_another_run_lives(threshold_bundle, folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    orphan = out / ".0123abcd-ann.nii.gz"
    orphan.write_bytes(b"half")
    (out / ".notes").write_text("mine")
    with Locks(out):
        predict_studies(threshold_bundle(), [folder], out)
        assert orphan.exists()
    predict_studies(threshold_bundle(), [folder], out)
    assert not orphan.exists() and (out / ".notes").exists() and not (out / FOLDER).exists()
