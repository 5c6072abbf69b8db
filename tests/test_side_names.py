"""Left and right in the names of labels: pairs and single sides in several languages, and names that tell none."""

from __future__ import annotations

import pytest

from medseg.inference import allowed_mirror_axes
from medseg.labels import LabelScheme
from medseg.side_names import pairs_of, pairs_of_version_1, sides_of

# (left, right) by language or kind.
PAIRS = {
    "separated words": [
        ("left_lung", "right_lung"),
        ("Left-Thalamus-Proper", "Right-Thalamus-Proper"),
        ("KIDNEY LEFT", "KIDNEY RIGHT"),
        ("heart.atrium.left", "heart.atrium.right"),
        ("rib_left_7", "rib_right_7"),
        ("Lt. kidney", "Rt. kidney"),
    ],
    "camel case": [
        ("LeftLung", "RightLung"),
        ("kidneyLeft", "kidneyRight"),
        ("LeftUpperLobe2", "RightUpperLobe2"),
        ("CTLeftLung", "CTRightLung"),
    ],
    "letters": [
        ("LungL", "LungR"),
        ("lKidney", "rKidney"),
        ("LKidney", "RKidney"),
        ("kidney_l", "kidney_r"),
        ("L_kidney", "R_kidney"),
        ("Femur.L", "Femur.R"),
        ("rib_L_4", "rib_R_4"),
        ("rib4L", "rib4R"),
        ("lkidney", "rkidney"),
        ("KIDNEYL", "KIDNEYR"),
        ("L", "R"),
    ],
    "brackets, slashes, colons": [
        ("lung (left)", "lung (right)"),
        ("left/lung", "right/lung"),
        ("lung: L", "lung: R"),
        ("Kidney[L]", "Kidney[R]"),
        ("eye{left}", "eye{right}"),
        ("Left Lung (L)", "Right Lung (R)"),
    ],
    "codes": [
        ("ctx-lh-cuneus", "ctx-rh-cuneus"),
        ("lh.hippocampus", "rh.hippocampus"),
        ("LUL", "RUL"),
        ("lobe LLL", "lobe RLL"),
        ("LV", "RV"),
        ("L7", "R7"),
    ],
    "glued words": [("leftlung", "rightlung"), ("lungleft", "lungright"), ("linkernier", "rechternier")],
    "German": [
        ("Lunge links", "Lunge rechts"),
        ("linke Lunge", "rechte Lunge"),
        ("linker_Oberlappen", "rechter_Oberlappen"),
        ("LungenflügelLinks", "LungenflügelRechts"),
        ("Niere li.", "Niere re."),
        ("Linksherz", "Rechtsherz"),
        ("Lunge links", "rechte Lunge"),
    ],
    "French": [
        ("poumon gauche", "poumon droit"),
        ("oreillette_gauche", "oreillette_droite"),
        ("l'oreille gauche", "l'oreille droite"),
        ("Poumons Gauches", "Poumons Droits"),
        ("rein_g", "rein_d"),
    ],
    "Spanish": [
        ("riñón izquierdo", "riñón derecho"),
        ("aurícula_izquierda", "aurícula_derecha"),
        ("pulmon_izq", "pulmon_der"),
        ("pulmón izdo.", "pulmón dcho."),
        ("PulmonIzquierdo", "PulmonDerecho"),
    ],
    "Italian": [
        ("rene sinistro", "rene destro"),
        ("polmone_sx", "polmone_dx"),
        ("mammella sinistra", "mammella destra"),
        ("polmone sin", "polmone dx"),
        ("AtrioSinistro", "AtrioDestro"),
    ],
    "Portuguese": [
        ("rim esquerdo", "rim direito"),
        ("aurícula_esquerda", "aurícula_direita"),
        ("rim esq.", "rim dir."),
        ("PulmãoEsquerdo", "PulmãoDireito"),
        ("pulmão esq", "pulmão dto"),
    ],
    "Latin": [
        ("pulmo sinister", "pulmo dexter"),
        ("ren sin.", "ren dext."),
        ("auris sinistra", "auris dextra"),
        ("atrium sinistrum", "atrium dextrum"),
    ],
}
ALL_PAIRS = [pair for pairs in PAIRS.values() for pair in pairs]

ALONE = {
    "left": "LeftAtrium|left_lung|Lunge links|poumon gauche|rim esq.|rene sx|ren sin.|lh.hippocampus|Femur.L|L_kidney|"
    "lKidney|Kidney (L)|LUL|leftventricle|linksventrikel|pulmón izq.|Left Lung (L)",
    "right": "RightLung|lung (right)|rechte Lunge|oreille droite|riñón derecho|polmone dx|dext. ren|ctx-rh-cuneus|"
    "LungR|rKidney|R kidney|lung: R|RML|Rt lung|Niere re.|rim dir",
}

