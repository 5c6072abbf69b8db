"""Data sets as they are delivered: what is an image, what a mask, which mask is the reference, who is a patient."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from layouts.dataset import arrange
from layouts.samples import Sample, samples

import medseg
from medseg.errors import ConfigError, DatasetError
from medseg.labels import LabelScheme

ONE = LabelScheme.from_mapping({"it": 1})
BRATS = LabelScheme.from_mapping({"WT": [1, 2, 3, 4], "TC": [1, 3, 4], "ET": [4]})
SAMPLES = Path(__file__).resolve().parents[2] / "data_samples"
PHOTO, CT = (12, 10), (12, 10, 8)


def photo(path: Path, seed: int = 0) -> None:
    """A grey picture without spacing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(0, 256, PHOTO).astype(np.uint8)
    medseg.write(medseg.Volume(array, np.eye(4), spacing_known=False), path)


def flat_mask(path: Path, size: int, value: int = 1) -> None:
    """A mask of `size` x 4 pixels without spacing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros(PHOTO, np.uint8)
    array[:size, :4] = value
    medseg.write(medseg.Volume(array, np.eye(4), spacing_known=False), path)


def scan(path: Path, seed: int = 0) -> None:
    """A CT."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(-1000, 1000, CT).astype(np.int16)
    medseg.write(medseg.Volume(array, np.diag([1.0, 1.0, 2.0, 1.0])), path)


def mask(path: Path, size: int, *values: int) -> None:
    """A mask of `size` x 4 x 4 voxels, or one such block per value, one behind the other along the last axis."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros(CT, np.uint8)
    for n, value in enumerate(values or (1,)):
        array[:size, :4, (slice(0, 4) if not values else slice(n, n + 1))] = value
    medseg.write(medseg.Volume(array, np.diag([1.0, 1.0, 2.0, 1.0])), path)


def found(data: Path, scheme: LabelScheme = ONE, *words: str, **more: object) -> dict[str, Sample]:
    """The cases by name."""
    return {case.name: case for case in samples(data, scheme, words, **more)}  # type: ignore[arg-type]


def test_of_two_observers_the_first_is_the_reference(tmp_path: Path) -> None:
    for eye in ("Image_01L", "Image_01R", "Image_1L"):
        photo(tmp_path / f"{eye}.png")
        flat_mask(tmp_path / f"{eye}_1stHO.png", 3, 255)
        flat_mask(tmp_path / f"{eye}_2ndHO.png", 5, 255)
    cases = found(tmp_path)
    assert sorted(cases) == ["Image_01L", "Image_01R", "Image_1L"]
    assert cases["Image_1L"].mask.array.sum() == 12 and cases["Image_1L"].second.array.sum() == 20


def test_soft_edges_are_cut_in_the_middle(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.png")
    array = np.zeros(PHOTO, np.uint8)
    array[2:4, 2:4], array[2, 2], array[3, 3] = 255, 127, 128
    (tmp_path / "masks").mkdir()
    medseg.write(medseg.Volume(array, np.eye(4), spacing_known=False), tmp_path / "masks" / "a.png")
    assert found(tmp_path)["a"].mask.array.sum() == 3


def test_scans_and_masks_in_one_folder_are_matched_by_what_tells_them_apart(tmp_path: Path) -> None:
    for n, size in ((64, 3), (65, 5)):
        scan(tmp_path / f"ct-{n}.nrrd", n)
        mask(tmp_path / f"wholeLung-{n}.nrrd", size)
        mask(tmp_path / f"lm-{n}.nrrd", 2, 9, 12)
    cases = found(tmp_path, ONE, "lung")
    assert {name: int(case.mask.array.sum()) for name, case in cases.items()} == {"ct-64": 48, "ct-65": 80}


def test_masks_of_several_structures_are_united_where_their_names_say_what_they_are(tmp_path: Path) -> None:
    scan(tmp_path / "ct.nii.gz")
    mask(tmp_path / "aorta.nii.gz", 3)
    mask(tmp_path / "iliac_artery_left.nii.gz", 5)
    mask(tmp_path / "liver.nii.gz", 7)
    (case,) = found(tmp_path, ONE, "aort", "arter").values()
    assert case.name == "ct" and case.mask.array.sum() == 80
    (case,) = found(tmp_path, ONE, "aort", mask="liver").values()
    assert case.mask.array.sum() == 112


def test_masks_that_could_all_be_the_reference_are_named_rather_than_guessed(tmp_path: Path) -> None:
    scan(tmp_path / "ct.nii.gz")
    mask(tmp_path / "one.nii.gz", 3)
    mask(tmp_path / "two.nii.gz", 5)
    with pytest.raises(DatasetError, match=r"several masks could be the reference: one \(1\); two \(1\).*--mask"):
        found(tmp_path, ONE, "vessel")


def test_a_map_of_several_values_needs_to_be_told_which_count(tmp_path: Path) -> None:
    scan(tmp_path / "ct.nii.gz")
    mask(tmp_path / "lobes.nii.gz", 3, 1, 2, 5)
    with pytest.raises(DatasetError, match=r"which mask is it \[1\]\? It holds lobes \(1, 2, 5\)"):
        found(tmp_path, ONE, "lung")
    (case,) = found(tmp_path, ONE, "lung", values=(1, 5)).values()
    assert case.mask.array.sum() == 24 and case.mask.array.max() == 1


def test_a_folder_per_patient_holds_channels_and_the_mask_whose_values_are_the_labels(tmp_path: Path) -> None:
    for patient in ("pat1", "pat2"):
        scan(tmp_path / patient / f"{patient}_Flair.nii.gz", 1)
        scan(tmp_path / patient / f"{patient}_T1c.nii.gz", 2)
        mask(tmp_path / patient / f"{patient}_brainmask.nii.gz", 9)
        mask(tmp_path / patient / f"{patient}_OT.nii.gz", 4, 1, 2, 4)
    cases = found(tmp_path, BRATS)
    assert {name: (case.image.channels, case.patient) for name, case in cases.items()} == {
        "pat1": (2, "pat1"),
        "pat2": (2, "pat2"),
    }
    assert np.unique(cases["pat1"].mask.array).tolist() == [0, 1, 2, 4]


def test_a_dicom_folder_beside_its_mask_is_the_image(tmp_path: Path) -> None:
    shutil.copytree(SAMPLES / "study", tmp_path / "scan")
    shutil.copy(SAMPLES / "study_reference" / "study.nii.gz", tmp_path / "lung.nii.gz")
    (case,) = found(tmp_path, ONE, "lung", values=(1, 2)).values()
    assert case.name == "scan" and case.image.array.min() < -500 and case.mask.array.any()


def test_a_mask_without_an_image_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        photo(tmp_path / f"{name}.png")
        flat_mask(tmp_path / f"{name}_mask.png", 3)
    flat_mask(tmp_path / "c_mask.png", 3)
    with pytest.raises(DatasetError, match=r"c_mask\.png: no image"):
        found(tmp_path)


def test_pictures_with_labelme_polygons(tmp_path: Path) -> None:
    photo(tmp_path / "eye.png")
    shape = {"label": "it", "points": [[2, 2], [6, 2], [6, 6], [2, 6]], "shape_type": "polygon", "flags": {}}
    document = {"version": "5.5.0", "flags": {}, "shapes": [shape], "imagePath": "eye.png", "imageData": None}
    (tmp_path / "eye.json").write_text(json.dumps(document | {"imageHeight": PHOTO[1], "imageWidth": PHOTO[0]}))
    (case,) = found(tmp_path).values()
    assert case.name == "eye" and case.mask.shape == PHOTO and 16 <= case.mask.array.sum() <= 25


def test_patches_of_an_hdf5_file_know_their_patient_only_where_it_is_said(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "patches.h5", "w") as file:
        file["images"] = np.random.default_rng(0).random((6, 1, 8, 8), np.float32)
        file["labels"] = np.tile(np.eye(8), (6, 1, 1, 1))
    unknown = arrange(samples(tmp_path, ONE), tmp_path / "unknown", slices=True)
    assert set(unknown.patients.values()) == {"patches"} and "no patient" not in unknown.demonstration
    assert "may be on both sides" in unknown.demonstration
    known = arrange(samples(tmp_path, ONE, per_patient=2), tmp_path / "known", slices=True)
    assert len(set(known.patients.values())) == 3 and known.demonstration == ""


def test_both_eyes_of_a_person_are_held_out_together_and_in_no_list_to_train_on(tmp_path: Path) -> None:
    for person in ("01", "02", "03"):
        for eye in "LR":
            photo(tmp_path / "raw" / "images" / f"Image_{person}{eye}.png")
            flat_mask(tmp_path / "raw" / "labels" / f"Image_{person}{eye}.png", 3)
    data = arrange(samples(tmp_path / "raw", ONE), tmp_path / "out")
    first, second = data.folds(2)
    assert [case for case, _ in first.scored] == ["Image_02L", "Image_02R", "Image_03L", "Image_03R"]
    with second.training.open(newline="") as file:
        assert [row["case"] for row in csv.DictReader(file)] == [case for case, _ in first.scored]


def test_names_that_go_round_the_diseases_do_not_give_folds_of_one_disease(tmp_path: Path) -> None:
    for number in range(12):
        for kind in ("healthy", "ill"):
            photo(tmp_path / "raw" / "images" / f"{number:02}_{kind}.png")
            flat_mask(tmp_path / "raw" / "labels" / f"{number:02}_{kind}.png", 3)
    data = arrange(samples(tmp_path / "raw", ONE), tmp_path / "out")
    for fold in data.folds(2):
        assert 3 <= sum(case.endswith("ill") for case, _ in fold.scored) <= 9


def test_patients_validate_where_there_are_enough_to_spare_some(tmp_path: Path) -> None:
    for number in range(48):
        photo(tmp_path / "raw" / "images" / f"{number}.png")
        flat_mask(tmp_path / "raw" / "labels" / f"{number}.png", 3)
    data = arrange(samples(tmp_path / "raw", ONE), tmp_path / "out")
    for folds, patients in ((2, 24), (8, 42)):
        with data.folds(folds)[0].training.open(newline="") as file:
            assert len({row["group"] for row in csv.DictReader(file)}) == patients
    with data.folds(2)[0].training.open(newline="") as file:
        held_out = {case for case, _ in data.folds(2)[0].scored}
        assert not held_out & {row["group"] for row in csv.DictReader(file)}


def test_few_patients_all_train(tmp_path: Path) -> None:
    for number in range(24):
        photo(tmp_path / "raw" / "images" / f"{number}.png")
        flat_mask(tmp_path / "raw" / "labels" / f"{number}.png", 3)
    data = arrange(samples(tmp_path / "raw", ONE), tmp_path / "out")
    with data.folds(2)[0].training.open(newline="") as file:
        assert {row["group"] for row in csv.DictReader(file)} == {"training"}


def test_slices_that_name_no_patient_are_held_out_in_runs_of_neighbours(tmp_path: Path) -> None:
    for n in (2, 10, 11, 100):
        photo(tmp_path / "raw" / "images" / f"{n}.png")
        flat_mask(tmp_path / "raw" / "masks" / f"{n}.png", 3)
    data = arrange(samples(tmp_path / "raw", ONE), tmp_path / "out", slices=True)
    assert [[case for case, _ in fold.scored] for fold in data.folds(2)] == [["2", "10"], ["11", "100"]]
    assert "may be on both sides" in data.demonstration
    photographs = arrange(samples(tmp_path / "raw", ONE), tmp_path / "photographs")
    assert photographs.demonstration == "" and len(set(photographs.patients.values())) == 4


def test_of_one_image_every_slab_is_predicted_by_the_model_that_did_not_see_it(tmp_path: Path) -> None:
    scan(tmp_path / "raw" / "ct.nii.gz")
    mask(tmp_path / "raw" / "lung.nii.gz", 3)
    data = arrange(samples(tmp_path / "raw", ONE, ("lung",)), tmp_path / "out")
    assert "one image only" in data.demonstration and data.shape == (12, 10, 2)
    trained = []
    for number, fold in enumerate(data.folds(2), 1):
        with fold.training.open(newline="") as file:
            trained.append([Path(row["image"]).name for row in csv.DictReader(file)])
        image = data.image("ct")
        constant = image.with_array(np.full(CT, number, np.uint8))
        odds = image.with_array(np.full((1, *CT), number / 4, np.float16), channels=1)
        for case, part in fold.scored:
            data.keep(tmp_path, case, part, constant, odds)
    assert trained == [["ct__slab1.nii.gz", "ct__slab3.nii.gz"], ["ct__slab0.nii.gz", "ct__slab2.nii.gz"]]
    kept = medseg.read(tmp_path / "masks" / "ct.nii.gz").array
    assert kept[0, 0].tolist() == [1, 1, 2, 2, 1, 1, 2, 2]
    with np.load(tmp_path / "probabilities" / "ct.npz") as stored:
        assert np.array_equal(stored["probabilities"][0] * 4, kept)


def test_the_folder_of_one_patient_holds_channels(tmp_path: Path) -> None:
    scan(tmp_path / "pat1" / "Flair.nii.gz", 1)
    scan(tmp_path / "pat1" / "T1c.nii.gz", 2)
    mask(tmp_path / "pat1" / "OT.nii.gz", 4, 1, 2, 4)
    (case,) = found(tmp_path / "pat1", BRATS).values()
    assert case.name == "pat1" and case.image.channels == 2


def test_channels_of_several_patients_in_one_folder_are_not_taken_for_one_patient(tmp_path: Path) -> None:
    for name in ("a", "b"):
        scan(tmp_path / f"{name}_flair.nii.gz", 1)
        scan(tmp_path / f"{name}_t1.nii.gz", 2)
        mask(tmp_path / f"{name}_seg.nii.gz", 4)
    with pytest.raises(DatasetError, match=r"a_seg\.nii\.gz: no image, or more than one"):
        found(tmp_path, ONE, "seg")


def test_folders_of_other_names_and_a_table_of_ages_do_no_harm(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "21_training.tif")
    photo(tmp_path / "images" / "22_training.tif")
    flat_mask(tmp_path / "1st_manual" / "21_manual1.png", 3, 255)
    flat_mask(tmp_path / "1st_manual" / "22_manual1.png", 5, 255)
    for n in (21, 22):
        flat_mask(tmp_path / "mask" / f"{n}_training_mask.png", 9, 255)
    (tmp_path / "ages.csv").write_text("patient,age\n21,60\n")
    cases = found(tmp_path, ONE, "vessel")
    assert {name: int(case.mask.array.sum()) for name, case in cases.items()} == {"21_training": 12, "22_training": 20}


def test_a_csv_of_cases_names_the_patients(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    flat_mask(tmp_path / "a_mask.png", 3)
    (tmp_path / "cases.csv").write_text("case,image,label,group\nleft,a.png,a_mask.png,anna\n")
    (case,) = found(tmp_path).values()
    assert (case.name, case.patient) == ("left", "anna")


def test_a_list_of_cases_beside_images_and_labels_says_who_is_a_patient(tmp_path: Path) -> None:
    for name in ("a", "b"):
        photo(tmp_path / "images" / f"{name}.png")
        flat_mask(tmp_path / "labels" / f"{name}.png", 3)
    rows = "".join(f"{name},images/{name}.png,labels/{name}.png,{name}\n" for name in ("a", "b"))
    (tmp_path / "cases.csv").write_text(f"case,image,label,group\n{rows}")
    assert {name: case.patient for name, case in found(tmp_path).items()} == {"a": "a", "b": "b"}


def test_a_kind_of_mask_that_is_named_is_the_one_that_is_read(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.png")
    flat_mask(tmp_path / "labels" / "a.png", 3)
    flat_mask(tmp_path / "labels_other" / "a.png", 5)
    (tmp_path / "cases.csv").write_text("case,image,label,group\na,images/a.png,labels/a.png,a\n")

    def voxels(kind: str) -> int:
        return int(found(tmp_path, mask=kind)["a"].mask.array.sum())

    assert (voxels(""), voxels("other")) == (12, 20)
    with pytest.raises(DatasetError, match=r"--mask third is to name the references, but that of a\.png is"):
        voxels("third")


def test_a_folder_that_is_there_already_is_left_alone(tmp_path: Path) -> None:
    photo(tmp_path / "data" / "images" / "a.png")
    flat_mask(tmp_path / "data" / "labels" / "a.png", 3)
    with pytest.raises(ConfigError, match=r"exists already: give another --out"):
        arrange(samples(tmp_path / "data", ONE), tmp_path / "data")
    assert (tmp_path / "data" / "images" / "a.png").is_file()
