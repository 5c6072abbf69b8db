"""Datasets as they lie on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medseg.config import DataConfig
from medseg.datasets.cases import find_cases
from medseg.errors import ConfigError, DatasetError
from medseg.io import write
from medseg.io.label_maps import LabelSource
from medseg.volume import Volume

LUNG = {"lung": 1}


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(dataset):
    return [c.name for c in dataset.cases]


def test_msd_is_read_from_its_description(tmp_path):
    for n in (4, 17):
        touch(tmp_path / "imagesTr" / f"la_{n}.nii.gz", tmp_path / "labelsTr" / f"la_{n}.nii.gz")
    touch(tmp_path / "imagesTr" / "._la_4.nii.gz")
    training = [{"image": f"./imagesTr/la_{n}.nii.gz", "label": f"./labelsTr/la_{n}.nii.gz"} for n in (17, 4)]
    labels = {"0": "background", "1": "Anterior", "2": "Posterior"}
    description = {"modality": {"0": "T1", "1": "T2"}, "labels": labels, "training": training}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    dataset = find_cases(DataConfig(root=tmp_path))
    assert names(dataset) == ["la_17", "la_4"]
    assert dataset.labels.names == ("Anterior", "Posterior")
    assert dataset.labels.values == ((1,), (2,))
    assert dataset.channel_names == ("T1", "T2")
    assert dataset.cases[0].group == "la_17"
    assert len(dataset.cases[0].images) == 1


def test_nnunet_with_channels_regions_ignore_and_folds(tmp_path):
    for case in ("b", "a"):
        touch(*(tmp_path / "imagesTr" / f"{case}_000{n}.nii.gz" for n in (1, 0)), tmp_path / f"labelsTr/{case}.nii.gz")
    description = {
        "channel_names": {"0": "FLAIR", "1": "T1c"},
        "labels": {"background": 0, "WT": [1, 2, 3], "TC": [2, 3], "ET": 3, "ignore": 4},
        "file_ending": ".nii.gz",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    (tmp_path / "splits_final.json").write_text(
        json.dumps([{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}])
    )
    dataset = find_cases(DataConfig(root=tmp_path))
    assert names(dataset) == ["a", "b"]
    assert [p.name for p in dataset.cases[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert dataset.labels.is_regions
    assert dataset.labels.values == ((1, 2, 3), (2, 3), (3,))
    assert dataset.labels.ignore == 4
    assert dataset.folds == (("b",), ("a",))
    assert dataset.train_folds == (("a",), ("b",))
    assert dataset.findings == ()


def test_a_label_table_may_ignore_several_values(tmp_path):
    touch(tmp_path / "imagesTr/a_0000.nii.gz", tmp_path / "labelsTr/a.nii.gz")
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1, "ignore": [3, 4]}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    labels = find_cases(DataConfig(root=tmp_path)).labels
    assert (labels.mapping, labels.ignored) == ({"a": 1}, (3, 4))
    assert find_cases(DataConfig(root=tmp_path, ignore=9)).labels.ignored == (9,)


@pytest.mark.parametrize(
    ("folds", "words"),
    [
        ([{"train": ["a", "zz"], "val": ["b"]}], "fold 0 names 'zz', which is not a case"),
        ([{"train": ["a", "b"], "val": ["b"]}], "lists 'b' for training and for validation"),
        ([{"train": ["a"], "val": ["b"]}, {"val": ["b"]}], "fold 1 has no list 'train'"),
        ([{"train": "a", "val": ["b"]}], "expected a list of"),
    ],
)
def test_a_wrong_list_of_a_split_is_named(tmp_path, folds, words):
    for case in "ab":
        touch(tmp_path / "imagesTr" / f"{case}_0000.nii.gz", tmp_path / "labelsTr" / f"{case}.nii.gz")
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    with pytest.raises(DatasetError, match=words):
        find_cases(DataConfig(root=tmp_path, labels=LUNG))


def test_cases_in_no_list_of_a_split_are_told(tmp_path):
    for case in "abcd":
        touch(tmp_path / "imagesTr" / f"{case}_0000.nii.gz", tmp_path / "labelsTr" / f"{case}.nii.gz")
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    (finding,) = find_cases(DataConfig(root=tmp_path, labels=LUNG)).findings
    assert finding.kind == "cases_in_no_split" and finding.files == ("c", "d")
    assert find_cases(DataConfig(root=tmp_path, labels=LUNG, split={"every": 2})).findings == ()


def test_nnunet_v1_lists_cases_without_their_channel_number(tmp_path):
    touch(tmp_path / "imagesTr" / "a_0000.nii.gz", tmp_path / "labelsTr" / "a.nii.gz")
    training = [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "bg", "1": "x"}, "training": training}))
    (case,) = find_cases(DataConfig(root=tmp_path)).cases
    assert (case.name, case.images[0].name) == ("a", "a_0000.nii.gz")


def test_nnunet_v2_may_list_its_files(tmp_path):
    touch(tmp_path / "far" / "x.nii.gz", tmp_path / "far" / "y.nii.gz")
    (tmp_path / "imagesTr").mkdir()
    entry = {"images": ["far/x.nii.gz"], "label": "far/y.nii.gz"}
    (tmp_path / "dataset.json").write_text(
        json.dumps({"labels": {"x": 1}, "channel_names": {"0": "CT"}, "dataset": {"a": entry}})
    )
    (case,) = find_cases(DataConfig(root=tmp_path)).cases
    assert (case.name, case.labels[0].path.name) == ("a", "y.nii.gz")


def test_a_split_that_names_an_unknown_case_is_refused(tmp_path):
    touch(tmp_path / "imagesTr" / "a_0000.nii.gz", tmp_path / "labelsTr" / "a.nii.gz")
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["zz"]}]))
    with pytest.raises(DatasetError, match="'zz'"):
        find_cases(DataConfig(root=tmp_path, labels=LUNG))


@pytest.mark.parametrize("folder", ["labels", "masks"])
def test_plain_folders_match_by_name_whatever_the_suffix(tmp_path, folder):
    touch(tmp_path / "images" / "a.jpg", tmp_path / "images" / "b.jpg")
    touch(tmp_path / folder / "a.png", tmp_path / folder / "b.png", tmp_path / folder / "no_image.png")
    dataset = find_cases(DataConfig(root=tmp_path, labels=LUNG))
    assert names(dataset) == ["a", "b"]
    assert dataset.cases[0].labels == (LabelSource(tmp_path / folder / "a.png"),)
    assert dataset.channel_names == ()


def test_plain_folders_may_hold_dicom_studies(small_series, tmp_path):
    small_series("images/p1")
    touch(tmp_path / "labels" / "p1.nii.gz")
    (case,) = find_cases(DataConfig(root=tmp_path, labels=LUNG, modality="CT")).cases
    assert case.images == (tmp_path / "images" / "p1",)


def test_a_missing_label_names_the_case_and_the_file(tmp_path):
    touch(tmp_path / "images" / "a.nii.gz", tmp_path / "images" / "b.nii.gz", tmp_path / "labels" / "b.nii.gz")
    with pytest.raises(DatasetError, match=r"case 'a'.*labels/a\.nii\.gz"):
        find_cases(DataConfig(root=tmp_path, labels=LUNG))


def test_without_label_names_the_config_says_what_to_write(tmp_path):
    touch(tmp_path / "images" / "a.png", tmp_path / "labels" / "a.png")
    with pytest.raises(ConfigError, match=r"labels: \{lung: 1"):
        find_cases(DataConfig(root=tmp_path))


def test_the_config_overrides_the_description(tmp_path):
    touch(tmp_path / "imagesTr" / "a_0000.nii.gz", tmp_path / "labelsTr" / "a.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"bg": 0, "x": 1}, "channel_names": {"0": "T2"}}))
    dataset = find_cases(DataConfig(root=tmp_path, labels={"lung": 3}, ignore=9, modality="CT"))
    assert dataset.labels.names == ("lung",)
    assert dataset.labels.ignore == 9
    assert dataset.channel_names == ("CT",)


def csv(tmp_path, text, files=("a.png", "b.png", "la.png", "lb.png")):
    touch(*(tmp_path / f for f in files))
    (tmp_path / "cases.csv").write_text(text, encoding="utf-8")
    return DataConfig(root=tmp_path, labels=LUNG)


def test_csv_with_groups_splits_and_label_values(tmp_path):
    text = "\ufeffcase, image ,label,group,split,age\na,a.png,la.png:3; lb.png:4,p1,train,63\nb,b.png,lb.png,,val,5\n"
    a, b = find_cases(csv(tmp_path, text)).cases
    assert a.labels == (LabelSource(tmp_path / "la.png", 3), LabelSource(tmp_path / "lb.png", 4))
    assert (a.group, a.split) == ("p1", "train")
    assert (b.group, b.split) == ("b", "validation")


def test_the_only_list_of_cases_goes_before_the_folders_it_lists(tmp_path):
    files = ("images/a.png", "images/b.png", "labels/a.png", "labels/b.png")
    config = csv(tmp_path, "case,image,label,group\na,images/a.png,labels/a.png,p1\n", files)
    (tmp_path / "ages.csv").write_text("patient,age\np1,60\n")
    assert rows_of(find_cases(config)) == [("a", "p1", "")]
    (tmp_path / "other.csv").write_text("case,image,label,group\nb,images/b.png,labels/b.png,p2\n")
    assert [case.name for case in find_cases(config).cases] == ["a", "b"]


def test_csv_with_channels(tmp_path):
    dataset = find_cases(csv(tmp_path, "case,image_flair,image_t1c,label\na,a.png,b.png,la.png\n"))
    assert dataset.channel_names == ("flair", "t1c")
    assert [p.name for p in dataset.cases[0].images] == ["a.png", "b.png"]


def test_csv_elsewhere_gives_paths_relative_to_itself_or_the_root(tmp_path):
    touch(tmp_path / "data" / "a.png", tmp_path / "lists" / "la.png")
    (tmp_path / "lists" / "one.csv").write_text("case,image,label\na,a.png,la.png\n")
    config = DataConfig(root=tmp_path / "data", csv=tmp_path / "lists" / "one.csv", labels=LUNG)
    (case,) = find_cases(config).cases
    assert case.images == (tmp_path / "data" / "a.png",)
    assert case.labels[0].path == tmp_path / "lists" / "la.png"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case,image\na,a.png\n", "no column label"),
        ("id,image,label\na,a.png,la.png\n", "no column case"),
        ("case,image,label\na,a.png,zz.png\n", r"line 2: case 'a', column label.*zz\.png"),
        ("case,image,label\na,,la.png\n", "nothing in column image"),
        ("case,image,label,split\na,a.png,la.png,dev\n", "'dev'"),
        ("case,image,label\na/b,a.png,la.png\n", "not a name for a case"),
        ("case,image,label\na,a.png,la.png\na,b.png,lb.png\n", "two cases are called 'a'"),
        ("case,image,label\na,a.png,la.png:0\n", "background"),
        ("case,image,label\n", "no cases"),
        ("", "no column"),
    ],
)
def test_csv_mistakes_are_named(tmp_path, text, words):
    with pytest.raises(DatasetError, match=words):
        find_cases(csv(tmp_path, text))


def test_cases_with_differing_channels_are_refused(tmp_path):
    touch(tmp_path / "images" / "a_0000.png", tmp_path / "images" / "a_0001.png", tmp_path / "images" / "b_0000.png")
    touch(tmp_path / "labels" / "a.png", tmp_path / "labels" / "b.png")
    with pytest.raises(DatasetError, match=r"'b' has 1 channel.*'a' has 2"):
        find_cases(DataConfig(root=tmp_path, labels=LUNG))


def test_empty_and_missing_roots_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="no data set recognised"):
        find_cases(DataConfig(root=tmp_path, labels=LUNG))
    with pytest.raises(DatasetError, match="not a folder"):
        find_cases(DataConfig(root=tmp_path / "none", labels=LUNG))
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(DatasetError, match="no cases"):
        find_cases(DataConfig(root=tmp_path, labels=LUNG))


@pytest.mark.parametrize("text", ["{", "[]", '{"labels": {"a": "b"}}'])
def test_a_damaged_description_is_refused(tmp_path, text):
    touch(tmp_path / "imagesTr" / "a_0000.nii.gz", tmp_path / "labelsTr" / "a.nii.gz")
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        find_cases(DataConfig(root=tmp_path))


def test_written_labels_are_found_again(tmp_path):
    write(Volume(np.zeros((3, 3), np.uint8), np.eye(4), spacing_known=False), tmp_path / "masks" / "a.png")
    write(Volume(np.zeros((3, 3), np.uint8), np.eye(4), spacing_known=False), tmp_path / "images" / "a.png")
    assert names(find_cases(DataConfig(root=tmp_path, labels=LUNG))) == ["a"]


def rows_of(dataset):
    return [(c.name, c.group, c.split) for c in dataset.cases]


@pytest.mark.parametrize("people", ["group", "Group", "patient", "Subject", "PatientID", "patient_id", "Subject ID"])
def test_columns_of_a_csv_count_in_any_case_and_people_are_groups(tmp_path, people):
    config = csv(tmp_path, f"Case,IMAGE,Label,{people},Split\na,a.png,la.png,p1,Train\nb,b.png,lb.png,p1,VAL\n")
    assert rows_of(find_cases(config)) == [("a", "p1", "train"), ("b", "p1", "validation")]
    assert find_cases(config).findings == ()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_the_delimiter_and_the_quotes_of_a_csv_are_found(tmp_path, delimiter, quote):
    lines = ["case image label group", "a a.png la.png p1", "b b.png lb.png p2"]
    text = "\r\n".join(delimiter.join(f"{quote}{cell}{quote}" for cell in line.split()) for line in lines)
    assert rows_of(find_cases(csv(tmp_path, text))) == [("a", "p1", ""), ("b", "p2", "")]
    assert rows_of(find_cases(csv(tmp_path, f"sep={delimiter}\n{text}\n\n"))) == [("a", "p1", ""), ("b", "p2", "")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_the_encoding_of_a_csv_is_found(tmp_path, encoding):
    config = csv(tmp_path, "", files=("Müller.png", "l.png"))
    (tmp_path / "cases.csv").write_bytes("case,image,label\nMüller,Müller.png,l.png\n".encode(encoding))
    assert names(find_cases(config)) == ["Müller"]


def test_a_column_that_means_nothing_is_told_with_its_nearest_name(tmp_path):
    config = csv(tmp_path, "case,image,label,spilt,pateint,age\na,a.png,la.png,train,p1,5\nb,b.png,lb.png,test,p1,6\n")
    (finding,) = find_cases(config).findings
    assert finding.kind == "unused_columns"
    for words in ("'spilt' (did you mean 'split'?)", "'pateint' (did you mean 'group'?)", "'age'"):
        assert words in finding.message
    assert "'age' (did" not in finding.message


def test_a_test_case_needs_no_label(tmp_path):
    config = csv(tmp_path, "case,image,label,split\na,a.png,la.png,train\nb,b.png,,test\n")
    assert [(c.name, c.labels) for c in find_cases(config).cases][1] == ("b", ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case,image,mask\na,a.png,la.png\n", "no column label.*if 'mask' is meant, call it label"),
        ("case;image;mask\na;a.png;la.png\n", "no column label.*found case,image,mask; if 'mask' is meant"),
        ("case;image;zz\na;a.png;la.png\n", "semicolons between the cells"),
        ("case,image,label\na,a.png,la.png,more\n", "line 2 has 4 cells, the first line names 3"),
        ('case,image,label\na,"a.png,la.png\n', "cannot be read as a table with commas.*double quotes"),
        ("case,image,label,Split,split\na,a.png,la.png,train,val\n", "two columns for split: Split, split"),
        ("case,image,label,Patient,subject\na,a.png,la.png,p,q\n", "two columns for group: Patient, subject"),
    ],
)
def test_a_csv_that_cannot_be_understood_is_answered_with_what_to_write(tmp_path, text, words):
    with pytest.raises(DatasetError, match=words):
        find_cases(csv(tmp_path, text))


@pytest.mark.parametrize("layout", [("images", "labels"), ("imagesTr", "labelsTr")])
def test_frames_numbered_from_0000_in_images_and_labels_alike_are_cases_not_channels(tmp_path, layout):
    for folder in layout:
        touch(*(tmp_path / folder / f"scan_{n:04}.nii.gz" for n in range(4)))
    dataset = find_cases(DataConfig(root=tmp_path, labels=LUNG))
    assert names(dataset) == [f"scan_{n:04}" for n in range(4)]
    assert [case.labels[0].path.name for case in dataset.cases] == [f"scan_{n:04}.nii.gz" for n in range(4)]


def test_a_frame_without_a_label_is_named_as_the_case_it_is(tmp_path):
    touch(*(tmp_path / "images" / f"scan_{n:04}.nii.gz" for n in range(4)))
    touch(*(tmp_path / "labels" / f"scan_{n:04}.nii.gz" for n in range(3)))
    with pytest.raises(DatasetError, match=r"case 'scan_0003' has no label file"):
        find_cases(DataConfig(root=tmp_path, labels=LUNG))


def test_names_whose_accents_are_composed_otherwise_are_the_same(tmp_path):
    composed, apart = "Müller", "Mu\u0308ller"
    assert composed != apart
    touch(tmp_path / "imagesTr" / f"{apart}_0000.nii.gz", tmp_path / "labelsTr" / f"{composed}.nii.gz")
    touch(tmp_path / "imagesTr" / "b_0000.nii.gz", tmp_path / "labelsTr" / "b.nii.gz")
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["b"], "val": [composed]}]))
    dataset = find_cases(DataConfig(root=tmp_path, labels=LUNG))
    assert len(dataset.cases) == 2 and dataset.findings == ()
    (tmp_path / "imagesTr" / f"{apart}_0000.nii.gz").rename(tmp_path / f"{apart}.nii.gz")
    (tmp_path / "list.csv").write_text(
        f"case,image,label\na,{composed}.nii.gz,labelsTr/{apart}.nii.gz\n", encoding="utf-8"
    )
    (case,) = find_cases(DataConfig(root=tmp_path, csv=tmp_path / "list.csv", labels=LUNG)).cases
    assert case.images[0].is_file() and case.labels[0].path.is_file()


def test_labels_of_a_description_are_bounded_before_anything_is_read(tmp_path):
    touch(tmp_path / "imagesTr" / "a_0000.nii.gz", tmp_path / "labelsTr" / "a.nii.gz")
    for labels in ({"bg": 0, "x": 2**24 + 1}, {"x": [1, 2**24 + 1]}, {"x": 1, "ignore": [2, 2**24 + 1]}):
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
        with pytest.raises(ConfigError, match=r"the value 16777217; expected values from 0 to 65535.*smaller numbers"):
            find_cases(DataConfig(root=tmp_path))


@pytest.mark.parametrize(
    "data", [{"labels": {"x": 70000}}, {"labels": {"x": 1}, "ignore": 70000}, {"ignore": [3, 70000]}]
)
def test_values_that_no_model_can_have_are_refused_with_the_configuration(tmp_path, data):
    with pytest.raises(ValueError, match=r"the value 70000; expected values from 0 to 65535.*smaller numbers"):
        DataConfig(root=tmp_path, **data)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("Images", "Labels"),
        ("image", "label"),
        ("IMAGES", "Masks"),
        ("imgs", "segmentations"),
        ("train/images", "train/labels"),
        ("Training/Image", "Training/Mask"),
        ("images/train", "labels/train"),
    ],
)
def test_folders_of_images_and_labels_are_known_by_their_usual_names(tmp_path, images, labels):
    for name in "ab":
        touch(tmp_path / images / f"{name}.nii.gz", tmp_path / labels / f"{name}.nii.gz")
    dataset = find_cases(DataConfig(root=tmp_path, labels=LUNG))
    assert names(dataset) == ["a", "b"] and {case.split for case in dataset.cases} == {""}
    assert dataset.cases[0].labels == (LabelSource(tmp_path / labels / "a.nii.gz"),)


@pytest.mark.parametrize("place", ["{split}/{what}", "{what}/{split}"])
def test_folders_called_train_and_val_are_the_split(tmp_path, place):
    for split, name in (("train", "a"), ("train", "b"), ("val", "c")):
        touch(*(tmp_path / place.format(split=split, what=w) / f"{name}.png" for w in ("images", "labels")))
    dataset = find_cases(DataConfig(root=tmp_path, labels=LUNG))
    assert rows_of(dataset) == [("a", "a", "train"), ("b", "b", "train"), ("c", "c", "validation")]


def test_a_training_part_beside_a_test_part_is_split_as_any_data(tmp_path):
    for split, name in (("train", "a"), ("train", "b"), ("test", "c")):
        touch(*(tmp_path / split / what / f"{name}.png" for what in ("images", "labels")))
    dataset = find_cases(DataConfig(root=tmp_path, labels=LUNG))
    assert rows_of(dataset) == [("a", "a", ""), ("b", "b", ""), ("c", "c", "test")]


@pytest.mark.parametrize("ending", ["_seg", "_mask", "-label", "_Segmentation", "_gt"])
def test_masks_beside_their_images_are_known_by_their_names(tmp_path, ending):
    for name in ("case_1", "case_2"):
        touch(tmp_path / f"{name}.nii.gz", tmp_path / f"{name}{ending}.nii.gz")
    dataset = find_cases(DataConfig(root=tmp_path, labels=LUNG))
    assert [(c.name, c.images[0].name, c.labels[0].path.name) for c in dataset.cases] == [
        (name, f"{name}.nii.gz", f"{name}{ending}.nii.gz") for name in ("case_1", "case_2")
    ]


@pytest.mark.parametrize(("image", "mask"), [("image", "mask"), ("ct", "seg"), ("{}", "{}_seg"), ("scan", "Label")])
def test_a_folder_for_each_patient_holds_image_and_mask(tmp_path, image, mask):
    for name in ("p1", "p2"):
        touch(*(tmp_path / name / f"{each.format(name)}.nii.gz" for each in (image, mask)))
    dataset = find_cases(DataConfig(root=tmp_path, labels=LUNG))
    assert names(dataset) == ["p1", "p2"]
    assert dataset.cases[1].labels[0].path == tmp_path / "p2" / f"{mask.format('p2')}.nii.gz"


def test_several_images_beside_a_patients_mask_are_channels_by_their_kind(tmp_path):
    for name in ("p1", "p2"):
        touch(*(tmp_path / name / f"{name}_{each}.nii.gz" for each in ("t1", "flair", "t1ce", "seg")))
    dataset = find_cases(DataConfig(root=tmp_path, labels=LUNG))
    assert [[p.name[3:-7] for p in case.images] for case in dataset.cases] == [["flair", "t1", "t1ce"]] * 2


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["a.png", "a_seg.png", "b.png"], "1 of 2 images.*no mask, e.g. b; expected b_seg"),
        (["a.png", "a_seg.png", "b_seg.png"], "looks like the mask of 'b'"),
        (["a.png", "a_seg.png", "a_mask.png"], "two masks"),
        (["p1/image.png", "p1/mask.png", "p2/image.png"], "1 of 2 folders hold images but no mask, e.g. p2"),
        (["p1/a.png", "p1/b.png", "p1/mask.png"], "names do not tell which channel"),
        (["p1/t1.png", "p1/t2.png", "p1/mask.png", "p2/t1.png", "p2/ct.png", "p2/mask.png"], "p2 has ct, t1"),
        (["p1/image.png", "p1/mask.png", "p1/seg.png"], "2 masks"),
    ],
)
def test_what_does_not_fit_beside_masks_is_named(tmp_path, files, words):
    touch(*(tmp_path / file for file in files))
    with pytest.raises(DatasetError, match=words):
        find_cases(DataConfig(root=tmp_path, labels=LUNG))
