"""Pictures that every test of pseudo-labels reads."""

from __future__ import annotations

import pytest
from weak_pictures import Pictures, write_pictures


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return write_pictures(tmp_path_factory.mktemp("weak") / "pictures")
