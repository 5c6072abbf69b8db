"""What names tell of a channel."""

from __future__ import annotations

import pytest

from medseg.io.channel_names import kind_of_name, modality_of_kind, split_name


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *[(t, "t1c") for t in ("T1c", "T1CE", "T1Gd", "t1-post", "T1 post contrast", "AX T1 FS +C", "T1wCE", "t1 C+")],
        *[(t, "t1c") for t in ("t1_mprage_sag_p2_iso_post_gd", "sub-01_ce-gd_T1w", "3D T1 GADO", "T1 KM", "T1 C")],
        *[(t, "t1") for t in ("T1", "T1w", "t1n", "MPRAGE", "t1_tse_cor", "T1 pre contrast", "T1 without contrast")],
        *[(t, "t1") for t in ("T1 FLAIR", "T1 native", "T1 w/o contrast", "t1 c spine")],
        *[(t, "flair") for t in ("FLAIR", "T2-FLAIR", "t2f", "t2_tirm_tra_dark-fluid", "FLAIR +C")],
        *[(t, "t2") for t in ("T2", "t2w", "T2_TSE_ax", "T2 C spine")],
        *[("T2*", "swi"), ("ep2d_diff_ADC", "adc"), ("DWI b1000", "dwi"), ("T1 sub", "subtraction")],
        *[("CT", "ct"), ("CTAC", "ct"), ("PET", "pet"), ("MRI", "mr"), ("kidney", ""), ("lung", ""), ("t10", "")],
        *[("T1 DCE perfusion", "perfusion"), ("T1 map", "map"), ("", ""), ("R", "")],
    ],
)
def test_a_description_tells_the_kind_of_image(text, kind):
    assert kind_of_name(text) == kind


def test_a_contrast_agent_makes_a_t1_t1c_unless_the_description_says_before() -> None:
    assert kind_of_name("t1_mprage", has_contrast=True) == "t1c"
    assert kind_of_name("t1 pre", has_contrast=True) == "t1"
    assert kind_of_name("FLAIR", has_contrast=True) == "flair"


def test_kinds_belong_to_modalities() -> None:
    assert [modality_of_kind(k) for k in ("ct", "pet", "flair", "mr", "")] == ["CT", "PT", "MR", "MR", ""]


@pytest.mark.parametrize(
    ("stem", "kind", "rest"),
    [
        ("BraTS20_001_t1ce", "t1c", "BraTS20_001"),
        ("Flair_subtrMeanDivStd", "flair", "subtrMeanDivStd"),
        ("p1_t1_ce", "t1c", "p1"),
        ("p1-t2f", "flair", "p1"),
        ("flair", "flair", ""),
        ("p1_seg", "", "p1_seg"),
    ],
)
def test_a_file_name_is_a_kind_and_the_name_of_its_case(stem, kind, rest):
    assert split_name(stem) == (kind, rest)
