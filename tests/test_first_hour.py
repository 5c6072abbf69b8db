"""The first hour at the command line: from a folder of data to a model, without a file of settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from medseg.cli import app
from medseg.config import load_config
from medseg.errors import ConfigError, WriteError
from medseg.preparation.folder import config_for_folder

SMALL = ("plan.patch_size=[16, 16, 16]", "net.channels=[4, 8]", "training.batch_size=2", "training.max_iterations=2")


def medseg(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "medseg", *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with a data set `boxes` in it: four 16x18x16 volumes with two boxes."""
    box = np.zeros((16, 18, 16), np.uint8)
    box[4:8, 5:12, 3:12] = 1
    box[10:13, 5:12, 3:12] = 2
    for name in ("images", "labels"):
        (tmp_path / "boxes" / name).mkdir(parents=True)
    for n in range(4):
        image = nib.Nifti1Image((box * 100).astype(np.float32) + n, np.eye(4))
        nib.save(image, tmp_path / "boxes" / "images" / f"c{n}.nii.gz")
        nib.save(nib.Nifti1Image(box, np.eye(4)), tmp_path / "boxes" / "labels" / f"c{n}.nii.gz")
    return tmp_path


def test_a_folder_becomes_a_model_that_predicts(desk: Path) -> None:
    done = medseg(desk, "train", "boxes", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "label_1, label_2" in done.stderr and "data.labels=" in done.stderr
    assert "model: runs/boxes/model" in done.stdout
    done = medseg(desk, "predict", "runs/boxes/model", "boxes/images", "-o", "masks")
    assert done.returncode == 0, done.stderr
    assert len(list((desk / "masks").glob("c*.nii.gz"))) == 4


def test_a_folder_can_be_prepared(desk: Path) -> None:
    done = medseg(desk, "prepare", "boxes/", "data.labels={front: 1, back: 2}")
    assert done.returncode == 0, done.stderr
    assert "front: in 4 cases" in done.stdout
    assert (desk / "runs" / "boxes" / "plan.yaml").is_file()


def test_a_fault_of_the_folder_ends_with_3_and_one_line(desk: Path) -> None:
    (desk / "boxes" / "images").rename(desk / "boxes" / "pictures")
    done = medseg(desk, "train", "boxes", *SMALL)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "found labels/, pictures/" in line
    assert not (desk / "runs").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--minutes", "3", "--hours", "1"), ("--minutes", "--hours")),
        (("--minutes", "3", "training.max_minutes=3"), ("--minutes", "training.max_minutes")),
        (("--hours", "1", "training.max_minutes=3"), ("--hours", "training.max_minutes")),
    ],
)
def test_a_time_to_train_that_is_given_twice_is_refused(
    desk: Path, options: tuple[str, ...], words: tuple[str, str]
) -> None:
    result = CliRunner().invoke(app, ["train", str(desk / "boxes"), *options])
    assert isinstance(result.exception, ConfigError)
    assert f"given twice, by {' and '.join(words)}" in str(result.exception)


@pytest.mark.parametrize("options", [("--minutes", "0"), ("--minutes", "-1"), ("--hours", "nan")])
def test_a_time_that_is_none_is_refused(desk: Path, options: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["train", str(desk / "boxes"), *options])
    assert isinstance(result.exception, ConfigError)
    assert "training.max_minutes" in str(result.exception)


@pytest.mark.parametrize(("option", "minutes"), [(("--minutes", "90"), 90.0), (("--hours", "1.5"), 90.0)])
def test_minutes_and_hours_set_the_same_key(desk: Path, option: tuple[str, str], minutes: float) -> None:
    out = desk / "out"
    settings = [*SMALL, "data.labels={front: 1, back: 2}", f"output={out}"]
    result = CliRunner().invoke(app, ["train", str(desk / "boxes"), *option, *settings])
    assert result.exit_code == 0, result.output
    assert yaml.safe_load((out / "config.yaml").read_text())["training"]["max_minutes"] == minutes


