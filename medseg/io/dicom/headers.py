"""DICOM headers: one `SliceHeader` per image frame, read without touching the pixels."""

from __future__ import annotations

import math
import os
import warnings
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.disk.directory_walk import files_below, is_hidden
from medseg.errors import ReadError
from medseg.io.dicom.decode_errors import damage, reason_of
from medseg.io.dicom.elements import DEFLATED, KEYWORDS, DatasetElements, Elements, RawElements, walk
from medseg.io.dicom.multiframe import functional_frames, plain_frames
from medseg.io.dicom.slice import SliceHeader
from medseg.io.dicom.tags import impossible
from medseg.io.formats import has_dicom_magic, is_dicom_directory, kind_of, may_be_dicom
from medseg.io.library_errors import refuse_own_fault

__all__ = ["Headers", "SliceHeader", "check_inflated", "read_headers", "scan_headers"]

# Objects that describe, annotate or reference images without being images.
_NOT_IMAGES = frozenset({"SEG", "PR", "SR", "KO", "REG", "FID", "RTSTRUCT", "RTPLAN", "RTRECORD", "DOC", "AU", "ECG"})
# How many files a thread reads per task.
_BATCH = 64
# No real image compresses this well: beyond it a deflated file was made to fill the memory.
_LARGE, _RATIO = 2**28, 200
_ALWAYS_LOSSY = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
_MAYBE_LOSSY = frozenset({"1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203"})


@dataclass(frozen=True, slots=True)
class Headers:
    """The result of reading the headers of some files.

    Args:
        frames: one per image frame, in the order of file names.
        damaged: damaged DICOM images and folders that could not be listed, each with its error.
        passed_over: how many files are not DICOM, or are DICOM without an image.
    """

    frames: tuple[SliceHeader, ...]
    damaged: tuple[tuple[Path, ReadError], ...]
    passed_over: int


def read_headers(path: Path) -> tuple[SliceHeader, ...]:
    """The frames of one file; () if it is not DICOM or contains no image (reports, segmentations, DICOMDIR).

    Raises:
        ReadError: for a file that cannot be opened, or a DICOM image whose geometry tags are not numbers.
    """
    try:
        raw = walk(path)
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {reason_of(error)}") from None
    try:
        if raw is not None and not raw.has("PerFrameFunctionalGroupsSequence"):
            return _frames(raw, path, raw)
        if raw is None and not has_dicom_magic(path):
            if kind_of(path) == "dicom":
                raise ReadError(f"{path} is named like DICOM but is empty or damaged; export it again or remove it")
            return ()
        dataset = _dataset(path)
        if dataset is None:
            return ()
        elements = DatasetElements(dataset)
        if not elements.has("PerFrameFunctionalGroupsSequence"):
            return _frames(elements, path, raw)
        base = _frames(elements, path, raw)
        return functional_frames(dataset, base[0]) if base else ()
    except ReadError:
        raise
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {reason_of(error)}") from None
    except damage() as error:
        refuse_own_fault(error)
        raise ReadError(f"{path} has a damaged DICOM header ({reason_of(error)}); export it again") from None


def _dataset(path: Path) -> Any:
    """The pydicom data set of a file without its pixels; None if pydicom does not recognise DICOM.

    Raises:
        ReadError: for a header that cannot be parsed.
    """
    import pydicom
    import pydicom.config
    from pydicom.errors import InvalidDicomError

    check_inflated(path)
    try:
        # Real headers break minor rules of the standard (an over-long text, a malformed UID) that do not matter here.
        with pydicom.config.disable_value_validation():
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(KEYWORDS))
            # pydicom parses elements lazily, so damage would surface later and without a file name.
            _parse(dataset)
            return dataset
    except (InvalidDicomError, EOFError):
        return None
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {reason_of(error)}") from None
    except damage() as error:
        refuse_own_fault(error)
        raise ReadError(f"{path} has a damaged DICOM header ({reason_of(error)}); export it again") from None


