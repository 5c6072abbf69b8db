"""Label maps from image-level labels."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from weak_pictures import Pictures, picture

from medseg.cli import app
from medseg.config import load_config
from medseg.datasets.cases import find_cases
from medseg.errors import ConfigError, DatasetError, WriteError
from medseg.io import read, write
from medseg.preparation.split import split_cases
from medseg.training.weak.folder import weak_config_of
from medseg.training.weak.pseudo_labels import PseudoLabels, make_pseudo_labels
from medseg.volume import Volume

SHORT = {"training.max_iterations": 60, "weak.longest": 48, "weak.stage": 1, "device": "cpu"}
BARELY = {**SHORT, "training.max_iterations": 2, "weak.scales": [1.0], "weak.crf": False, "weak.walk_steps": 0}


def made(root: Path, out: Path, settings: Mapping[str, Any]) -> PseudoLabels:
    return make_pseudo_labels(weak_config_of(root, settings), out)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def labelled(pictures: Pictures, tmp_path_factory: pytest.TempPathFactory) -> PseudoLabels:
    return made(pictures.root, tmp_path_factory.mktemp("made") / "labels", SHORT)


def test_folders_of_images_become_label_maps_near_the_true_masks(labelled: PseudoLabels, pictures: Pictures) -> None:
    dice = []
    for name, mask in pictures.masks.items():
        array = read(labelled.folder / f"{name}.png").array
        assert array.shape == mask.shape
        assert set(np.unique(array)) <= {0, 1, 255}
        if mask.any():
            found = array == 1
            dice.append(2 * (found & mask).sum() / (found.sum() + mask.sum()))
        else:
            assert not array.any(), f"{name} shows no lesion"
    assert np.mean(dice) > 0.6
    assert labelled.auc["lesion"] is None or labelled.auc["lesion"] > 0.7


def test_what_is_written_is_a_data_set_with_the_split_of_the_classifier(
    labelled: PseudoLabels, pictures: Pictures
) -> None:
    config = load_config(labelled.folder / "train.yaml")
    dataset = find_cases(config.data)
    assert dataset.labels.mapping == {"lesion": 1}
    assert dataset.labels.ignore == 255
    given = weak_config_of(pictures.root, SHORT)
    rows = {row["case"]: row["split"] for row in rows_of(labelled.folder / "cases.csv")}
    again = split_cases(dataset, config, 0)
    assert {*again.validation} == {case for case, split in rows.items() if split == "validation"}
    assert again.validation
    assert {*again.train} | {*again.validation} == {*pictures.masks}
    assert given.training.max_iterations == config.training.max_iterations


def test_the_folder_of_label_maps_can_be_trained_on_by_itself(labelled: PseudoLabels) -> None:
    from medseg.preparation.folder import config_of

    data = config_of(labelled.folder).data
    assert data.labels == {"lesion": 1}
    assert data.ignore == 255


def test_the_table_of_quality_has_a_row_for_each_case_and_label(labelled: PseudoLabels, pictures: Pictures) -> None:
    rows = rows_of(labelled.folder / "quality.csv")
    assert [row["case"] for row in rows] == sorted(pictures.masks)
    shown = [row for row in rows if row["case"].startswith("lesion")]
    assert all(row["images"] == "1" and int(row["voxels"]) > 0 and row["probability"] for row in shown)
    summary = json.loads((labelled.folder / "quality.json").read_text())
    assert summary["format_version"] == 1
    assert summary["labels"]["lesion"]["cases"] == len(shown)


def test_pseudo_labels_are_not_replaced_unasked_and_a_classifier_is_taken_over(
    pictures: Pictures, tmp_path: Path
) -> None:
    out = tmp_path / "labels"
    made(pictures.root, out, BARELY)
    with pytest.raises(ConfigError, match="already holds"):
        made(pictures.root, out, BARELY)
    before = (out / "classifier.safetensors").stat().st_mtime_ns
    make_pseudo_labels(weak_config_of(pictures.root, {**BARELY, "weak.map_threshold": 0.6}), out, overwrite=True)
    assert (out / "classifier.safetensors").stat().st_mtime_ns == before
    make_pseudo_labels(weak_config_of(pictures.root, {**BARELY, "seed": 1}), out, overwrite=True)
    assert (out / "classifier.safetensors").stat().st_mtime_ns != before


def test_label_maps_never_take_the_place_of_files_that_are_read(pictures: Pictures) -> None:
    with pytest.raises(WriteError, match="which is read"):
        made(pictures.root, pictures.root / "lesion", BARELY)


def write_table(root: Path, rows: list[str], head: str = "case,image,group,lesion") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "cases.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return root


def table_of(pictures: Pictures, root: Path, value: str | None = None) -> Path:
    rows = []
    for n, name in enumerate(pictures.masks):
        folder, file = name.split("_")
        shown = value or str(int(folder == "lesion"))
        rows.append(f"{name},{pictures.root / folder / file}.png,patient{n // 2},{shown}")
    return write_table(root, rows)


def test_a_table_says_what_images_show_and_whose_they_are(pictures: Pictures, tmp_path: Path) -> None:
    root = table_of(pictures, tmp_path / "table")
    result = made(root, tmp_path / "labels", {**BARELY, "data.labels": {"lesion": 3}})
    assert result.cases == len(pictures.masks)
    sides: dict[str, set[str]] = {}
    for row in rows_of(tmp_path / "labels" / "cases.csv"):
        sides.setdefault(row["group"], set()).add(row["split"])
    assert len(sides) == len(pictures.masks) // 2
    assert all(len(each) == 1 for each in sides.values())
    assert set(np.unique(read(tmp_path / "labels" / "lesion_p00.png").array)) <= {0, 3, 255}


@pytest.mark.parametrize(("value", "message"), [("0", "none of the"), ("1", "all .* show label 'lesion'")])
def test_labels_that_no_image_or_every_image_shows_are_refused_before_the_training(
    pictures: Pictures, tmp_path: Path, value: str, message: str
) -> None:
    root = table_of(pictures, tmp_path / "table", value)
    with pytest.raises(DatasetError, match=message):
        made(root, tmp_path / "labels", {**BARELY, "data.labels": {"lesion": 1}})
    assert not (tmp_path / "labels").exists()


def test_a_label_without_a_column_is_told_in_one_sentence(pictures: Pictures, tmp_path: Path) -> None:
    root = table_of(pictures, tmp_path / "table")
    labels = "{lesion: 1, cyst: 2}"
    done = CliRunner().invoke(app, ["pseudo-label", str(root), "-o", str(tmp_path / "o"), f"data.labels={labels}"])
    assert isinstance(done.exception, DatasetError)
    assert "no column 'cyst'" in str(done.exception)
    assert done.exception.exit_code == 3


@pytest.mark.parametrize("cell", ["2", "maybe", ""])
def test_a_cell_that_is_neither_0_nor_1_is_refused(pictures: Pictures, tmp_path: Path, cell: str) -> None:
    image = pictures.root / "lesion" / "p00.png"
    root = write_table(tmp_path / "table", [f"a,{image},p,{cell}"])
    with pytest.raises(DatasetError, match="expected 1 where the image shows the label"):
        made(root, tmp_path / "labels", {**BARELY, "data.labels": {"lesion": 1}})


def test_a_folder_that_is_no_label_is_refused(pictures: Pictures, tmp_path: Path) -> None:
    for name in ("lesions", "normal", "lesion"):
        (tmp_path / "data" / name).mkdir(parents=True)
    with pytest.raises(DatasetError, match="lesions is neither a label"):
        made(tmp_path / "data", tmp_path / "labels", {**BARELY, "data.labels": {"lesion": 1}})


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight volumes of four slices, of which two show a lesion."""
    root, rng = tmp_path_factory.mktemp("volumes"), np.random.default_rng(0)
    affine = np.diag([-1.0, 2.0, 3.0, 1.0])
    for n in range(8):
        slices = [picture(rng, k in (1, 2)) for k in range(4)]
        image, mask = (np.stack([each[part] for each in slices], axis=-1) for part in (0, 1))
        write(Volume(image, affine), root / "images" / f"case{n}.nii.gz")
        write(Volume(mask.astype(np.uint8), affine), root / "labels" / f"case{n}.nii.gz")
    return root