def test_presets_are_listed_a_line_each() -> None:
    result = CliRunner().invoke(app, ["presets"])
    assert result.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert "hippocampus" in lines["hippocampus"]
    assert {"lung", "vessel2d", "tumor3d", "demo"} <= lines.keys()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--data.root=/x"],
            "no option --data.root; it is a setting, which is written without dashes: data.root=VALUE",
        ),
        (["--max_minutes", "3"], "training.max_minutes=VALUE"),
        (["--lr=0.1"], "training.learning_rate=VALUE"),
        (["--learning-rat=0.1"], "training.learning_rate=VALUE"),
        (["--resum"], "no option --resum; did you mean --resume?"),
        (["--minute=3"], "did you mean --minutes?"),
        (["--qqq"], "see medseg train --help"),
    ],
)
def test_an_option_that_there_is_not_ends_with_what_was_meant(desk: Path, arguments: list[str], words: str) -> None:
    for line in ([str(desk / "boxes"), *arguments], [*arguments, str(desk / "boxes")]):
        result = CliRunner().invoke(app, ["train", *line])
        assert isinstance(result.exception, ConfigError)
        assert words in str(result.exception)


def test_a_setting_in_place_of_the_data_is_named_as_one() -> None:
    result = CliRunner().invoke(app, ["train", "data.root=/x"])
    assert isinstance(result.exception, ConfigError)
    assert "'data.root=/x' is a setting; first give" in str(result.exception)


def test_init_writes_a_configuration_that_trains_like_the_folder(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    result = CliRunner().invoke(
        app, ["init", "boxes", "data.split.every=2", "data.split.start=1", "net.channels=[4, 8]"]
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].endswith("medseg train boxes.yaml")
    text = Path("boxes.yaml").read_text()
    assert "label_1: 1    # in 4 of 4 cases" in text and "label_2: 2    # in 4 of 4 cases" in text
    assert "# 2 cases train, 2 validate: by this split." in text
    overrides = {"data.split.every": 2, "data.split.start": 1, "net.channels": [4, 8], "training.max_minutes": 60}
    assert load_config("boxes.yaml") == config_for_folder(desk / "boxes", overrides).config


def test_init_replaces_nothing_unless_asked(desk: Path) -> None:
    path = desk / "mine.yaml"
    path.write_text("kept")
    arguments = ["init", str(desk / "boxes"), "-o", str(path)]
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, WriteError) and "--overwrite" in str(refused.exception)
    assert path.read_text() == "kept"
    assert CliRunner().invoke(app, [*arguments, "--overwrite"]).exit_code == 0
    assert load_config(path).output == Path("runs/mine")


def test_init_lists_a_value_that_the_data_set_does_not_name(desk: Path) -> None:
    (desk / "boxes" / "dataset.json").write_text('{"labels": {"background": 0, "front box": 1}}')
    path = desk / "boxes.yaml"
    result = CliRunner().invoke(app, ["init", str(desk / "boxes"), "-o", str(path)])
    assert result.exit_code == 0, result.output
    text = path.read_text()
    assert "front box: 1    # in 4 of 4 cases" in text
    assert "# NAME: 2    # in 4 of 4 cases, not named" in text
    assert load_config(path).data.labels == {"front box": 1}


@pytest.mark.parametrize("name", ["on", "1", "a: b #", "left 'lung'", "tumour\u00e9"])
def test_every_name_of_a_label_survives_the_file(desk: Path, name: str) -> None:
    path = desk / "boxes.yaml"
    labels = yaml.safe_dump({name: [1, 2], "other": 2}, default_flow_style=True)
    result = CliRunner().invoke(app, ["init", str(desk / "boxes"), f"data.labels={labels}", "-o", str(path)])
    assert result.exit_code == 0, result.output
    assert load_config(path).data.labels == {name: (1, 2), "other": (2,)}


def test_init_says_how_many_patients_and_what_splits_them(desk: Path) -> None:
    rows = [f"c{n},images/c{n}.nii.gz,labels/c{n}.nii.gz,p{n // 2}" for n in range(4)]
    (desk / "boxes" / "cases.csv").write_text("\n".join(["case,image,label,group", *rows]))
    path = desk / "boxes.yaml"
    assert CliRunner().invoke(app, ["init", str(desk / "boxes"), "-o", str(path)]).exit_code == 0
    text = path.read_text()
    assert text.startswith("# 4 cases of 2 patients")
    assert "# 2 cases train, 2 validate: fold 0 of 5, drawn with the seed" in text
    assert load_config(path).data.csv == desk / "boxes" / "cases.csv"
