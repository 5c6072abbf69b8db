"""The patient leaves no trace: not in what `--anonymize` writes, at no moment, and not in what a killed run leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pydicom
import pytest

from medseg.phantoms import samples_folder
from medseg.studies import PredictOptions, predict_studies

# The code under test, and the network in the bundle.
CODE = os.pathsep.join(map(str, (Path(__file__).parents[2], Path(__file__).parents[1] / "helpers")))

NAME, NUMBER = "Roe^Richard", "MRN-0815"

# Every file that a program writes ends by being renamed or removed, or it is still there in the end: so whoever looks
# at each just before it goes, and at the rest, has seen all. Leaves a line on stdout for each that names the patient.
WATCHED = """
import os, runpy, sys

def look(place, folder):
    try:
        descriptor = os.open(place, os.O_RDONLY, dir_fd=None if folder in (None, -1) else folder)
    except OSError:
        return
    with open(descriptor, "rb") as file:
        content = file.read() if not os.path.isdir(descriptor) else b""
    if b"Roe" in content or b"MRN-0815" in content:
        print("NAMED", place, flush=True)

def hook(event, arguments):
    if event == "os.remove":
        look(arguments[0], arguments[1])
    elif event == "os.rename":
        look(arguments[0], arguments[2])

sys.addaudithook(hook)
sys.argv = ["medseg", *sys.argv[1:]]
runpy.run_module("medseg", run_name="__main__")
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "in" / "case1"
    folder.mkdir(parents=True)
    for n, path in enumerate(sorted((samples_folder() / "study").iterdir())):
        data = pydicom.dcmread(path)
        data.PatientName, data.PatientID = NAME, NUMBER
        data.save_as(folder / f"{n}.dcm")
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home and a temporary folder of our own."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    return {
        **os.environ,
        "TMPDIR": str(temporary),
        "XDG_CONFIG_HOME": str(tmp_path / "home"),
        "PYTHONPATH": CODE,
        "OMP_NUM_THREADS": "1",
    }


def naming_the_patient(*folders: Path) -> list[Path]:
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [path for path in files if any(text in path.read_bytes() for text in (b"Roe", NUMBER.encode()))]


@pytest.mark.parametrize("kind", ["dicom-seg", pytest.param("rtstruct", marks=pytest.mark.slow)])
def test_an_anonymised_object_names_the_patient_at_no_moment(threshold_bundle, study, environment, tmp_path, kind):
    out = tmp_path / "out"
    arguments = ["predict", str(threshold_bundle(value=4)), str(study), "-o", str(out), "--format", kind]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments, "--anonymize"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert (out / "case1.dcm").exists()
    assert "NAMED" not in done.stdout
    assert naming_the_patient(out, Path(environment["TMPDIR"])) == []
    assert list(Path(environment["TMPDIR"]).iterdir()) == []


def test_what_a_killed_run_had_unpacked_is_gone_after_the_next_run(
    threshold_bundle, study, environment, tmp_path, monkeypatch
):
    temporary, archive = Path(environment["TMPDIR"]), tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in study.iterdir():
            packed.write(path, f"case1/{path.name}")
        packed.writestr("case1/report.txt", bytes(100_000_000))  # takes a while to unpack
    model, out = str(threshold_bundle(value=4)), str(tmp_path / "out")
    command = [sys.executable, "-m", "medseg", "predict", model, str(archive), "-o", out, "--format", "dicom-seg"]
    foreign = temporary / "medseg-of-somebody-else"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("kept")
    with subprocess.Popen([*command, "--anonymize"], env=environment, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not any(NUMBER.encode() in f.read_bytes() for f in temporary.rglob("*.dcm")):
            time.sleep(0.002)
        process.kill()
    assert naming_the_patient(temporary) != [], "the run was over before it was killed"
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("XDG_CONFIG_HOME", environment["XDG_CONFIG_HOME"])
    options = PredictOptions(format="dicom-seg", anonymize=True)
    predict_studies(model, [study], tmp_path / "elsewhere", options).raise_for_failures()
    assert list(temporary.iterdir()) == [foreign]
    assert (foreign / "notes.txt").read_text() == "kept"
    assert naming_the_patient(tmp_path / "out", tmp_path / "elsewhere") == []
