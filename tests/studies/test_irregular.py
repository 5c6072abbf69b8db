"""`predict --irregular`: studies with missing or uneven slices fail, are interpolated, or are taken as even."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dicom_phantoms import Phantom, write_study

import medseg
from medseg.errors import ConfigError
from medseg.studies import PredictOptions, predict_studies

WHOLE = Phantom(shape=(9, 7, 12), offset=0.0, intercepts=0.0)
GAP = WHOLE.but(shape=(9, 7, 11), depths=tuple(2.5 * k for k in range(12) if k != 5))
UNEVEN = WHOLE.but(depths=tuple(2.5 * k + (1.2 if k > 5 else 0.0) for k in range(12)))


def predicted(threshold_bundle, study, out, **options):
    result = predict_studies(threshold_bundle(), [study], out, PredictOptions(**options))
    return result, [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("phantom", "words"), [(GAP, "missing"), (UNEVEN, "unevenly spaced")])
def test_a_study_with_irregular_slices_fails_unless_a_policy_is_chosen(threshold_bundle, tmp_path, phantom, words):
    write_study(tmp_path / "study", phantom)
    result, (row,) = predicted(threshold_bundle, tmp_path / "study", tmp_path / "out")
    assert result.exit_code != 0
    assert row["state"] == "failed" and "irregular" in row["error"]
    assert "irregular" not in row["options"]
    result, rows = predicted(threshold_bundle, tmp_path / "study", tmp_path / "out", irregular="resample")
    assert rows[-1]["state"] == "needs_review"
    assert rows[-1]["options"]["irregular"] == "resample"
    assert any(words in finding for finding in rows[-1]["findings"]), rows[-1]["findings"]
    mask = medseg.read(tmp_path / "out" / "study.nii.gz")
    image = medseg.read(tmp_path / "study", irregular="resample")
    assert mask.same_geometry(image)
    np.testing.assert_array_equal(mask.array, image.array > 0.5)


@pytest.mark.parametrize("kind", ["dicom-seg", "rtstruct"])
@pytest.mark.parametrize("irregular", ["resample", "allow"])
def test_a_dicom_object_lies_on_the_grid_of_the_policy(threshold_bundle, tmp_path, kind, irregular):
    write_study(tmp_path / "study", GAP)
    _, (row,) = predicted(threshold_bundle, tmp_path / "study", tmp_path / "out", irregular=irregular, format=kind)
    assert row["state"] == "needs_review", row["error"]


def test_another_policy_repeats_a_case(threshold_bundle, tmp_path):
    write_study(tmp_path / "study", GAP)
    predicted(threshold_bundle, tmp_path / "study", tmp_path / "out", irregular="resample")
    result, rows = predicted(threshold_bundle, tmp_path / "study", tmp_path / "out", irregular="allow")
    assert [row["options"]["irregular"] for row in rows] == ["resample", "allow"]
    assert medseg.read(tmp_path / "out" / "study.nii.gz").shape == (9, 7, 11)
    result, _ = predicted(threshold_bundle, tmp_path / "study", tmp_path / "out", irregular="allow")
    assert result.skipped == ("study",)


def test_the_command_line_passes_the_policy(run, threshold_bundle, tmp_path):
    write_study(tmp_path / "study", GAP)
    arguments = ("predict", threshold_bundle(), tmp_path / "study", "-o", tmp_path / "out")
    assert run(*arguments)[0] == 3
    assert run(*arguments, "--irregular", "allow")[0] == 0
    assert medseg.read(tmp_path / "out" / "study.nii.gz").shape == (9, 7, 11)


def test_an_unknown_policy_is_refused():
    with pytest.raises(ConfigError, match="irregular"):
        PredictOptions(irregular="sometimes")
