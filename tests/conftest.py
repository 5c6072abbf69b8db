"""Fixtures for the whole suite, and a summary of the tests that were left out for lack of data."""

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
    """Reports how many tests were left out, or ran on made-up inputs only, because data is absent."""
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
    """Folder of real studies; tests that need it are skipped, with the reason, where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("real data is not on this machine (expected beside the project in shared/data)")
    return REAL_DATA


@pytest.fixture(scope="session")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of small made-up inputs under the same paths as in `real_data`; see `helpers/made_data.py`."""
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
    """Keeps the tests away from the de-identification key of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield
