"""`medseg doctor` reports what is missing or broken, whatever a library does when it is loaded, and exits with 6."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import pytest

import medseg
from medseg.commands import doctor
from medseg.commands.requirements import Requirement, requirements
from medseg.errors import MissingPartError

PACKAGE = str(Path(medseg.__file__).parents[1])


def run_doctor(modules: Path, *options: str) -> subprocess.CompletedProcess[str]:
    paths = [str(modules), PACKAGE, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "medseg", "doctor", *options]
    return subprocess.run(command, cwd=modules, env=environment, capture_output=True, text=True, timeout=300)


def test_a_library_that_raises_exits_prints_or_crashes_is_reported_with_advice_and_exit_code_6(tmp_path: Path) -> None:
    planted = {
        "torch": "raise OSError('libcudart.so.12: cannot open shared object file')",
        "nibabel": "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
        "imagecodecs": "raise SystemExit('no licence')",
        "skimage": "import os; os._exit(0)",
        "einops": "1 / 0",
        "yaml": 'print(\'{"step": "import:scipy", "found": false}\')',
        "ray": "raise ImportError('libprotobuf.so: undefined symbol')",
        # Loaded for nothing here.
        **dict.fromkeys(("monai", "matplotlib", "highdicom", "SimpleITK", "scipy", "gdcm"), ""),
    }
    for name, code in planted.items():
        (tmp_path / f"{name}.py").write_text(code)
    done = run_doctor(tmp_path, "--json")
    assert done.returncode == 6, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("medseg: ")]
    content = json.loads(done.stdout)
    assert content["ok"] is False
    checks = {check["name"]: check for check in content["checks"]}
    expected = {
        "torch": "libcudart.so.12",
        "nibabel": "SIGILL",
        "imagecodecs": "no licence",
        "scikit-image": "exit code 0",
        "einops": "ZeroDivisionError",
        "ray [ray]": "undefined symbol",
    }
    for name, words in expected.items():
        check = checks[name]
        assert (check["state"], words in check["found"]) == ("broken", True), check
        assert "pip install" in check["advice"]
        assert (name in line) is check["required"]
    assert checks["scipy"]["state"] == checks["pyyaml"]["state"] == "ok"
    assert not checks["ray [ray]"]["required"]


def test_a_healthy_installation_ends_with_0_and_names_what_it_found(tmp_path: Path) -> None:
    done = run_doctor(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("processors", "memory", "temporary files", "kernels for", "JPEG-LS", "SimpleITK"):
        assert words in done.stdout


def test_what_is_required_and_missing_too_old_or_unwritable_is_a_problem_and_what_is_optional_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = [Requirement("no-such-package"), Requirement("no-such-part", extra="part"), Requirement("einops", "99.1")]
    monkeypatch.setattr(doctor, "requirements", lambda: needed)
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    report = doctor.examine()
    states = {check.name: check.state for check in report.checks}
    assert states["no-such-package"] == states["no-such-part [part]"] == "missing"
    assert {check.name for check in report.problems} == {"no-such-package", "einops", "temporary files"}
    with pytest.raises(MissingPartError, match=r"no-such-package \(missing\)"):
        report.raise_for_problems()
    assert 'pip install "medseg[part]"' in report.text()


@pytest.mark.parametrize("runtimes", [("onnxruntime",), ("openvino",), ()])
def test_without_torch_an_installation_is_whole_where_a_runtime_of_exported_models_is_there(
    monkeypatch: pytest.MonkeyPatch, runtimes: tuple[str, ...]
) -> None:
    real, version = doctor._probe, metadata.version
    absent = {each.module for each in requirements() if each.package.lower() in doctor.FOR_TORCH}

    def probe(steps: list[str]) -> dict[str, tuple[object, str]]:
        lacking = absent.union(("onnxruntime", "openvino")).difference(runtimes)
        found = {step: (step.removeprefix("import:") not in lacking, "") for step in steps}
        return found | real(["decoders"]) | {"torch": (None, "ModuleNotFoundError: No module named 'torch'")}

    def installed(name: str) -> str:
        if name.lower() in doctor.FOR_TORCH:
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor, "_probe", probe)
    monkeypatch.setattr(metadata, "version", installed)
    report = doctor.examine()
    assert ("exported models predict without it" in report.text()) is bool(runtimes)
    problems = {check.name.lower() for check in report.problems if check.part != "torch"}
    assert problems == (set() if runtimes else doctor.FOR_TORCH)


def test_what_an_installation_without_torch_lacks_is_what_its_list_of_requirements_leaves_out() -> None:
    lines = (Path(PACKAGE) / "requirements-deploy.txt").read_text().splitlines()
    listed = {line.strip().lower() for line in lines if line.strip() and not line.startswith("#")}
    assert {each.package.lower() for each in requirements() if not each.extra} - listed == doctor.FOR_TORCH


def test_every_requirement_is_looked_for_under_the_name_that_it_is_imported_by() -> None:
    found = requirements()
    assert {"torch", "pydicom", "ray"} <= {each.package for each in found}
    own = [each for each in found if not each.extra]
    assert [each.package for each in own if importlib.util.find_spec(each.module) is None] == []
    assert all(each.at_least and not each.is_too_old for each in own)
