"""Multi-frame objects without functional groups: nuclear medicine, ultrasound, and frames without positions."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_phantoms import Phantom, euler, slice_of
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, NuclearMedicineImageStorage, UltrasoundMultiFrameImageStorage

from medseg.errors import MedsegError
from medseg.geometry import flip_lps_ras
from medseg.io import read, read_all

FRAMES = np.random.default_rng(2).integers(0, 900, (8, 7, 9)).astype(np.uint16)


STRAIGHT = np.eye(3)


def multi_frame(path, frames, modality, sop_class, change=lambda data: None, **tags):
    """A multi-frame file `[frame, row, column]` without positions of its own."""
    phantom = Phantom(
        shape=(frames.shape[2], frames.shape[1], 1), modality=modality, slopes=None, stored="uint16", bits=16
    )
    data = slice_of(phantom, 0)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        if keyword in data:
            delattr(data, keyword)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = sop_class
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.NumberOfFrames = len(frames)
    data.PixelData = frames.tobytes()
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    change(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def nuclear(path, step, turn=STRAIGHT, change=lambda data: None, **tags):
    detector = Dataset()
    detector.ImagePositionPatient = [-32.0, -30.5, 100.25]
    detector.ImageOrientationPatient = [f"{v:.9f}" for v in (*turn[:, 0], *turn[:, 1])]
    known = {
        "ImageType": ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"],
        "PixelSpacing": [4.0, 3.5],
        "SpacingBetweenSlices": step,
        "DetectorInformationSequence": Sequence([detector]),
        "SliceVector": list(range(1, len(FRAMES) + 1)),
    }
    return multi_frame(path, FRAMES, "NM", NuclearMedicineImageStorage, change, **(known | tags))


@pytest.mark.parametrize("turn", [np.eye(3), euler(12.0, -17.0, 23.0)])
@pytest.mark.parametrize("step", [4.5, -4.5])
def test_a_nuclear_reconstruction_lies_where_itk_puts_it(tmp_path, step, turn):
    path = nuclear(tmp_path / "a.dcm", step, turn)
    image, volume = sitk.ReadImage(str(path)), read(path)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    np.testing.assert_allclose(volume.affine, flip_lps_ras(affine), atol=1e-5)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image).T)


def test_the_slice_vector_says_which_slice_a_frame_is(tmp_path):
    order = [3, 1, 2, 8, 7, 5, 6, 4]
    volume = read(nuclear(tmp_path / "a.dcm", 4.5, SliceVector=order))
    np.testing.assert_array_equal(volume.array, FRAMES[np.argsort(order)].T)


def test_a_gated_reconstruction_gives_a_volume_per_time_slot(tmp_path):
    volumes = read_all(
        nuclear(
            tmp_path / "a.dcm",
            4.5,
            ImageType=["ORIGINAL", "PRIMARY", "RECON GATED TOMO", "EMISSION"],
            SliceVector=[1, 2, 3, 4, 1, 2, 3, 4],
            TimeSlotVector=[1, 1, 1, 1, 2, 2, 2, 2],
        )
    )
    assert [volume.shape for volume in volumes] == [(9, 7, 4)] * 2
    for n, volume in enumerate(volumes):
        np.testing.assert_array_equal(volume.array, FRAMES[4 * n : 4 * n + 4].T)


@pytest.mark.parametrize("tags", [{"SpacingBetweenSlices": None}, {"DetectorInformationSequence": Sequence()}])
def test_a_nuclear_reconstruction_without_geometry_is_refused(tmp_path, tags):
    with pytest.raises(MedsegError) as caught:
        read(nuclear(tmp_path / "a.dcm", 4.5, **tags))
    assert caught.value.kind == "no_position"


def test_a_slice_vector_of_another_length_is_refused(tmp_path):
    with pytest.raises(MedsegError, match="SliceVector"):
        read(nuclear(tmp_path / "a.dcm", 4.5, SliceVector=[1, 2, 3]))


def region(x=0.02, y=0.03, units=3, spatial_format=1):
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType = spatial_format, 1
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaX, item.PhysicalDeltaY = x, y
    return item


def ultrasound(path, frames, *regions, **tags):
    tags = {"SequenceOfUltrasoundRegions": Sequence(regions), **tags} if regions else tags
    return multi_frame(path, frames, "US", UltrasoundMultiFrameImageStorage, **tags)


@pytest.mark.parametrize(
    ("regions", "spacing"),
    [
        ([region()], (0.2, 0.3)),
        ([region(y=-0.03)], (0.2, 0.3)),
        ([region(), region(0.5, 0.5, units=4), region(0.1, 0.1, spatial_format=2)], (0.2, 0.3)),
        ([region(), region()], (0.2, 0.3)),
        ([region(units=0)], None),
        ([region(x=0.0)], None),
        ([], None),
    ],
)
def test_an_ultrasound_image_has_the_spacing_of_its_regions(tmp_path, regions, spacing):
    volume = read(ultrasound(tmp_path / "a.dcm", FRAMES[:1], *regions))
    assert volume.spacing_known == (spacing is not None)
    assert volume.spacing_mm == pytest.approx(spacing or (1.0, 1.0))


def test_regions_of_different_spacing_give_none_and_a_finding(tmp_path):
    volume = read(ultrasound(tmp_path / "a.dcm", FRAMES[:1], region(), region(x=0.04)))
    assert not volume.spacing_known
    assert [f.kind for f in volume.findings] == ["region_spacing"]


def test_a_pixel_spacing_counts_more_than_regions(tmp_path):
    volume = read(ultrasound(tmp_path / "a.dcm", FRAMES[:1], region(), PixelSpacing=[0.5, 0.6]))
    assert volume.spacing_mm == pytest.approx((0.6, 0.5))


@pytest.mark.parametrize("modality", ["US", "XA", "RF", "OT", "ES"])
def test_a_cine_without_positions_is_read_as_its_frames(tmp_path, modality):
    path = ultrasound(tmp_path / "a.dcm", FRAMES, region(), Modality=modality)
    volume = read(path)
    np.testing.assert_array_equal(volume.array, FRAMES.T)
    assert "cine" in [f.kind for f in volume.findings]
    # Along time there are no millimetres.
    assert not volume.spacing_known
    assert volume.spacing_mm[:2] == pytest.approx((0.2, 0.3))


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_slices_without_positions_are_no_cine(tmp_path, modality):
    with pytest.raises(MedsegError, match="ImagePositionPatient") as caught:
        read(ultrasound(tmp_path / "a.dcm", FRAMES, Modality=modality))
    assert caught.value.kind == "no_position"


def test_a_damaged_region_is_named(tmp_path):
    path = ultrasound(tmp_path / "a.dcm", FRAMES[:1], region(x=float("nan")))
    assert pydicom.dcmread(path).Modality == "US"
    with pytest.raises(MedsegError, match="PhysicalDeltaX"):
        read(path)


@pytest.mark.parametrize("modality", ["US", "DX", "XA"])
def test_clips_and_stills_of_one_series_are_images_of_their_own(tmp_path, modality):
    uids = {"SOPInstanceUID": "1.2.3.1"}, {"SOPInstanceUID": "1.2.3.2"}, {"SOPInstanceUID": "1.2.3.3"}
    for n, (frames, tags) in enumerate(zip((FRAMES, FRAMES[:3], FRAMES[:1]), uids, strict=True)):
        ultrasound(tmp_path / "study" / f"{n}.dcm", frames, Modality=modality, **tags)
    volumes = read_all(tmp_path / "study")
    assert [volume.shape for volume in volumes] == [(9, 7, 8), (9, 7, 3), (9, 7)]
    with pytest.raises(MedsegError, match="contains 3 volumes"):
        read(tmp_path / "study")


def test_two_reconstructions_of_one_series_are_volumes_of_their_own_and_copies_count_once(tmp_path):
    """They begin at one place and run apart, so their slices would make one plausible stack."""
    for n, (step, uid) in enumerate(((4.5, "1.2.3.1"), (-4.5, "1.2.3.2"), (-4.5, "1.2.3.2"))):
        nuclear(tmp_path / "study" / f"{n}.dcm", step, SOPInstanceUID=uid)
    volumes = read_all(tmp_path / "study")
    assert [volume.affine[2, 2] for volume in volumes] == pytest.approx([4.5, -4.5])
    for volume in volumes:
        np.testing.assert_array_equal(volume.array, FRAMES.T)
