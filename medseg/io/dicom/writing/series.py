"""A `Volume` as a classic single-frame DICOM series: one file per slice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.disk.atomic import atomic_folder
from medseg.errors import GeometryError, ReadError, WriteError
from medseg.io.dicom.algorithm import derived_uid
from medseg.io.dicom.writing.header import SeriesIdentity, header_of
from medseg.io.dicom.writing.place import SlicePlaces
from medseg.io.dicom.writing.values import StoredValues, stored_values
from medseg.volume import Finding, Volume

if TYPE_CHECKING:
    from pydicom import Dataset

    from medseg.io.dicom.grid import SeriesGrid
    from medseg.io.dicom.slice import SliceHeader

__all__ = ["write_dicom_series"]

_REFERENCE_TOLERANCE_MM = 1e-2


def write_dicom_series(
    volume: Volume,
    folder: Path,
    *,
    reference: SeriesGrid | None = None,
    description: str = "",
    overwrite: bool = False,
) -> tuple[Finding, ...]:
    """Write a volume as the files `00001.dcm`, `00002.dcm`, ... of one DICOM series; the folder appears complete.

    The array's i axis becomes the rows' direction (columns), j the columns' direction, k the slices, ordered along the
    normal (i x j in DICOM's LPS). If the axes are left-handed, k runs against that normal: the slices are then
    numbered, and read back, in the reverse order of k; nothing is mirrored, each voxel keeps its position in the
    patient. A sheared affine, as from a tilted gantry, is written with each slice's true position. The same volume
    gives the same files, because identifiers are derived from the content.

    Args:
        volume: 2D or 3D. CT and MR (`volume.metadata.modality`) become CT and MR Image Storage, all others Secondary
            Capture; uint8 with 3 channels is written as RGB. Other channels become a series each, in the sub-folders
            `channel_0`, `channel_1`, ... A 3D volume of one slice reads back as a 2D image.
        folder: the folder to write.
        reference: grid of the series that the volume was made from. The result is a derived series of the same patient,
            study, frame of reference and modality. None for an unknown patient.
        description: SeriesDescription, at most 64 characters.
        overwrite: True to replace a folder that is not empty.

    Returns:
        A finding 'quantised' if floating-point values had to be rounded to 65,534 steps (it gives the step; the error
        is at most half a step, plus float32 rounding), and 'reversed_slices' if k was reversed.

    Raises:
        GeometryError: if the grid differs from the reference's by more than 0.01 mm, in-plane axes are not orthogonal,
            slices are tilted by more than 45 degrees, or a 3D volume has no known spacing.
        WriteError: if values do not fit into 16 bits, the folder is not empty, the disk is full or permission is
            missing.

    Example:
        >>> write_dicom_series(medseg.read("ct.nii.gz"), Path("ct_dicom"), description="from NIfTI")
        ()
    """
    if len(description) > 64 or "\\" in description:
        raise WriteError(f"cannot write {folder}: a series description has at most 64 characters and no backslash")
    if reference is not None:
        _check_same_grid(volume, reference, folder)
    place = SlicePlaces.of(volume, folder)
    findings: list[Finding] = []
    if place.reversed:
        text = (
            "the volume's axes are left-handed; DICOM orders slices along the normal, so k reads back in reverse order"
        )
        findings.append(Finding("reversed_slices", text))
    is_colour = volume.channels == 3 and volume.array.dtype == np.uint8
    with atomic_folder(folder, overwrite) as fresh:
        for name, part in [("", volume)] if is_colour or not volume.channels else _channels(volume):
            target = fresh / name
            target.mkdir(exist_ok=True)
            values = None if is_colour else stored_values(part.array, f"{folder / name}")
            if values is not None and not values.exact:
                half = f"{values.slope / 2:.3g}"
                text = f"{name or 'values'}: stored in steps of {values.slope:.6g}, so each is at most {half} off"
                findings.append(Finding("quantised", text))
            _write(part, target, place, values, _identity(part, name, reference, description), reference)
    return tuple(findings)


def _check_same_grid(volume: Volume, reference: SeriesGrid, folder: Path) -> None:
    first = reference.slices[0]
    shape = (first.columns, first.rows, reference.planes)[: volume.dims]
    on_reference = Volume(np.broadcast_to(np.uint8(0), shape), reference.affine, spacing_known=reference.spacing_known)
    same_rank = volume.dims == 3 or reference.planes == 1
    if not same_rank or not volume.same_geometry(on_reference, _REFERENCE_TOLERANCE_MM):
        raise GeometryError(
            f"cannot write {folder}: {volume!r} is not on the grid of the reference in {first.path.parent}, "
            f"{on_reference!r}, to {_REFERENCE_TOLERANCE_MM} mm; resample it to that grid or leave the reference out"
        )


def _channels(volume: Volume) -> Iterator[tuple[str, Volume]]:
    for n in range(volume.channels):
        yield f"channel_{n}" if volume.channels > 1 else "", volume.with_array(volume.array[n])


def _identity(volume: Volume, channel: str, reference: SeriesGrid | None, description: str) -> SeriesIdentity:
    digest = hashlib.sha256()
    digest.update(f"{volume.array.dtype.str} {volume.shape} {volume.spacing_known}".encode())
    digest.update(volume.affine.tobytes())
    digest.update(np.ascontiguousarray(volume.array).data)
    content = digest.hexdigest()
    # Channels of one volume share its grid, so they are one study of one patient in one frame of reference.
    grid = hashlib.sha256(volume.affine.tobytes() + str(volume.shape).encode()).hexdigest()
    known = reference.slices[0] if reference is not None else None
    together = grid if channel else content
    modality = known.modality if known is not None else volume.metadata.modality
    parts = (content, channel, modality, description, known.series_instance_uid if known is not None else "")
    return SeriesIdentity(
        patient_id=f"ANON-{together[:16].upper()}",
        study_instance_uid=derived_uid("medseg study", together),
        frame_of_reference_uid=derived_uid("medseg frame of reference", together),
        series_instance_uid=derived_uid("medseg series", *parts),
        modality=modality,
        description=description,
    )


def _write(
    volume: Volume,
    folder: Path,
    place: SlicePlaces,
    values: StoredValues | None,
    identity: SeriesIdentity,
    reference: SeriesGrid | None,
) -> None:
    import pydicom

    source = reference.slices[0].path if reference is not None else None
    try:
        base = header_of(identity, source, values is None)
    except OSError as error:
        raise ReadError(f"{source} cannot be read: {error.strerror or error}") from None
    _put_values(base, volume, values)
    _put_grid(base, place)
    stack = volume.array if volume.dims == 3 else volume.array[..., None]
    planes = len(place.positions)
    for n in range(planes):
        data = pydicom.Dataset()
        data.update(base)
        k = planes - 1 - n if place.reversed else n
        data.SOPInstanceUID = derived_uid("medseg instance", identity.series_instance_uid, str(n))
        data.InstanceNumber = n + 1
        if place.known:
            data.ImagePositionPatient = _decimals(place.positions[n])
        if reference is not None and not reference.places and reference.planes == len(reference.slices):
            data.SourceImageSequence = _source(reference.slices[n])
        plane = stack[..., k]
        data.PixelData = _bytes(plane.transpose(2, 1, 0) if values is None else values.encode(plane.T))
        _save(data, folder / f"{n + 1:05d}.dcm")


def _put_values(data: Dataset, volume: Volume, values: StoredValues | None) -> None:
    data.Columns, data.Rows = volume.shape[:2]
    if values is None:
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
        return
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, int(values.signed)
    # Required for CT only, and not part of MR Image Storage.
    if "RescaleType" in data or not values.exact or values.intercept:
        data.RescaleSlope, data.RescaleIntercept = _decimals([values.slope, values.intercept])
        data.RescaleType = data.get("RescaleType", "US")


def _put_grid(data: Dataset, place: SlicePlaces) -> None:
    if not place.known:
        # Without a physical spacing there is no frame of reference.
        del data.FrameOfReferenceUID, data.PositionReferenceIndicator
        return
    data.ImageOrientationPatient = _decimals([*place.row, *place.column])
    data.PixelSpacing = _decimals([place.spacing[1], place.spacing[0]])
    data.SliceThickness, data.SpacingBetweenSlices = _decimals([place.step, place.step])


def _source(header: SliceHeader) -> Any:
    from pydicom import Dataset, Sequence

    item, purpose = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.sop_class_uid, header.sop_instance_uid
    if header.frames > 1:
        item.ReferencedFrameNumber = header.frame + 1
    purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    item.PurposeOfReferenceCodeSequence = Sequence([purpose])
    return Sequence([item])


def _decimals(numbers: Any) -> list[str]:
    from pydicom.valuerep import format_number_as_ds

    # Avoids -0, which is legal but unexpected.
    return [format_number_as_ds(float(number) + 0.0) for number in numbers]


def _bytes(plane: NDArray[Any]) -> bytes:
    content = np.ascontiguousarray(plane).tobytes()
    return content + b"\0" * (len(content) % 2)


def _save(data: Dataset, path: Path) -> None:
    import pydicom
    from pydicom.dataset import FileMetaDataset

    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    # The reference's values are copied unchanged, including minor faults.
    with pydicom.config.disable_value_validation():
        pydicom.dcmwrite(path, data, enforce_file_format=True)
