"""DICOM studies of any kind whose voxel value is a linear function of world position, so that any misplacement shows.

What a study means is taken from the standard alone: slices lie at ImagePositionPatient, along the two vectors of
ImageOrientationPatient (PS3.3 C.7.6.2.1.1), and hold slope * stored + intercept (C.11.1). `Phantom` says what the study
is, `write_study` writes it, `Phantom.truth` is what a reader has to find: array `[i, j, k]`, k along row x column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from dicom_phantom_codecs import SYNTAXES, decode, encode
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid

__all__ = ["Phantom", "Truth", "euler", "save", "series_uid", "slice_of", "write_study"]

PATIENT_NAME, PATIENT_ID = "Secret^Jane", "ID-7731"
Array = NDArray[Any]


def euler(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Array:
    """A rotation matrix from three angles in degrees; its columns are the directions of i, j, k in LPS."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians((x, y, z))), np.sin(np.radians((x, y, z)))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


@dataclass(frozen=True, slots=True)
class Truth:
    """What a reader has to return: `array` and RAS `affine`; `where` leaves out voxels that carry no measurement."""

    array: Array
    affine: Array
    tolerance: float = 0.5
    channels: int = 0
    where: Array | None = None

    def faults(self, volume: Any) -> str:
        """What is wrong with a volume, or '' if nothing is."""
        if volume.array.shape != self.array.shape or volume.channels != self.channels:
            return f"shape {volume.array.shape} ({volume.channels} channels), expected {self.array.shape}"
        # A 2D image says nothing about a third axis.
        columns = [0, 1, 3] if self.array.ndim - bool(self.channels) == 2 else [0, 1, 2, 3]
        moved = float(np.abs(volume.affine - self.affine)[:, columns].max())
        if not moved <= 1e-3:
            return f"affine off by {moved:.4g}: {np.round(volume.affine, 3).tolist()}"
        apart = np.abs(np.asarray(volume.array, np.float64) - self.array)
        worst = float((apart if self.where is None else apart[self.where]).max())
        if not worst <= self.tolerance + 1e-3:
            return f"values off by up to {worst:.4g}"
        if self.where is not None and not volume.array[~self.where].max() <= volume.array[self.where].min():
            return "padding is no background: it lies above measured values"
        return ""


