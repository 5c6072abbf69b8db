"""The segments of a DICOM Segmentation and the description of each label (DICOM PS3.3 C.8.20.2 and C.8.20.4).

BINARY numbers its segments 1 ... n, so the label value is stored elsewhere: in SegmentDescription, as 'label value 5'
(and 'region of the values 1, 4' for a region), from which it is read back in our own objects. In objects of other
programs the segment number is the label value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from medseg.errors import ReadError
from medseg.io.dicom.algorithm import Algorithm, derived_uid
from medseg.io.dicom.coded_terms import Code, term_for
from medseg.io.dicom.elements import to_numbers
from medseg.io.dicom.labels import COLOURS, MANUFACTURER, described_values, plain_text, value_text
from medseg.labels import LabelScheme

__all__ = ["Segment", "describe", "segments_of"]


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment as described in a file.

    Args:
        number: SegmentNumber.
        label: SegmentLabel, made unique within the object.
        value: the integer it has in the label map.
        type: meaning of its coded type, e.g. 'Lung'.
        region: the values of a region, in objects that medseg wrote from a scheme of regions.
    """

    number: int
    label: str
    value: int
    type: str = ""
    region: tuple[int, ...] = ()


def describe(
    scheme: LabelScheme, present: frozenset[int], algorithm: Algorithm, instance_uid: str, *, numbered: bool
) -> list[Any]:
    """highdicom's SegmentDescription of each label, in order of its number.

    Args:
        scheme: names and values.
        present: the label values that occur; the others are described as 'segmented, none found'.
        algorithm: the model that made the segments.
        instance_uid: of the segmentation; the segments' tracking UIDs, which reports repeat, are derived from it.
        numbered: True for segment numbers 1 ... n, False for the label values themselves.
    """
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    made_by = AlgorithmIdentificationSequence(
        name=plain_text(algorithm.name),
        family=codes.DCM.ArtificialIntelligence,
        version=plain_text(algorithm.version),
        source=MANUFACTURER,
        parameters={"model_hash": algorithm.model_hash}
        | ({"options": algorithm.options} if algorithm.options else {})
        | ({"review": "needed"} if algorithm.review else {}),
    )
    result = []
    for n, (label, values, painted) in enumerate(zip(scheme.names, scheme.values, scheme.painted, strict=True)):
        term = term_for(label)
        description = SegmentDescription(
            segment_number=n + 1 if numbered else painted,
            segment_label=plain_text(label),
            segmented_property_category=_coded(term.category),
            segmented_property_type=_coded(term.type),
            algorithm_type="AUTOMATIC",
            algorithm_identification=made_by,
            tracking_uid=derived_uid("tracking", instance_uid, str(n)),
            tracking_id=plain_text(label),
            anatomic_regions=[_coded(term.region)] if term.region else None,
            display_color=CIELabColor.from_rgb(*COLOURS[n % len(COLOURS)]),
        )
        if term.side and term.region:
            # The organ has a side; the lesion in it does not.
            description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [_coded(term.side)]
        elif term.side:
            kind = description.SegmentedPropertyTypeCodeSequence[0]
            kind.SegmentedPropertyTypeModifierCodeSequence = [_coded(term.side)]
        description.SegmentDescription = value_text(scheme, n, bool(present & set(values)))
        result.append(description)
    return sorted(result, key=lambda d: int(d.SegmentNumber))


def _coded(code: Code) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning)


def segments_of(dataset: Any, path: Any) -> tuple[Segment, ...]:
    """The described segments of a pydicom Dataset, in order of their numbers, without a described background.

    Raises:
        ReadError: if there is no segment at all, or two have the same number.
    """
    ours = str(dataset.get("Manufacturer", "")) == MANUFACTURER
    background = int(dataset.get("PixelPaddingValue", 0) or 0)
    found: list[Segment] = []
    for item in dataset.get("SegmentSequence") or ():
        number = int(to_numbers("SegmentNumber", [item.SegmentNumber])[0])
        if dataset.get("SegmentationType") == "LABELMAP" and number == background:
            continue
        types = item.get("SegmentedPropertyTypeCodeSequence")
        meaning = str(types[0].get("CodeMeaning", "")) if types else ""
        label = str(item.get("SegmentLabel") or meaning or f"segment {number}").strip()
        value, region = described_values(str(item.get("SegmentDescription") or "")) if ours else (None, ())
        found.append(Segment(number, label, value or number, meaning, region))
    numbers = [s.number for s in found]
    if not found or len(set(numbers)) < len(numbers) or min(numbers) < 0:
        raise ReadError(f"{path} describes the segments {numbers or 'none'}; expected at least one, each number once")
    if len({s.value for s in found}) < len(found):
        found = [replace(s, value=s.number, region=()) for s in found]
    if any(s.number == 0 for s in found):
        # If the background has another value, 0 is a segment, but as a label value it would mean background.
        found = [replace(s, value=max(numbers) + 1 if s.number == 0 else s.number) for s in found]
    labels = [s.label for s in found]
    named = [replace(s, label=f"{s.label} ({s.number})") if labels.count(s.label) > 1 else s for s in found]
    return tuple(sorted(named, key=lambda s: s.number))
