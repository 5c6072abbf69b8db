"""De-identification of DICOM objects: the Basic Application Level Confidentiality Profile of PS3.15 Annex E.

Where the table leaves a choice to the object's definition (X/Z, Z/D, ...) the action that keeps every kind of object
valid is taken: a dummy where a value may be required, an empty value where the attribute may be required. Replacements
are derived from the old value and a secret key, so that references between objects and the identity of a patient
persist, but only the holder of the key can link them to the originals.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medseg.errors import ConfigError
from medseg.io.dicom.decode_errors import damage
from medseg.io.dicom.deidentify.codes import harmless_meaning, standard_meanings
from medseg.io.dicom.deidentify.elements import items_of, nested, put, says_what_it_should, text_of, vr_of
from medseg.io.dicom.deidentify.risks import remaining_risks
from medseg.io.dicom.deidentify.rules import Action, action_for
from medseg.io.dicom.labels import MANUFACTURER
from medseg.volume import Finding

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Deidentifier", "deidentify"]

METHOD = "DICOM PS3.15 2026c Basic Application Confidentiality Profile"

# Each of these keeps an object valid whether the attribute is of type 1, 2 or 3.
_SAFE_CHOICE = {
    Action.EMPTY_OR_DUMMY: Action.DUMMY,
    Action.REMOVE_OR_EMPTY: Action.EMPTY,
    Action.REMOVE_OR_DUMMY: Action.DUMMY,
    Action.REMOVE_OR_EMPTY_OR_DUMMY: Action.DUMMY,
    # The references inside contain unique identifiers, which are replaced item by item.
    Action.REMOVE_OR_EMPTY_OR_UID: Action.KEEP,
}
_DUMMIES: dict[str, Any] = {
    "AE": "ANONYMIZED",
    "AS": "000Y",
    "CS": "ANONYMIZED",
    "DA": "19000101",
    "DT": "19000101000000",
    "LO": "ANONYMIZED",
    "LT": "ANONYMIZED",
    "PN": "ANONYMIZED^",
    "SH": "ANONYMIZED",
    "ST": "ANONYMIZED",
    "TM": "000000",
    "UC": "ANONYMIZED",
    "UR": "about:blank",
    "UT": "ANONYMIZED",
    "DS": "0",
    "IS": "0",
    "OB": b"\0\0",
    "UN": b"\0\0",
}
_BYTES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_TEXTS = frozenset({"LO", "LT", "SH", "ST", "UC", "UT"})
_CHARACTER_SET = 0x00080005
_PATIENT_NAME, _PATIENT_ID = 0x00100010, 0x00100020
# Accession number, patient ID, other patient IDs.
_IDENTIFIERS = frozenset({0x00080050, _PATIENT_ID, 0x00101000})
# Code value, scheme and meaning (PS3.3 section 8): a name found in a standard term is a coincidence.
_CODE_VALUE, _CODE_SCHEME, _CODE_MEANING = 0x00080100, 0x00080102, 0x00080104
_CODES = frozenset({_CODE_VALUE, _CODE_SCHEME, _CODE_MEANING, 0x00080119})


def deidentify(dataset: Dataset, key: bytes | str, known_texts: Collection[str] = ()) -> list[Finding]:
    """De-identify a DICOM object in place; returns findings about what could not be removed.

    Args:
        dataset: any DICOM object; its file meta information and preamble are cleaned too. Pixel data is unchanged.
        key: secret of the run or the site. The same key gives the same replacements. Keep it, or later objects cannot
            be linked to these; never publish it.
        known_texts: texts known to identify no patient, such as a model's labels: values equal to one of them may stay
            where the profile allows a dummy (ROIName of an RTSTRUCT).

    Returns:
        Findings of kind 'burned_in_text' (pixels of a kind that often shows text, or without a statement that they do
        not), 'recognizable_face' (head images) and 'content_replaced' (a report, drawing or document replaced as a
        whole).

    Raises:
        ConfigError: if the key is empty.

    Example:
        >>> from pydicom import dcmread
        >>> dataset = dcmread("study/IM0001.dcm")
        >>> findings = deidentify(dataset, key="a secret of this example")
        >>> dataset.PatientIdentityRemoved
        'YES'
    """
    return Deidentifier.with_key(key, known_texts).apply(dataset)


@dataclass(frozen=True, slots=True, repr=False)
class Deidentifier:
    """The profile combined with a key; see `deidentify`."""

    key: bytes
    known_texts: frozenset[str] = frozenset()

    @classmethod
    def with_key(cls, key: bytes | str, known_texts: Collection[str] = ()) -> Deidentifier:
        """Check the key.

        Raises:
            ConfigError: if the key is empty.
        """
        secret = key.encode() if isinstance(key, str) else bytes(key)
        if not secret.strip():
            raise ConfigError("the key for de-identification is empty; expected a secret text or some secret bytes")
        return cls(secret, frozenset(known_texts))

    def uid(self, uid: str) -> str:
        """The replacement of a unique identifier: '2.25.' and a UUID. Identifiers assigned by the standard are kept."""
        old = uid.strip("\0 ")
        if not old or re.fullmatch(r"1\.2\.840\.10008(\.\d+)+", old):
            return old
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', old)[:16], version=5).int}"

    def pseudonym(self, identity: str) -> str:
        """A neutral name that is the same for the same patient; '' for ''."""
        return f"ANON-{self._digest('patient', identity.strip()).hex()[:16].upper()}" if identity.strip() else ""

    def apply(self, dataset: Dataset, own: Collection[str] = ()) -> list[Finding]:
        """De-identify in place; returns findings about what could not be removed.

        Args:
            dataset: any DICOM object.
            own: keywords of attributes of the data set that this program made without any text about the patient, such
                as the content of its reports. Of these only UIDs are replaced, as the options to clean structured
                content and descriptors permit (PS3.15 E.3.4, E.3.5).
        """
        from pydicom.config import disable_value_validation

        # Values that break minor rules of the standard are about to be replaced and need no warning.
        with disable_value_validation():
            kept = [dataset[keyword] for keyword in own if keyword in dataset]
            for element in kept:
                del dataset[element.tag]
            findings = remaining_risks(dataset)
            self._clean(dataset, _names_in(dataset))
            for element in kept:
                dataset.add(element)
                for item in element.value if element.VR == "SQ" else ():
                    self._replace_uids(item)
            _declare(dataset, [element.keyword for element in kept])
            _clean_file_meta(dataset)
        return findings

    def _replace_uids(self, dataset: Dataset) -> None:
        """Replace the UIDs of an item and of all that it contains, and nothing else."""
        for each in nested(dataset):
            for tag in list(each.keys()):
                if action_for(tag) is Action.UID:
                    put(each, tag, vr_of(each, tag), self._uids(each, tag))

    def _digest(self, use: str, text: str) -> bytes:
        return hmac.new(self.key, f"{use}\0{text}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()

    def _clean(self, dataset: Dataset, names: re.Pattern[str] | None) -> None:
        from pydicom.charset import python_encoding

        patient = text_of(dataset, _PATIENT_ID) or text_of(dataset, _PATIENT_NAME)
        meanings = standard_meanings(text_of(dataset, _CODE_VALUE), text_of(dataset, _CODE_SCHEME))
        for tag in list(dataset.keys()):
            action = _SAFE_CHOICE.get(action_for(tag), action_for(tag))
            vr = vr_of(dataset, tag)
            if action is Action.REMOVE or (action is not Action.KEEP and not vr):
                del dataset[tag]
            elif tag in (_PATIENT_ID, _PATIENT_NAME):
                # A caret tells family name and given name apart; a name without any is of a retired form (PS3.5 6.2.1).
                put(dataset, tag, vr, self.pseudonym(patient) + "^" * (vr == "PN") if text_of(dataset, tag) else "")
            elif action is Action.UID or (vr == "UI" and action is Action.DUMMY):
                put(dataset, tag, vr, self._uids(dataset, tag))
            elif action is not Action.KEEP and vr in _TEXTS and text_of(dataset, tag) in self.known_texts:
                continue
            elif action is Action.EMPTY:
                put(dataset, tag, vr, [] if vr == "SQ" else b"" if vr in _BYTES else "" if vr in _DUMMIES else None)
            elif action is Action.DUMMY:
                self._replace(dataset, tag, vr)
            elif vr == "SQ":
                for item in items_of(dataset, tag):
                    self._clean(item, names)
            elif tag == _CHARACTER_SET:
                if not set(text_of(dataset, tag).split("\\")) <= python_encoding.keys():
                    del dataset[tag]
            elif not says_what_it_should(dataset, tag, vr):
                put(dataset, tag, vr, None)
            elif tag == _CODE_MEANING:
                # The meaning beside a local code is free text of the site and may contain names.
                put(dataset, tag, vr, harmless_meaning(text_of(dataset, tag), meanings) or _DUMMIES[vr])
            elif meanings and tag in _CODES:
                continue
            elif names and (vr in _TEXTS or vr == "IS") and _repeats(names, vr, text_of(dataset, tag)):
                put(dataset, tag, vr, _DUMMIES[vr])

    def _uids(self, dataset: Dataset, tag: int) -> str | list[str]:
        values = [self.uid(value) for value in text_of(dataset, tag).split("\\")]
        return values[0] if len(values) == 1 else values

    def _replace(self, dataset: Dataset, tag: int, vr: str) -> None:
        if vr != "SQ":
            put(dataset, tag, vr, _DUMMIES.get(vr, 0))
            return
        for item in items_of(dataset, tag):
            self._blank(item)

    def _blank(self, item: Dataset) -> None:
        """An item that keeps its structure (standard codes, references) but none of its content."""
        for tag in list(item.keys()):
            vr = vr_of(item, tag)
            if action_for(tag) is Action.REMOVE or not vr:
                del item[tag]
            elif vr == "SQ":
                for inner in items_of(item, tag):
                    self._blank(inner)
            elif vr == "UI":
                if action_for(tag) is not Action.KEEP:
                    put(item, tag, vr, self._uids(item, tag))
            elif vr in _BYTES:
                put(item, tag, vr, b"\0" * 8)
            elif vr != "CS" or action_for(tag) is not Action.KEEP:
                dummy = _DUMMIES.get(vr, 0)
                try:
                    count = item[tag].VM
                except damage():
                    count = 1
                put(item, tag, vr, [dummy] * count if count > 1 else dummy)


def _names_in(dataset: Dataset) -> re.Pattern[str] | None:
    """Names and identifiers of persons in the object, to find them again in texts that the table keeps."""
    words: set[str] = set()
    for each in nested(dataset):
        for tag in list(each.keys()):
            if vr_of(each, tag) == "PN":
                # A Chinese or Japanese name can have only two characters.
                parts = re.split(r"[\^=\\,;\s]+", text_of(each, tag))
                words |= {w for w in parts if len(w) >= (3 if w.isascii() else 2)}
            elif tag in _IDENTIFIERS:
                words |= {w.strip() for w in text_of(each, tag).split("\\") if len(w.strip()) >= 4}
    # The creator of our own objects is a program, whose name stays where it is the manufacturer.
    words.discard(MANUFACTURER)
    if not words:
        return None
    alternatives = "|".join(_alone(w) for w in sorted(words, key=lambda w: (-len(w), w)))
    return re.compile(alternatives, re.IGNORECASE)


def _alone(word: str) -> str:
    # Such names have no spaces around them either.
    return re.escape(word) if len(word) < 3 else rf"(?<![^\W_]){re.escape(word)}(?![^\W_])"


def _repeats(names: re.Pattern[str], vr: str, text: str) -> bool:
    """Whether a value that the table keeps reveals a hidden one: a name in a text, a patient ID as SeriesNumber."""
    if vr == "IS":
        return names.fullmatch(text) is not None
    return names.search(text) is not None


def _declare(dataset: Dataset, kept: Collection[str]) -> None:
    from pydicom import Dataset, Sequence

    followed = [("113100", "Basic Application Confidentiality Profile")]
    if "ContentSequence" in kept:
        followed.append(("113104", "Clean Structured Content Option"))
    if "SeriesDescription" in kept:
        followed.append(("113105", "Clean Descriptors Option"))
    codes = []
    for value, meaning in followed:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
        codes.append(code)
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = [METHOD, "medseg"]
    dataset.DeidentificationMethodCodeSequence = Sequence(codes)
    dataset.LongitudinalTemporalInformationModified = "REMOVED"


def _clean_file_meta(dataset: Dataset) -> None:
    """Keep only the elements needed to read the file; drop the sender's titles and private information."""
    from pydicom.dataset import FileMetaDataset

    dataset.preamble = b"\0" * 128
    old = getattr(dataset, "file_meta", None)
    if old is None:
        return
    meta = FileMetaDataset()
    for name in ("MediaStorageSOPClassUID", "TransferSyntaxUID"):
        if old.get(name):
            setattr(meta, name, old.get(name))
    if dataset.get("SOPInstanceUID"):
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta = meta