def test_slices_of_volumes_become_volumes_on_the_grid_of_the_image(volumes: Path, tmp_path: Path) -> None:
    result = made(volumes, tmp_path / "labels", {**BARELY, "data.labels": {"lesion": 1}, "net.dims": 2})
    for path in sorted((volumes / "images").iterdir()):
        label_map, image = read(tmp_path / "labels" / path.name), read(path)
        assert label_map.shape == image.shape
        assert np.allclose(label_map.affine, image.affine)
        assert not label_map.array[..., [0, 3]].any()
    assert {*result.dice["lesion"]} == {"maps"}
    assert load_config(tmp_path / "labels" / "train.yaml").net.dims == 2


def test_volumes_that_all_show_a_label_are_told_to_let_slices_count(volumes: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"net\.dims=2"):
        made(volumes, tmp_path / "labels", {**BARELY, "data.labels": {"lesion": 1}})


def test_a_table_may_label_single_slices_and_others_are_ignored(volumes: Path, tmp_path: Path) -> None:
    rows = []
    for n in range(8):
        image = volumes / "images" / f"case{n}.nii.gz"
        rows += [f"case{n},{image},,{k},{int(k in (1, 2))}" for k in (0, 1, 2)]
    root = write_table(tmp_path / "table", rows, "case,image,group,slice,lesion")
    made(root, tmp_path / "labels", {**BARELY, "data.labels": {"lesion": 1}, "net.dims": 2})
    array = read(tmp_path / "labels" / "case0.nii.gz").array
    assert not array[..., 0].any()
    assert (array[..., 3] == 255).all()
    write_table(tmp_path / "table", [*rows, rows[0].replace(",,0,", ",,4,")], "case,image,group,slice,lesion")
    with pytest.raises(DatasetError, match="slice 4"):
        made(root, tmp_path / "more", {**BARELY, "data.labels": {"lesion": 1}, "net.dims": 2})


def test_pictures_are_saved_as_pictures(pictures: Pictures, labelled: PseudoLabels) -> None:
    with Image.open(labelled.folder / "lesion_p00.png") as image:
        assert image.mode == "L"
