"""`medseg convert`: what each kind of source becomes, by the target's suffix or the format asked for."""

from __future__ import annotations

import json
import shutil
import zipfile
from datetime import date

import numpy as np
import pydicom
import pytest

from medseg.commands.convert import ConvertOptions, convert
from medseg.errors import ConfigError, GeometryError, MedsegError, PartialFailure, ReadError, WriteError
from medseg.geometry import reorient
from medseg.io import read, write
from medseg.io.dicom.writing.series import write_dicom_series
from medseg.volume import Volume


@pytest.fixture
def labels(small_series, tmp_path):
    """A label map 1, 3 with a hole on the grid of `small_series`, as NIfTI with its axes turned."""
    image = read(small_series("study", SeriesDescription="thin"))
    array = np.zeros(image.shape, np.uint8)
    array[:, :, 1:4] = 1
    array[2, 1, 2] = 0
    array[4, 3, 5] = 3
    label_map = image.with_array(array)
    write(reorient(label_map, "RAS"), tmp_path / "labels.nii.gz")
    (tmp_path / "labels.yaml").write_text("{lung: 1, tumour: 3}")
    return label_map


def test_a_study_becomes_nifti_and_dicom_again(small_series, tmp_path):
    folder = small_series("study")
    done = convert(folder, tmp_path / "a.nii.gz")
    assert done.written == (tmp_path / "a.nii.gz",)
    volume = read(folder)
    again = read(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(again.array, volume.array)
    assert again.same_geometry(volume)
    convert(tmp_path / "a.nii.gz", tmp_path / "dicom")
    back = read(tmp_path / "dicom")
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.same_geometry(volume)
    assert back.metadata.patient_id != "p1"
    convert(tmp_path / "a.nii.gz", tmp_path / "derived", ConvertOptions(reference=folder))
    assert read(tmp_path / "derived").metadata.patient_id == "p1"


@pytest.mark.parametrize("kind", ["dicom-seg", "rtstruct"])
def test_label_maps_become_dicom_objects_and_label_maps_again(labels, tmp_path, kind):
    options = ConvertOptions(format=kind, reference=tmp_path / "study", labels=tmp_path / "labels.yaml")
    done = convert(tmp_path / "labels.nii.gz", tmp_path / "labels.dcm", options)
    assert done.classes == {"lung": 1, "tumour": 3}
    options = ConvertOptions(reference=tmp_path / "study")
    done = convert(tmp_path / "labels.dcm", tmp_path / "back.nii.gz", options)
    assert done.classes == {"lung": 1, "tumour": 3}
    back = read(tmp_path / "back.nii.gz")
    np.testing.assert_array_equal(back.array, labels.array)
    assert back.same_geometry(labels)


def test_a_segmentation_is_read_on_its_own_grid_and_a_structure_set_needs_one(labels, tmp_path):
    for kind in ("dicom-seg", "rtstruct"):
        options = ConvertOptions(format=kind, reference=tmp_path / "study")
        convert(tmp_path / "labels.nii.gz", tmp_path / f"{kind}.dcm", options)
    assert sorted(np.unique(read(tmp_path / "dicom-seg.dcm").array)) == [0, 1, 3]
    with pytest.raises(ReadError, match=r"rtstruct\.dcm.*--reference"):
        convert(tmp_path / "rtstruct.dcm", tmp_path / "x.nii.gz")
    with pytest.raises(ConfigError, match="--reference"):
        convert(tmp_path / "labels.nii.gz", tmp_path / "y.dcm")


def test_a_reference_of_several_series_is_told_by_its_uid(labels, small_series, tmp_path):
    small_series("study/other", SeriesInstanceUID="1.2.3.4")
    uid = read(tmp_path / "study", series="1.2.826.0.1.3680043.8.498.3").metadata.series_instance_uid
    with pytest.raises(ReadError, match="2 image series"):
        convert(tmp_path / "labels.nii.gz", tmp_path / "a.dcm", ConvertOptions(reference=tmp_path / "study"))
    options = ConvertOptions(reference=tmp_path / "study", series=uid)
    convert(tmp_path / "labels.nii.gz", tmp_path / "a.dcm", options)
    convert(tmp_path / "a.dcm", tmp_path / "a.nii.gz", ConvertOptions(reference=tmp_path / "study"))
    np.testing.assert_array_equal(read(tmp_path / "a.nii.gz").array, labels.array)


def test_every_volume_of_a_folder_gets_a_file_and_a_bad_one_does_not_stop_the_rest(small_series, tmp_path):
    small_series("all/p1", SeriesInstanceUID="1.1")
    small_series("all/p2/a", SeriesInstanceUID="1.2")
    small_series("all/p3", SeriesInstanceUID="1.3", ImagePositionPatient=None)
    done = convert(tmp_path / "all", tmp_path / "out")
    assert [p.name for p in done.written] == ["p1.nii.gz", "p2_a.nii.gz"]
    with pytest.raises(PartialFailure, match=r"2 written, 1 failed.*ImagePositionPatient"):
        done.raise_for_failures()
    with pytest.raises(ReadError, match=r"3 volumes.*one file"):
        convert(tmp_path / "all", tmp_path / "one.nii.gz")
    convert(tmp_path / "all", tmp_path / "one.nii.gz", ConvertOptions(series="1.2"))


def test_a_zip_and_irregular_slices(small_series, tmp_path):
    folder = small_series(per_slice=lambda k: {"ImagePositionPatient": [0, 0, 2.0 * (k + (k > 3))]})
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"deep/{path.name}")
    with pytest.raises(MedsegError, match="missing"):
        convert(tmp_path / "study.zip", tmp_path / "a.nii.gz")
    assert not (tmp_path / "a.nii.gz").exists()
    done = convert(tmp_path / "study.zip", tmp_path / "a.nii.gz", ConvertOptions(irregular="resample"))
    assert read(tmp_path / "a.nii.gz").shape == (5, 4, 7)
    assert [f.kind for f in done.findings] == ["missing_slices"]