def _parse(dataset: Any) -> None:
    """Parse all elements, including those in sequences.

    Raises:
        ValueError: naming the element that cannot be parsed.
    """
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except damage() as error:
            refuse_own_fault(error)
            from pydicom.datadict import keyword_for_tag

            value = dataset.get_item(tag).value
            text = value.decode("latin-1").strip(" \0") if isinstance(value, bytes) else reason_of(error)
            raise ValueError(impossible(keyword_for_tag(tag) or str(tag), text, "a value of its type")) from None
        if element.VR == "SQ":
            for item in element.value:
                _parse(item)


def check_inflated(path: Path) -> None:
    """Refuse a deflated file that would fill the memory: pydicom inflates all of it to parse the header.

    Raises:
        ReadError: for a file that inflates far more than any image, or is damaged.
    """
    with path.open("rb") as file:
        start = file.read(1024)
        at = start.find(DEFLATED.encode())
        if at < 0:
            return
        # The data set follows the file meta information, whose length is its first element (PS3.10 section 7.1).
        file.seek(144 + int.from_bytes(start[140:144], "little"))
        inflate, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        try:
            while data := file.read(1 << 16):
                while data:
                    size += len(inflate.decompress(data, 1 << 20))
                    data = inflate.unconsumed_tail
                    if size > _LARGE and size > _RATIO * path.stat().st_size:
                        raise ReadError(f"{path} inflates to more than {size >> 20} MB, more than any image; refused")
        except zlib.error as error:
            raise ReadError(f"{path} is damaged ({error}); export it again") from None


def _frames(elements: Elements, path: Path, raw: RawElements | None) -> tuple[SliceHeader, ...]:
    """The frames of a file without functional groups: one, or several that have no position of their own."""
    if not (elements.has("Rows") and elements.has("Columns")):
        # Otherwise a truncated file would be skipped and the volume would silently lack a slice.
        if elements.has("MediaStorageSOPClassUID"):
            from pydicom.uid import UID

            if "Image Storage" in UID(elements.text("MediaStorageSOPClassUID")).name:
                raise ReadError(f"{path} is a DICOM image without a size, so it was cut short; export it again")
        return ()
    if elements.text("Modality") in _NOT_IMAGES:
        return ()
    header = _header(elements, path, raw)
    if header.frames == 1:
        return (header,)
    return plain_frames(elements, header)


