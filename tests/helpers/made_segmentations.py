"""Made-up DICOM Segmentations of another program (highdicom) and the images and label maps that belong to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import SimpleITK as sitk
from dicom_phantom_multiframe import write_enhanced
from dicom_phantoms import Phantom, write_study
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


def make(folder: Path, person: dict[str, Any]) -> None:
    """Two small CT studies, one of them also as a multi-frame image, with one object each and one of five segments.

    Args:
        folder: where the files go.
        person: elements of patient and study that every image gets.
    """
    small = Phantom(shape=(24, 38, 3), spacing=(0.7, 0.7, 2.5), tags=person)
    large = Phantom(shape=(40, 36, 3), spacing=(0.8, 0.8, 1.0), series=5, study=5, frame_of_reference=5, tags=person)
    images = write_study(folder / "24x38x3" / "image", small)
    write_enhanced(folder / "24x38x3" / "multiframe" / "mf.dcm", small, in_order=True)
    one = _ellipse(small.shape, (12, 20), 7)
    write_segmentation(images, [one], ["Liver"], folder / "24x38x3" / "seg" / "label.seg")
    _write_nrrd(one, small, folder / "24x38x3" / "nrrd" / "label.nrrd")

    images = write_study(folder / "ct-3slice", large)
    liver = _ellipse(large.shape, (18, 15), 9)
    write_segmentation(images, [liver], ["Liver"], folder / "liver.dcm")
    _write_nrrd(liver, large, folder / "liver_seg.nrrd")
    several = [_ellipse(large.shape, (8 + 5 * n, 10 + 4 * n), 5) for n in range(5)]
    write_segmentation(
        images, several, ["Liver", "Kidney", "Spleen", "Heart", "Pancreas"], folder / "partial_overlaps.dcm"
    )


def _ellipse(shape: tuple[int, int, int], centre: tuple[int, int], radius: float) -> np.ndarray:
    i, j, k = np.indices(shape)
    return np.hypot(i - centre[0], (j - centre[1]) / 1.3) < radius - k


def write_segmentation(images: list[Path], masks: list[np.ndarray], names: list[str], path: Path) -> None:
    """Masks `[i, j, k]`, one per segment, k as in `images`."""
    sources = [pydicom.dcmread(file) for file in images]
    descriptions = [
        SegmentDescription(n + 1, name, codes.SCT.Organ, getattr(codes.SCT, name), SegmentAlgorithmTypeValues.MANUAL)
        for n, name in enumerate(names)
    ]
    pixels = np.stack([mask.transpose(2, 1, 0) for mask in masks], axis=-1).astype(np.uint8)
    made = Segmentation(
        sources,
        pixels,
        SegmentationTypeValues.BINARY,
        descriptions,
        series_instance_uid=generate_uid(entropy_srcs=[path.name, "series"]),
        series_number=900,
        sop_instance_uid=generate_uid(entropy_srcs=[path.name, "object"]),
        instance_number=1,
        manufacturer="Nobody",
        manufacturer_model_name="Made up",
        software_versions=hd.__version__,
        device_serial_number="SN-1",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)


def _write_nrrd(mask: np.ndarray, phantom: Phantom, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(mask.T).astype(np.uint8))
    image.SetSpacing(phantom.spacing)
    image.SetOrigin(phantom.origin)
    sitk.WriteImage(image, str(path))
