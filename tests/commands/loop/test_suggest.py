"""Suggestions: which studies, in which form, and back again with classes and geometry kept."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import medseg
from medseg.cli import app
from medseg.commands.correction.former import former_run
from medseg.commands.correction.masks import find_masks
from medseg.commands.correction.matching import CorrectedStudy, Studies, match
from medseg.commands.suggestion.gain import StudyGain, picked
from medseg.errors import MedsegError
from medseg.geometry import reorient

FORMS = ("nifti", "dicom-seg", "labelme", "cvat", "supervisely")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="session")
def studies(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three new images as DICOM studies."""
    folder = tmp_path_factory.mktemp("dicom")
    for path in sorted((place / "new" / "images").iterdir()):
        image = nib.load(path)
        whole = tmp_path_factory.mktemp("whole") / path.name
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj).astype(np.int16), image.affine), whole)
        done = run("convert", whole, folder / path.name.removesuffix(".nii.gz"), "--format", "dicom")
        assert done.exit_code == 0, (done.output, done.exception)
    for path in folder.rglob("*.dcm"):
        # A NIfTI does not say what it is of; the model takes MR alone.
        dataset = pydicom.dcmread(path)
        dataset.Modality = "MR"
        dataset.save_as(path)
    return folder


def masks_of(out: Path, form: str, study: str) -> tuple[Path, list[object]]:
    """What a person gives to convert to get one study back, and the options that it needs."""
    if form in ("nifti", "dicom-seg"):
        return out / "labels" / f"{study}{'.nii.gz' if form == 'nifti' else '.dcm'}", []
    place = out / "annotations"
    if form == "cvat":
        return place / f"{study}.xml", ["--labels", out / "labels.json"]
    return place / (study if form == "labelme" else "studies/ann"), ["--labels", out / "labels.json"]


@pytest.mark.parametrize("form", FORMS)
def test_a_suggested_mask_comes_back_with_its_classes_and_geometry_in_every_form(
    place: Path, studies: Path, tmp_path: Path, form: str
) -> None:
    source = studies if form == "dicom-seg" else place / "new" / "images"
    out = tmp_path / "out"
    done = run("suggest", place / "run", source, "-n", 1, "-o", out, "--format", form, "--device", "cpu")
    assert done.exit_code == 0, (done.output, done.exception)
    rows = list(csv.DictReader((out / "suggested.csv").read_text().splitlines()))
    assert len(rows) == 3 and [row["suggested"] for row in rows] == ["yes", "no", "no"]
    study = rows[0]["study"]
    image = medseg.read(source / study if form == "dicom-seg" else source / f"{study}.nii.gz")
    expected = medseg.load_model(place / "run", device="cpu").predict(image)
    assert set(np.unique(expected.array)) == {0, 1, 2}

    back, options = masks_of(out, form, study)
    again = tmp_path / "again.nii.gz"
    if form in ("labelme", "cvat", "supervisely"):
        options += ["--copy-grid", source / f"{study}.nii.gz"]
    elif form == "dicom-seg":
        options += ["--reference", source / study]
    converted = run("convert", back, again, *options)
    assert converted.exit_code == 0, (converted.output, converted.exception)
    found = medseg.read(again)
    assert np.array_equal(found.array, expected.array)
    assert np.allclose(found.affine, expected.affine, atol=1e-4)

    former = former_run(place / "run", {})
    masks = find_masks(out / ("labels" if form in ("nifti", "dicom-seg") else "annotations"), former.config.data,
                       former.dataset.labels, former.reading)  # fmt: skip
    pool = Studies(former.dataset, [source], (), ())
    (matched,) = match(masks, pool, former.reading, former.dataset.labels, False)
    assert isinstance(matched, CorrectedStudy), matched
    assert np.array_equal(matched.label_map.array, expected.array)
    assert matched.image.same_geometry(matched.label_map)


