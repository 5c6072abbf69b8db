"""A folder of data is enough to train from: layout, labels and name are found; codes are listed, not interpreted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medseg.config import RunConfig
from medseg.errors import ConfigError, DatasetError, MedsegError
from medseg.preparation import prepare
from medseg.preparation.folder import config_for_folder, config_of

BOX = np.zeros((16, 18, 16), np.uint8)
BOX[3:7, 5:12, 3:12] = 1
BOX[9:13, 5:12, 3:12] = 2


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(array).save(path)
    else:
        nib.save(nib.Nifti1Image(array, np.eye(4)), path)


def nifti_pairs(root: Path, labels: np.ndarray = BOX) -> Path:
    for n in range(3):
        save(root / "images" / f"c{n}.nii.gz", BOX.astype(np.float32) * 50 + n)
        save(root / "labels" / f"c{n}.nii.gz", labels)
    return root


def decathlon(root: Path) -> Path:
    for n in range(3):
        save(root / "imagesTr" / f"c{n}.nii.gz", BOX.astype(np.float32) * 50 + n)
        save(root / "labelsTr" / f"c{n}.nii.gz", BOX)
    described = {"labels": {"0": "background", "1": "front", "2": "back"}, "modality": {"0": "MRI"}}
    (root / "dataset.json").write_text(json.dumps(described))
    return root


def png_pairs(root: Path, level: int = 255) -> Path:
    mask = np.zeros((40, 44), np.uint8)
    mask[10:30, 10:30] = level
    for n in range(3):
        save(root / "images" / f"c{n}.png", mask // 2 + n)
        save(root / "masks" / f"c{n}.png", mask)
    return root


def settings(root: Path, **overrides: Any) -> RunConfig:
    return config_for_folder(root, overrides).config


def test_the_run_is_called_like_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = nifti_pairs(tmp_path / "liver")
    assert settings(root).output == Path("runs/liver")
    assert settings(root).data.root == root
    monkeypatch.chdir(root)
    assert settings(Path()).output == Path("runs/liver")
    assert config_of(".", {"output": "here"}).output == Path("here")


def test_values_that_nothing_names_are_listed_with_the_way_to_name_them(tmp_path: Path) -> None:
    found = config_for_folder(nifti_pairs(tmp_path / "liver", BOX * 3), {})
    assert found.config.data.labels == {"label_3": 3, "label_6": 6}
    (said,) = found.said
    assert "3, 6" in said and "label_3, label_6" in said
    assert "data.labels='{NAME1: 3, NAME2: 6}'" in found.to_name and "medseg init" in found.to_name


def test_names_given_are_taken_without_a_look_into_the_label_maps(tmp_path: Path) -> None:
    root = nifti_pairs(tmp_path / "liver")
    (root / "labels" / "c1.nii.gz").write_bytes(b"damaged")
    found = config_for_folder(root, {"data.labels": {"liver": 1, "tumour": 2}})
    assert found.config.data.labels == {"liver": 1, "tumour": 2}
    assert found.said == () and found.to_name == ""


def test_a_value_to_ignore_is_no_label(tmp_path: Path) -> None:
    data = settings(nifti_pairs(tmp_path / "liver"), **{"data.ignore": 2}).data
    assert (data.labels, data.ignore) == ({"label_1": 1}, 2)


@pytest.mark.parametrize("make", [decathlon, nifti_pairs])
def test_dataset_json_names_the_labels_in_every_layout(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    root = make(tmp_path / "task")
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "front": 1, "back": 2}}))
    config = settings(root, output=str(tmp_path / "run"))
    assert prepare(config, workers=1).dataset.labels.mapping == {"front": 1, "back": 2}


@pytest.mark.parametrize(("level", "threshold"), [(1, None), (2, 1), (128, 64), (255, 127)])
def test_pictures_of_two_levels_are_one_label(tmp_path: Path, level: int, threshold: float | None) -> None:
    config = settings(png_pairs(tmp_path / "lungs", level), output=str(tmp_path / "run"))
    assert config.data.labels == {"label_1": 1}
    assert config.data.label_threshold == threshold
    fingerprint = prepare(config, workers=1).fingerprint
    assert all(case.label_voxels[1] == 400 for case in fingerprint.cases)


def test_a_volume_of_one_value_keeps_it_unless_it_is_255(tmp_path: Path) -> None:
    assert settings(nifti_pairs(tmp_path / "a", (BOX == 1) * np.uint8(2))).data.labels == {"label_2": 2}
    data = settings(nifti_pairs(tmp_path / "b", (BOX == 1) * np.uint8(255))).data
    assert (data.labels, data.label_threshold) == ({"label_1": 1}, 127)


def test_masks_with_soft_edges_are_asked_about(tmp_path: Path) -> None:
    root = png_pairs(tmp_path / "lungs")
    soft = np.zeros((40, 44), np.uint8)
    soft[10:30, 10:30] = 255
    soft[9, 10:30] = 100
    save(root / "masks" / "c1.png", soft)
    with pytest.raises(DatasetError, match=r"100, 255; .* data\.label_threshold=127"):
        settings(root)
    assert settings(root, **{"data.label_threshold": 127}).data.labels == {"label_1": 1}


def test_a_csv_that_lists_cases_is_followed_as_it_knows_the_patients(tmp_path: Path) -> None:
    root = nifti_pairs(tmp_path / "liver")
    (root / "patients.csv").write_text("patient,age\np1,50\n")
    rows = [f"c{n},images/c{n}.nii.gz,labels/c{n}.nii.gz,p{n // 2}" for n in range(3)]
    (root / "cases.csv").write_text("\n".join(["case,image,label,group", *rows]))
    found = config_for_folder(root, {"output": str(tmp_path / "run")})
    assert "cases.csv" in found.said[0]
    assert [case.group for case in prepare(found.config, workers=1).dataset.cases] == ["p0", "p0", "p1"]
    (root / "again.csv").write_text((root / "cases.csv").read_text())
    with pytest.raises(DatasetError, match=r"again\.csv, cases\.csv; choose one with data\.csv=FILE"):
        settings(root)


def test_a_name_that_is_both_a_preset_and_a_folder_is_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = nifti_pairs(tmp_path / "hippocampus")
    with pytest.raises(ConfigError, match=f"{root} for the folder, or hippocampus data.root=FOLDER for the preset"):
        config_of("hippocampus")
    assert config_of("hippocampus", {"data.root": "x"}).data.labels == {"anterior": 1, "posterior": 2}
    assert config_of("./hippocampus").data.labels == {"label_1": 1, "label_2": 2}


@pytest.mark.parametrize("override", [{"data.root": "x"}, {"data": {"root": "x"}}])
def test_a_second_root_is_refused(tmp_path: Path, override: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        settings(nifti_pairs(tmp_path / "liver"), **override)


def _rename(old: str, new: str) -> Callable[[Path], object]:
    return lambda root: (root / old).rename(root / new)


def _float_map(root: Path) -> None:
    save(root / "labels" / "c1.nii.gz", BOX.astype(np.float32) * 0.4)


def _empty_maps(root: Path) -> None:
    nifti_pairs(root, BOX * 0)


def _image_as_labels(root: Path) -> None:
    nifti_pairs(root, np.arange(BOX.size, dtype=np.uint16).reshape(BOX.shape))


def _one_deeper(root: Path) -> None:
    nifti_pairs(root / "delivery")
    for name in ("images", "labels"):
        for path in (root / name).iterdir():
            path.unlink()
        (root / name).rmdir()


def _other_suffix_of_names(root: Path) -> None:
    for path in (root / "masks").iterdir():
        path.rename(path.with_name(path.stem + "_mask.png"))


def _unknown_value(root: Path) -> None:
    save(root / "labelsTr" / "c1.nii.gz", BOX * 2)


@pytest.mark.parametrize(
    ("make", "spoil", "words"),
    [
        (nifti_pairs, _rename("labels", "truth"), ["labels/ or masks/", "found images/, truth/"]),
        (nifti_pairs, _float_map, ["c1.nii.gz", "0.4", "data.label_threshold"]),
        (nifti_pairs, _empty_maps, ["nothing to learn"]),
        (nifti_pairs, _image_as_labels, ["are these images?"]),
        (nifti_pairs, _one_deeper, ["delivery", "give that folder"]),
        (decathlon, _rename("imagesTr", "imagesTR"), ["rename imagesTR/ to imagesTr/"]),
        (decathlon, _rename("labelsTr", "LabelsTr"), ["no labelsTr/", "rename LabelsTr/ to labelsTr/"]),
        (decathlon, _unknown_value, ["c1.nii.gz", "value(s) 4", "front=1, back=2", "dataset.json"]),
        (png_pairs, lambda root: (root / "masks" / "c1.png").unlink(), ["'c1'", "expected", "masks/c1.png", "add it"]),
        (png_pairs, _other_suffix_of_names, ["'c0'", "2 more case(s): c1, c2", "c0_mask.png, c1_mask.png"]),
    ],
)
def test_a_fault_of_a_folder_is_one_line_with_its_mend(
    tmp_path: Path, make: Callable[[Path], Path], spoil: Callable[[Path], object], words: list[str]
) -> None:
    root = make(tmp_path / "data")
    spoil(root)
    with pytest.raises(MedsegError) as caught:
        prepare(settings(root, output=str(tmp_path / "run")), workers=1)
    assert caught.value.exit_code == 3
    message = str(caught.value)
    assert "\n" not in message
    for each in words:
        assert each in message
    assert not (tmp_path / "run").exists()


def test_the_raw_layout_without_names_lists_the_values_too(tmp_path: Path) -> None:
    root = decathlon(tmp_path / "task")
    (root / "dataset.json").unlink()
    assert settings(root).data.labels == {"label_1": 1, "label_2": 2}


def test_a_file_that_says_which_value_it_paints_is_not_read_by_a_threshold(tmp_path: Path) -> None:
    root = png_pairs(tmp_path / "lungs")
    rows = [f"c{n},images/c{n}.png,masks/c{n}.png:7" for n in range(3)]
    (root / "cases.csv").write_text("\n".join(["case,image,label", *rows]))
    data = settings(root).data
    assert (data.labels, data.label_threshold) == ({"label_7": 7}, None)


def test_a_folder_that_is_not_there_is_told_with_what_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere does not exist; give a YAML file, a folder of data, or a preset"):
        config_of(tmp_path / "nowhere")
