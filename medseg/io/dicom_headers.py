"""DICOM headers: what a slice says about itself, and which slices form a series. No pixel is read here."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.errors import ReadError
from medseg.io.formats import has_dicom_magic, is_hidden, kind_of

__all__ = ["Series", "SliceHeader", "find_series", "read_header", "scan"]

# Objects that describe, annotate or point at images without being one.
_NOT_IMAGES = frozenset({"SEG", "PR", "SR", "KO", "REG", "FID", "RTSTRUCT", "RTPLAN", "RTRECORD", "DOC", "AU", "ECG"})
_TAGS = [
    "BitsStored",
    "Columns",
    "FrameOfReferenceUID",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "ImagerPixelSpacing",
    "Modality",
    "ModalityLUTSequence",
    "NumberOfFrames",
    "PatientID",
    "PhotometricInterpretation",
    "PixelRepresentation",
    "PixelSpacing",
    "RescaleIntercept",
    "RescaleSlope",
    "Rows",
    "SOPInstanceUID",
    "SamplesPerPixel",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SliceThickness",
    "StudyInstanceUID",
]
_SUFFIXES_NOT_DICOM = frozenset(
    {".txt", ".csv", ".json", ".xml", ".html", ".htm", ".pdf", ".md", ".py", ".log", ".yaml", ".yml", ".gif", ".bmp"}
)


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """One image file of a series. Positions and directions are DICOM's: LPS, millimetres."""

    path: Path
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    frame_of_reference_uid: str
    patient_id: str
    modality: str
    description: str
    image_type: tuple[str, ...]
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, ...]
    detector_spacing: tuple[float, ...]
    thickness: float
    rows: int
    columns: int
    slope: float
    intercept: float
    has_modality_lut: bool
    signed: bool
    bits_stored: int
    samples: int
    frames: int
    photometric: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Series:
    """The image files that share a SeriesInstanceUID, in no particular order."""

    uid: str
    slices: tuple[SliceHeader, ...]

    @property
    def title(self) -> str:
        """UID, modality, description and number of files in one phrase, to choose a series by."""
        first = self.slices[0]
        words = " ".join(w for w in (first.modality, repr(first.description) if first.description else "") if w)
        files = "1 file" if len(self.slices) == 1 else f"{len(self.slices)} files"
        return f"{self.uid or '(no SeriesInstanceUID)'} ({words}, {files})"


def read_header(path: Path) -> SliceHeader | None:
    """The header of one file; None where it is not DICOM or holds no image (reports, segmentations, DICOMDIR).

    Raises:
        ReadError: for a file that cannot be opened, or a DICOM image whose geometry tags are not numbers.
    """
    import pydicom
    from pydicom.errors import BytesLengthException, InvalidDicomError

    if not has_dicom_magic(path):
        if kind_of(path) == "dicom":
            raise ReadError(f"{path} is named like DICOM but is empty or damaged; export it again or remove it")
        return None
    try:
        data = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))
        # A DICOMDIR and the like have no matrix; segmentations have one, but are no image of the patient.
        if "Rows" not in data or "Columns" not in data:
            # Without this a file cut short would be passed over, and the volume would lack a slice unnoticed.
            if "Image Storage" in getattr(data.file_meta.get("MediaStorageSOPClassUID"), "name", ""):
                raise ReadError(f"{path} is a DICOM image without a size, so it was cut short; export it again")
            return None
        if str(data.get("Modality", "")) in _NOT_IMAGES:
            return None
        return _header_from(data, path)
    except (InvalidDicomError, EOFError):
        return None
    except ReadError:
        raise
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from None
    except (BytesLengthException, ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ReadError(f"{path} has a damaged DICOM header ({reason}); export it again") from None


def _header_from(data: Any, path: Path) -> SliceHeader:
    def text(name: str) -> str:
        value = data.get(name)
        return "" if value is None else str(value).strip()

    def numbers(name: str, count: int) -> tuple[float, ...]:
        value = data.get(name)
        if value is None or value == "" or len(value) != count:
            return ()
        return tuple(float(v) for v in value)

    def number(name: str, otherwise: float) -> float:
        value = data.get(name)
        return otherwise if value is None or value == "" else float(value)

    image_type = data.get("ImageType") or ()
    return SliceHeader(
        path=path,
        sop_instance_uid=text("SOPInstanceUID"),
        series_instance_uid=text("SeriesInstanceUID"),
        study_instance_uid=text("StudyInstanceUID"),
        frame_of_reference_uid=text("FrameOfReferenceUID"),
        patient_id=text("PatientID"),
        modality=text("Modality"),
        description=text("SeriesDescription"),
        image_type=(image_type,) if isinstance(image_type, str) else tuple(str(v) for v in image_type),
        position=numbers("ImagePositionPatient", 3),
        orientation=numbers("ImageOrientationPatient", 6),
        pixel_spacing=numbers("PixelSpacing", 2),
        detector_spacing=numbers("ImagerPixelSpacing", 2),
        thickness=number("SliceThickness", 0.0),
        rows=int(data.Rows),
        columns=int(data.Columns),
        slope=number("RescaleSlope", 1.0),
        intercept=number("RescaleIntercept", 0.0),
        has_modality_lut=bool(data.get("ModalityLUTSequence")),
        signed=int(number("PixelRepresentation", 0)) == 1,
        bits_stored=int(number("BitsStored", 16)),
        samples=int(number("SamplesPerPixel", 1)),
        frames=int(number("NumberOfFrames", 1)),
        photometric=text("PhotometricInterpretation"),
        transfer_syntax=str(getattr(data.file_meta, "TransferSyntaxUID", "")),
    )


def find_series(source: Path | Iterable[Path]) -> list[Series]:
    """Every image series among some files, or in a folder and its sub-folders, ordered by UID.

    Files that are not DICOM, and DICOM objects that are not images, are passed over. Files without a
    SeriesInstanceUID form one series per folder.

    Raises:
        ReadError: for a DICOM image whose header is damaged.
    """
    found, damaged = scan(source)
    if damaged:
        raise damaged[0][1]
    return found


def scan(source: Path | Iterable[Path]) -> tuple[list[Series], list[tuple[Path, ReadError]]]:
    """Like `find_series`, but damaged files are returned beside the series, so that one does not hide the others."""
    import pydicom.config

    files = source.rglob("*") if isinstance(source, Path) else source
    candidates = sorted(
        p
        for p in files
        if not is_hidden(p)
        and kind_of(p) in ("dicom", "")
        and p.suffix.lower() not in _SUFFIXES_NOT_DICOM
        and p.is_file()
    )
    # Real headers break small rules of the standard (an over-long text, a malformed UID) that do not concern us.
    with pydicom.config.disable_value_validation(), ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        headers = list(pool.map(_header_or_error, candidates))
    groups: dict[tuple[str, str], list[SliceHeader]] = {}
    damaged: list[tuple[Path, ReadError]] = []
    for path, header in zip(candidates, headers, strict=True):
        if isinstance(header, ReadError):
            damaged.append((path, header))
        elif header is not None:
            uid = header.series_instance_uid
            groups.setdefault((uid, "" if uid else str(path.parent)), []).append(header)
    return [Series(key[0], tuple(slices)) for key, slices in sorted(groups.items())], damaged


def _header_or_error(path: Path) -> SliceHeader | ReadError | None:
    try:
        return read_header(path)
    except ReadError as error:
        return error