def test_annotations_become_label_maps_and_label_maps_annotations(tmp_path):
    square = {"label": "lung", "points": [[1, 1], [4, 1], [4, 3], [1, 3]], "shape_type": "polygon", "group_id": None}
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        content = {"version": "5.5.0", "flags": {}, "shapes": [square], "imagePath": f"{name}.png"}
        content |= {"imageData": None, "imageHeight": 6, "imageWidth": 8}
        (tmp_path / "in" / f"{name}.json").write_text(json.dumps(content))
    done = convert(tmp_path / "in", tmp_path / "masks")
    assert sorted(p.name for p in done.written) == ["a.png", "b.png"]
    assert done.classes == {"lung": 1}
    assert read(tmp_path / "masks" / "a.png").shape == (8, 6)
    (tmp_path / "names.yaml").write_text("{lung: 1}")
    for kind in ("labelme", "coco", "supervisely", "cvat"):
        out = tmp_path / (f"{kind}.xml" if kind == "cvat" else f"{kind}.json")
        options = ConvertOptions(format=kind, labels=tmp_path / "names.yaml")
        convert(tmp_path / "masks" / "a.png", out, options)
        convert(out, tmp_path / f"{kind}.png")
        np.testing.assert_array_equal(read(tmp_path / f"{kind}.png").array, read(tmp_path / "masks" / "a.png").array)