def test_a_structure_set_under_any_name_finds_its_study_by_the_series_that_it_names(
    place: Path, studies: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.yaml").write_text("{bright: 1, dark: 2}")
    drawn, objects = place / "new" / "labels" / "study7.nii.gz", tmp_path / "objects"
    options = ["--format", "rtstruct", "--reference", studies / "study7", "--labels", tmp_path / "labels.yaml"]
    done = run("convert", drawn, objects / "from_the_clinic.dcm", *options)
    assert done.exit_code == 0, (done.output, done.exception)
    former = former_run(place / "run", {})
    masks = find_masks(objects, former.config.data, former.dataset.labels, former.reading)
    pool = Studies(former.dataset, [studies], masks.images, ())
    (matched,) = match(masks, pool, former.reading, former.dataset.labels, False)
    assert isinstance(matched, CorrectedStudy), matched
    assert (matched.case.name, matched.matched_by) == ("study7", "series")
    expected = reorient(medseg.read(drawn), matched.image.orientation).array
    assert np.mean(matched.label_map.array[expected > 0] == expected[expected > 0]) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_suggested_and_edited_mask_trains_in_every_form(
    place: Path, studies: Path, tmp_path: Path, form: str
) -> None:
    source = studies if form == "dicom-seg" else place / "new" / "images"
    out, run2 = tmp_path / "out", tmp_path / "run2"
    assert run("suggest", place / "run", source, "-n", 2, "-o", out, "--format", form).exit_code == 0
    few = ["training.max_iterations=2", "training.learning_rate=0.0001", "--max-loss", 1]
    back = out / ("labels" if form in ("nifti", "dicom-seg") else "annotations")
    done = run("correct", place / "run", back, "-o", run2, "--images", source, *few)
    assert done.exit_code == 0, (done.output, done.exception)
    assert {each["role"] for each in json.loads((run2 / "corrections/correction.json").read_text())["corrected"]} == {
        "new"
    }


def test_pictures_are_suggested_as_pictures_beside_their_annotations(tmp_path: Path) -> None:
    from medseg.commands.suggestion.export import Exporter
    from medseg.labels import LabelScheme
    from medseg.studies.sources import Source
    from medseg.volume import Volume

    class Named:
        scheme = LabelScheme.from_mapping({"vessel": 1, "disc": 4})

    photo = np.random.default_rng(0).integers(0, 255, (3, 12, 9), dtype=np.uint8)
    mask = np.zeros((12, 9), np.uint8)
    mask[2:5, 3:7], mask[7:11, 1:3] = 1, 4
    image = Volume(photo, np.eye(4), 3, spacing_known=False)
    for form in ("labelme", "cvat", "supervisely", "nifti"):
        exporter = Exporter(tmp_path / form, form, Named())  # type: ignore[arg-type]
        exporter.add(Source("eye", (Path("eye.png"),)), image, Volume(mask, np.eye(4), spacing_known=False))
        exporter.finish()
        (picture,) = [path for path in (tmp_path / form).rglob("eye.png") if "labels" not in path.parts]
        assert np.array_equal(np.asarray(Image.open(picture)), photo.transpose(2, 1, 0))
        if form != "nifti":
            (back,) = medseg.io.annotations.read_annotations(tmp_path / form / "annotations", {"vessel": 1, "disc": 4})
            assert np.array_equal(back.label_map.array, mask)


def test_labelled_images_of_a_data_set_are_not_suggested(place: Path, tmp_path: Path) -> None:
    done = run("suggest", place / "run", place / "data", "-o", tmp_path / "out")
    assert isinstance(done.exception, MedsegError) and done.exception.exit_code == 3
    assert "has a label map already" in str(done.exception)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [(["-n", "0"], 2, "-n is 0"), (["--format", "labelmee"], 2, "labelme"), (["--format", "dicom-seg"], 3, "DICOM")],
)
def test_what_cannot_be_suggested_is_told_and_leaves_no_folder(
    place: Path, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    done = run("suggest", place / "run", place / "new" / "images", "-o", tmp_path / "out", *words)
    assert isinstance(done.exception, MedsegError) and done.exception.exit_code == code
    assert said in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_an_unsure_study_goes_first_and_its_copies_come_last() -> None:
    rng = np.random.default_rng(0)
    one, other = (rng.standard_normal(64) for _ in range(2))
    studies = [StudyGain(0.5, one), StudyGain(0.5, one), StudyGain(0.1, other), StudyGain(0.6, one)]
    order = [each.index for each in picked(studies, 4)]
    assert order[:2] == [3, 2] and sorted(order) == [0, 1, 2, 3]
    assert picked([], 3) == []