@dataclass(frozen=True, slots=True)
class Phantom:
    """One volume of a study: where it lies, what it holds, and how its slices are written.

    Args:
        shape: columns, rows, slices.
        spacing: mm along i, j and between slices.
        turn: `(3, 3)` rotation; columns are the LPS directions of i, j and k.
        origin: LPS mm of the centre of the first voxel.
        tilt_deg: slices step sideways, along -j, as with a gantry tilted about the row axis.
        depths: slice positions along the step direction in mm, where they are not 0, 1, 2... times the spacing.
        gradient, offset: value = gradient . (LPS mm) + offset.
        slopes, intercepts: modality rescale, one per slice (or one for all); None leaves both out.
        stored, bits: dtype and BitsStored of the stored values; `rubbish` fills the bits above them.
        stored_of: f(values) -> stored values, where the rescale does not say it.
        numbers: InstanceNumber by slice; None shuffles them.
        syntax, fragments, offset_table: transfer syntax and encapsulation of the pixel data.
        digits: decimals of the position and orientation strings.
        series, patient, study, frame_of_reference: numbers that make up the identifiers.
        tags, per_slice: elements set (or deleted, with None) at the end.
        change: f(dataset, k) that has the last word.
    """

    shape: tuple[int, int, int] = (9, 7, 6)
    spacing: tuple[float, float, float] = (0.8, 1.1, 2.5)
    turn: Array = field(default_factory=lambda: np.eye(3))
    origin: tuple[float, float, float] = (-3.0, 4.0, -7.5)
    tilt_deg: float = 0.0
    depths: tuple[float, ...] | None = None
    gradient: tuple[float, float, float] = (3.0, -2.0, 5.0)
    offset: float = 1000.0
    slopes: float | tuple[float, ...] | None = 1.0
    intercepts: float | tuple[float, ...] = -1024.0
    stored: str = "int16"
    bits: int = 16
    rubbish: bool = False
    stored_of: Callable[[Array], Array] | None = None
    numbers: tuple[int, ...] | None = None
    syntax: str = "explicit little endian"
    fragments: int = 1
    offset_table: bool = True
    digits: int = 9
    modality: str = "CT"
    series: int = 1
    patient: int = 1
    study: int = 1
    frame_of_reference: int = 1
    tags: dict[str, Any] = field(default_factory=dict)
    per_slice: Callable[[int], dict[str, Any]] = lambda k: {}
    change: Callable[[Dataset, int], None] = lambda data, k: None

    @property
    def row(self) -> Array:
        return np.asarray(self.turn[:, 0])

    @property
    def column(self) -> Array:
        return np.asarray(self.turn[:, 1])

    @property
    def step(self) -> Array:
        """Unit vector from slice to slice."""
        tilt = np.radians(self.tilt_deg)
        return np.asarray(np.cos(tilt) * np.cross(self.row, self.column) - np.sin(tilt) * self.column)

    @property
    def positions(self) -> Array:
        """ImagePositionPatient of each slice, `(slices, 3)`."""
        depths = np.arange(self.shape[2]) * self.spacing[2] if self.depths is None else np.asarray(self.depths)
        return np.asarray(self.origin + depths[:, None] * self.step)

    @property
    def affine(self) -> Array:
        """RAS+; along k from the first position to the last, or one spacing for a single slice."""
        positions = self.positions
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = self.row * self.spacing[0], self.column * self.spacing[1]
        several = len(positions) > 1
        affine[:3, 2] = (
            (positions[-1] - positions[0]) / (len(positions) - 1) if several else self.step * self.spacing[2]
        )
        affine[:3, 3] = positions[0]
        return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)

    def value_at(self, lps: Array) -> Array:
        """The linear function, at points `(..., 3)`."""
        return np.asarray(lps @ np.array(self.gradient) + self.offset)

    def values(self, k: int) -> Array:
        """The linear function on slice k, `(rows, columns)`."""
        i, j = np.meshgrid(np.arange(self.shape[0]), np.arange(self.shape[1]))
        return self.value_at(
            self.positions[k] + i[..., None] * self.row * self.spacing[0] + j[..., None] * self.column * self.spacing[1]
        )

    def rescale(self, k: int) -> tuple[float, float]:
        """Slope and intercept of slice k."""
        pair = (1.0 if self.slopes is None else self.slopes), (0.0 if self.slopes is None else self.intercepts)
        return tuple(v[k] if isinstance(v, tuple) else v for v in pair)  # type: ignore[return-value]

    def stored_values(self, k: int) -> Array:
        """What slice k stores, before any lossy coding, `(rows, columns)`."""
        slope, intercept = self.rescale(k)
        wanted = self.values(k)
        exact = self.stored_of(wanted) if self.stored_of else (wanted - intercept) / slope
        signed = np.dtype(self.stored).kind == "i"
        low, high = (-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1) if signed else (0, 2**self.bits - 1)
        rounded = np.rint(exact)
        if rounded.min() < low or rounded.max() > high:
            raise ValueError(f"values {rounded.min()}..{rounded.max()} do not fit {self.bits} bits")
        return rounded.astype(self.stored)

    def truth(self, tolerance: float = 0.5) -> Truth:
        """The volume as it has to be read; a single slice is 2D. Lossy syntaxes: what a peer decodes."""
        if SYNTAXES[self.syntax].lossy:
            frames = [_decoded(self, k) * self.rescale(k)[0] + self.rescale(k)[1] for k in range(self.shape[2])]
        else:
            frames = [self.values(k) for k in range(self.shape[2])]
        array = np.stack([frame.T for frame in frames], axis=-1)
        return Truth(array[..., 0] if self.shape[2] == 1 else array, self.affine, tolerance)

    def worst(self, volume: Any) -> float:
        """Largest distance of a 3D volume's values from the linear function at the places its own affine says."""
        index = np.indices(volume.array.shape).reshape(3, -1)
        ras = volume.affine[:3, :3] @ index + volume.affine[:3, 3:]
        expected = self.value_at((ras * [[-1], [-1], [1]]).T)
        return float(np.abs(np.asarray(volume.array, np.float64).reshape(-1) - expected).max())

    def but(self, **changes: Any) -> Phantom:
        """The same phantom with some fields changed."""
        return replace(self, **changes)


def _decoded(phantom: Phantom, k: int) -> Array:
    return decode(encode(phantom.stored_values(k), phantom.syntax), phantom.syntax).astype(np.float64)


def series_uid(series: int) -> str:
    """SeriesInstanceUID of a series number."""
    return f"1.2.826.0.1.3680043.8.498.3.{series}"


def numbers_as_strings(values: Sequence[float], digits: int) -> list[str]:
    """Decimal strings; beyond 13 digits they break the 16 characters that DS allows, as real exports do."""
    return [f"{float(v):.{digits}f}" for v in values]


def set_numbers(data: Dataset, keyword: str, values: Sequence[float], digits: int = 9) -> None:
    """A DS element written as it is, legal or not."""
    text = [s[:16] if digits <= 9 else s for s in numbers_as_strings(values, digits)]
    tag = pydicom.datadict.tag_for_keyword(keyword)
    data[tag] = DataElement(tag, "DS", text, validation_mode=pydicom.config.IGNORE)