def _header(elements: Elements, path: Path, raw: RawElements | None) -> SliceHeader:
    def several(keyword: str, count: int) -> tuple[float, ...]:
        values = elements.numbers(keyword)
        if not all(map(math.isfinite, values)):
            raise ValueError(impossible(keyword, values, "finite numbers"))
        return values if len(values) == count else ()

    def one(keyword: str, otherwise: float) -> float:
        values = elements.numbers(keyword)
        if values and not math.isfinite(values[0]):
            raise ValueError(impossible(keyword, values[0], "a finite number"))
        return values[0] if values else otherwise

    signed = one("PixelRepresentation", 0) == 1
    bits_stored = int(one("BitsStored", 16))
    frames = one("NumberOfFrames", 1.0)
    if frames < 1 or not frames.is_integer():
        raise ValueError(impossible("NumberOfFrames", frames, "a whole number of 1 or more"))
    number = elements.texts("InstanceNumber")
    return SliceHeader(
        path=path,
        frame=0,
        frames=int(frames),
        sop_class_uid=elements.text("SOPClassUID"),
        sop_instance_uid=elements.text("SOPInstanceUID"),
        series_instance_uid=elements.text("SeriesInstanceUID"),
        study_instance_uid=elements.text("StudyInstanceUID"),
        frame_of_reference_uid=elements.text("FrameOfReferenceUID"),
        patient_id=elements.text("PatientID"),
        modality=elements.text("Modality"),
        description=elements.text("SeriesDescription"),
        body_part=elements.text("BodyPartExamined"),
        has_contrast=elements.has("ContrastBolusAgent") or elements.has("ContrastBolusAgentSequence"),
        date=_date(elements),
        image_type=elements.texts("ImageType"),
        instance_number=int(number[0]) if number and number[0].lstrip("+-").isdigit() else None,
        position=several("ImagePositionPatient", 3),
        orientation=several("ImageOrientationPatient", 6),
        pixel_spacing=several("PixelSpacing", 2),
        detector_spacing=several("ImagerPixelSpacing", 2),
        thickness=one("SliceThickness", 0.0),
        rows=int(elements.numbers("Rows")[0]),
        columns=int(elements.numbers("Columns")[0]),
        slope=one("RescaleSlope", one("DoseGridScaling", 1.0)),
        intercept=one("RescaleIntercept", 0.0),
        has_modality_lut=elements.has("ModalityLUTSequence"),
        bits_allocated=int(one("BitsAllocated", 16)),
        bits_stored=bits_stored,
        high_bit=int(one("HighBit", bits_stored - 1)),
        signed=signed,
        samples=int(one("SamplesPerPixel", 1)),
        photometric=elements.text("PhotometricInterpretation"),
        padding=_padding(elements, signed),
        is_lossy=_is_lossy(elements),
        transfer_syntax=elements.text("TransferSyntaxUID"),
        pixel_offset=raw.pixel_offset if raw else -1,
        pixel_length=raw.pixel_length if raw else -1,
        marks=_marks(elements),
        illegal=elements.too_long("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    )


def _date(elements: Elements) -> str:
    """The day of acquisition, or of the series or study if that is missing."""
    return (
        elements.text("AcquisitionDate")
        or elements.text("AcquisitionDateTime")[:8]
        or elements.text("SeriesDate")
        or elements.text("StudyDate")
    )


def _marks(elements: Elements) -> tuple[str, ...]:
    """The values of `medseg.io.dicom.slice.MARKS`, in their order."""
    return (
        "\\".join(elements.texts("ImageType")),
        elements.text("StackID"),
        elements.text("TemporalPositionIdentifier"),
        elements.text("EchoTime") or elements.text("EchoNumbers"),
        "".join(f"{b:g}" for b in elements.numbers("DiffusionBValue")),
        elements.text("TriggerTime"),
        elements.text("AcquisitionNumber"),
        elements.text("AcquisitionDateTime") or elements.text("AcquisitionTime") or elements.text("ContentTime"),
    )


def _is_lossy(elements: Elements) -> bool:
    stated, syntax = elements.text("LossyImageCompression"), elements.text("TransferSyntaxUID")
    return stated == "01" or syntax in _ALWAYS_LOSSY or (syntax in _MAYBE_LOSSY and stated != "00")


def _padding(elements: Elements, signed: bool) -> tuple[int, ...]:
    """Lowest and highest stored value that marks padding (PS3.3 C.7.5.1.1.2)."""
    values = [int(v) % 2**16 for k in ("PixelPaddingValue", "PixelPaddingRangeLimit") for v in elements.numbers(k)[:1]]
    if signed:
        values = [v - 2**16 if v >= 2**15 else v for v in values]
    return (min(values), max(values)) if values else ()


def scan_headers(source: Path | Iterable[Path]) -> Headers:
    """The headers of all image frames in the given files, or in a folder and its sub-folders."""
    files, missed = files_below(source) if isinstance(source, Path) else (list(source), [])
    candidates = sorted(p for p in files if not is_hidden(p) and may_be_dicom(p))
    # Threads help with a slow disk only; parsing holds the interpreter lock.
    # pydicom's warnings about irregular headers would fill the user's log.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")
        batches = [candidates[start : start + _BATCH] for start in range(0, len(candidates), _BATCH)]
        results = [result for batch in pool.map(_headers_or_errors, batches) for result in batch]
    frames: list[SliceHeader] = []
    damaged: list[tuple[Path, ReadError]] = sorted(missed, key=lambda each: each[0])
    passed_over = sum(not is_hidden(p) for p in files) - len(candidates)
    for path, result in zip(candidates, results, strict=True):
        if isinstance(result, ReadError):
            damaged.append((path, result))
        else:
            frames.extend(result)
            passed_over += not result
    return Headers(tuple(frames), tuple(damaged), passed_over)


def _headers_or_errors(paths: Sequence[Path]) -> list[tuple[SliceHeader, ...] | ReadError]:
    results: list[tuple[SliceHeader, ...] | ReadError] = []
    for path in paths:
        try:
            results.append(read_headers(path))
        except ReadError as error:
            if is_dicom_directory(path):
                results.append(())  # a DICOMDIR contains no image, so nothing is lost
                continue
            # There may be 100,000 damaged files: keep the messages, not the tracebacks.
            error.__traceback__ = error.__context__ = None
            results.append(error)
    return results