UNSIDED = [
    *("liver", "heart", "spleen", "artery", "pulmonary_artery", "lesion", "leftover", "LeftOver", "alright", "upright"),
    *("bright", "copyright", "clear", "cleft", "tumor", "kidney tumor", "vessel", "bladder", "rectal wall", "larynx"),
    *("L3", "vertebra_L1", "vertebra_L_2", "Vertebra L", "L-spine", "T12", "r2", "ventricle l3", "Level2", "rCBV"),
    *("RT dose", "LNs", "zone_a", "zone_c", "zone_d", "zone_g", "channel_r", "channel_g", "channel_b", "A.R.D.S."),
    *("Kopf der Bauchspeicheldrüse", "tejido sin realce", "l'aorte", "L'artère", "left and right lungs", "left/right"),
    *("L-R shunt", "rl", "Myo", "NCR", "ET", "rib", "lens", "retina", "airway", "T1R", "righteous", "1", "Kranz-l"),
]


@pytest.mark.parametrize(("left", "right"), ALL_PAIRS)
def test_pairs_of_sides_are_known_in_every_spelling(left: str, right: str) -> None:
    assert pairs_of([left, right]) == ((0, 1),) and sides_of([left, right]) == ("left", "right")
    assert pairs_of(["liver", right, "L3", left]) == ((3, 1),)
    scheme = LabelScheme.from_mapping({"liver": 3, left: 1, right: 2})
    assert scheme.left_right == scheme.sides == {left: "left", right: "right"}
    assert allowed_mirror_axes(3, "RAS", scheme) == (1, 2)


def test_there_are_at_least_60_pairs_of_6_languages() -> None:
    assert (
        len(set(ALL_PAIRS)) >= 60 and len({"German", "French", "Spanish", "Italian", "Portuguese"} & PAIRS.keys()) == 5
    )


@pytest.mark.parametrize("side", ALONE)
def test_a_label_with_a_side_and_no_partner_counts(side: str) -> None:
    for name in ALONE[side].split("|"):
        assert sides_of([name, "liver"]) == (side, None), name
        scheme = LabelScheme.from_mapping({name: 1, "liver": 2})
        assert scheme.left_right_pairs == () and allowed_mirror_axes(3, "RAS", scheme) == (1, 2), name


def test_names_without_a_side_are_taken_for_none() -> None:
    assert len(UNSIDED) >= 32
    scheme = LabelScheme.from_mapping({name: n for n, name in enumerate(UNSIDED, start=1)})
    assert scheme.sides == {} and scheme.left_right_pairs == () and allowed_mirror_axes(3, "RAS", scheme) == (0, 1, 2)
    for name in UNSIDED:
        assert sides_of([name]) == (None,), name


def test_a_small_letter_is_a_side_only_beside_the_other_one() -> None:
    assert sides_of(["kidney_l", "liver"]) == (None, None)
    assert sides_of(["kidney_l", "kidney_r"]) == ("left", "right")
    assert sides_of(["kidney_l", "Kidney right"]) == ("left", "right")


def test_letters_of_an_enumeration_are_no_sides() -> None:
    assert set(sides_of([f"zone_{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"])) == {None}
    assert set(sides_of([f"Zone {letter}" for letter in "KLMNOPQR"])) == {None}
    assert sides_of(["rib L", "rib R", "rib M"]) == ("left", "right", None)


def test_vertebrae_and_all_other_classes_of_a_whole_body_atlas_keep_apart() -> None:
    vertebrae = [f"vertebrae_L{n}" for n in range(1, 6)] + [f"vertebrae_T{n}" for n in range(1, 13)]
    ribs = [f"rib_{side}_{n}" for side in ("left", "right") for n in range(1, 13)]
    names = [*vertebrae, *ribs, "sternum", "lung_upper_lobe_left", "lung_middle_lobe_right", "lung_upper_lobe_right"]
    sides = dict(zip(names, sides_of(names), strict=True))
    assert {sides[name] for name in [*vertebrae, "sternum"]} == {None}
    assert sides["lung_middle_lobe_right"] == "right" and len(pairs_of(names)) == 13
    assert all(names[left].replace("left", "right") == names[right] for left, right in pairs_of(names))


def test_old_plans_know_the_spellings_that_they_knew() -> None:
    names = ["lung_l", "lung_r", "LeftKidney", "RightKidney", "left_atrium"]
    assert pairs_of_version_1(names) == ((0, 1),) and len(pairs_of(names)) == 2
