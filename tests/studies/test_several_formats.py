"""Several formats in one run: masks, measurements and a picture of one prediction, which agree with each other."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from selection_studies import write_series

from medseg.commands.convert import ConvertOptions, convert
from medseg.errors import ReadError, WriteError
from medseg.inference.predictor import Model
from medseg.studies import PredictOptions, predict_studies

NAMES = {"dicom-seg": "p.seg.dcm", "sr": "p.sr.dcm", "capture": "p.capture.dcm"}
ALL = "dicom-seg,sr,capture"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A CT of 12 x 10 x 9 voxels of 1 x 1 x 2 mm at -100 HU, with a block of 4 x 3 x 2 voxels at 100 and 300 HU."""
    array = np.full((12, 10, 9), -100, np.int16)
    array[4:8, 3:6, 4], array[4:8, 3:6, 5] = 100, 300
    _series(tmp_path / "in", spacing=2.0, array=array)
    return tmp_path / "in"


def _series(folder: Path, **values: Any) -> Path:
    """The series `<folder>/p`."""
    return write_series(folder, 1, **values).rename(folder / "p")


def _row(out: Path) -> dict:
    return json.loads((out / "ledger.jsonl").read_text().splitlines()[-1])


def _values(path: Path) -> dict[tuple[str, str], float]:
    (group,) = hd.sr.srread(path).content.get_volumetric_roi_measurement_groups()
    return {(m.name.meaning, m.derivation.meaning if m.derivation else ""): m.value for m in group.get_measurements()}


def test_all_are_written_from_one_prediction_and_recorded_by_their_hashes(
    threshold_bundle, study, tmp_path, monkeypatch
):
    runs = []
    predict = Model.predict
    monkeypatch.setattr(Model, "predict", lambda *args, **kwargs: (runs.append(1), predict(*args, **kwargs))[1])
    model, out = threshold_bundle(value=4), tmp_path / "out"
    predict_studies(model, [study], out, PredictOptions(ALL)).raise_for_failures()
    row = _row(out)
    assert len(runs) == 1
    assert row["state"] == "done"
    assert row["outputs"] == {
        kind: hashlib.sha256((out / name).read_bytes()).hexdigest() for kind, name in NAMES.items()
    }
    assert row["output_hash"] == row["outputs"]["dicom-seg"]
    # 24 voxels of 2 mm3, half of them at 100 and half at 300 HU; see `axial_diameters` for the axes of 4 x 3 pixels.
    assert _values(out / "p.sr.dcm") == {
        ("Volume", ""): 48.0,
        ("Long axis", ""): round(float(np.hypot(4.0, 2.0)), 4),
        ("Short axis", ""): row["measurements"][0]["short_axis_mm"],
        ("Attenuation Coefficient", "Mean"): 200.0,
        ("Attenuation Coefficient", "Standard Deviation"): 100.0,
    }
    seg, report, capture = (pydicom.dcmread(out / name) for name in NAMES.values())
    (group,) = hd.sr.srread(out / "p.sr.dcm").content.get_volumetric_roi_measurement_groups()
    assert group.referenced_segment.referenced_sop_instance_uid == seg.SOPInstanceUID
    for data in (seg, report, capture):
        assert data.SeriesDescription.startswith("RESEARCH")
        assert data.StudyInstanceUID == pydicom.dcmread(study / "p" / "000").StudyInstanceUID
    assert len({data.SeriesInstanceUID for data in (seg, report, capture)}) == 3


def test_a_second_run_does_only_what_is_missing_or_changed(threshold_bundle, study, tmp_path):
    model, out = threshold_bundle(value=4), tmp_path / "out"
    predict_studies(model, [study], out, PredictOptions(ALL)).raise_for_failures()
    before = {name: (out / name).read_bytes() for name in NAMES.values()}
    # The order of the formats changes nothing.
    again = PredictOptions(format="capture,sr,dicom-seg")
    assert predict_studies(model, [study], out, again).skipped == ("p",)
    for name in NAMES.values():
        for spoil in (Path.unlink, lambda path: path.write_bytes(b"cut")):
            spoil(out / name)
            assert len(predict_studies(model, [study], out, PredictOptions(ALL)).done) == 1
            assert {each: (out / each).read_bytes() for each in NAMES.values()} == before
    assert len(predict_studies(model, [study], out, PredictOptions(format="dicom-seg,sr")).done) == 1


def test_an_object_is_the_same_whatever_is_written_beside_it(threshold_bundle, study, tmp_path):
    model = threshold_bundle(value=4)
    for kind, alone in (("dicom-seg", "p.dcm"), ("capture", "p.capture.dcm")):
        predict_studies(model, [study], tmp_path / kind, PredictOptions(format=kind)).raise_for_failures()
        predict_studies(model, [study], tmp_path / "all", PredictOptions(ALL)).raise_for_failures()
        assert (tmp_path / kind / alone).read_bytes() == (tmp_path / "all" / NAMES[kind]).read_bytes()


def test_masks_and_objects_can_be_asked_for_together(threshold_bundle, study, tmp_path):
    options = PredictOptions(format="nifti,rtstruct,sr")
    predict_studies(threshold_bundle(value=4), [study], tmp_path / "out", options).raise_for_failures()
    for name in ("p.nii.gz", "p.rtstruct.dcm", "p.sr.dcm"):
        assert (tmp_path / "out" / name).is_file(), name
    (group,) = hd.sr.srread(tmp_path / "out" / "p.sr.dcm").content.get_image_measurement_groups()
    assert len(group.source_images) == 9


