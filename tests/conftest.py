"""Fixtures that more than one part of the suite uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from series_fixtures import small_series, write_series  # noqa: F401

os.environ.setdefault("MPLBACKEND", "Agg")

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real studies; tests that need it are skipped, saying so, where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("real data is not on this machine (expected beside the project in shared/data)")
    return REAL_DATA


@pytest.fixture(scope="session", autouse=True)
def home_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whoever runs the tests keeps the key that they have, or none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield
