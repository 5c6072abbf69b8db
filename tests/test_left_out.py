"""A test run in a clone without the real data reports what it could not check."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import medseg

HERE = Path(__file__).parent
TESTS = """
import pytest

@pytest.fixture(scope="session")
def made_data(tmp_path_factory):
    return tmp_path_factory.mktemp("made")

def test_one(real_data): ...
def test_two(real_data): ...
def test_three(): ...
def test_four(data_folder): ...
def test_five(one_data_folder): ...
"""


def run_of_a_clone(folder: Path) -> list[str]:
    """The lines that pytest writes for `TESTS` in `folder/clone`."""
    tests = folder / "clone" / "tests"
    tests.mkdir(parents=True)
    shutil.copy(HERE / "conftest.py", tests)
    (tests / "test_some.py").write_text(TESTS)
    project = Path(medseg.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(project), str(HERE / "helpers")])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tests), str(tests)]
    done = subprocess.run(command, env=environment, cwd=tests, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_a_run_without_the_real_data_says_how_many_tests_were_left_out_and_why(tmp_path: Path) -> None:
    lines = run_of_a_clone(tmp_path)
    assert lines[-1].startswith("3 passed, 2 skipped")
    assert "2 tests were left out because ../shared/data is absent" in lines
    assert "2 tests ran on made-up inputs only because ../shared/data is absent" in lines


def test_a_run_with_the_real_data_leaves_nothing_out(tmp_path: Path) -> None:
    (tmp_path / "shared" / "data").mkdir(parents=True)
    lines = run_of_a_clone(tmp_path)
    # Rules that hold on both are tested on both; what is too slow for that, on the real inputs.
    assert lines[-1].startswith("6 passed")
    assert not any("left out" in line or "made-up" in line for line in lines)
