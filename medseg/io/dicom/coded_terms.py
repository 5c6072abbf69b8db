"""From the name of a label to SNOMED CT: the coded terms that describe a DICOM segment.

Codes are those of DICOM PS3.16 CID 7150 (categories), CID 7151 (types) and CID 244 (laterality). A name is coded only
when every word of it is understood: 'brain stem' never becomes 'brain'. All other names get the most general term,
'Tissue', and keep their name as the segment's label.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Code", "SegmentTerm", "term_for"]


@dataclass(frozen=True, slots=True)
class Code:
    """One coded concept."""

    value: str
    meaning: str
    scheme: str = "SCT"


@dataclass(frozen=True, slots=True)
class SegmentTerm:
    """The coded description of a segment: category, type, laterality, and the organ that a lesion or vessel is in."""

    category: Code
    type: Code
    side: Code | None = None
    region: Code | None = None


TISSUE = Code("85756007", "Tissue")
STRUCTURE = Code("91723000", "Anatomical Structure")
ABNORMAL = Code("49755003", "Morphologically Abnormal Structure")
SIDES = {"left": Code("7771000", "Left"), "right": Code("24028007", "Right")}

_TISSUES = {
    "tissue": TISSUE,
    "artery": Code("51114001", "Artery"),
    "blood vessel|vessel|vasculature": Code("59820001", "Blood Vessel"),
    "bone": Code("3138006", "Bone"),
    "fat": Code("55603005", "Fat"),
    "muscle": Code("91727004", "Muscle"),
    "skin": Code("39937001", "Skin"),
    "soft tissue": Code("87784001", "Soft tissue"),
    "vein": Code("29092000", "Vein"),
}
_VERTEBRAE = {
    "C1": "14806007",
    "C2": "39976000",
    "C3": "113205007",
    "C4": "5329002",
    "C5": "36978003",
    "C6": "36054005",
    "C7": "87391001",
    "T1": "64864005",
    "T2": "53733008",
    "T3": "1626008",
    "T4": "73071006",
    "T5": "56401006",
    "T6": "45296009",
    "T7": "62487009",
    "T8": "11068009",
    "T9": "82687006",
    "T10": "7610001",
    "T11": "12989004",
    "T12": "23215003",
    "L1": "66794005",
    "L2": "14293000",
    "L3": "36470004",
    "L4": "11994002",
    "L5": "49668003",
}
_STRUCTURES = {
    "adrenal gland|adrenal": Code("23451007", "Adrenal gland"),
    "airway": Code("89187006", "Airway structure"),
    "amygdala": Code("4958002", "Amygdala"),
    "aorta": Code("15825003", "Aorta"),
    "aortic arch": Code("57034009", "Aortic arch"),
    "ascending aorta": Code("54247002", "Ascending aorta"),
    "descending aorta": Code("281130003", "Descending aorta"),
    "bladder|urinary bladder": Code("89837001", "Bladder"),
    "body": Code("38266002", "Entire body"),
    "brachiocephalic trunk": Code("12691009", "brachiocephalic trunk"),
    "brachiocephalic vein": Code("8887007", "Brachiocephalic vein"),
    "brain": Code("12738006", "Brain"),
    "brain stem|brainstem": Code("119238007", "Brain Stem"),
    "breast": Code("76752008", "Breast"),
    "bronchus": Code("955009", "Bronchus"),
    "carotid artery|carotid": Code("69105007", "Carotid Artery"),
    "caudate nucleus|caudate": Code("11000004", "Caudate Nucleus"),
    "cerebellum": Code("113305005", "Cerebellum"),
    "cerebrospinal fluid|csf": Code("65216001", "Cerebrospinal Fluid"),
    "clavicle|clavicula": Code("51299004", "Clavicle"),
    "colon": Code("71854001", "Colon"),
    "common carotid artery": Code("32062004", "Common carotid artery"),
    "coronary artery": Code("41801008", "Coronary artery"),
    "costal cartilage": Code("50016007", "Costal Cartilage"),
    "duodenum": Code("38848004", "Duodenum"),
    "esophagus": Code("32849002", "Esophagus"),
    "eye": Code("81745001", "Eye"),
    "femur": Code("71341001", "Femur"),
    "gallbladder|gall bladder": Code("28231008", "Gallbladder"),
    "gray matter": Code("389081007", "Gray Matter"),
    "heart": Code("80891009", "Heart"),
    "left atrium|heart left atrium": Code("82471001", "Left atrium"),
    "left ventricle|heart left ventricle|lv": Code("87878005", "Left ventricle"),
    "right atrium|heart right atrium": Code("73829009", "Right atrium"),
    "right ventricle|heart right ventricle|rv": Code("53085002", "Right ventricle"),
    "hepatic artery": Code("76015000", "Hepatic artery"),
    "hepatic vein": Code("8993003", "Hepatic vein"),
    "hippocampus": Code("5366008", "Hippocampus"),
    "humerus": Code("85050009", "Humerus"),
    "iliac artery": Code("10293006", "Iliac artery"),
    "iliac vein|iliac vena": Code("244411005", "Iliac vein"),
    "inferior vena cava|ivc": Code("64131007", "Inferior vena cava"),
    "superior vena cava|svc": Code("48345005", "Superior vena cava"),
    "kidney": Code("64033007", "Kidney"),
    "large intestine|large bowel": Code("14742008", "Large intestine"),
    "small intestine|small bowel": Code("30315005", "Small intestine"),
    "lateral ventricle": Code("66720007", "Lateral Ventricle"),
    "liver": Code("10200004", "Liver"),
    "true lumen|false lumen|vessel lumen": Code("91747007", "Lumen of blood vessel"),
    "lung": Code("39607008", "Lung"),
    "lung lobe": Code("31094006", "Lobe of lung"),
    "lung upper lobe|upper lobe": Code("45653009", "Upper lobe of lung"),
    "lung lower lobe|lower lobe": Code("90572001", "Lower lobe of lung"),
    "lung middle lobe|middle lobe|lung right middle lobe|right middle lobe": Code(
        "72481006", "Middle lobe of right lung"
    ),
    "lymph node": Code("59441001", "Lymph Node"),
    "mandible": Code("91609006", "Mandible"),
    "mediastinum": Code("72410000", "Mediastinum"),
    "pancreas": Code("15776009", "Pancreas"),
    "parotid gland|parotid": Code("45289007", "Parotid gland"),
    "pericardium": Code("76848001", "Pericardium"),
    "pleura": Code("3120008", "Pleura"),
    "portal vein": Code("32764006", "Portal vein"),
    "prostate": Code("41216001", "Prostate"),
    "pulmonary artery": Code("81040000", "Pulmonary artery"),
    "pulmonary vein": Code("122972007", "Pulmonary vein"),
    "putamen": Code("89278009", "Putamen"),
    "rectum": Code("34402009", "Rectum"),
    "retina": Code("5665001", "Retina"),
    "rib": Code("113197003", "Rib"),
    "sacrum": Code("54735007", "Sacrum"),
    "scapula": Code("79601000", "Scapula"),
    "skull": Code("89546000", "Skull"),
    "spinal cord": Code("2748008", "Spinal cord"),
    "spine": Code("421060004", "Spine"),
    "spleen": Code("78961009", "Spleen"),
    "splenic vein": Code("35819009", "Splenic vein"),
    "sternum": Code("56873002", "Sternum"),
    "stomach": Code("69695003", "Stomach"),
    "subclavian artery": Code("36765005", "Subclavian artery"),
    "thalamus": Code("42695009", "Thalamus"),
    "thyroid|thyroid gland": Code("69748006", "Thyroid"),
    "trachea": Code("44567001", "Trachea"),
    "uterus": Code("35039007", "Uterus"),
    "vertebra": Code("51282000", "Vertebra"),
    **{f"vertebra {name.lower()}": Code(value, f"{name} vertebra") for name, value in _VERTEBRAE.items()},
    "white matter": Code("389080008", "White Matter"),
}
_LESIONS = {
    "cyst": Code("367643001", "Cyst"),
    "edema|peritumoral edema": Code("79654002", "Edema"),
    "embolus": Code("55584005", "Embolus"),
    "enhancing tumor|enhancing lesion|enhancing|et": Code("C113842", "Enhancing Lesion", "NCIt"),
    "non enhancing tumor|non enhancing lesion|non enhancing|nonenhancing": Code(
        "C81175", "Non-Enhancing Lesion", "NCIt"
    ),
    "hemorrhage|bleeding": Code("50960005", "Hemorrhage"),
    "lesion": Code("52988006", "Lesion"),
    "mass": Code("4147007", "Mass"),
    "metastasis": Code("14799000", "Neoplasm, Secondary"),
    "necrosis|necrotic core|necrotic tumor|necrotic": Code("6574001", "Necrosis"),
    "neoplasm|tumor|cancer|tumor core|glioma|gtv|wt|tc": Code("108369006", "Neoplasm"),
    "nodule": Code("27925004", "Nodule"),
    "thrombus": Code("396339007", "Thrombus"),
}
# Structures inside an organ, which the name may mention as well: 'liver tumour', 'lung vessels'.
_HOSTED = ("artery", "blood vessel", "vein", "vessel", "vasculature", "true lumen", "false lumen", "lymph node")
_SAME = {
    "tumour": "tumor",
    "tumoural": "tumoral",
    "oedema": "edema",
    "oesophagus": "esophagus",
    "haemorrhage": "hemorrhage",
    "grey": "gray",
    "l": "left",
    "lt": "left",
    "r": "right",
    "rt": "right",
    "arteries": "artery",
    "bronchi": "bronchus",
    "metastases": "metastasis",
    "vertebrae": "vertebra",
    "bodies": "body",
}
_SILENT = frozenset({"of", "the", "whole", "segmentation", "mask"})

_Words = frozenset[str]


def _by_words(table: dict[str, Code]) -> dict[_Words, Code]:
    return {frozenset(phrase.split()): code for phrases, code in table.items() for phrase in phrases.split("|")}


_ANATOMY = {words: (STRUCTURE, code) for words, code in _by_words(_STRUCTURES).items()} | {
    words: (TISSUE, code) for words, code in _by_words(_TISSUES).items()
}
_ABNORMAL = {words: (ABNORMAL, code) for words, code in _by_words(_LESIONS).items()}
_TERMS = _ANATOMY | _ABNORMAL
_GUESTS = _ABNORMAL | {words: _ANATOMY[words] for words in map(frozenset, map(str.split, _HOSTED))}
_VOCABULARY = frozenset().union(*_TERMS, SIDES)


def _words_of(name: str) -> _Words:
    # 'leftLung' and 'left_lung' are the same two words.
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    of_spine = "vertebra" in name.lower() or "spine" in name.lower()
    found = set()
    for word in re.split(r"[\W_]+", spaced.lower()):
        # 'kidney L' is the left one, 'vertebra L 1' is lumbar.
        known = word if of_spine and word in ("l", "r") else _SAME.get(word, word)
        if known not in _VOCABULARY and known.removesuffix("s") in _VOCABULARY:
            known = known.removesuffix("s")
        # A number counts lesions; it does not change the term.
        if known and known not in _SILENT and not known.isdigit():
            found.add(known)
    return frozenset(found)


def term_for(name: str) -> SegmentTerm:
    """The coded term for the name of a label; 'Tissue' if the name is not fully understood.

    Args:
        name: e.g. 'left_lung', 'liver tumour', 'pulmonaryArtery'; spelling, plural and word order do not matter.

    Example:
        >>> term = term_for("right_lung_nodules")
        >>> term.type.meaning, term.side.meaning, term.region.meaning
        ('Nodule', 'Right', 'Lung')
    """
    words = _words_of(name)
    sides = [side for side in SIDES if side in words]
    for side in ("", *sides) if len(sides) < 2 else ("",):
        rest = words - {side}
        coded = SIDES.get(side)
        if rest in _TERMS:
            return SegmentTerm(*_TERMS[rest], coded)
        guests = [g for g in _GUESTS if g < rest and rest - g in _ANATOMY]
        if guests:
            guest = max(guests, key=lambda g: (len(g), g in _ABNORMAL))
            return SegmentTerm(*_GUESTS[guest], coded, _ANATOMY[rest - guest][1])
    return SegmentTerm(TISSUE, TISSUE)
