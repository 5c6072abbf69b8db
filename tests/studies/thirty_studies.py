"""Thirty studies of two CT phases: twenty right ones, five loudly broken, five that a model silently gets wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from scipy import ndimage
from selection_studies import write_series
from skimage.morphology import convex_hull_image

import medseg
from medseg.config import SelectRule
from medseg.phantoms import make_phantom
from medseg.volume import Volume

# Seed and Hounsfield units that the contrast medium adds -> two channels, native and venous, and the label map.
Pair = Callable[..., tuple[Volume, Volume]]

ENHANCEMENT = 110.0
SELECT = (
    SelectRule(name="CT native", modality="CT", description="native"),
    SelectRule(name="CT venous", modality="CT", description="venous"),
)
LOUD = ("missing_slices", "tilted", "truncated", "two_patients", "wrong_modality")
SILENT = ("cut_field_of_view", "not_in_hu", "other_phase", "swapped_channels", "wrong_body_part")


def ball(seed: int, enhancement: float = ENHANCEMENT) -> tuple[Volume, Volume]:
    """A body in air with one ball of 160 HU in it, so that a threshold of the native channel is right."""
    rng = np.random.default_rng([seed, 1])
    shape, spacing = (24, 22, 20), (4.0, 4.0, 5.0)
    x, y, z = np.meshgrid(*[(np.arange(n) - n / 2) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij")
    body = (x / 42) ** 2 + (y / 36) ** 2 < 1
    middle = rng.uniform(-3, 3, 3)
    inside = (x - middle[0]) ** 2 + (y - middle[1]) ** 2 + (z - middle[2]) ** 2 < rng.uniform(14, 17) ** 2
    native = np.where(body, 40.0, -1000.0) + 120 * inside
    return _stacked(native, enhancement * inside, np.diag([-4.0, -4.0, 5.0, 1.0]), rng, 6), _labels(inside)


def chest(seed: int, enhancement: float = ENHANCEMENT) -> tuple[Volume, Volume]:
    """A synthetic chest; in the venous phase blood and soft tissue between and in the lungs are brighter."""
    image, labels = make_phantom(seed)
    rng = np.random.default_rng([seed, 2])
    lung = labels.array > 0
    between = np.stack([convex_hull_image(p) if p.any() else p for p in np.moveaxis(lung, 2, 0)], axis=2)
    native = image.array.astype(np.float64)
    soft = np.clip(1 - np.abs(ndimage.gaussian_filter(native, 0.7) - 30) / 200, 0, 1)
    grey = _stacked(native, enhancement * rng.uniform(0.9, 1.1) * soft * between, image.affine, rng, 10)
    return grey, Volume(lung.astype(np.uint8), image.affine)


def _stacked(
    native: NDArray[np.float64],
    added: NDArray[np.float64],
    affine: NDArray[np.float64],
    rng: np.random.Generator,
    noise: float,
) -> Volume:
    phases = [p + noise * rng.standard_normal(native.shape) for p in (native, native + added)]
    return Volume(np.clip(np.round(phases), -1024, 3000).astype(np.int16), affine, channels=2)


def _labels(inside: NDArray[np.bool_]) -> Volume:
    return Volume(inside.astype(np.uint8), np.diag([-4.0, -4.0, 5.0, 1.0]))


def head(like: Volume) -> Volume:
    """A ball of brain in bone on the same grid: another body part."""
    axes = [(np.arange(n) - n / 2) * s for n, s in zip(like.shape, like.spacing_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2) / (0.4 * min(n * s for n, s in zip(like.shape, like.spacing_mm, strict=True)))
    grey = np.select([radius < 0.9, radius < 1], [35.0, 900.0], -1000.0)
    return _stacked(grey, 10.0 * (radius < 0.9), like.affine, np.random.default_rng(3), 6)


def write_dataset(folder: Path, pair: Pair, seeds: range) -> None:
    """A training set in nnU-Net's layout."""
    for seed in seeds:
        image, labels = pair(seed)
        _write_files(image, folder / "imagesTr", f"p{seed:03d}")
        (folder / "labelsTr").mkdir(exist_ok=True)
        medseg.write(labels, folder / "labelsTr" / f"p{seed:03d}.nii.gz")
    (folder / "dataset.json").write_text(
        '{"channel_names": {"0": "CT native", "1": "CT venous"}, "labels": {"background": 0, "organ": 1}, '
        f'"numTraining": {len(seeds)}, "file_ending": ".nii.gz"}}'
    )


