"""Synthetic chest CT: the studies behind `medseg demo`, `data_samples/` and the tests. No patient is in them.

A body of fat, muscle, ribs, spine, heart and liver holds two lungs with branching vessels and one tumour. Tumour,
vessels, heart and chest wall share their Hounsfield units, and so do lung, mattress and the rim of the skin, so that
no threshold tells them apart. `python -m medseg.phantoms data_samples` writes the samples again, byte for byte.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.config import packaged
from medseg.errors import ReadError
from medseg.geometry import flip_lps_ras, reorient
from medseg.volume import Metadata, Volume
from medseg.windowing import window

__all__ = ["LUNG", "TUMOUR", "make_phantom", "make_retina", "samples_folder", "write_samples"]

Field = NDArray[np.floating[Any]]
Point = Sequence[float] | NDArray[np.float64]

LUNG, TUMOUR = 1, 2
STUDY_SEED = 100
CASES = 10
SLICES = 6
RETINAS = 6


@dataclass
class _Canvas:
    """Hounsfield units at voxel centres; x to the patient's left, y posterior, z superior, in mm from the middle."""

    x: Field
    y: Field
    z: Field
    hu: Field
    blur_mm: float

    def distance(self, center: Point, radii: Point) -> Field:
        """Signed distance to an ellipsoid, negative inside (Inigo Quilez' first-order estimate)."""
        squares = [((p - c) / r) ** 2 for p, c, r in zip((self.x, self.y, self.z), center, radii, strict=True)]
        slopes = [s / r**2 for s, r in zip(squares, radii, strict=True)]
        near = np.sqrt(np.sum(squares, axis=0))
        return np.asarray(near * (near - 1) / np.sqrt(np.sum(slopes, axis=0) + 1e-9))

    def to_segment(self, start: Point, stop: Point) -> Field:
        """Distance to the straight line between two points."""
        axis = np.subtract(stop, start)
        delta = [p - s for p, s in zip((self.x, self.y, self.z), start, strict=True)]
        along = np.clip(sum(d * a for d, a in zip(delta, axis, strict=True)) / float(axis @ axis), 0, 1)
        return np.asarray(np.sqrt(sum((d - along * a) ** 2 for d, a in zip(delta, axis, strict=True))))

    def cover(self, distance: Field) -> Field:
        """Share of each voxel that lies inside a surface at this signed distance: the partial volume."""
        return np.asarray(np.clip(0.5 - distance / self.blur_mm, 0, 1))

    def paint(self, share: Field, hu: float | Field) -> None:
        self.hu += share * (hu - self.hu)


def make_phantom(seed: int) -> tuple[Volume, Volume]:
    """One synthetic chest CT and its labels; the same seed gives the same bytes.

    Args:
        seed: any non-negative integer; shape, spacing, anatomy, noise and the tumour's place follow from it.

    Returns:
        The image (int16, Hounsfield units, even numbers, about 64 x 64 x 40 voxels of about 5 x 5 x 6 mm, axes LPS)
        and the label map on the same grid (uint8: 1 both lungs with their vessels, 2 tumour).

    Example:
        >>> image, labels = make_phantom(0)
        >>> image.orientation, str(image.array.dtype), np.unique(labels.array).tolist()
        ('LPS', 'int16', [0, 1, 2])
    """
    rng = np.random.default_rng([seed, 0x6D656473])
    shape = (int(rng.integers(60, 67)), int(rng.integers(58, 65)), int(rng.integers(37, 43)))
    pixel_mm, slice_mm = float(rng.uniform(4.7, 5.3)), float(rng.uniform(5.6, 6.4))
    spacing = (pixel_mm, pixel_mm, slice_mm)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.subtract(shape, 1) / 2) + rng.uniform(-20, 20, 3)
    canvas = _canvas(shape, spacing, rng)
    labels = _draw_chest(canvas, rng)
    hu = canvas.hu + _noise(shape, rng)
    image = np.clip(2 * np.round(hu / 2), -1024, 3070).astype(np.int16)
    metadata = Metadata(source=f"phantom {seed}", modality="CT")
    volume = Volume(image, affine, metadata=metadata)
    return volume, volume.with_array(labels)


