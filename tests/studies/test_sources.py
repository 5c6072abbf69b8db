"""What there is to predict on."""

from __future__ import annotations

import gzip
import shutil
import zipfile

import numpy as np
import pytest

from medseg.errors import GeometryError, ReadError
from medseg.io import read, write
from medseg.studies.sources import find_studies, input_hash, read_source
from medseg.volume import Volume


def save(path, value=0, affine=None):
    array = np.full((3, 4, 5), value, np.int16)
    write(Volume(array, np.eye(4) if affine is None else affine), path)


def names(sources):
    return [s.case for s in sources]


def test_each_image_of_a_folder_is_a_case_named_by_its_stem(tmp_path):
    for name in ("b.nii.gz", "a.nrrd", ".hidden.nii.gz", "scan_2023.nii", "scan_2024.nii"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    assert names(find_studies(tmp_path)) == ["a", "b", "scan_2023", "scan_2024"]


def test_numbered_channels_are_one_case(tmp_path):
    for channel in (1, 0):
        save(tmp_path / f"p1_000{channel}.nii.gz", value=channel)
    save(tmp_path / "p2_0000.nii.gz")
    first, second = find_studies(tmp_path)
    assert (first.case, second.case) == ("p1", "p2")
    volume = read_source(first)
    assert volume.channels == 2
    assert volume.array[:, 0, 0, 0].tolist() == [0, 1]
    assert read_source(second).channels == 1


def test_one_file_is_one_case(tmp_path):
    save(tmp_path / "ct.2.nii.gz")
    assert names(find_studies(tmp_path / "ct.2.nii.gz")) == ["ct.2"]


def test_files_of_one_name_keep_their_suffix(tmp_path):
    save(tmp_path / "a.nrrd")
    save(tmp_path / "a.nii.gz")
    assert names(find_studies(tmp_path)) == ["a.nii.gz", "a.nrrd"]


def test_images_in_sub_folders_are_found_where_the_folder_itself_has_none(tmp_path):
    save(tmp_path / "p1" / "ct.nii.gz")
    save(tmp_path / "p2" / "ct.nii.gz")
    assert names(find_studies(tmp_path)) == ["p1_ct", "p2_ct"]


def test_images_and_archives_that_are_passed_over_are_told(small_series, tmp_path, caplog):
    save(tmp_path / "top.nii.gz")
    save(tmp_path / "more" / "deep.nii.gz")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        archive.write(tmp_path / "top.nii.gz", "inside.nii.gz")
    assert [s.case for s in find_studies(tmp_path)] == ["top"]
    assert "1 image file(s) in sub-folders were ignored (more); give" in caplog.text
    assert "1 archive(s) were ignored (study.zip); give" in caplog.text
    caplog.clear()
    study = tmp_path / "dicom"
    small_series(study)
    save(study / "thumbnail.nii.gz")
    find_studies(study)
    assert not caplog.text


def test_a_dicom_folder_is_one_case_named_after_it(small_series, tmp_path):
    (source,) = find_studies(small_series("john"))
    assert (source.case, len(source.paths), source.error) == ("john", 6, "")
    volume = read_source(source)
    assert volume.channels == 1
    assert volume.array.shape == (1, 5, 4, 6)
    assert volume.metadata.modality == "CT"


def test_studies_are_named_by_their_path(small_series, tmp_path):
    small_series("all/p1/monday", StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1", PatientID="1")
    small_series("all/p1/friday", StudyInstanceUID="1.2", SeriesInstanceUID="1.2.1", PatientID="1")
    small_series("all/p2/x/y", StudyInstanceUID="1.3", SeriesInstanceUID="1.3.1", PatientID="2")
    found = find_studies(tmp_path / "all")
    assert names(found) == ["p1_friday", "p1_monday", "p2_x_y"]
    assert [s.series_uid for s in found] == ["1.2.1", "1.1.1", "1.3.1"]


def test_two_studies_in_one_folder_get_a_hash(small_series, tmp_path):
    small_series("all/mixed", StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1")
    for path in list((tmp_path / "all" / "mixed").iterdir()):
        path.rename(path.with_name(f"first_{path.name}"))
    small_series("all/mixed", StudyInstanceUID="1.2", SeriesInstanceUID="1.2.1")
    found = names(find_studies(tmp_path / "all"))
    assert len(set(found)) == 2
    assert all(name.startswith("mixed_") and len(name) == len("mixed_") + 8 for name in found)


def test_copies_of_a_study_are_separate_cases(small_series, tmp_path):
    small_series("all/a")
    shutil.copytree(tmp_path / "all" / "a", tmp_path / "all" / "b")
    found = find_studies(tmp_path / "all")
    assert names(found) == ["a", "b"]
    assert [len(s.paths) for s in found] == [6, 6]
    assert input_hash(found[0]) == input_hash(found[1])


def test_a_study_of_two_series_is_an_error_of_its_own_until_one_is_chosen(small_series, tmp_path):
    small_series("all/p1/thin", StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1")
    small_series("all/p1/thick", StudyInstanceUID="1.1", SeriesInstanceUID="1.1.2", RescaleIntercept=5)
    small_series("all/p2", StudyInstanceUID="1.2", SeriesInstanceUID="1.2.1")
    bad, good = find_studies(tmp_path / "all")
    assert (bad.case, good.case, good.error) == ("p1", "p2", "")
    assert "1.1.1" in bad.error
    with pytest.raises(ReadError, match="2 series"):
        read_source(bad)
    (chosen,) = find_studies(tmp_path / "all", series="1.1.2")
    assert read_source(chosen).array[0, 0, 0, 0] == 5
    with pytest.raises(ReadError, match=r"no series 9\.9"):
        find_studies(tmp_path / "all", series="9.9")
    both = find_studies(tmp_path / "all", series=("1.1.1", "1.2.1"))
    assert [(s.case, s.series_uid, s.error) for s in both] == [("p1", "1.1.1", ""), ("p2", "1.2.1", "")]


def test_one_damaged_study_does_not_stop_the_others(small_series, tmp_path):
    small_series("all/p1", StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1")
    folder = small_series("all/p2", StudyInstanceUID="1.2", SeriesInstanceUID="1.2.1")
    (folder / "IM0002").write_bytes((folder / "IM0002").read_bytes()[:600])
    (tmp_path / "all" / "p3").mkdir()
    (tmp_path / "all" / "p3" / "x.dcm").write_bytes(b"nothing")
    one, two, three = find_studies(tmp_path / "all")
    assert (one.case, one.error) == ("p1", "")
    assert "IM0002" in two.error
    assert (three.case, "x.dcm" in three.error) == ("p3", True)


def test_an_irregular_series_is_an_error_on_reading(small_series):
    folder = small_series(per_slice=lambda k: {"ImagePositionPatient": [0, 0, 2.0 * (k + (k > 3))]})
    (source,) = find_studies(folder)
    with pytest.raises(GeometryError, match="missing"):
        read_source(source)


def test_a_zip_of_studies_and_files_is_read_without_unpacking_it_for_good(small_series, tmp_path):
    folder = small_series("p1")
    save(tmp_path / "b.nii.gz", 3)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"p1/{path.name}")
        archive.write(tmp_path / "b.nii.gz", "b.nii.gz")
        archive.writestr("__MACOSX/._b.nii.gz", b"junk")
    image, study = find_studies(tmp_path / "all.zip")
    assert (image.case, study.case) == ("b", "p1")
    assert image.paths == (tmp_path / "all.zip" / "b.nii.gz",)
    assert read_source(study).array.shape == (1, 5, 4, 6)
    assert read_source(image).array.max() == 3
    assert input_hash(study) == input_hash(find_studies(folder)[0])


def test_nothing_to_read_is_refused(tmp_path):
    with pytest.raises(ReadError, match="contains no image"):
        find_studies(tmp_path)
    with pytest.raises(ReadError, match="does not exist"):
        find_studies(tmp_path / "none")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ReadError, match="not a supported image file"):
        find_studies(tmp_path / "a.txt")


def test_channels_on_other_grids_are_refused(tmp_path):
    save(tmp_path / "p1_0000.nii.gz")
    save(tmp_path / "p1_0001.nii.gz", affine=np.diag([1, 1, 2, 1]))
    with pytest.raises(GeometryError, match=r"p1_0000.*p1_0001.*same grid"):
        read_source(find_studies(tmp_path)[0])


def test_the_voxels_beside_a_header_count_and_come_out_of_a_zip(tmp_path):
    import SimpleITK as sitk

    (tmp_path / "in").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(np.full((3, 4, 5), 7, np.int16)), str(tmp_path / "in" / "a.mhd"))
    (source,) = find_studies(tmp_path / "in")
    before = input_hash(source)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for path in (tmp_path / "in").iterdir():
            archive.write(path, f"deep/{path.name}")
    (zipped,) = find_studies(tmp_path / "in.zip")
    assert read_source(zipped).array.max() == 7
    assert input_hash(zipped) == before
    sitk.WriteImage(sitk.GetImageFromArray(np.full((3, 4, 5), 8, np.int16)), str(tmp_path / "in" / "a.mhd"))
    assert input_hash(source) != before


@pytest.mark.parametrize(("header", "voxels"), [(".hdr", ".img"), (".hdr", ".img.gz"), (".hdr.gz", ".img.gz")])
def test_the_voxels_of_a_pair_count_and_come_out_of_a_zip_compressed_or_not(tmp_path, header, voxels):
    import nibabel as nib

    def pair(value):
        nib.save(nib.Nifti1Pair(np.full((3, 4, 5), value, np.int16), np.eye(4)), tmp_path / "made.hdr")
        for made, wanted in ((".hdr", header), (".img", voxels)):
            content = (tmp_path / f"made{made}").read_bytes()
            (tmp_path / f"made{made}").unlink()
            (tmp_path / "in" / f"a{wanted}").write_bytes(gzip.compress(content) if wanted.endswith(".gz") else content)

    (tmp_path / "in").mkdir()
    pair(7)
    (source,) = find_studies(tmp_path / "in")
    before = input_hash(source)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for path in (tmp_path / "in").iterdir():
            archive.write(path, f"deep/{path.name}")
    (zipped,) = find_studies(tmp_path / "in.zip")
    assert read_source(zipped).array.max() == 7
    assert input_hash(zipped) == before
    pair(8)
    assert read_source(source).array.max() == 8
    assert input_hash(source) != before


def test_errors_inside_a_zip_name_the_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("deep/a.nii.gz", b"nothing")
    (source,) = find_studies(tmp_path / "in.zip")
    with pytest.raises(ReadError, match=r"in\.zip/deep/a\.nii\.gz"):
        read_source(source)
    with pytest.raises(ReadError, match=r"in\.zip/deep/a\.nii\.gz"):
        read(tmp_path / "in.zip")
