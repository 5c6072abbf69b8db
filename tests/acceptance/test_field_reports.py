"""Public reports from the field, tried on medseg: the table is docs/development/field_reports.md."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

import medseg
from medseg.commands.convert import ConvertOptions, convert
from medseg.errors import DatasetError
from medseg.io.dicom.rtstruct.read import read_rtstruct
from medseg.io.dicom.seg.read import read_dicom_seg
from medseg.io.formats import stem_of
from medseg.io.label_maps import LabelSource, read_label_map
from medseg.io.label_names import read_label_names

SHAPE = (20, 24, 12)
AFFINE = np.diag([-0.8, -0.9, 2.5, 1.0])


def two_labels() -> np.ndarray:
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"))
    array = (np.linalg.norm(grid - np.array([9, 12, 6])[:, None, None, None], axis=0) < 4).astype(np.uint8)
    array[2:5, 2:6, 2:5] = 2
    return array


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def study(tmp_path: Path) -> Path:
    image = np.random.default_rng(3).normal(0, 200, SHAPE).astype(np.int16)
    convert(save(tmp_path / "ct.nii.gz", image), tmp_path / "ct", ConvertOptions(format="dicom"))
    return next((tmp_path / "ct").rglob("*.dcm")).parent


def written(tmp_path: Path, study: Path, kind: str, array: np.ndarray, labels: str) -> Path:
    """A label map as a DICOM object on the study."""
    (tmp_path / "labels.yaml").write_text(labels)
    out = tmp_path / f"{kind}.dcm"
    options = ConvertOptions(format=kind, labels=tmp_path / "labels.yaml", reference=study)
    convert(save(tmp_path / "labels.nii.gz", array), out, options)
    return out


def layers(path: Path, segments: list[tuple[str, int, int]]) -> Path:
    """A segmentation as 3D Slicer writes it where segments overlap: `segments` are name, layer and label value."""
    content = np.zeros((2, *SHAPE), np.uint8)
    content[0] = two_labels()
    content[1, 5:15, 5:18, 3:9] = 1
    described = "".join(
        f"Segment{n}_LabelValue:={value}\nSegment{n}_Layer:={layer}\nSegment{n}_Name:={name}\n"
        for n, (name, layer, value) in enumerate(segments)
    )
    header = (
        "NRRD0004\ntype: unsigned char\ndimension: 4\nspace: left-posterior-superior\n"
        f"sizes: 2 {' '.join(map(str, SHAPE))}\nspace directions: none (0.8,0,0) (0,0.9,0) (0,0,2.5)\n"
        "kinds: list domain domain domain\nencoding: raw\nspace origin: (0,0,0)\n" + described + "\n"
    )
    path.write_bytes(header.encode() + content.transpose(3, 2, 1, 0).tobytes())
    return path


def test_layers_of_overlapping_segments_become_one_label_map_with_named_values(tmp_path: Path) -> None:
    path = layers(tmp_path / "case.seg.nrrd", [("tumour", 0, 1), ("cyst", 0, 2), ("organ", 1, 1)])
    found = read_label_map([LabelSource(path)])
    expected = two_labels()
    expected[5:15, 5:18, 3:9] = 3
    assert np.array_equal(found.array, expected) and found.orientation == "LPS"
    messages = {f.kind: f.message for f in found.findings}
    assert "tumour=1, cyst=2, organ=3" in messages["segment_layers"] and "overlap" in messages
    assert stem_of(path) == "case"


def test_label_values_that_differ_between_layers_are_kept(tmp_path: Path) -> None:
    path = layers(tmp_path / "case.seg.nrrd", [("organ", 1, 1), ("cyst", 0, 2)])
    expected = np.where(two_labels() == 2, 2, 0)
    expected[5:15, 5:18, 3:9] = np.where(expected[5:15, 5:18, 3:9] == 2, 2, 1)
    assert np.array_equal(read_label_map([LabelSource(path)]).array, expected)


@pytest.mark.parametrize("segments", [[], [("organ", 7, 1)], [("organ", 1, -3)]])
def test_layers_without_a_description_are_refused(tmp_path: Path, segments: list[tuple[str, int, int]]) -> None:
    with pytest.raises(DatasetError, match="2 different channels"):
        read_label_map([LabelSource(layers(tmp_path / "case.seg.nrrd", segments))])


def test_contours_that_a_program_interpolated_between_slices_count(tmp_path: Path, study: Path) -> None:
    path = written(tmp_path, study, "rtstruct", two_labels(), "{a: 1, b: 2}")
    dataset = pydicom.dcmread(path)
    with pydicom.config.disable_value_validation():
        for contour in dataset.ROIContourSequence[1].ContourSequence:
            contour.ContourGeometricType = "INTERPOLATED_PLANAR"
        dataset.save_as(path)
        label_map, _ = read_rtstruct(path, medseg.read(study))
    assert np.array_equal(label_map.array, two_labels())


@pytest.mark.parametrize("missing", ["ContourSequence", "ContourImageSequence", "the item", "points"])
def test_a_structure_set_without_optional_parts_is_read(tmp_path: Path, study: Path, missing: str) -> None:
    path = written(tmp_path, study, "rtstruct", two_labels(), "{a: 1, b: 2}")
    dataset = pydicom.dcmread(path)
    item = dataset.ROIContourSequence[1]
    if missing == "ContourSequence":
        del item.ContourSequence
    elif missing == "the item":
        dataset.ROIContourSequence = [dataset.ROIContourSequence[0]]
    elif missing == "points":
        for contour in item.ContourSequence:
            contour.ContourData, contour.NumberOfContourPoints = list(contour.ContourData)[:6], 2
    else:
        for contour in item.ContourSequence:
            contour.pop("ContourImageSequence", None)
    dataset.save_as(path)
    label_map, values = read_rtstruct(path, medseg.read(study))
    expected = two_labels() if missing == "ContourImageSequence" else np.where(two_labels() == 1, 1, 0)
    assert values == {"a": 1, "b": 2} and np.array_equal(label_map.array, expected)


REGIONS = ["{whole: [1, 2], pen: [1], core: [2]}", "{core: [2], whole: [1, 2, 3]}", "{a: [1, 3], b: [2, 3]}"]


@pytest.mark.parametrize("labels", REGIONS)
@pytest.mark.parametrize("kind", ["dicom-seg", "rtstruct"])
def test_overlapping_regions_keep_every_voxel_in_a_dicom_object_and_back(
    tmp_path: Path, study: Path, kind: str, labels: str
) -> None:
    array = two_labels()
    array[14:17, 14:17, 4:7] = 3
    path = written(tmp_path, study, kind, array, f"labels: {labels}")
    back = tmp_path / "back.nii.gz"
    convert(path, back, ConvertOptions(reference=study))
    scheme, found = read_label_names(tmp_path / "labels.yaml").written, medseg.read(back).array
    for name in scheme.names:
        assert np.array_equal(scheme.mask(found, name), scheme.mask(array, name))
    if kind == "dicom-seg":
        again = tmp_path / "again.dcm"
        convert(path, again, ConvertOptions(format=kind, reference=study))
        assert read_dicom_seg(again).scheme == read_dicom_seg(path).scheme


def test_a_segmentation_lies_on_its_slices_whatever_the_order_of_the_source_files(tmp_path: Path, study: Path) -> None:
    files = sorted(study.glob("*.dcm"))
    shuffled = tmp_path / "shuffled"
    shuffled.mkdir()
    for n, k in enumerate(np.random.default_rng(1).permutation(len(files))):
        dataset = pydicom.dcmread(files[k])
        dataset.InstanceNumber = n + 1
        dataset.save_as(shuffled / f"{n:03d}.dcm")
    path = written(tmp_path, shuffled, "dicom-seg", two_labels(), "{a: 1, b: 2}")
    assert np.array_equal(read_dicom_seg(path, like=medseg.read(study)).volume.array, two_labels())


def test_slices_with_equal_numbers_and_times_are_told_apart_by_their_positions(tmp_path: Path, study: Path) -> None:
    before = medseg.read(study).array
    for path in study.glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber = dataset.AcquisitionNumber = 1
        dataset.ContentTime = "120000"
        dataset.save_as(path)
    assert np.array_equal(medseg.read(study).array, before)


def test_a_mask_has_no_scale_factor_and_the_affine_of_its_image(tmp_path: Path) -> None:
    turned = np.array([[0.12, -0.99, 0, 112.4], [0.99, 0.12, 0, -142.9], [0, 0, 1, -129], [0, 0, 0, 1]])
    image = medseg.read(save(tmp_path / "image.nii.gz", two_labels().astype(np.float32), turned))
    medseg.write(image.with_array(two_labels()), tmp_path / "mask.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert (mask.dataobj.slope, mask.dataobj.inter) == (1.0, 0.0)
    assert np.allclose(mask.affine, turned, atol=1e-4)


def test_a_scale_factor_of_zero_or_nan_is_none_at_all(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(0, 9, SHAPE).astype(np.float32)
    content = bytearray(save(tmp_path / "image.nii", array).read_bytes())
    for slope in (0.0, np.nan):
        content[112:120] = np.array([slope, 5.0 if slope == 0 else slope], "<f4").tobytes()
        (tmp_path / "changed.nii").write_bytes(content)
        assert np.array_equal(medseg.read(tmp_path / "changed.nii").array, array)


def test_labels_stored_as_floats_are_integers_where_they_are_nearly_so(tmp_path: Path) -> None:
    for factor in (14.0, 0.9999999):
        path = save(tmp_path / "labels.nii.gz", (two_labels() * np.float32(factor)))
        found = read_label_map([LabelSource(path)]).array
        assert found.dtype == np.uint8 and np.array_equal(found, two_labels() * round(factor))
    with pytest.raises(DatasetError, match="label_threshold"):
        read_label_map([LabelSource(save(tmp_path / "soft.nii.gz", two_labels() * np.float32(0.6)))])


def test_axes_that_itk_refuses_as_not_orthonormal_are_read(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[:3, :3] = [[0.7, 0.01, 0], [-0.0097, 0.7, 0.0005], [0, -0.0001, 1.5]]
    image = nib.Nifti1Image(two_labels(), affine)
    image.set_qform(affine, 0, strip_shears=True)
    nib.save(image, tmp_path / "image.nii.gz")
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(tmp_path / "image.nii.gz"))
    assert np.allclose(medseg.read(tmp_path / "image.nii.gz").affine, affine, atol=1e-6)
