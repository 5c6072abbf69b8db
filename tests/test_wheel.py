"""The built wheel, installed alone into an empty folder: everything the commands need came with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


def run(*command: str, cwd: Path, path: Path | None = None, timeout: float = 120) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)  # comes before the source tree that the tests are run from
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(PROJECT), cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the wheel's content and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(*pip, "--no-deps", "--no-index", "--target", str(target), str(wheel), cwd=target)
    return target


def test_the_wheel_holds_presets_samples_template_and_type_marker(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"medseg/py.typed", "medseg/reports/template.html", "medseg/_packaged/configs/demo.yaml"} <= names
    assert "medseg/_packaged/data_samples/study_reference/study.nii.gz" in names
    assert sum(n.startswith("medseg/_packaged/data_samples/study/") for n in names) > 30
    model = {n.rpartition("/")[2] for n in names if n.startswith("medseg/commands/demo_model/")}
    assert model == {"model.json", "weights_fold0.safetensors", "README.md"}
    assert any(n.endswith("licenses/LICENSE") for n in names)
    outside = {n.split("/")[0] for n in names}
    assert {p for p in outside if not p.endswith(".dist-info")} == {"medseg"}
    assert wheel.stat().st_size < 4_000_000


def test_every_module_came_along(wheel: Path) -> None:
    ours = {p.relative_to(PROJECT).as_posix() for p in (PROJECT / "medseg").rglob("*.py") if "_packaged" not in p.parts}
    assert ours <= set(zipfile.ZipFile(wheel).namelist())


def test_help_presets_and_samples_work_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    assert "predict" in run(sys.executable, "-m", "medseg", "--help", cwd=tmp_path, path=installed)
    code = (
        "import json, medseg\nfrom medseg.config import load_config, packaged_configs\n"
        "from medseg.phantoms import samples_folder\n"
        "for name in packaged_configs(): load_config(name, {'data.root': '.'})\n"
        "print(json.dumps([medseg.__file__, str(samples_folder()), medseg.read(samples_folder() / 'study').shape]))"
    )
    file, samples, shape = json.loads(run(sys.executable, "-c", code, cwd=tmp_path, path=installed))
    assert Path(file).is_relative_to(installed) and Path(samples).is_relative_to(installed)
    assert len(shape) == 3
    assert list(tmp_path.iterdir()) == []


def test_the_quick_demo_runs_from_the_wheel_also_where_the_samples_did_not_come_along(
    installed: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "installed"
    shutil.copytree(installed, copy, ignore=shutil.ignore_patterns("data_samples"))
    command = (sys.executable, "-m", "medseg", "demo", "--quick", "--out", "quick")
    said = run(*command, cwd=tmp_path, path=copy, timeout=300)
    assert (tmp_path / "quick" / "samples" / "study").is_dir()
    assert "medseg train FOLDER" in said and "medseg predict" in said
    dice = dice_per_label(tmp_path / "quick" / "report" / "cases.csv")
    assert dice["lung"] >= 0.95 and dice["tumour"] >= 0.85


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel_and_keeps_its_promise(installed: Path, tmp_path: Path) -> None:
    said = run(sys.executable, "-m", "medseg", "demo", "--out", "demo", cwd=tmp_path, path=installed, timeout=900)
    assert "report.html" in said
    dice = dice_per_label(tmp_path / "demo" / "report" / "cases.csv")
    assert dice["lung"] >= 0.95 and dice["tumour"] >= 0.7


def dice_per_label(path: Path) -> dict[str, float]:
    """The scores of the one study in a long table of case, label, metric and value."""
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    column = {name: n for n, name in enumerate(rows[0])}
    return {row[column["label"]]: float(row[column["value"]]) for row in rows[1:] if row[column["metric"]] == "dice"}
