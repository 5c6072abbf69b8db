"""A mistake of ours in one case: told as such, traceback kept, the other cases done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import medseg
from medseg.cli import main
from medseg.errors import InternalError, PartialFailure
from medseg.io.voxel_files import nifti
from medseg.studies import chain, outputs, predict_studies
from medseg.studies.failures import LOGS
from medseg.volume import Volume

PLACES = {
    "a reader": (nifti, "parse_nifti"),
    "a check of the hash": (chain, "input_hash"),
    "the network": (chain.Model, "predict"),
    "the check of the mask": (chain, "examine_case"),
    "measurements": (chain, "measure"),
    "the preview": (chain, "preview_png"),
    "a writer": (outputs, "write"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for n, name in enumerate(("ann", "ben", "cid")):
        array = np.random.default_rng(n).normal(size=(6 + n, 7, 5)).astype(np.float32)
        medseg.write(Volume(array, np.diag([-1.0, 1.0, 2.0, 1.0])), tmp_path / "in" / f"{name}.nii.gz")
    return tmp_path / "in"


def plant(monkeypatch: pytest.MonkeyPatch, place: str, which: Callable[[Any], bool]) -> None:
    """Let a function raise TypeError where `which` says so of its arguments."""
    where, name = PLACES[place]
    real = getattr(where, name)

    def planted(*arguments: Any, **options: Any) -> Any:
        if which(arguments):
            raise TypeError("planted")
        return real(*arguments, **options)

    monkeypatch.setattr(where, name, planted)


def is_ben(arguments: tuple[Any, ...]) -> bool:
    """Whether a call is about the case 'ben', which alone has seven voxels along its first axis."""
    shapes = [getattr(each, "shape", ()) for each in arguments]
    return "ben" in repr(arguments) or any(shape[:1] == (7,) for shape in shapes)


@pytest.mark.parametrize("place", PLACES)
def test_a_mistake_of_ours_anywhere_is_told_as_such_and_the_other_cases_go_on(
    unet_bundle, folder, tmp_path, monkeypatch, place
):
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        plant(patched, place, is_ben)
        result = predict_studies(unet_bundle, [folder], out)
    assert {row.case: row.state == "failed" for row in result.rows} == {"ann": False, "ben": True, "cid": False}
    assert result.exit_code == 4
    with pytest.raises(PartialFailure, match=r"internal error.*TypeError: planted.*please report"):
        result.raise_for_failures()
    (failed,) = result.failed
    assert failed.error.startswith("internal error") and "ben.nii.gz: TypeError" not in failed.error
    assert not failed.measurements and not (out / "ben.nii.gz").exists() and not (out / "previews" / "ben.png").exists()
    assert "planted" in (out / LOGS / "ben.txt").read_text() and [p.name for p in (out / LOGS).iterdir()] == ["ben.txt"]
    assert failed.error.endswith("with the traceback in logs/ben.txt")
    predict_studies(unet_bundle, [folder], out).raise_for_failures()
    assert (out / "ben.nii.gz").exists() and not (out / LOGS / "ben.txt").exists()


def test_where_nothing_was_done_the_exit_code_is_that_of_an_internal_error(
    unet_bundle, folder, tmp_path, monkeypatch, capsys
):
    plant(monkeypatch, "measurements", lambda arguments: True)
    with pytest.raises(InternalError, match="internal error"):
        predict_studies(unet_bundle, [folder], tmp_path / "out").raise_for_failures()
    monkeypatch.setattr(
        sys, "argv", ["medseg", "predict", str(unet_bundle), str(folder), "-o", str(tmp_path / "b"), "--debug"]
    )
    with pytest.raises(InternalError):
        main()
    assert "Traceback" in capsys.readouterr().err or "planted" in (tmp_path / "b" / LOGS / "ann.txt").read_text()


def test_a_damaged_file_beside_a_mistake_of_ours_does_not_hide_it(unet_bundle, folder, tmp_path, monkeypatch):
    (folder / "ann.nii.gz").write_bytes(b"x")
    (folder / "cid.nii.gz").unlink()
    plant(monkeypatch, "measurements", is_ben)
    result = predict_studies(unet_bundle, [folder], tmp_path / "out")
    errors = {row.case: row.error for row in result.rows}
    assert "ann.nii.gz" in errors["ann"] and errors["ben"].startswith("internal error") and result.exit_code == 1


RAY_WORKER = """
import sys
from medseg.studies import PredictOptions, predict_studies
result = predict_studies(sys.argv[1], [sys.argv[2]], sys.argv[3], PredictOptions(engine="ray", settle=0))
sys.exit(result.exit_code)
"""
# Python runs it in every process; in Ray's own ones, loading medseg would take longer than Ray waits for them.
PLANTED_ON_WORKERS = """
import sys
if any(part.endswith("default_worker.py") for part in sys.orig_argv):
    import medseg.studies.chain as chain
    real = chain.measure
    def planted(mask, *others):
        if mask.shape[0] == 7:
            raise TypeError("planted")
        return real(mask, *others)
    chain.measure = planted
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (pip install '.[ray]')")
def test_a_mistake_of_ours_on_a_ray_worker_is_told_as_such(unet_bundle, folder, tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "sitecustomize.py").write_text(PLANTED_ON_WORKERS)
    paths = (tmp_path / "code", Path(medseg.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, paths)))
    out = tmp_path / "out"
    command = [sys.executable, "-c", RAY_WORKER, str(unet_bundle), str(folder), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 4, done.stderr
    rows = {row["case"]: row for row in map(json.loads, (out / "ledger.jsonl").read_text().splitlines())}
    assert rows["ben"]["error"].startswith("internal error") and rows["ann"]["state"] != "failed"
    assert "planted" in (out / LOGS / "ben.txt").read_text()