def header(phantom: Phantom) -> Dataset:
    """The elements all files of a phantom share."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.SOPClassUID = MRImageStorage if phantom.modality == "MR" else CTImageStorage
    data.PatientName, data.PatientID = PATIENT_NAME, f"{PATIENT_ID}-{phantom.patient}"
    data.StudyInstanceUID = f"1.2.826.0.1.3680043.8.498.1.{phantom.study}"
    data.SeriesInstanceUID = series_uid(phantom.series)
    data.FrameOfReferenceUID = f"1.2.826.0.1.3680043.8.498.2.{phantom.frame_of_reference}"
    data.Modality, data.SeriesNumber, data.AcquisitionNumber = phantom.modality, phantom.series, 1
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.Rows, data.Columns = phantom.shape[1], phantom.shape[0]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    dtype = np.dtype(phantom.stored)
    data.BitsAllocated, data.BitsStored, data.HighBit = 8 * dtype.itemsize, phantom.bits, phantom.bits - 1
    data.PixelRepresentation = int(dtype.kind == "i")
    return data


def slice_of(phantom: Phantom, k: int) -> Dataset:
    """Slice k as a classic single-frame image, its pixels still native little endian."""
    data = header(phantom)
    shuffled = np.random.default_rng(phantom.series).permutation(phantom.shape[2]) + 1
    data.InstanceNumber = int((phantom.numbers or shuffled)[k])
    set_numbers(data, "ImagePositionPatient", phantom.positions[k], phantom.digits)
    set_numbers(data, "ImageOrientationPatient", (*phantom.row, *phantom.column), phantom.digits)
    set_numbers(data, "PixelSpacing", (phantom.spacing[1], phantom.spacing[0]), phantom.digits)
    # Thickness is no spacing: slices overlap or leave gaps.
    data.SliceThickness = 2 * phantom.spacing[2]
    if phantom.slopes is not None:
        slope, intercept = phantom.rescale(k)
        set_numbers(data, "RescaleSlope", [slope])
        set_numbers(data, "RescaleIntercept", [intercept])
    pixels = phantom.stored_values(k)
    if phantom.rubbish:
        pixels = with_rubbish(pixels, phantom.bits)
    data.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    for keyword, value in {**phantom.tags, **phantom.per_slice(k)}.items():
        if value is not None:
            setattr(data, keyword, value)
        elif keyword in data:
            delattr(data, keyword)
    phantom.change(data, k)
    identity = [
        data.get("SeriesInstanceUID", ""),
        str(data.get("PatientID", "")),
        str(k),
        pixels.tobytes().hex(),
        str(data),
    ]
    data.SOPInstanceUID = generate_uid(entropy_srcs=identity)
    return data


def with_rubbish(pixels: Array, bits: int) -> Array:
    """Stored values whose bits above BitsStored hold something else, e.g. the overlays of ACR-NEMA days."""
    above = np.random.default_rng(bits).integers(0, 2 ** (8 * pixels.itemsize - bits), pixels.shape)
    below = pixels.astype(np.int64) & (2**bits - 1)
    unsigned = (below | above << bits).astype(f"uint{8 * pixels.itemsize}")
    return np.asarray(unsigned.view(pixels.dtype))


def frames_of(data: Dataset) -> list[Array]:
    """The native frames of a dataset that is about to be encoded."""
    kind = "i" if data.PixelRepresentation else "u"
    dtype = np.dtype(f"<{kind}{data.BitsAllocated // 8}")
    count = int(data.get("NumberOfFrames", 1))
    shape = (count, data.Rows, data.Columns) + ((3,) if data.SamplesPerPixel == 3 else ())
    return list(np.frombuffer(data.PixelData, dtype, count=int(np.prod(shape))).reshape(shape))


def save(
    data: Dataset, path: Path, syntax: str = "explicit little endian", fragments: int = 1, offset_table: bool = True
) -> Path:
    """Write one dataset in a transfer syntax; the pixels are native little endian until here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = SYNTAXES[syntax]
    data.file_meta.TransferSyntaxUID = chosen.uid
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    if chosen.encapsulated:
        frames = [encode(np.ascontiguousarray(frame), syntax) for frame in frames_of(data)]
        data.PixelData = encapsulate(frames, fragments_per_frame=fragments, has_bot=offset_table)
        data["PixelData"].is_undefined_length = True
    elif "PixelData" in data:
        if syntax == "explicit big endian" and data.BitsAllocated > 8:
            data.PixelData = b"".join(
                frame.astype(frame.dtype.newbyteorder(">")).tobytes() for frame in frames_of(data)
            )
        if len(data.PixelData) % 2:
            data.PixelData += b"\0"
    if "PixelData" in data:
        data["PixelData"].VR = "OB" if chosen.encapsulated or data.BitsAllocated == 8 else "OW"
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def write_study(folder: Path, *phantoms: Phantom, seed: int = 0) -> list[Path]:
    """Write all slices of all phantoms into one folder, under names that tell nothing; returns them in slice order."""
    wanted = [(phantom, k) for phantom in phantoms for k in range(phantom.shape[2])]
    names = np.random.default_rng(seed).permutation(len(wanted))
    paths = []
    for (phantom, k), name in zip(wanted, names, strict=True):
        path = folder / f"IM{name:04d}.dcm"
        paths.append(save(slice_of(phantom, k), path, phantom.syntax, phantom.fragments, phantom.offset_table))
    return paths
