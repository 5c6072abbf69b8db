"""DICOM studies with a SEG or RTSTRUCT each as a data set."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from dicom_phantom_multiframe import write_enhanced
from drawn_studies import DRAW, draw_rtstruct, draw_seg, mask, phantom, write_drawn, write_images

from medseg.config import DataConfig
from medseg.datasets.cases import find_cases
from medseg.errors import ConfigError, DatasetError, ReadError
from medseg.preparation.sources import read_case, reading_of

KINDS = ("seg", "rtstruct")


def found_in(root, **data):
    return find_cases(DataConfig(root=root, **data))


def label_map_of(dataset, n, root):
    image, labels = read_case(dataset.cases[n], reading_of(DataConfig(root=root), dataset.labels))
    assert image.same_geometry(labels, tolerance_mm=1e-3)
    return labels.array


@pytest.mark.parametrize("place", ["drawn.dcm", "ct/drawn.dcm", "objects/deep/drawn"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_with_images_and_an_object_is_a_case_wherever_they_lie_in_it(tmp_path, kind, place):
    for n in (1, 2):
        write_drawn(tmp_path / f"p{n}", n, "Liver", kind=kind, place=place)
    dataset = found_in(tmp_path)
    assert dataset.labels.mapping == {"Liver": 1}
    assert {case.name.split("_")[0] for case in dataset.cases} == {"p1", "p2"}
    for n in (0, 1):
        np.testing.assert_array_equal(label_map_of(dataset, n, tmp_path) == 1, mask("Liver"))


@pytest.mark.parametrize("suffix", [".dcm", "", "/object.dcm"])
@pytest.mark.parametrize("kind", KINDS)
def test_images_and_labels_pair_studies_and_objects_by_name(tmp_path, kind, suffix):
    for n in (1, 2):
        files = write_images(tmp_path / "images" / f"p{n}", n)
        DRAW[kind](files, tmp_path / "labels" / f"p{n}{suffix}", "Spleen")
    dataset = found_in(tmp_path)
    assert [case.name for case in dataset.cases] == ["p1", "p2"]
    np.testing.assert_array_equal(label_map_of(dataset, 1, tmp_path) == 1, mask("Spleen"))


def test_a_multi_frame_file_is_a_study(tmp_path):
    for n in (1, 2):
        write_enhanced(tmp_path / "data" / "images" / f"p{n}.dcm", phantom(n), in_order=True)
        draw_rtstruct([tmp_path / "data" / "images" / f"p{n}.dcm"], tmp_path / "data" / "labels" / f"p{n}.dcm", "Heart")
    dataset = found_in(tmp_path / "data")
    assert [case.name for case in dataset.cases] == ["p1", "p2"]
    np.testing.assert_array_equal(label_map_of(dataset, 1, tmp_path) == 1, mask("Heart"))


def test_folders_called_train_and_val_are_the_split(tmp_path):
    for n, part in enumerate(("train", "train", "val"), start=1):
        draw_seg(
            write_images(tmp_path / part / "images" / f"p{n}", n), tmp_path / part / "labels" / f"p{n}.dcm", "Liver"
        )
    dataset = found_in(tmp_path)
    assert {case.name: case.split for case in dataset.cases} == {"p1": "train", "p2": "train", "p3": "validation"}


def test_the_studies_of_a_patient_are_cases_of_one_group(tmp_path):
    write_drawn(tmp_path / "p1" / "before", 1, "Liver")
    write_drawn(tmp_path / "p1" / "after", 1, "Liver")
    write_drawn(tmp_path / "p2", 2, "Liver")
    dataset = found_in(tmp_path)
    assert {case.name: case.group for case in dataset.cases} == {
        "p1_after": "p1_after",
        "p1_before": "p1_after",
        "p2": "p2",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_has_one_value_in_all_cases_whatever_its_number_in_the_object(tmp_path, kind):
    write_drawn(tmp_path / "p1", 1, "Spleen", "Liver", kind=kind)
    write_drawn(tmp_path / "p2", 2, "Liver", "Spleen", kind=kind)
    write_drawn(tmp_path / "p3", 3, "Spleen", kind=kind)
    dataset = found_in(tmp_path)
    assert dataset.labels.mapping == {"Liver": 1, "Spleen": 2}
    for n in range(3):
        array = label_map_of(dataset, n, tmp_path)
        np.testing.assert_array_equal(array == 2, mask("Spleen"))
        # What a case lacks is empty there.
        np.testing.assert_array_equal(array == 1, mask("Liver") & (n < 2))
    text = next(finding.message for finding in dataset.findings if finding.kind == "labels_by_name")
    assert "Liver: 1 (in 2)" in text and "Spleen: 2 (in 3)" in text


@pytest.mark.parametrize("kind", KINDS)
def test_the_values_of_data_labels_belong_to_names_in_any_case(tmp_path, kind):
    write_drawn(tmp_path / "p1", 1, "Spleen", "Liver", kind=kind)
    write_drawn(tmp_path / "p2", 2, "Liver", kind=kind)
    dataset = found_in(tmp_path, labels={"liver": 300, "spleen": 4})
    assert dataset.labels.mapping == {"liver": 300, "spleen": 4}
    array = label_map_of(dataset, 0, tmp_path)
    np.testing.assert_array_equal(array == 300, mask("Liver"))
    np.testing.assert_array_equal(array == 4, mask("Spleen"))


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_data_labels_does_not_give_are_refused_unless_others_are_background(tmp_path, kind):
    write_drawn(tmp_path / "p1", 1, "Liver", "Spleen", kind=kind)
    write_drawn(tmp_path / "p2", 2, "Spleen", kind=kind)
    with pytest.raises(DatasetError, match=r"'Spleen' \(in 2 case\(s\), e.g. p1\)"):
        found_in(tmp_path, labels={"Liver": 1})
    dataset = found_in(tmp_path, labels={"Liver": 1}, others="background")
    assert "names_left_out" in [finding.kind for finding in dataset.findings]
    np.testing.assert_array_equal(label_map_of(dataset, 0, tmp_path), mask("Liver").astype(np.uint8))
    assert not label_map_of(dataset, 1, tmp_path).any()


def test_a_segment_left_out_covers_nothing_and_of_two_wanted_ones_the_larger_value_is_kept(tmp_path):
    # Heart overlaps Liver and Spleen, and comes last.
    write_drawn(tmp_path / "p1", 1, "Liver", "Spleen", "Heart")
    dataset = found_in(tmp_path, labels={"Liver": 1, "Spleen": 2}, others="background")
    np.testing.assert_array_equal(label_map_of(dataset, 0, tmp_path) == 1, mask("Liver"))
    dataset = found_in(tmp_path, labels={"Liver": 3, "Spleen": 2, "Heart": 1})
    np.testing.assert_array_equal(label_map_of(dataset, 0, tmp_path) == 3, mask("Liver"))


@pytest.mark.parametrize("kind", KINDS)
def test_of_several_series_the_one_that_the_object_refers_to_is_the_image(tmp_path, kind):
    write_images(tmp_path / "p1" / "other", 1, series=2)
    write_drawn(tmp_path / "p1", 1, "Liver", kind=kind)
    expected = pydicom.dcmread(next((tmp_path / "p1" / "ct").iterdir())).SeriesInstanceUID
    dataset = found_in(tmp_path)
    image, _ = read_case(dataset.cases[0], reading_of(DataConfig(root=tmp_path), dataset.labels))
    assert image.metadata.series_instance_uid == expected


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_of_a_series_that_is_not_there_is_refused(tmp_path, kind):
    DRAW[kind](write_images(tmp_path / "elsewhere" / "ct", 1, series=2), tmp_path / "data" / "p1" / "o.dcm", "Liver")
    write_images(tmp_path / "data" / "p1" / "ct", 1)
    with pytest.raises(ReadError, match="drawn on a series that is not in"):
        found_in(tmp_path / "data")


@pytest.mark.parametrize("labels", [None, {"liver": 3, "Spleen": 2, "Heart": 1}])
@pytest.mark.parametrize("kinds", [("seg", "seg"), ("rtstruct", "seg"), ("seg", "rtstruct")])
@pytest.mark.parametrize("place", ["together", "images and labels"])
def test_objects_of_one_series_with_different_names_are_united_as_if_they_were_one(tmp_path, labels, kinds, place):
    parts = {"together": ("p1/ct", "p1"), "images and labels": ("images/p1", "labels/p1")}[place]
    files = write_images(tmp_path / "split" / parts[0], 1)
    DRAW[kinds[0]](files, tmp_path / "split" / parts[1] / "a.dcm", "Liver", "Spleen")
    DRAW[kinds[1]](files, tmp_path / "split" / parts[1] / "b.dcm", "Heart")
    write_drawn(tmp_path / "whole" / "p1", 1, "Liver", "Spleen", "Heart")
    split, whole = (found_in(tmp_path / name, labels=labels) for name in ("split", "whole"))
    assert split.labels == whole.labels
    # Heart overlaps the others: the largest value is kept in both.
    np.testing.assert_array_equal(label_map_of(split, 0, tmp_path), label_map_of(whole, 0, tmp_path))
    (finding,) = [finding for finding in split.findings if finding.kind == "objects_united"]
    assert "a.dcm, b.dcm" in finding.message


def test_objects_without_a_name_of_data_labels_are_left_out(tmp_path):
    files = write_images(tmp_path / "p1" / "ct", 1)
    for name in ("Liver", "Spleen", "Heart"):
        draw_seg(files, tmp_path / "p1" / f"{name}.dcm", name)
    dataset = found_in(tmp_path, labels={"Liver": 1, "Spleen": 2})
    assert [source.path.name for source in dataset.cases[0].labels] == ["Liver.dcm", "Spleen.dcm"]
    (finding,) = [finding for finding in dataset.findings if finding.kind == "objects_left_out"]
    assert "no name of data.labels in Heart.dcm" in finding.message
    with pytest.raises(DatasetError, match="hold 3 name"):
        found_in(tmp_path, labels={"Kidney": 1})
    dataset = found_in(tmp_path, labels={"Kidney": 1}, others="background")
    assert not label_map_of(dataset, 0, tmp_path).any()


def test_a_name_in_two_objects_of_a_study_is_refused_with_both(tmp_path):
    files = write_images(tmp_path / "p1" / "ct", 1)
    draw_seg(files, tmp_path / "p1" / "a.dcm", "Liver", "Heart")
    draw_rtstruct(files, tmp_path / "p1" / "b.dcm", "liver", "Spleen")
    for labels in (None, {"Liver": 1, "Spleen": 2, "Heart": 3}):
        with pytest.raises(DatasetError, match=r"'p1' has 'liver' in a.dcm and in b.dcm.*keep one.*or rename"):
            found_in(tmp_path, labels=labels)
    dataset = found_in(tmp_path, labels={"Spleen": 2, "Heart": 3}, others="background")
    assert {*np.unique(label_map_of(dataset, 0, tmp_path))} == {0, 2, 3}


def test_objects_of_different_series_are_no_case(tmp_path):
    for number, name in ((1, "Liver"), (2, "Spleen")):
        draw_seg(write_images(tmp_path / "p1" / f"s{number}", 1, series=number), tmp_path / "p1" / f"{name}.dcm", name)
    with pytest.raises(DatasetError, match=r"different series: Liver.dcm on .*; Spleen.dcm on .*folder of its own"):
        found_in(tmp_path)
    dataset = found_in(tmp_path, labels={"Spleen": 1})
    np.testing.assert_array_equal(label_map_of(dataset, 0, tmp_path) == 1, mask("Spleen"))


def test_two_patients_are_never_one_case(tmp_path):
    write_drawn(tmp_path / "p1", 1, "Liver")
    path = tmp_path / "p1" / "drawn.dcm"
    data = pydicom.dcmread(path)
    data.PatientID = "somebody else"
    data.save_as(path)
    with pytest.raises(DatasetError, match="several patients") as refused:
        found_in(tmp_path)
    assert "somebody else" not in str(refused.value)


def test_objects_apart_from_their_studies_are_refused_with_what_is_expected(tmp_path):
    for n in (1, 2):
        files = write_images(tmp_path / f"p{n}", n)
        draw_seg(files, tmp_path / "objects" / f"p{n}.dcm", "Liver")
    with pytest.raises(DatasetError, match="expected a folder for each study"):
        found_in(tmp_path)


def test_a_study_without_an_object_is_named(tmp_path):
    write_drawn(tmp_path / "p1", 1, "Liver")
    write_images(tmp_path / "p2" / "ct", 2)
    with pytest.raises(DatasetError, match="no SEG or RTSTRUCT object: p2;"):
        found_in(tmp_path)


@pytest.mark.parametrize(("lacking", "words"), [("labels", "no object of their name"), ("images", "no study of their")])
def test_images_and_labels_that_do_not_pair_are_named(tmp_path, lacking, words):
    for n in (1, 2):
        files = write_images(tmp_path / "images" / f"p{n}", n)
        draw_seg(files, tmp_path / "labels" / f"p{n}.dcm", "Liver")
    if lacking == "labels":
        (tmp_path / "labels" / "p2.dcm").unlink()
    else:
        for file in files:
            file.unlink()
    with pytest.raises(DatasetError, match=f"{words}.*: p2;"):
        found_in(tmp_path)


def test_a_name_with_several_values_is_refused(tmp_path):
    write_drawn(tmp_path / "p1", 1, "Liver")
    with pytest.raises(ConfigError, match="one integer for each name"):
        found_in(tmp_path, labels={"Liver": [1, 2]})


def test_dicom_studies_without_objects_are_no_data_set_of_this_layout(tmp_path):
    write_images(tmp_path / "p1", 1)
    with pytest.raises(DatasetError, match="no data set recognised"):
        found_in(tmp_path)
    with pytest.raises(DatasetError, match="holds no SEG or RTSTRUCT object"):
        found_in(tmp_path, layout="dicom")