def _canvas(shape: tuple[int, int, int], spacing: tuple[float, float, float], rng: np.random.Generator) -> _Canvas:
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    # The patient lies a little turned and off the middle, and everybody is of another size.
    turn, size = np.deg2rad(rng.uniform(-5, 5)), rng.uniform(0.93, 1.06)
    x, y = (np.cos(turn) * x - np.sin(turn) * y) / size, (np.sin(turn) * x + np.cos(turn) * y) / size
    # Smooth bumps of a few millimetres, so that no organ is an exact ellipsoid.
    bumps = [_smooth(shape, 4.0, rng) * 2.5 for _ in range(3)]
    x, y, z = (c + b for c, b in zip((x + rng.uniform(-6, 6), y + rng.uniform(-6, 6), z), bumps, strict=True))
    air = np.full(shape, -1000, dtype=np.float32)
    return _Canvas(x.astype(np.float32), y.astype(np.float32), z.astype(np.float32), air, blur_mm=1.2 * spacing[0])


def _smooth(shape: tuple[int, ...], sigma: float | tuple[float, ...], rng: np.random.Generator) -> Field:
    field = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    return np.asarray(field / field.std(), dtype=np.float32)


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Field:
    """CT noise: correlated over about a voxel within the slice, a little streaky from left to right."""
    grain = _smooth(shape, (0.6, 0.6, 0.3), rng) + 0.35 * _smooth(shape, (6.0, 0.7, 0.0), rng)
    return grain * float(rng.uniform(20, 28))


