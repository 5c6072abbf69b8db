"""A series, and a structure set written on it."""

from __future__ import annotations

import pytest
from seg_cases import MODEL, SCHEME, grid_in, volume_on

from medseg.io.dicom.rtstruct.write import write_rtstruct


@pytest.fixture
def study(tmp_path):
    """study(**phantom fields) -> SeriesGrid of a series written for the test."""
    return lambda **fields: grid_in(tmp_path / "study", **fields)


@pytest.fixture
def written(tmp_path, study):
    """written(array, scheme, **phantom fields) -> (file, grid)."""

    def write(array, scheme=SCHEME, name="rt.dcm", algorithm=MODEL, **fields):
        grid = study(**{"shape": array.shape, **fields})
        write_rtstruct(volume_on(grid, array), tmp_path / name, scheme, grid, algorithm)
        return tmp_path / name, grid

    return write
