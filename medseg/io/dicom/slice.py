"""`SliceHeader`: the header of one image frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MARKS", "SliceHeader", "are_views", "is_cine", "shown"]

# What distinguishes images of one series at the same position, the most decisive first.
MARKS = (
    *("image type", "stack", "time point", "echo", "b-value", "gradient direction", "kernel", "tube voltage"),
    *("inversion time", "flip angle", "component", "description", "trigger time", "frame time", "acquisition"),
    *("dimension index", "acquisition time"),
)


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """The header of one image frame. Positions and directions are DICOM's: LPS, millimetres.

    `frame` counts from 0 within the file (0 in classic files), `frames` is how many the file holds. `marks` are the
    values of `MARKS`, '' if absent. `illegal` names elements whose value breaks the standard but is readable.
    `date` is the day of acquisition, YYYYMMDD, or of the series or study if that is missing.
    `pixel_offset` is where the file's pixel data begins, -1 if only pydicom can find it; `has_pixels` is False in a
    header without pixel data. `tiles` is the number of images tiled into one by UIH, 0 for none. `runs_backwards`:
    the frames of the file lie against the normal (row x column cosines). `has_empty_lut`: the file has a Modality LUT
    Sequence without a table. `region_note` says why the regions of an ultrasound image give no spacing.
    """

    path: Path
    frame: int
    frames: int
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    frame_of_reference_uid: str
    patient_id: str
    modality: str
    description: str
    body_part: str
    has_contrast: bool
    date: str
    image_type: tuple[str, ...]
    instance_number: int | None
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
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    samples: int
    photometric: str
    padding: tuple[int, ...]
    is_lossy: bool
    transfer_syntax: str
    pixel_offset: int
    pixel_length: int
    marks: tuple[str, ...]
    illegal: tuple[str, ...]
    has_pixels: bool = True
    tiles: int = 0
    runs_backwards: bool = False
    has_empty_lut: bool = False
    region_note: str = ""

    @property
    def name(self) -> str:
        """File name, with the frame number (from 1, as DICOM counts) where the file holds several."""
        return f"{self.path.name}[{self.frame + 1}]" if self.frames > 1 else self.path.name

    @property
    def rounding_mm(self) -> float:
        """The part of a distance that may be rounding: 0.01 mm, or less for very small pixels."""
        smallest = min(self.pixel_spacing, default=1.0)
        return min(0.01, 0.02 * smallest) if smallest > 0 else 0.01

    @property
    def is_localizer(self) -> bool:
        """Whether ImageType contains LOCALIZER (PS3.3 C.8.2.1.1.1)."""
        return "LOCALIZER" in self.image_type

    @property
    def is_colour(self) -> bool:
        """Whether a pixel is a colour, directly or through a palette."""
        return self.samples > 1 or self.photometric == "PALETTE COLOR"

    @property
    def stack_id(self) -> str:
        """StackID of an enhanced frame, '' if it has none."""
        return self.marks[MARKS.index("stack")]


# Their images are slices of a body, whose frames lie somewhere even if a file does not say where.
_SECTIONAL = frozenset({"CT", "MR", "PT", "NM", "RTDOSE", ""})


def are_views(slices: Sequence[SliceHeader]) -> bool:
    """Whether the frames are views without a position, such as radiographs or ultrasound, and not slices of a body."""
    return all(s.modality not in _SECTIONAL and not s.position for s in slices)


def is_cine(slices: Sequence[SliceHeader]) -> bool:
    """Whether the frames are moments of one view: all frames of one file."""
    first = slices[0]
    return first.frames == len(slices) > 1 and are_views(slices) and all(s.path == first.path for s in slices)


def shown(slices: Sequence[SliceHeader], limit: int = 4) -> str:
    """The names of the first few frames."""
    names = [s.name for s in slices]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