def _draw_chest(canvas: _Canvas, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint everything in from the outside; returns the label map."""
    soft = float(rng.uniform(32, 48))
    wide, deep = rng.uniform(132, 142), rng.uniform(92, 100)
    lift = float(rng.uniform(-10, 10))
    _draw_table(canvas, deep)

    skin = canvas.distance((0, 0, 0), (wide, deep, 420))
    fat_mm = float(rng.uniform(8, 15))
    canvas.paint(canvas.cover(skin), -100)
    canvas.paint(canvas.cover(skin + fat_mm), soft + 10)

    right = canvas.distance((-56, 2, lift - 10), (48, 69, 108))
    left = canvas.distance((57, 2, lift - 10), (45, 67, 104))
    heart = canvas.distance((22, -24, lift - 38), (44 * rng.uniform(0.9, 1.1), 38, 48))
    middle = canvas.distance((0, 5, 0), (19, 90, 900))
    dome = canvas.z - (lift - 78) + 0.004 * ((np.abs(canvas.x) - 55) ** 2 + canvas.y**2)
    lungs = np.minimum(right, left)
    # A hair of pleura and wall lies between lung and everything that pushes into it.
    lungs = np.maximum.reduce([lungs, 3 - heart, 3 - middle, 3 - dome])

    _draw_bones(canvas, np.minimum(right, left), skin, rng)
    canvas.paint(canvas.cover(heart), soft)
    canvas.paint(canvas.cover(np.maximum(dome, skin + fat_mm + 12)), soft + 18)
    bubble = canvas.distance((48, -30, lift - 110), (26, 20, 14))
    canvas.paint(canvas.cover(bubble), -950)

    # Lungs are denser where they lie: a slope from front to back.
    tissue = -862 + 0.45 * canvas.y + 14 * _smooth(canvas.hu.shape, 3.0, rng)
    share = canvas.cover(lungs)
    canvas.paint(share, tissue)
    for start, stop, radius in _vessels(lift, rng):
        # Tubes thinner than a voxel fill only part of it.
        filled = canvas.cover(canvas.to_segment(start, stop) - radius) * min(1.0, 2.2 * radius / canvas.blur_mm)
        canvas.paint(filled * share, soft)
    windpipe = canvas.to_segment((0, 12, lift + 20), (0, 8, 400)) - 9
    canvas.paint(canvas.cover(windpipe), -985)
    for side in (-1.0, 1.0):
        bronchus = canvas.to_segment((0, 12, lift + 20), (side * 26, 14, lift + 2)) - 6
        canvas.paint(canvas.cover(bronchus), -985)

    tumour = _tumour(canvas, lungs, heart, lift, rng)
    canvas.paint(canvas.cover(tumour), soft + float(rng.uniform(-12, 12)))

    labels = np.zeros(canvas.hu.shape, dtype=np.uint8)
    labels[lungs < 0] = LUNG
    labels[tumour < 0] = TUMOUR
    return labels


def _draw_table(canvas: _Canvas, deep: float) -> None:
    below = canvas.y - (deep + 9) + 0.0009 * canvas.x**2
    inside = np.abs(canvas.x) - 150
    # The mattress has the Hounsfield units of lung.
    canvas.paint(canvas.cover(np.maximum(np.abs(below) - 7, inside)), -860)
    canvas.paint(canvas.cover(np.maximum(np.abs(below - 11) - 3, inside)), 60)


def _draw_bones(canvas: _Canvas, lungs: Field, skin: Field, rng: np.random.Generator) -> None:
    gap = float(rng.uniform(25, 31))
    phase = float(rng.uniform(0, gap))
    # Ribs run down from the spine to the front.
    level = (canvas.z + 0.45 * canvas.y + phase) % gap - gap / 2
    ribs = np.maximum(np.abs(level) - 5.5, np.abs(lungs - 9) - 4.5)
    canvas.paint(canvas.cover(np.maximum(ribs, skin + 6)), 330)
    spine = canvas.to_segment((0, 62, -400), (0, 62, 400))
    canvas.paint(canvas.cover(spine - 18), 190 + 60 * np.cos(2 * np.pi * canvas.z / 24))
    canvas.paint(canvas.cover(canvas.to_segment((0, 70, -400), (0, 82, 400)) - 7), 260)
    canvas.paint(canvas.cover(canvas.to_segment((0, 76, -400), (0, 76, 400)) - 5), 30)
    breastbone = np.maximum(canvas.distance((0, -80, 0), (16, 6, 900)), skin + 5)
    canvas.paint(canvas.cover(breastbone), 280)


def _vessels(lift: float, rng: np.random.Generator) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], float]]:
    """Start, end and radius (mm) of every piece of the two vessel trees, thick ones first."""
    pieces = []
    for side in (-1.0, 1.0):
        root = np.array([side * 18.0, 10.0, lift])
        for tilt in (-1.0, 0.0, 1.0):
            heading = np.array([side, rng.uniform(-0.5, 0.5), 1.1 * tilt])
            pieces.append((root, heading / np.linalg.norm(heading), 34.0, float(rng.uniform(4.5, 5.5)), 0))
    while pieces:
        start, heading, length, radius, depth = pieces.pop(0)
        stop = start + heading * length
        yield start, stop, radius
        if depth < 3:
            for _ in range(2):
                turned = heading + rng.normal(0, 0.5, 3)
                turned /= np.linalg.norm(turned)
                pieces.append((stop, turned, length * 0.8, radius * 0.72, depth + 1))


def _tumour(canvas: _Canvas, lungs: Field, heart: Field, lift: float, rng: np.random.Generator) -> Field:
    """Signed distance to a lumpy ball inside one lung, free or grown against the wall."""
    radius = float(rng.uniform(19, 25))
    side = float(rng.choice([-1.0, 1.0]))
    attached = rng.random() < 0.5
    reach = (-radius * 0.9, -radius * 0.3) if attached else (-radius * 1.6, -radius * 1.05)
    fits = (lungs > reach[0]) & (lungs < reach[1]) & (canvas.x * side > 30) & (np.abs(canvas.z - lift) < 62)
    # Nobody could tell it from a heart it is pressed against.
    fits &= heart > 1.2 * radius
    places = np.argwhere(fits)
    where = tuple(places[rng.integers(len(places))])
    center = np.array([float(c[where]) for c in (canvas.x, canvas.y, canvas.z)])
    offset = [c - m for c, m in zip((canvas.x, canvas.y, canvas.z), center, strict=True)]
    away = np.sqrt(sum(o**2 for o in offset)) + 1e-3
    lumps = np.zeros_like(away)
    for _ in range(6):
        heading = rng.standard_normal(3)
        heading /= np.linalg.norm(heading)
        lumps += rng.uniform(-1, 1) * np.cos(3 * sum(o * h for o, h in zip(offset, heading, strict=True)) / away)
    ball = np.asarray(away - radius * (1 + 0.07 * lumps), dtype=np.float32)
    # It fills the lung up to the wall, not the wall itself.
    return np.maximum(ball, lungs - 2)


def make_retina(seed: int, size: int = 128) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One synthetic retinal photograph, `(i, j, 3)`, and its vessels, `(i, j)` of 0 and 1; same seed, same bytes.

    A bright disc on black with a brighter one where trees of dark vessels begin, thin ones hardly darker than the
    ground, whose brightness varies as much.
    """
    rng = np.random.default_rng([seed, 0x726574])
    i, j = np.mgrid[:size, :size].astype(np.float64)
    middle = size / 2
    start = np.array([middle + rng.choice([-1, 1]) * 0.25 * size, middle + rng.uniform(-5, 5)])
    ground = 1 + 0.12 * _smooth((size, size), 10.0, rng) + 0.4 * np.exp(-np.hypot(i - start[0], j - start[1]) / 8)
    vessels, depth = np.zeros((size, size), dtype=bool), np.zeros((size, size))
    branches = [(start, angle, 2.6) for angle in rng.uniform(0, 2 * np.pi) + np.arange(4) * np.pi / 2]
    while branches:
        point, angle, radius = branches.pop()
        for _ in range(int(rng.uniform(20, 40))):
            far = np.hypot(i - point[0], j - point[1])
            vessels |= far < max(radius, 0.9)
            depth = np.maximum(depth, np.clip(radius + 0.7 - far, 0, 1) * (0.12 + 0.1 * radius))
            angle += rng.normal(0, 0.09)
            point = point + 0.9 * np.array([np.cos(angle), np.sin(angle)])
        if radius > 0.8:
            branches += [(point, angle + turn * rng.uniform(0.3, 0.7), radius * 0.75) for turn in (-1, 1)]
    view = np.hypot(i - middle, j - middle) < 0.46 * size
    light = np.where(view, ground * (1 - depth), 0)[..., None] * [165.0, 85.0, 40.0]
    # A few grey levels only: noise in full would make the files large.
    picture = 4 * np.round(np.clip(light + 3 * rng.standard_normal((size, size, 1)) * view[..., None], 0, 250) / 4)
    return picture.astype(np.uint8), (vessels & view).astype(np.uint8)


def samples_folder() -> Path:
    """The folder of samples that comes with medseg: `chest/`, `study/`, `study_reference/`, `slice/`, `retina/`.

    Raises:
        ReadError: if this installation came without them.
    """
    folder = packaged("data_samples")
    if folder is None:
        raise ReadError("data_samples did not come with this installation; write them: python -m medseg.phantoms DIR")
    return folder


def write_samples(folder: Path) -> None:
    """Write the training set, the held-out DICOM study with its reference, and the 2D slices.

    Args:
        folder: is made if missing; files of the same names are replaced.
    """
    from PIL import Image

    for part in (
        "chest/images",
        "chest/labels",
        "study",
        "study_reference",
        "slice/images",
        "slice/masks",
        "retina/images",
        "retina/labels",
    ):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for seed in range(1, CASES + 1):
        image, labels = make_phantom(seed)
        name = f"phantom_{seed:02d}"
        # Real folders mix axis orders; here every other case does.
        target = "LPS" if seed % 2 else "RAS"
        _write_nifti(reorient(image, target), folder / "chest" / "images" / f"{name}.nii.gz")
        _write_nifti(reorient(labels, target), folder / "chest" / "labels" / f"{name}.nii.gz")
        if seed <= RETINAS:
            picture, vessels = make_retina(seed)
            Image.fromarray(picture.transpose(1, 0, 2)).save(folder / f"retina/images/{name}.png", optimize=True)
            Image.fromarray(vessels.T).save(folder / f"retina/labels/{name}.png", optimize=True)
        if seed <= SLICES:
            sizes = (labels.array == TUMOUR).sum(axis=(0, 1))
            k = int(sizes.argmax())
            grey = np.round(255 * window(image.array[:, :, k], center=-200, width=1600)).astype(np.uint8)
            Image.fromarray(grey.T).save(folder / "slice" / "images" / f"{name}.png", optimize=True)
            Image.fromarray(labels.array[:, :, k].T).save(folder / "slice" / "masks" / f"{name}.png", optimize=True)
    image, labels = make_phantom(STUDY_SEED)
    _write_study(image, folder / "study")
    _write_nifti(labels, folder / "study_reference" / "study.nii.gz")


def _write_nifti(volume: Volume, path: Path) -> None:
    import nibabel as nib

    header = nib.Nifti1Header()
    header.set_xyzt_units("mm")
    header.set_data_dtype(volume.array.dtype)
    image = nib.Nifti1Image(np.asarray(volume.array), volume.affine, header)
    image.set_qform(volume.affine, code=1)
    image.set_sform(volume.affine, code=1)
    # No time stamp, so that the same phantom is the same file.
    path.write_bytes(gzip.compress(image.to_bytes(), 9, mtime=0))


def _write_study(volume: Volume, folder: Path) -> None:
    """One CT series, a file per slice; names and InstanceNumber are shuffled, only positions tell the order."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

    def uid(*what: object) -> UID:
        return generate_uid(entropy_srcs=["medseg phantom", *map(str, what)])

    lps = flip_lps_ras(volume.affine)
    count = volume.shape[2]
    numbers = np.random.default_rng(STUDY_SEED).permutation(count) + 1
    for k in range(count):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = uid(STUDY_SEED, "image", k)
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.ImplementationClassUID = uid("implementation")
        slice_ = Dataset()
        slice_.file_meta = meta
        slice_.SpecificCharacterSet = "ISO_IR 192"
        slice_.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        slice_.SOPClassUID = CTImageStorage
        slice_.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        slice_.StudyInstanceUID = uid(STUDY_SEED, "study")
        slice_.SeriesInstanceUID = uid(STUDY_SEED, "series")
        slice_.FrameOfReferenceUID = uid(STUDY_SEED, "frame")
        slice_.PatientName, slice_.PatientID = "Phantom^One", "PHANTOM-1"
        slice_.PatientBirthDate, slice_.PatientSex, slice_.PatientPosition = "", "O", "HFS"
        slice_.StudyDate, slice_.StudyTime, slice_.StudyID, slice_.AccessionNumber = "20250101", "120000", "1", ""
        slice_.ReferringPhysicianName, slice_.PositionReferenceIndicator = "", ""
        slice_.Modality, slice_.Manufacturer, slice_.KVP, slice_.AcquisitionNumber = "CT", "medseg phantoms", "120", 1
        slice_.SeriesNumber, slice_.SeriesDescription = 1, "Synthetic chest"
        slice_.InstanceNumber = int(numbers[k])
        position = (lps @ [0, 0, k, 1])[:3]
        slice_.ImagePositionPatient = [f"{p:.6f}" for p in position]
        slice_.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        # DICOM gives the distance between rows first.
        slice_.PixelSpacing = [f"{volume.spacing_mm[1]:.8f}", f"{volume.spacing_mm[0]:.8f}"]
        slice_.SliceThickness = f"{volume.spacing_mm[2]:.8f}"
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.Rows, slice_.Columns = volume.shape[1], volume.shape[0]
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 12, 11, 0
        slice_.RescaleIntercept, slice_.RescaleSlope, slice_.RescaleType = "-1024", "1", "HU"
        slice_.WindowCenter, slice_.WindowWidth = "40", "400"
        stored = (volume.array[:, :, k].T.astype(np.int32) + 1024).astype("<u2")
        slice_.PixelData = stored.tobytes()
        slice_.save_as(folder / f"IM{numbers[k]:04d}.dcm", enforce_file_format=True)


if __name__ == "__main__":
    write_samples(Path(sys.argv[1] if len(sys.argv) > 1 else "data_samples"))
