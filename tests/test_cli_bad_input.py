"""Whatever is given in place of an input: one line, the right exit code, no waiting, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

import medseg
from medseg.cli import app
from medseg.commands.convert import ConvertOptions, convert
from medseg.commands.inspect import inspect
from medseg.config import load_config, parse_overrides
from medseg.datasets.cases import find_cases
from medseg.errors import ConfigError, DatasetError, MedsegError, ReadError, WriteError
from medseg.evaluation import compare, evaluate
from medseg.evaluation.case_list import read_case_list
from medseg.io import read, read_all
from medseg.io.dicom.deidentify.files import deidentify_files
from medseg.io.dicom.objects import read_object
from medseg.io.label_names import read_label_names
from medseg.studies.sources import find_studies


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()


def _empty(path: Path) -> None:
    path.touch()


def _broken(path: Path) -> None:
    path.symlink_to("nowhere")


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(3000))


def _missing(path: Path) -> None:
    pass


THINGS: dict[str, Callable[[Path], None]] = {
    f.__name__.strip("_"): f for f in (_pipe, _folder, _empty, _broken, _loop, _noise, _missing)
}
SUFFIXES = [".nii.gz", ".nrrd", ".mha", ".png", ".tif", ".dcm", ".zip", ".json", ".xml", ""]


def _medseg(*arguments: str) -> tuple[int, list[str]]:
    """Exit code and what came on standard error, progress aside."""
    command = [sys.executable, "-m", "medseg", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    lines = done.stderr.decode().splitlines()
    return done.returncode, [line for line in lines if not line.startswith(f"{arguments[0]}: ")]


def one_line(call: Callable[[], object], *codes: int) -> str:
    with pytest.raises(MedsegError) as caught:
        call()
    assert caught.value.exit_code in codes
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("thing", THINGS)
def test_a_source_that_is_none_is_refused_by_name_everywhere(tmp_path: Path, thing: str, suffix: str) -> None:
    source = tmp_path / f"a{suffix}"
    THINGS[thing](source)
    for call in (
        lambda: read(source),
        lambda: read_all(source),
        lambda: inspect(source).raise_for_refusals(),
        lambda: convert(source, tmp_path / "out"),
        lambda: deidentify_files([source], tmp_path / "out", "a key of the site"),
    ):
        assert f"a{suffix}" in one_line(call, 3)
    # A study that is found but damaged is one case, with the reason.
    try:
        found = find_studies(source)
    except ReadError as error:
        assert f"a{suffix}" in str(error)
    else:
        assert all(each.paths for each in found)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["/dev/null", "/dev/zero", "x" * 300, "a\0b"])
def test_devices_and_names_that_no_disk_holds_are_refused(tmp_path: Path, source: str) -> None:
    for call in (
        lambda: read(source),
        lambda: inspect(source),
        lambda: find_studies(source),
        lambda: convert(source, tmp_path / "out"),
        lambda: read_object(tmp_path / "r.dcm", Path(source)),
        lambda: evaluate(source, tmp_path, out=tmp_path / "out"),
        lambda: evaluate(tmp_path, source, out=tmp_path / "out"),
        lambda: compare([source, tmp_path], tmp_path / "out"),
    ):
        one_line(call, 3)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("thing", [*THINGS, "device", "deep", "nul", "latin", "huge", "date", "digits"])
def test_a_text_that_is_none_is_refused_by_name(tmp_path: Path, thing: str) -> None:
    path = tmp_path / "a.yaml"
    texts = {
        "deep": b"[" * 20000,
        "nul": b"data: \0",
        "latin": b"data: {root: caf\xe9}",
        "huge": b"- 1\n" * (5 << 20),
        "date": b"data: {root: 2026-13-45}",
        "digits": b"seed: " + b"1" * 5000,
    }
    if thing == "device":
        path.symlink_to("/dev/zero")
    elif thing in texts:
        path.write_bytes(texts[thing])
    else:
        THINGS[thing](path)
    assert "a.yaml" in one_line(lambda: load_config(path), 2)
    assert "a.yaml" in one_line(lambda: read_label_names(path), 2)
    if thing not in ("deep", "date", "digits"):
        assert "a.yaml" in one_line(lambda: read_case_list(path), 3)


@pytest.mark.parametrize("value", ["[" * 20000, "2026-13-45", "1" * 5000, "{a: [}"])
def test_an_override_that_is_no_yaml_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse_overrides([f"seed={value}"])


def test_labels_are_read_from_long_json_at_once_and_a_region_of_a_million_values_is_none(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": {"lung": 1}, "training": [f"case{n}" for n in range(200_000)]}))
    assert read_label_names(path).names == ("lung",)
    path.write_text(json.dumps({"labels": {"lung": list(range(1, 1_000_000))}}))
    with pytest.raises(ConfigError, match=r"dataset\.json"):
        read_label_names(path)


@pytest.mark.parametrize("thing", ["pipe", "folder", "empty", "broken", "noise", "nul", "wide"])
def test_a_csv_that_is_none_is_refused(tmp_path: Path, thing: str) -> None:
    path = tmp_path / "cases.csv"
    texts = {"nul": b"case,image,label\nc0,\0,x\0y\n", "wide": b'case,image,label\n"' + b"a" * 300_000 + b'",x,y\n'}
    if thing in texts:
        path.write_bytes(texts[thing])
    else:
        THINGS[thing](path)
    values = {"data.root": str(tmp_path), "data.csv": str(path), "data.layout": "csv", "data.labels": {"a": 1}}
    config = tmp_path / "c.yaml"
    config.write_text("{}")
    data = load_config(config, values).data
    assert "cases.csv" in one_line(lambda: find_cases(data), 3)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    mask = np.zeros((6, 7, 8), np.uint8)
    mask[2:4, 2:5, 2:6] = 1
    (folder / "masks").mkdir()
    for name in ("a", "b"):
        nib.save(nib.Nifti1Image(mask, np.eye(4)), folder / "masks" / f"{name}.nii.gz")
    evaluate(folder / "masks", folder / "masks", labels={"lung": 1}, out=folder / "report")
    return folder


@pytest.mark.parametrize("file", ["summary.json", "cases.csv"])
@pytest.mark.parametrize("content", [b"", b"null", b"[" * 100_000, b"[]", b"\xff\xfe", b"case\na", b"a" * 200_000])
def test_a_spoilt_evaluation_is_not_compared(tmp_path: Path, evaluated: Path, file: str, content: bytes) -> None:
    shutil.copytree(evaluated / "report", tmp_path / "spoilt")
    (tmp_path / "spoilt" / file).write_bytes(content)
    with pytest.raises(DatasetError, match="spoilt"):
        compare([evaluated / "report", tmp_path / "spoilt"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_with_line_ends_and_bytes_that_are_no_text_are_read_and_told_in_one_line(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4))
    nib.save(image, tmp_path / "a.nii.gz")
    for name in (b"new\nline.nii.gz", b"caf\xe9.nii.gz"):
        path = tmp_path / os.fsdecode(name)
        shutil.copy(tmp_path / "a.nii.gz", path)
        assert read(path).shape == (3, 4, 5)
        (tmp_path / "out").mkdir()
        assert convert(path, tmp_path / "out", ConvertOptions("nifti")).written
        shutil.rmtree(tmp_path / "out")
        path.write_bytes(b"x")
        with pytest.raises(ReadError):
            inspect(path).raise_for_refusals()
        # The command line makes one line of whatever a name holds.
        code, lines = _medseg("inspect", str(path))
        assert (code, len(lines)) == (3, 1)
        assert lines[0].startswith("medseg: ")


def test_a_folder_that_holds_the_source_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4)), folder / "a.nii.gz")
    for target in (folder, tmp_path):
        with pytest.raises(WriteError, match="it holds"):
            convert(folder / "a.nii.gz", target, ConvertOptions("dicom", overwrite=True))
    assert [p.name for p in folder.iterdir()] == ["a.nii.gz"]


def _nothing_but_damage(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.dcm").write_bytes(b"damaged")
    (folder / "b.nii.gz").write_bytes(b"damaged, too")
    return folder


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_inspecting_nothing_but_damage_tells_it_and_ends_with_3(tmp_path: Path, form: list[str]) -> None:
    folder = _nothing_but_damage(tmp_path / "bad")
    result = CliRunner().invoke(app, ["inspect", str(folder), *form])
    assert isinstance(result.exception, ReadError)
    assert result.exception.exit_code == 3
    assert "2 volumes are refused" in str(result.exception)
    assert "\n" not in str(result.exception)
    if form:
        assert [v["readable"] for v in json.loads(result.stdout)["volumes"]] == [False, False]
    else:
        assert "a.dcm" in result.stdout
        assert "b.nii.gz" in result.stdout
    # One that can be read makes it a success.
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4)), folder / "c.nii.gz")
    assert CliRunner().invoke(app, ["inspect", str(folder), *form]).exit_code == 0


def test_siblings_of_inspect_end_with_3_too(tmp_path: Path) -> None:
    folder = _nothing_but_damage(tmp_path / "bad")
    for call in (lambda: read(folder), lambda: read_all(folder), lambda: convert(folder, tmp_path / "out")):
        assert "bad" in one_line(call, 3)
    assert all(each.error for each in find_studies(folder) if each.paths[0].suffix == ".dcm")
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "b.nii.gz").write_bytes(b"damaged")
    assert "b.nii.gz" in one_line(lambda: evaluate(masks, masks, labels={"a": 1}, out=tmp_path / "out"), 3)
    assert not (tmp_path / "out").exists()


def test_the_version_is_told_on_one_line() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"medseg {medseg.__version__}\n")
    assert "--version" in CliRunner().invoke(app, ["--help"]).stdout
    # Without it a command is needed still.
    assert CliRunner().invoke(app, []).exit_code == 2
    assert CliRunner().invoke(app, ["no-such-command"]).exit_code == 2
