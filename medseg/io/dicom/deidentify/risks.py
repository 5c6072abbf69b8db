"""Risks that remain in a DICOM object after its header is de-identified: text and faces in the pixels."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from medseg.io.dicom.deidentify.elements import text_of
from medseg.volume import Finding

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["remaining_risks"]

_CONTENT, _GRAPHICS, _DOCUMENT = 0x0040A730, 0x00700001, 0x00420011
_WRITTEN_ON = frozenset(
    {"US", "IVUS", "XA", "RF", "CR", "DX", "MG", "IO", "PX", "ES", "XC", "GM", "OP", "OT", "SC", "DG"}
)
_SCREENS = re.compile(r"SCREEN|REPORT|DOSE|PROTOCOL|SUMMARY")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_HEAD = re.compile(r"head|brain|skull|face|facial|cranium|neck|orbit|sinus|jaw|maxill|neuro", re.IGNORECASE)


def remaining_risks(dataset: Dataset) -> list[Finding]:
    """The identifying content that the profile does not remove from this object: pixels, faces, reports.

    The object is checked before the profile is applied. Kinds of findings: 'burned_in_text', 'recognizable_face'
    (PS3.15 E.3.1, E.3.2) and 'content_replaced'.
    """
    found = []
    if any(tag in dataset for tag in (_CONTENT, _GRAPHICS, _DOCUMENT)):
        text = "a report, drawing or embedded document was replaced by dummies: its content may identify the patient"
        found.append(Finding("content_replaced", text))
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        return found
    modality, stated = str(dataset.get("Modality", "")), str(dataset.get("BurnedInAnnotation", "")).upper()
    image_type = text_of(dataset, 0x00080008).upper()
    captured = str(dataset.get("SOPClassUID", "")).startswith(_SECONDARY_CAPTURE) or _SCREENS.search(image_type)
    embedded = any(
        t >> 24 == 0x60 and t & 0xFFFF == 0x0102 and text_of(dataset, t) not in ("", "0") for t in list(dataset.keys())
    )
    why = ""
    if stated == "YES":
        why = "the header says that text is burned into the pixels"
    elif embedded:
        why = "an overlay lies in unused bits of the pixels"
    elif captured or modality in _WRITTEN_ON:
        says = "although the header says there is none" if stated == "NO" else "and the header does not deny it"
        why = f"images of this kind ({'screen or secondary capture' if captured else modality}) often show text, {says}"
    elif stated != "NO" and modality not in ("SEG", "RTDOSE"):
        why = "the header does not say whether text is burned into the pixels (BurnedInAnnotation)"
    if why:
        found.append(Finding("burned_in_text", f"{why}; pixels are not changed: check them before sharing the images"))
    described = " ".join(text_of(dataset, t) for t in (0x00180015, 0x00081030, 0x0008103E, 0x00181030))
    visible = str(dataset.get("RecognizableVisualFeatures", "")).upper()
    if visible == "YES" or (visible != "NO" and modality in ("CT", "MR", "PT") and _HEAD.search(described)):
        text = "a head image from which a face can be rendered; recognizable features are not removed: deface it"
        found.append(Finding("recognizable_face", text))
    return found