def test_anonymised_copies_hold_no_patient(small_series, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = small_series("study")
    done = convert(folder, tmp_path / "shared", ConvertOptions(anonymize=True))
    files = sorted((tmp_path / "shared").rglob("*.dcm"))
    assert len(files) == 6
    assert "Doe" not in str(pydicom.dcmread(files[0]))
    np.testing.assert_array_equal(read(tmp_path / "shared").array, read(folder).array)
    assert "burned_in_text" in done.text()


def test_nothing_is_replaced_unless_asked(small_series, tmp_path):
    folder = small_series("study")
    convert(folder, tmp_path / "a.nii.gz")
    before = (tmp_path / "a.nii.gz").read_bytes()
    with pytest.raises(WriteError, match=r"a\.nii\.gz exists.*--overwrite"):
        convert(folder, tmp_path / "a.nii.gz")
    convert(folder, tmp_path / "a.nii.gz", ConvertOptions(overwrite=True))
    assert (tmp_path / "a.nii.gz").read_bytes() == before


def test_wrong_sources_targets_and_formats_are_refused(small_series, tmp_path):
    folder = small_series("study")
    with pytest.raises(ReadError, match="does not exist"):
        convert(tmp_path / "none", tmp_path / "a.nii.gz")
    with pytest.raises(ConfigError, match=r"\.xyz"):
        convert(folder, tmp_path / "a.xyz")
    with pytest.raises(ConfigError, match="format 'jpeg'"):
        ConvertOptions(format="jpeg")
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(ReadError, match="contains no image"):
        convert(folder, tmp_path / "a.nii.gz")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
def test_in_a_folder_of_results_no_study_replaces_another(tmp_path, overwrite, zipped):
    sources = []
    for n, name in enumerate(("a", "b"), start=1):
        volume = Volume(np.full((4, 5, 3), n, np.int16), np.diag([-1.0, -1.0, 2.0, 1.0]))
        folder = tmp_path / name / "DICOM"
        folder.parent.mkdir()
        write_dicom_series(volume, folder)
        sources.append(folder)
        if zipped:
            shutil.make_archive(str(tmp_path / name / "DICOM"), "zip", tmp_path / name, "DICOM")
            sources[-1] = tmp_path / name / "DICOM.zip"
    options, out = ConvertOptions(overwrite=overwrite), tmp_path / "out"
    written = [convert(source, out, options).written[0] for source in sources]
    assert [np.unique(read(path).array).tolist() for path in written] == [[1], [2]]
    assert written[0].name == "DICOM.nii.gz" and written[1].name.startswith("DICOM_")
    if overwrite:
        assert [convert(source, out, options).written[0] for source in reversed(sources)] == written[::-1]
    else:
        with pytest.raises(WriteError, match=r"DICOM\.nii\.gz exists; give another name"):
            convert(sources[0], out, options)
    assert sorted(out.glob("*.nii.gz")) == sorted(written)


def test_a_conversion_that_fails_leaves_no_folder_behind(tmp_path):
    (tmp_path / "bad.dcm").write_bytes(b"\0" * 200)
    with pytest.raises(ReadError):
        convert(tmp_path / "bad.dcm", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_mask_saved_without_its_affine_gets_the_grid_of_its_image(tmp_path):
    affine = np.array([[-0.8, 0, 0, 90], [0, -0.8, 0, 120], [0, 0, 2.5, -30], [0, 0, 0, 1.0]])
    write(Volume(np.zeros((5, 6, 4), np.int16), affine), tmp_path / "image.nii.gz")
    mask = np.arange(120, dtype=np.uint8).reshape(5, 6, 4)
    write(Volume(mask, np.eye(4)), tmp_path / "mask.nii.gz")
    options = ConvertOptions(copy_grid=tmp_path / "image.nii.gz")
    (out,) = convert(tmp_path / "mask.nii.gz", tmp_path / "out.nii.gz", options).written
    made = read(out)
    np.testing.assert_array_equal(made.array, mask)
    np.testing.assert_allclose(made.affine, affine, atol=1e-5)
    write(Volume(mask[:4], np.eye(4)), tmp_path / "short.nii.gz")
    with pytest.raises(GeometryError, match=r"short cannot get the grid of .*shape \(5, 6, 4\).*\(4, 6, 4\)"):
        convert(tmp_path / "short.nii.gz", tmp_path / "other.nii.gz", options)


@pytest.mark.parametrize("kind", ["dicom-seg", "rtstruct"])
def test_timestamps_date_an_object_now_instead_of_at_its_study(labels, tmp_path, kind):
    def dated(**more):
        options = ConvertOptions(kind, reference=tmp_path / "study", labels=tmp_path / "labels.yaml", **more)
        convert(tmp_path / "labels.nii.gz", tmp_path / "out.dcm", options)
        data = pydicom.dcmread(tmp_path / "out.dcm")
        return data.get("ContentDate") or data.StructureSetDate

    earliest = date.today().strftime("%Y%m%d")
    assert dated() < earliest <= dated(timestamps=True, overwrite=True) <= date.today().strftime("%Y%m%d")


def test_strict_refuses_a_structure_set_of_which_an_roi_cannot_be_read(labels, tmp_path):
    options = ConvertOptions("rtstruct", reference=tmp_path / "study", labels=tmp_path / "labels.yaml")
    convert(tmp_path / "labels.nii.gz", tmp_path / "rt.dcm", options)
    data = pydicom.dcmread(tmp_path / "rt.dcm")
    data.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = "1.2.3"
    data.save_as(tmp_path / "rt.dcm")
    done = convert(tmp_path / "rt.dcm", tmp_path / "a.nii.gz", ConvertOptions(reference=tmp_path / "study"))
    assert done.classes == {"lung": 1}
    assert "roi_left_out: 'tumour' was left out" in done.text()
    with pytest.raises(GeometryError, match="'tumour'"):
        strict = ConvertOptions(reference=tmp_path / "study", strict=True)
        convert(tmp_path / "rt.dcm", tmp_path / "b.nii.gz", strict)
    assert not (tmp_path / "b.nii.gz").exists()
