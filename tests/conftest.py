"""Fixtures that more than one part of the suite uses, and what is said at the end of a run."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from series_fixtures import small_series, write_series  # noqa: F401

os.environ.setdefault("MPLBACKEND", "Agg")

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A run that left tests out for want of data does not look like one that ran them all."""
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    missing = Counter(
        found[1] for reason in reasons if (found := re.search(r"expected beside the project in ([\w./]+)\)", reason))
    )
    for place, count in sorted(missing.items()):
        tests = "test was" if count == 1 else "tests were"
        terminalreporter.write_line(f"{count} {tests} left out because ../{place} is absent")
    made = sum("made" in re.split(r"[\[\]-]", report.nodeid) for report in terminalreporter.stats.get("passed", []))
    if made and not REAL_DATA.is_dir():
        tests = "test" if made == 1 else "tests"
        terminalreporter.write_line(f"{made} {tests} ran on made-up inputs only because ../shared/data is absent")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real studies; tests that need it are skipped, saying so, where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("real data is not on this machine (expected beside the project in shared/data)")
    return REAL_DATA


@pytest.fixture(scope="session")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of made-up inputs, small, under the paths that `real_data` has (`made_data.py` says what is in them)."""
    import made_data

    return made_data.make(tmp_path_factory.mktemp("made"))


@pytest.fixture(params=["made", "real"] if REAL_DATA.is_dir() else ["made"])
def data_folder(request: pytest.FixtureRequest) -> Path:
    """Made-up inputs, then the real ones where they are present: for rules that hold on both."""
    folder: Path = request.getfixturevalue(f"{request.param}_data")
    return folder


@pytest.fixture(params=["real" if REAL_DATA.is_dir() else "made"])
def one_data_folder(request: pytest.FixtureRequest) -> Path:
    """The real inputs, or made-up ones where those are absent: for tests too slow to run on both."""
    folder: Path = request.getfixturevalue(f"{request.param}_data")
    return folder


@pytest.fixture(scope="session", autouse=True)
def home_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whoever runs the tests keeps the key that they have, or none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield
