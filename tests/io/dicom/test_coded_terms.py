"""Names of labels become the right SNOMED CT codes, or none."""

from __future__ import annotations

import pytest
from pydicom.sr import _concepts_dict

from medseg.io.dicom.coded_terms import _TERMS, SIDES, TISSUE, term_for


def known(scheme: str) -> dict[str, set[str]]:
    """Code -> meanings, in pydicom's copy of PS3.16."""
    found: dict[str, set[str]] = {}
    for entries in _concepts_dict.concepts[scheme].values():
        for code, (meaning, _) in entries.items():
            found.setdefault(code, set()).add(meaning)
    return found


def test_every_code_is_in_the_dictionary_with_that_meaning():
    tables = {scheme: known(scheme) for scheme in ("SCT", "NCIt")}
    codes = {code for pair in _TERMS.values() for code in pair} | set(SIDES.values())
    wrong = [c for c in codes if c.meaning not in tables[c.scheme].get(c.value, ())]
    assert not wrong


@pytest.mark.parametrize(
    ("name", "type", "side", "region"),
    [
        ("lung", "Lung", None, None),
        ("left_lung", "Lung", "Left", None),
        ("Lung, R", "Lung", "Right", None),
        ("leftLung", "Lung", "Left", None),
        ("lungs", "Lung", None, None),
        ("lung_upper_lobe_left", "Upper lobe of lung", "Left", None),
        ("right middle lobe", "Middle lobe of right lung", None, None),
        ("heart_atrium_left", "Left atrium", None, None),
        ("tumour", "Neoplasm", None, None),
        ("WT", "Neoplasm", None, None),
        ("enhancing_tumor", "Enhancing Lesion", None, None),
        ("non-enhancing tumour", "Non-Enhancing Lesion", None, None),
        ("oedema", "Edema", None, None),
        ("necrosis", "Necrosis", None, None),
        ("lung nodule 3", "Nodule", None, "Lung"),
        ("liver tumour", "Neoplasm", None, "Liver"),
        ("left kidney cysts", "Cyst", "Left", "Kidney"),
        ("lung vessels", "Blood Vessel", None, "Lung"),
        ("pulmonary_artery", "Pulmonary artery", None, None),
        ("airways", "Airway structure", None, None),
        ("brain stem", "Brain Stem", None, None),
        ("grey matter", "Gray Matter", None, None),
    ],
)
def test_names_of_the_tasks_are_understood(name, type, side, region):
    term = term_for(name)
    assert (term.type.meaning, term.side and term.side.meaning, term.region and term.region.meaning) == (
        type,
        side,
        region,
    )


@pytest.mark.parametrize(
    "name", ["", "anterior", "kidney stone", "left right lung", "brain tissue of interest", "klasse 1", "Ödem", "lobe"]
)
def test_a_name_that_is_not_fully_understood_is_tissue(name):
    term = term_for(name)
    assert (term.category, term.type, term.side, term.region) == (TISSUE, TISSUE, None, None)


def test_a_letter_that_counts_vertebrae_is_no_side():
    assert {term_for(name).side for name in ("vertebra L 1", "vertebra_L_5", "Vertebra L")} == {None}
    assert term_for("kidney L").side == SIDES["left"] and term_for("r_lung").side == SIDES["right"]
