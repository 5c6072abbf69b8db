"""Loading whole DICOM objects other than images, with one readable error for every kind of damage."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError, ReadError
from medseg.io.dicom.decode_errors import damage, reason_of
from medseg.io.dicom.deflated import inflated
from medseg.io.library_errors import refuse_own_fault
from medseg.volume import Metadata

__all__ = ["DEFLATED_FRAMES", "load_object", "metadata_of", "refusing_damage"]

# Deflated Image Frame Compression (PS3.5 A.4.13), which pydicom 3.0 does not know.
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"


@contextlib.contextmanager
def refusing_damage(path: Path, what: str) -> Iterator[None]:
    """Turn the exceptions that pydicom and its codecs raise on a damaged object into a `ReadError` with its file name.

    Args:
        path: the object's file.
        what: the expected kind of object, e.g. 'a DICOM Segmentation'.
    """
    import pydicom.config

    try:
        # Irregularities that do not affect the labels need no warning.
        with pydicom.config.disable_value_validation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MedsegError:
        raise
    except MemoryError:
        raise ReadError(f"{path} is larger than the memory, or damaged") from None
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {reason_of(error)}") from None
    except damage() as error:
        # A damaged object may contain any value in any place, so our own code can fail on it as well.
        if not _breaks_the_dictionary(path):
            refuse_own_fault(error)
        raise ReadError(f"{path} is damaged ({reason_of(error)}); expected {what}: export it again") from error


def _breaks_the_dictionary(path: Path) -> bool:
    """Whether any standard element of a file has another VR or multiplicity than PS3.6 prescribes."""
    import pydicom
    from pydicom.datadict import dictionary_has_tag, dictionary_VM, dictionary_VR

    try:
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        for element in (*dataset.file_meta, *dataset.iterall()):
            if not dictionary_has_tag(element.tag):
                continue
            count = dictionary_VM(element.tag)
            if element.VR not in dictionary_VR(element.tag).split(" or "):
                return True
            if count.isdigit() and element.VM not in (0, int(count)):
                return True
    except Exception:  # pydicom raises any exception its parsers raise on a damaged value
        return True
    return False


def load_object(path: Path, classes: Collection[str], what: str, *, pixels: bool = True) -> Any:
    """The pydicom data set of a file whose SOP class is one of `classes`, with its pixels or without.

    Raises:
        ReadError: if it is not DICOM, in an unknown transfer syntax, or an object of another class.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        _check_transfer_syntax(path)
        plain = inflated(path)
        dataset = pydicom.dcmread(path if plain is None else io.BytesIO(plain), stop_before_pixels=not pixels)
    except InvalidDicomError:
        raise ReadError(f"{path} is not a DICOM file; expected {what}") from None
    kind = dataset.get("SOPClassUID", "")
    if kind not in classes:
        # Damaged values may contain anything, including line breaks.
        name = " ".join(str(getattr(kind, "name", "")).split())[:64] or "an object of an unknown class"
        raise ReadError(f"{path} is {name}; expected {what}")
    return dataset


def _check_transfer_syntax(path: Path) -> None:
    """Refuse a file in a transfer syntax that neither the standard nor pydicom defines: its bytes may mean anything."""
    from pydicom._uid_dict import UID_dictionary
    from pydicom.filereader import read_file_meta_info

    syntax = str(read_file_meta_info(path).get("TransferSyntaxUID", ""))
    if syntax not in ("", DEFLATED_FRAMES) and UID_dictionary.get(syntax, ("", ""))[1] != "Transfer Syntax":
        name = " ".join(syntax.split())[:64]
        raise ReadError(
            f"{path} is stored in the transfer syntax {name}, which is not known; convert it to Explicit VR Little "
            "Endian (1.2.840.10008.1.2.1) where it comes from"
        )


def metadata_of(dataset: Any, path: Path) -> Metadata:
    """The metadata of an object, from its own header."""

    def text(keyword: str) -> str:
        return str(dataset.get(keyword, "") or "")

    return Metadata(
        source=str(path),
        modality=text("Modality"),
        patient_id=text("PatientID"),
        study_instance_uid=text("StudyInstanceUID"),
        series_instance_uid=text("SeriesInstanceUID"),
        frame_of_reference_uid=text("FrameOfReferenceUID"),
        series_description=text("SeriesDescription"),
    )
