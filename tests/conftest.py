"""Fixtures that more than one part of the suite uses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real studies; tests that need it are skipped, saying so, where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("real data is not on this machine (expected beside the project in shared/data)")
    return REAL_DATA
