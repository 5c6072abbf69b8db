"""The correction loop: corrected masks come back, training goes on, the gate decides."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner, Result

import medseg
from medseg.cli import app
from medseg.commands.correction.edits import edits_of, swaps_of
from medseg.commands.correction.former import former_run
from medseg.commands.correction.masks import find_masks
from medseg.commands.correction.matching import CorrectedStudy, Studies, match
from medseg.config import load_config
from medseg.datasets.cases import find_cases
from medseg.errors import MedsegError
from medseg.labels import LabelScheme
from medseg.studies.run import predict_studies
from medseg.volume import Volume

SHAPE = (20, 24, 16)


def save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), path)


def correct(place: Path, corrected: Path, out: Path, *more: str) -> Result:
    few = ["training.max_iterations=4", "training.learning_rate=0.0001"]
    return CliRunner().invoke(app, ["correct", str(place / "run"), str(corrected), "-o", str(out), *few, *more])


def record(out: Path) -> dict:
    return json.loads((out / "corrections" / "correction.json").read_text())


def test_corrected_masks_of_new_and_known_studies_train_and_held_out_cases_stay_held_out(
    place: Path, tmp_path: Path
) -> None:
    back = tmp_path / "back"
    for name in ("study6.nii.gz", "study7.nii.gz"):
        back.mkdir(exist_ok=True)
        shutil.copy(place / "new" / "labels" / name, back)
    edited = np.asarray(nib.load(place / "data" / "labels" / "case0.nii.gz").dataobj).copy()
    edited[:3, :3, :2] = 1
    save(edited, back / "case0.nii.gz")
    save(edited, back / "case2.nii.gz")
    out = tmp_path / "run2"
    done = correct(place, back, out, "--images", str(place / "new" / "images"), "--max-loss", "0.5")
    assert done.exit_code == 0, (done.output, done.exception)
    found = record(out)
    assert found["state"] == "accepted"
    assert {each["case"]: each["role"] for each in found["corrected"]} == {
        "case0": "training",
        "case2": "held out",
        "study6": "new",
        "study7": "new",
    }
    split = json.loads((out / "split.json").read_text())
    assert split["validation"] == ["case2", "case5"]
    assert split["train"] == ["case0", "case1", "case3", "case4", "study6", "study7"]
    assert {each["case"] for each in found["held_out"]} == {"case2", "case5"}
    dataset = find_cases(load_config(out / "config.yaml").data)
    labels = {case.name: case.labels[0].path for case in dataset.cases}
    assert np.asarray(nib.load(labels["case0"]).dataobj)[0, 0, 0] == 1
    assert np.asarray(nib.load(labels["case2"]).dataobj)[0, 0, 0] == 0
    with (out / "corrections" / "edits.csv").open() as file:
        rows = {(row["case"], row["label"]): row for row in csv.DictReader(file)}
    assert float(rows["case0", "bright"]["added_ml"]) == pytest.approx(18 * 2 / 1000)
    assert float(rows["case0", "bright"]["removed_ml"]) == 0
    assert (out / "plan.yaml").read_text() == (place / "run" / "plan.yaml").read_text()
    assert "case0" in (out / "corrections" / "correction.html").read_text()
    assert medseg.load_model(out).scheme.names == ("bright", "dark")


def swapped(place: Path, back: Path) -> None:
    for n in (0, 1, 3):
        labels = np.asarray(nib.load(place / "data" / "labels" / f"case{n}.nii.gz").dataobj)
        save(np.array([0, 2, 1], np.uint8)[labels], back / f"case{n}.nii.gz")


def test_swapped_labels_are_named_before_training(place: Path, tmp_path: Path) -> None:
    swapped(place, tmp_path / "back")
    out = tmp_path / "run2"
    done = correct(place, tmp_path / "back", out)
    assert isinstance(done.exception, MedsegError) and done.exception.exit_code == 3
    for name in ("case0", "case1", "case3", "bright", "dark"):
        assert name in str(done.exception)
    assert record(out)["state"] == "suspected"
    assert {each["case"] for each in record(out)["swaps"]} == {"case0", "case1", "case3"}
    assert not (out / "last.pt").exists() and not (out / "model").exists()


@pytest.mark.slow
def test_a_model_that_gets_worse_on_held_out_cases_does_not_ship_and_they_are_named(
    place: Path, tmp_path: Path
) -> None:
    swapped(place, tmp_path / "back")
    out = tmp_path / "run2"
    done = correct(
        place,
        tmp_path / "back",
        out,
        "--allow-swaps",
        "training.max_iterations=25",
        "training.learning_rate=0.02",
    )
    assert isinstance(done.exception, MedsegError) and done.exception.exit_code == 4
    for name in ("case2", "case5", "case0", "case1", "case3"):
        assert name in str(done.exception)
    found = record(out)
    assert found["state"] == "refused" and set(found["worse"]) == {"case2", "case5"}
    assert (out / "refused_model" / "model.json").is_file() and not (out / "model").exists()


@pytest.mark.slow
def test_every_fold_of_a_cross_validation_goes_on_from_its_own_weights_with_its_own_split(
    place: Path, tmp_path: Path
) -> None:
    folds = {"data.split": None, "training.folds": 2, "training.fold": "all", "training.max_iterations": 4}
    config = load_config(place / "config.yaml", {**folds, "output": str(tmp_path / "run")})
    medseg.train(config)
    back, out = tmp_path / "back", tmp_path / "run2"
    for name in ("data/labels/case0.nii.gz", "new/labels/study6.nii.gz"):
        back.mkdir(exist_ok=True)
        shutil.copy(place / name, back)
    words = [tmp_path / "run", back, "-o", out, "--images", place / "new" / "images", "--max-loss", "1"]
    done = CliRunner().invoke(app, ["correct", *map(str, words), "training.max_iterations=2"])
    assert done.exit_code == 0, (done.output, done.exception)
    for fold, (before, after) in enumerate(((tmp_path / "run", out), (tmp_path / "run/fold1", out / "fold1"))):
        old, new = (json.loads((folder / "split.json").read_text()) for folder in (before, after))
        assert old["validation"] == new["validation"]
        assert sorted([*old["train"], "study6"]) == sorted(new["train"])
        assert json.loads((after / "init.json").read_text())["init"].endswith(f"before_fold{fold}")
    assert {(each["fold"], each["case"]) for each in record(out)["held_out"]} == {
        (fold, case)
        for fold, folder in enumerate((out, out / "fold1"))
        for case in json.loads((folder / "split.json").read_text())["validation"]
    }
    assert medseg.load_model(out).info.folds == (0, 1)


@pytest.mark.slow
def test_masks_that_belong_to_no_study_or_lie_elsewhere_are_named_and_the_others_train(
    place: Path, tmp_path: Path
) -> None:
    back, out = tmp_path / "back", tmp_path / "run2"
    labels = np.asarray(nib.load(place / "data" / "labels" / "case0.nii.gz").dataobj)
    save(labels, back / "case0.nii.gz")
    save(labels, back / "nobody.nii.gz")
    save(labels[:-1], back / "case1.nii.gz")
    save(labels * 7, back / "case3.nii.gz")
    done = correct(place, back, out, "--max-loss", "0.5")
    assert isinstance(done.exception, MedsegError) and done.exception.exit_code == 4
    left = {Path(each["file"]).name: each["reason"] for each in record(out)["left_out"]}
    assert left.keys() == {"nobody.nii.gz", "case1.nii.gz", "case3.nii.gz"}
    assert "no image is called 'nobody'" in left["nobody.nii.gz"]
    assert "grid" in left["case1.nii.gz"] and "7" in left["case3.nii.gz"]
    assert (out / "model").is_dir()


@pytest.mark.slow
def test_a_predicted_folder_comes_back_edited_in_place_and_untouched_masks_do_not_count(
    place: Path, tmp_path: Path
) -> None:
    back, images, out = tmp_path / "predicted", place / "new" / "images", tmp_path / "run2"
    predict_studies(place / "run" / "model", [images], back)
    edited = np.asarray(nib.load(back / "study7.nii.gz").dataobj).copy()
    edited[0, 0, 0] = 2
    save(edited, back / "study7.nii.gz")
    former = former_run(place / "run", {})
    found = find_masks(back, former.config.data, former.dataset.labels, former.reading)
    masks = {each.file.name: each for each in found.masks}
    assert {name: each.unchanged for name, each in masks.items()} == {
        "study6.nii.gz": True,
        "study7.nii.gz": False,
        "study8.nii.gz": True,
    }
    done = correct(place, back, out, "--images", str(images), "--max-loss", "1")
    assert done.exit_code == 0, (done.output, done.exception)
    assert [each["case"] for each in record(out)["corrected"]] == ["study7"]
    assert sum(each["unchanged"] for each in record(out)["left_out"]) == 2
    # The name is gone, but the ledger still says which image it was.
    renamed = tmp_path / "renamed"
    shutil.copytree(images, renamed)
    (renamed / "study7.nii.gz").rename(renamed / "other.nii.gz")
    studies = Studies(former.dataset, [renamed], (), ())
    (matched,) = [
        each
        for each in match(found, studies, former.reading, former.dataset.labels, False)
        if isinstance(each, CorrectedStudy)
    ]
    assert (matched.case.name, matched.matched_by) == ("other", "ledger")


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ("nothing matches", 3, "no corrected mask"),
        ("no run", 2, "not the folder of a finished training"),
        ("itself", 2, "the run itself"),
        ("limit", 2, "--max-loss"),
        ("split", 2, "data.split"),
        ("empty", 3, "no corrected mask"),
    ],
)
def test_what_cannot_be_corrected_is_told_before_training(
    place: Path, tmp_path: Path, change: str, code: int, words: str
) -> None:
    back, out, more, run = tmp_path / "back", tmp_path / "run2", [], place / "run"
    back.mkdir()
    if change != "empty":
        save(np.ones(SHAPE, np.uint8), back / ("nobody.nii.gz" if change == "nothing matches" else "case0.nii.gz"))
    if change == "no run":
        run = place / "data"
    elif change == "itself":
        out = run
    elif change == "limit":
        more = ["--max-loss", "2"]
    elif change == "split":
        more = ["data.split={every: 2}"]
    done = CliRunner().invoke(app, ["correct", str(run), str(back), "-o", str(out), *more])
    assert isinstance(done.exception, MedsegError), done.output
    assert done.exception.exit_code == code
    assert words in str(done.exception)
    assert not (tmp_path / "run2" / "model").exists()


def test_edits_are_measured_in_volume_surface_and_names() -> None:
    scheme = LabelScheme.from_mapping({"a": 1, "b": 2})
    before = np.zeros((10, 10, 4), np.uint8)
    before[2:6, 2:6] = 1
    after = before.copy()
    after[2:4, 2:6] = 2
    after[6, 2:6] = 1
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    one, two = edits_of("c", Volume(before, affine), Volume(after, affine), scheme)
    assert (one.before, one.after) == pytest.approx((0.128, 0.096))
    assert (one.added, one.removed, one.renamed, one.renamed_to) == (0.032, 0.064, 0.064, "b")
    assert (two.added, two.removed, two.dice, two.renamed_to) == (0.064, 0, 0, "")
    assert one.dice == pytest.approx(2 * 32 / (64 + 48)) and one.hd95 >= 1 and np.isinf(two.hd95)


def test_regions_that_lie_in_each_other_are_not_taken_for_swapped() -> None:
    scheme = LabelScheme.from_mapping({"whole": [1, 2], "core": [2]})
    label_map = np.zeros((12, 12), np.uint8)
    label_map[2:10, 2:10] = 1
    label_map[3:10, 3:10] = 2
    image = Volume(label_map, np.eye(4))
    assert swaps_of("c", image, image, scheme) == []
    empty = image.with_array(np.zeros((12, 12), np.uint8))
    assert swaps_of("c", image, empty, scheme) == []


def test_one_label_painted_with_the_name_of_another_is_suspected() -> None:
    scheme = LabelScheme.from_mapping({"a": 1, "b": 2, "c": 3})
    expected = np.zeros((12, 12), np.uint8)
    expected[1:4], expected[8:11] = 1, 3
    corrected = np.where(expected == 1, 2, expected)
    grid = Volume(expected, np.eye(4))
    (found,) = swaps_of("case", grid.with_array(corrected), grid, scheme)
    assert (found.label, found.looks_like) == ("b", "a")
