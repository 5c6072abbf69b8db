"""De-identification keeps the standard's words beside a code, and no others."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medseg.io.dicom.deidentify.profile import deidentify


def meaning_left(value: str, scheme: str, meaning: str) -> str:
    """CodeMeaning after de-identification."""
    data, term = Dataset(), Dataset()
    term.CodeValue, term.CodingSchemeDesignator, term.CodeMeaning = value, scheme, meaning
    data.AnatomicRegionSequence = Sequence([term])
    deidentify(data, "a key for tests")
    return str(data.AnatomicRegionSequence[0].CodeMeaning)


@pytest.mark.parametrize(
    ("value", "scheme", "meaning"),
    [
        ("12738006", "SCT", "Brain"),
        ("12738006", "SCT", "Brain structure (body structure)"),
        ("111399", "DCM", "Not sure"),
        ("111399", "DCM", "Timeframe uncertain"),
        ("122465", "DCM", "RCA Region in RAO Projection"),
    ],
)
def test_each_meaning_that_the_standard_gives_a_code_stays_as_it_is(value: str, scheme: str, meaning: str) -> None:
    assert meaning_left(value, scheme, meaning) == meaning


@pytest.mark.parametrize(
    ("value", "meaning", "left"),
    [
        ("12738006", "Brain of Zqxjane", "Brain"),
        ("111399", "uncertain, not sure", "Not sure"),
        ("99ZQX", "Brain", "ANONYMIZED"),
    ],
)
def test_a_meaning_that_says_more_than_one_of_the_standards_is_replaced(value: str, meaning: str, left: str) -> None:
    assert meaning_left(value, "DCM" if value == "111399" else "SCT", meaning) == left
