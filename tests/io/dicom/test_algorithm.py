"""UIDs that follow from their inputs."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from medseg.io.dicom.algorithm import derived_uid


def test_the_same_texts_give_the_same_uid_on_every_machine():
    assert derived_uid("series", "1.2.3") == "2.25.194360400370081032964630169736280165823"


def test_where_one_text_ends_counts():
    assert len({derived_uid("ab", "c"), derived_uid("a", "bc"), derived_uid("abc"), derived_uid("abc", "")}) == 4


@given(st.lists(st.text(), min_size=1))
def test_it_is_a_name_based_uuid_in_a_valid_uid(parts):
    uid = derived_uid(*parts)
    assert UID(uid).is_valid
    number = uuid.UUID(int=int(uid.removeprefix("2.25.")))
    assert (number.version, number.variant) == (5, uuid.RFC_4122)


def test_no_texts_at_all_are_refused():
    with pytest.raises(ValueError, match="at least one text"):
        derived_uid()