def write_thirty(folder: Path, pair: Pair, first_seed: int) -> dict[str, Volume]:
    """Write the studies, half of the right ones as DICOM, half as NIfTI; returns the label maps of the right ones."""
    right = {}
    for number in range(20):
        image, labels = pair(first_seed + number)
        name = f"right_{number:02d}"
        right[name] = labels
        if number < 10:
            _write_study(image, folder / name, number)
        else:
            _write_files(image, folder, name)
    _write_loud(folder, pair, first_seed + 20)
    _write_silent(folder, pair, first_seed + 30)
    return right


def _write_loud(folder: Path, pair: Pair, seed: int) -> None:
    for number, name in enumerate(LOUD):
        study = folder / name
        _write_study(pair(seed + number)[0], study, 40 + number, tilt=0.3 if name == "tilted" else 0.0)
        slices = sorted((study / "2").iterdir())
        if name == "missing_slices":
            for path in slices[5:8]:
                path.unlink()
        elif name == "truncated":
            slices[4].write_bytes(slices[4].read_bytes()[:-300])
        elif name == "two_patients":
            _retag(slices[10:], PatientID="somebody else", PatientName="Else^Somebody")
        elif name == "wrong_modality":
            _retag([*slices, *(study / "1").iterdir()], Modality="MR")


def _write_silent(folder: Path, pair: Pair, seed: int) -> None:
    cut = pair(seed)[0]
    _write_files(Volume(cut.array[..., cut.shape[2] // 2 :], cut.affine, 2), folder, "cut_field_of_view")
    stored = pair(seed + 1)[0]
    _write_files(stored.with_array(stored.array + np.int16(1024), channels=2), folder, "not_in_hu")
    # Native once more: the phase that the model calls venous is missing.
    _write_files(pair(seed + 2, enhancement=0.0)[0], folder, "other_phase")
    swapped = pair(seed + 3)[0]
    _write_files(swapped.with_array(swapped.array[::-1], channels=2), folder, "swapped_channels")
    _write_files(head(pair(seed + 4)[0]), folder, "wrong_body_part")


def _write_files(image: Volume, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for channel in range(2):
        medseg.write(Volume(image.array[channel], image.affine), folder / f"{name}_{channel:04d}.nii.gz")


def _write_study(image: Volume, folder: Path, number: int, tilt: float = 0.0) -> None:
    """Two series; `tilt`: each slice lies this part of its distance further along the patient's back."""
    step = image.spacing_mm
    origin = tuple(float(v) for v in image.affine[:3, 3] * [-1, -1, 1])
    for channel, phase in enumerate(("native", "venous")):
        series = write_series(
            folder,
            channel + 1,
            spacing=step[2],
            array=image.array[channel],
            origin=origin,
            StudyInstanceUID=f"1.2.826.0.1.3680043.8.498.{number + 100}",
            SeriesInstanceUID=f"1.2.826.0.1.3680043.8.498.{number + 100}.{channel}",
            FrameOfReferenceUID=f"1.2.826.0.1.3680043.8.498.{number + 100}.9",
            PatientID=f"patient {number}",
            SeriesDescription=f"chest {phase}",
            PixelSpacing=[step[1], step[0]],
        )
        if tilt:
            for k, path in enumerate(sorted(series.iterdir())):
                at = [origin[0], origin[1] + tilt * k * step[2], origin[2] + k * step[2]]
                _retag([path], ImagePositionPatient=at)


def _retag(paths: list[Path], **tags: object) -> None:
    for path in paths:
        data = pydicom.dcmread(path)
        for name, value in tags.items():
            setattr(data, name, value)
        data.save_as(path)
