"""Header values that no real frame can have are refused, by the name of their tag, before any pixel is read.

The bounds are those of `medseg.io.plausible`. Values that are not numbers at all are refused when the header is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medseg.errors import ReadError
from medseg.io.dicom.fragments import check_fragments
from medseg.io.dicom.pixels import LITTLE_ENDIAN, check_bits, check_size
from medseg.io.dicom.slice import SliceHeader, shown
from medseg.io.dicom.tags import impossible, tagged
from medseg.io.plausible import LARGEST_MM, SMALLEST_MM, place_fault, rescale_fault, spacing_fault

__all__ = ["check_frames", "is_out_of_space"]

# A little more than 1, for direction cosines written with few digits.
_LARGEST_COSINE = 1.01


def check_frames(slices: Sequence[SliceHeader]) -> None:
    """Refuse frames without pixels, cut short, or whose header contains impossible values.

    Raises:
        ReadError: naming the files without pixels, or the first file with an impossible value, its tag and the
            expected range.
    """
    without = [s for s in slices if not s.has_pixels]
    if without:
        count = len({s.path for s in without})
        raise ReadError(
            f"{without[0].path.parent}: {count} of {len({s.path for s in slices})} files have a header but no pixel "
            f"data ({tagged('PixelData')}): {shown(without)}; export them again",
            kind="no_pixels",
            files=tuple(s.name for s in without),
        )
    for header in slices:
        fault = next(_faults(header), "")
        if fault:
            where = f" in frame {header.frame + 1}" if header.frames > 1 else ""
            text = f"{header.path} has{where} {fault}: export it again"
            raise ReadError(text, kind="impossible_value", files=(header.name,))
        check_size(header)
        # Compressed streams carry their own bit depth.
        if _is_native(header) and not header.is_colour:
            check_bits(header, header.bits_allocated)
    compressed = {s.path: s for s in slices if s.pixel_offset >= 0 and s.pixel_length < 0}
    for header in compressed.values():
        check_fragments(header)


def is_out_of_space(header: SliceHeader) -> bool:
    """Whether the position of a frame is impossible, so that comparing it with other frames would overflow."""
    return bool(place_fault(header.position)) or any(abs(v) > _LARGEST_COSINE for v in header.orientation)


def _faults(header: SliceHeader) -> Iterator[str]:
    for keyword, number in (("Rows", header.rows), ("Columns", header.columns)):
        if number < 1:
            yield impossible(keyword, number, "at least 1")
    bits = header.bits_allocated
    # PS3.5 section 8.1.1.
    if bits != 1 and not (bits % 8 == 0 and 8 <= bits <= 64):
        yield impossible("BitsAllocated", bits, "1, or a multiple of 8 up to 64")
    if header.samples not in (1, 3):
        yield impossible("SamplesPerPixel", header.samples, "1 or 3")
    if fault := _short_of_pixels(header):
        yield fault
    is_rescaled = not (header.has_modality_lut or header.is_colour)
    if is_rescaled and (fault := rescale_fault(header.slope, header.intercept)):
        slope = "DoseGridScaling" if header.modality == "RTDOSE" else "RescaleSlope"
        wrong = rescale_fault(header.slope, 0.0)
        yield impossible(*((slope, header.slope) if wrong else ("RescaleIntercept", header.intercept)), fault)
    if fault := place_fault(header.position):
        yield impossible("ImagePositionPatient", header.position, fault)
    if any(abs(v) > _LARGEST_COSINE for v in header.orientation):
        yield impossible("ImageOrientationPatient", header.orientation, "two unit vectors at right angles")
    spacing = header.pixel_spacing or header.detector_spacing
    if fault := spacing_fault(spacing):
        yield impossible("PixelSpacing" if header.pixel_spacing else "ImagerPixelSpacing", spacing, fault)
    # Values of 0 and below mean 'unknown'.
    if header.thickness > 0 and spacing_fault([header.thickness]):
        yield impossible("SliceThickness", header.thickness, f"0, or {SMALLEST_MM:g} to {LARGEST_MM:g} mm")


def _short_of_pixels(header: SliceHeader) -> str:
    """For uncompressed pixels: a message if the file is too short. Subsampled colours may share samples."""
    if not _is_native(header):
        return ""
    promised = -(-header.frames * header.rows * header.columns * header.bits_allocated // 8)
    if promised <= header.pixel_length:
        return ""
    frames = f"{tagged('NumberOfFrames')} {header.frames}, " if header.frames > 1 else ""
    return (
        f"{header.pixel_length} bytes of pixels, its header promises {promised} or more ({frames}{tagged('Rows')} "
        f"{header.rows}, {tagged('Columns')} {header.columns}, {tagged('BitsAllocated')} {header.bits_allocated})"
    )


def _is_native(header: SliceHeader) -> bool:
    return header.pixel_length >= 0 and (header.transfer_syntax in LITTLE_ENDIAN or header.pixel_offset < 0)