def test_a_case_without_anything_found_gets_objects_that_say_so(threshold_bundle, tmp_path):
    _series(tmp_path / "in", array=np.full((12, 10, 9), -100, np.int16))
    result = predict_studies(threshold_bundle(), [tmp_path / "in"], tmp_path / "out", PredictOptions(ALL))
    assert result.rows[0].state == "done_empty"
    assert _values(tmp_path / "out" / "p.sr.dcm") == {("Volume", ""): 0.0}
    assert pydicom.dcmread(tmp_path / "out" / "p.capture.dcm").pixel_array.shape[2] == 3


def test_what_is_no_dicom_series_is_refused_before_the_network_runs(threshold_bundle, study, tmp_path, monkeypatch):
    convert(study, tmp_path / "a.nii.gz")
    monkeypatch.setattr(Model, "predict", lambda *args, **kwargs: pytest.fail("the network ran"))
    for kinds in ("sr", "capture", "nifti,sr"):
        out = tmp_path / kinds
        result = predict_studies(threshold_bundle(), [tmp_path / "a.nii.gz"], out, PredictOptions(format=kinds))
        with pytest.raises(ReadError, match=r"a\.nii\.gz is not a DICOM series, which a DICOM object has to refer to"):
            result.raise_for_failures()
        assert not list(out.glob("a.*"))


def test_where_one_of_the_objects_cannot_be_made_none_is_written(threshold_bundle, tmp_path):
    """Contours need a position in the patient, a segmentation does not."""
    place = _series(tmp_path / "in", slices=1)
    (path,) = place.iterdir()
    data = pydicom.dcmread(path)
    del data.ImagePositionPatient, data.ImageOrientationPatient
    data.save_as(path)
    model = threshold_bundle(dims=2, orientation=None, patch_size=(8, 8), strides=((1, 1), (2, 2)))
    result = predict_studies(model, [place], tmp_path / "out", PredictOptions(format="dicom-seg,rtstruct"))
    with pytest.raises(WriteError, match="contours are given in millimetres"):
        result.raise_for_failures()
    assert not list((tmp_path / "out").glob("*.dcm"))
    predict_studies(model, [place], tmp_path / "out", PredictOptions(ALL)).raise_for_failures()


def test_anonymised_results_name_nobody_and_still_refer_to_each_other(threshold_bundle, study, tmp_path):
    for path in study.rglob("0*"):
        data = pydicom.dcmread(path)
        data.PatientName, data.PatientID, data.AccessionNumber = "Roe^Richard", "MRN-0815", "ACC-4711"
        data.save_as(path)
    options = PredictOptions(format=ALL, anonymize=True)
    predict_studies(threshold_bundle(value=4), [study], tmp_path / "out", options).raise_for_failures()
    source = pydicom.dcmread(study / "p" / "000")
    secrets = ["Roe", "MRN-0815", "ACC-4711", source.StudyInstanceUID, source.SeriesInstanceUID]
    for path in (tmp_path / "out").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert [text for text in secrets if text.encode() in content] == [], path.name
    seg = pydicom.dcmread(tmp_path / "out" / "p.seg.dcm")
    (group,) = hd.sr.srread(tmp_path / "out" / "p.sr.dcm").content.get_volumetric_roi_measurement_groups()
    assert group.referenced_segment.referenced_sop_instance_uid == seg.SOPInstanceUID
    assert group.tracking_uid == seg.SegmentSequence[0].TrackingUID
    assert group.tracking_identifier == "spot"
    # The same key: the report points at the anonymised copies of the images.
    convert(study, tmp_path / "copies", ConvertOptions(anonymize=True))
    copies = {str(pydicom.dcmread(path).SOPInstanceUID) for path in (tmp_path / "copies").rglob("*.dcm")}
    evidence = {str(instance) for _, _, instance, _ in hd.sr.srread(tmp_path / "out" / "p.sr.dcm").get_evidence()}
    assert copies <= evidence


def test_results_stored_beside_the_images_do_not_change_what_is_predicted(threshold_bundle, study, tmp_path):
    model = threshold_bundle(value=4)
    predict_studies(model, [study], tmp_path / "first", PredictOptions(ALL)).raise_for_failures()
    for name in NAMES.values():
        shutil.copy(tmp_path / "first" / name, study / "p" / name)
    result = predict_studies(model, [study], tmp_path / "second", PredictOptions(ALL))
    result.raise_for_failures()
    assert [row.case for row in result.rows] == ["p"]
    for name in NAMES.values():
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


def test_the_mark_can_be_another_one_and_is_then_another_object(threshold_bundle, study, tmp_path):
    seen = set()
    for mark, expected in (("RESEARCH", "RESEARCH: "), ("TRIAL 7", "TRIAL 7: "), ("", "Contours by ")):
        options = PredictOptions(format="capture", mark=mark)
        predict_studies(threshold_bundle(f"model{mark}"), [study], tmp_path / f"out{mark}", options)
        data = pydicom.dcmread(tmp_path / f"out{mark}" / "p.capture.dcm")
        assert data.SeriesDescription.startswith(expected)
        seen.add(data.SOPInstanceUID)
    assert len(seen) == 3


def test_the_command_takes_formats_joined_by_commas(run, threshold_bundle, study, tmp_path):
    code, shown, _ = run(
        "predict", threshold_bundle(), study, "-o", tmp_path / "out", "--format", "dicom-seg,sr,capture", "--json"
    )
    assert code == 0
    assert sorted(json.loads(shown)["cases"][0]["outputs"]) == ["capture", "dicom-seg", "sr"]
    code, _, error = run("predict", threshold_bundle(), study, "-o", tmp_path / "b", "--format", "dicom-seg,srr")
    assert code == 2
    assert "format 'srr' is not known" in error
