"""`medseg inspect`: what lies in a folder, with geometry, findings and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medseg.commands.inspect import inspect
from medseg.errors import ReadError
from medseg.io import read, write
from medseg.volume import Volume


@pytest.fixture
def folder(small_series, tmp_path):
    """A good series, one with a missing slice, one damaged file, a NIfTI file and a text file."""
    small_series("all/good", SeriesInstanceUID="1.1", SeriesDescription="thin")
    small_series(
        "all/gap", SeriesInstanceUID="1.2", per_slice=lambda k: {"ImagePositionPatient": [0, 0, 2.0 * (k + (k > 3))]}
    )
    (tmp_path / "all" / "bad.dcm").write_bytes(b"nothing")
    (tmp_path / "all" / "notes.txt").write_text("x")
    write(Volume(np.zeros((3, 4, 5), np.int16), np.diag([1, 1, 2.5, 1])), tmp_path / "all" / "ct.nii.gz")
    return tmp_path / "all"


def test_json_holds_geometry_findings_and_refusals(folder):
    content = json.loads(inspect(folder).to_json())
    assert content["format_version"] == 1
    by_place = {v["place"]: v for v in content["volumes"]}
    good = by_place["good"]
    assert (good["series"], good["modality"], good["description"], good["images"]) == ("1.1", "CT", "thin", 6)
    assert (good["shape"], good["spacing_mm"], good["orientation"]) == ([5, 4, 6], [0.5, 0.75, 2.0], "LPS")
    np.testing.assert_allclose(good["affine"], read(folder / "good").affine)
    assert good["readable"]
    gap = by_place["gap"]
    assert not gap["readable"]
    assert [f["kind"] for f in gap["findings"]] == ["missing_slices"]
    assert len(gap["findings"][0]["files"]) == 2
    assert not by_place["bad.dcm"]["readable"]
    assert by_place["ct.nii.gz"]["spacing_mm"] == [1.0, 1.0, 2.5]
    assert content["passed_over"] == 1


def test_the_policy_for_irregular_slices_is_applied(folder):
    gap = next(i for i in inspect(folder, "resample").items if i.place == "gap")
    assert (gap.shape, gap.refused) == ((5, 4, 7), "")


def test_the_table_names_what_was_found_and_no_patient(folder):
    text = inspect(folder).text()
    assert "refused: missing_slices" in text
    assert "1 other file" in text
    assert "1.1" in text
    for secret in ("Doe", "p1"):
        assert secret not in text
        assert secret not in inspect(folder).to_json()


def test_one_file_and_nothing(folder, tmp_path):
    assert inspect(folder / "ct.nii.gz").items[0].kind == "NIfTI"
    assert inspect(folder / "good" / "IM0000").items[0].shape == (5, 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReadError, match="contains no image"):
        inspect(tmp_path / "empty")
