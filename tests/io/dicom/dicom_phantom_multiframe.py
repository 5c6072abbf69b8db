"""Enhanced multi-frame phantoms: one file, geometry and rescale in functional groups (PS3.3 C.7.6.16)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
from dicom_phantoms import Phantom, header, save, set_numbers
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage, generate_uid

__all__ = ["write_enhanced"]


def write_enhanced(
    path: Path,
    *phantoms: Phantom,
    apart: Literal["time", "stack"] = "time",
    per_frame_geometry: bool = False,
    in_order: bool = False,
    seed: int = 1,
) -> Path:
    """All slices of all phantoms as the frames of one file.

    Args:
        phantoms: volumes of the file: time points (TemporalPositionIndex) or stacks (StackID).
        per_frame_geometry: pixel measures, orientation and rescale in each frame's groups, not in the shared ones.
        in_order: frames lie in slice order; otherwise shuffled, volumes mixed.
        seed: of the shuffle.
    """
    first = phantoms[0]
    frames = [(number, k) for number, phantom in enumerate(phantoms) for k in range(phantom.shape[2])]
    if not in_order:
        frames = [frames[n] for n in np.random.default_rng(seed).permutation(len(frames))]
    data = header(first)
    data.SOPClassUID = EnhancedMRImageStorage if first.modality == "MR" else EnhancedCTImageStorage
    data.InstanceNumber = 1
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    data.NumberOfFrames = len(frames)
    one_turn = all(np.array_equal(p.turn, first.turn) and p.spacing == first.spacing for p in phantoms)
    rescales = {phantoms[number].rescale(k) for number, k in frames}
    shared = Dataset()
    if one_turn and not per_frame_geometry:
        _geometry(shared, first)
    if len(rescales) == 1 and not per_frame_geometry and first.slopes is not None:
        _rescale(shared, first, 0)
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    organization = generate_uid(entropy_srcs=[str(path.name)])
    data.DimensionOrganizationSequence = Sequence([Dataset()])
    data.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    pointers = ("StackID", "InStackPositionNumber", "TemporalPositionIndex")
    data.DimensionIndexSequence = Sequence([_pointer(organization, keyword) for keyword in pointers])
    groups = []
    for number, k in frames:
        phantom, group = phantoms[number], Dataset()
        content, plane = Dataset(), Dataset()
        stack, time = (number + 1, 1) if apart == "stack" else (1, number + 1)
        content.StackID, content.InStackPositionNumber, content.TemporalPositionIndex = str(stack), k + 1, time
        content.DimensionIndexValues = [stack, k + 1, time]
        set_numbers(plane, "ImagePositionPatient", phantom.positions[k])
        group.FrameContentSequence = Sequence([content])
        group.PlanePositionSequence = Sequence([plane])
        if "PixelMeasuresSequence" not in shared:
            _geometry(group, phantom)
        if "PixelValueTransformationSequence" not in shared and phantom.slopes is not None:
            _rescale(group, phantom, k)
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence = Sequence(groups)
    pixels = [phantoms[number].stored_values(k) for number, k in frames]
    data.PixelData = b"".join(frame.astype(frame.dtype.newbyteorder("<")).tobytes() for frame in pixels)
    data.SOPInstanceUID = generate_uid(entropy_srcs=[data.SeriesInstanceUID, path.name, str(len(frames))])
    return save(data, path, first.syntax, first.fragments, first.offset_table)


def _pointer(organization: str, keyword: str) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = organization
    item.DimensionIndexPointer = pydicom.datadict.tag_for_keyword(keyword)
    item.FunctionalGroupPointer = pydicom.datadict.tag_for_keyword("FrameContentSequence")
    return item


def _geometry(group: Dataset, phantom: Phantom) -> None:
    measures, orientation = Dataset(), Dataset()
    set_numbers(measures, "PixelSpacing", (phantom.spacing[1], phantom.spacing[0]))
    measures.SliceThickness = 2 * phantom.spacing[2]
    set_numbers(orientation, "ImageOrientationPatient", (*phantom.row, *phantom.column))
    group.PixelMeasuresSequence = Sequence([measures])
    group.PlaneOrientationSequence = Sequence([orientation])


def _rescale(group: Dataset, phantom: Phantom, k: int) -> None:
    item = Dataset()
    slope, intercept = phantom.rescale(k)
    set_numbers(item, "RescaleSlope", [slope])
    set_numbers(item, "RescaleIntercept", [intercept])
    item.RescaleType = "HU" if phantom.modality == "CT" else "US"
    group.PixelValueTransformationSequence = Sequence([item])
