"""`kill -9` anywhere, then run again: the masks and measurements of an undisturbed run, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import medseg
from medseg.disk.locks import FOLDER
from medseg.studies import predict_studies
from medseg.volume import Volume

STUDIES = 12


def _studies(folder: Path, count: int = STUDIES) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(count):
        shape = tuple(rng.integers(10, 20, size=3))
        image = rng.normal(size=shape).astype(np.float32)
        medseg.write(Volume(image, np.diag([-1.0, 1.0, 2.0, 1.0])), folder / f"study{n:02d}.nii.gz")
    return folder


def _command(model: Path, studies: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "medseg", "predict", str(model), str(studies), "-o", str(out)]


def _files(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def _rows(out: Path) -> list[dict]:
    rows = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    return sorted(({**row, "seconds": 0, "run_started": ""} for row in rows), key=lambda row: row["case"])


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, 10])
def test_killed_runs_end_as_an_undisturbed_one(unet_bundle, tmp_path, kills):
    studies = _studies(tmp_path / "in")
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    with subprocess.Popen(_command(unet_bundle, studies, undisturbed), stderr=subprocess.DEVNULL) as process:
        while not (undisturbed / FOLDER).exists() and process.poll() is None:
            time.sleep(0.01)
        started = time.monotonic()
    assert process.returncode == 0
    seconds = time.monotonic() - started
    rng = np.random.default_rng(kills)
    for _ in range(kills):
        with subprocess.Popen(_command(unet_bundle, studies, out), stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and not any((out / FOLDER).glob("run-*.lock")):
                time.sleep(0.01)
            time.sleep(rng.uniform(0, seconds / 2))
            process.kill()
    last = subprocess.run(_command(unet_bundle, studies, out), capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    _check_same(out, undisturbed, STUDIES)


def test_a_run_killed_in_the_middle_ends_as_an_undisturbed_one(unet_bundle, tmp_path):
    studies = _studies(tmp_path / "in", 3)
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as the fixture says for this process
    command = _command(unet_bundle, studies, out)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
        while process.poll() is None and not any(out.glob("*.nii.gz")):
            time.sleep(0.001)
        process.kill()
    assert 1 <= len(list(out.glob("*.nii.gz"))) < 3, "the run was over before it was killed"
    for folder in (out, undisturbed):
        predict_studies(unet_bundle, [studies], folder).raise_for_failures()
    _check_same(out, undisturbed, 3)


def _check_same(out: Path, undisturbed: Path, studies: int) -> None:
    names = _files(undisturbed)
    assert _files(out) == names and sum(name.endswith(".nii.gz") for name in names) == studies
    for name in names:
        if name != "ledger.jsonl":
            assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert _rows(out) == _rows(undisturbed)
