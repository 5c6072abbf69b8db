"""A NIfTI, Analyze, NRRD or MetaImage header that no image can have is refused by its field; unusual ones are read."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from medseg.commands.inspect import inspect
from medseg.errors import MedsegError
from medseg.io import read

ARRAY = np.arange(120, dtype="<i2").reshape(4, 5, 6, order="F")
RAW = ARRAY.tobytes(order="F")
PLACES = {
    "dim": (40, "<8h"),
    "pixdim": (76, "<8f"),
    "scl_slope": (112, "<f"),
    "scl_inter": (116, "<f"),
    "xyzt_units": (123, "<B"),
    "qform_code": (252, "<h"),
    "sform_code": (254, "<h"),
    "srow_x": (280, "<4f"),
    "srow_y": (296, "<4f"),
    "srow_z": (312, "<4f"),
}
ABSURD = [1e-30, 1e-9, 1e5, 1e30, float("nan"), float("inf")]
WORDS = ["1e-30", "1e-9", "0", "1e5", "1e30", "1e400", "nan", "inf", "abc"]


def nifti(path, **fields):
    """A NIfTI-1 file of a 4 x 5 x 6 image of int16, sform of the identity; a field takes one or several numbers."""
    known = {
        "dim": (3, 4, 5, 6, 1, 1, 1, 1),
        "pixdim": (1,) * 8,
        "sform_code": 1,
        "srow_x": (1, 0, 0, 0),
        "srow_y": (0, 1, 0, 0),
        "srow_z": (0, 0, 1, 0),
        **fields,
    }
    raw = bytearray(352)
    struct.pack_into("<i", raw, 0, 348)
    struct.pack_into("<hh", raw, 70, 4, 16)
    struct.pack_into("<f", raw, 108, 352)
    raw[344:348] = b"n+1\0"
    for name, value in known.items():
        offset, kind = PLACES[name]
        struct.pack_into(kind, raw, offset, *(value if isinstance(value, tuple) else (value,)))
    path.write_bytes(bytes(raw) + RAW)
    return path


def nrrd(path, **fields):
    known = {"type": "short", "dimension": "3", "sizes": "4 5 6", "encoding": "raw", "endian": "little", **fields}
    lines = ["NRRD0004", *(f"{name.replace('_', ' ')}: {value}" for name, value in known.items()), "", ""]
    path.write_bytes("\n".join(lines).encode() + RAW)
    return path


def meta(path, **fields):
    known = {"NDims": "3", "DimSize": "4 5 6", "ElementType": "MET_SHORT", **fields, "ElementDataFile": "LOCAL"}
    path.write_bytes("".join(f"{name} = {value}\n" for name, value in known.items()).encode() + RAW)
    return path


def refusal(path):
    with pytest.raises(MedsegError) as caught:
        read(path)
    text = str(caught.value)
    assert path.name in text
    assert "\n" not in text
    assert caught.value.exit_code == 3
    assert inspect(path).items[0].refused == text
    return text


@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("srow_z", lambda v: {"srow_z": (0, 0, v, 0)}),
        ("srow_x", lambda v: {"srow_x": (v, 0, 0, 0), "srow_y": (0, v, 0, 0), "srow_z": (0, 0, v, 0)}),
        ("pixdim", lambda v: {"pixdim": (1, v, v, v, 1, 1, 1, 1), "sform_code": 0, "qform_code": 1}),
        ("pixdim", lambda v: {"pixdim": (1, 1, 1, v, 1, 1, 1, 1), "sform_code": 0}),
    ],
)
def test_nifti_spacings_are_refused_by_field(tmp_path, field, fields, value):
    assert field in refusal(nifti(tmp_path / "a.nii", **fields(value)))


@pytest.mark.parametrize("value", [1e9, -1e30, float("nan"), float("inf")])
def test_nifti_places_are_refused_by_field_and_another_form_counts_instead(tmp_path, value):
    assert "srow_x" in refusal(nifti(tmp_path / "a.nii", srow_x=(1, 0, 0, value)))
    volume = read(nifti(tmp_path / "b.nii", srow_x=(1, 0, 0, value), qform_code=1))
    assert volume.spacing_mm == (1, 1, 1)
    assert [f.kind for f in volume.findings] == ["damaged_sform"]


@pytest.mark.parametrize(
    ("slope", "inter", "field"),
    [
        (float("inf"), 0, "scl_slope"),
        (1e-38, 0, "scl_slope"),
        (1e30, 0, "scl_slope"),
        (1, float("nan"), "scl_inter"),
        (1, float("inf"), "scl_inter"),
        (1, 1e38, "scl_inter"),
    ],
)
def test_nifti_scale_factors_are_refused_by_field(tmp_path, slope, inter, field):
    assert field in refusal(nifti(tmp_path / "a.nii", scl_slope=slope, scl_inter=inter))


@pytest.mark.parametrize("sizes", [(3, 32767, 32767, 32767), (7, *(32767,) * 7), (3, -4, 5, 6), (3, 0, 5, 6)])
def test_nifti_sizes_that_the_file_cannot_hold_are_refused(tmp_path, sizes):
    refusal(nifti(tmp_path / "a.nii", dim=(*sizes, *(1,) * 8)[:8]))


def test_a_spacing_of_zero_is_none_and_never_one_millimetre(tmp_path):
    zero = {"sform_code": 0, "xyzt_units": 2}
    assert "pixdim" in refusal(nifti(tmp_path / "a.nii", pixdim=(1, 0, 0, 0, 1, 1, 1, 1), qform_code=1, **zero))
    assert "pixdim" in refusal(nifti(tmp_path / "b.nii", pixdim=(1, 0.5, 0.5, 0, 1, 1, 1, 1), **zero))
    assert not read(nifti(tmp_path / "c.nii", pixdim=(1, 0, 0, 0, 1, 1, 1, 1), **zero)).spacing_known
    # An axis of one voxel needs no spacing.
    flat = nifti(tmp_path / "d.nii", dim=(3, 4, 5, 1, 1, 1, 1, 1), pixdim=(1, 0.5, 0.5, 0, 1, 1, 1, 1), **zero)
    assert read(flat).spacing_mm == (0.5, 0.5, 1.0)


@pytest.mark.parametrize(
    ("fields", "spacing"),
    [
        ({"srow_x": (4e-6, 0, 0, 0), "srow_y": (0, 4e-6, 0, 0), "srow_z": (0, 0, 4e-5, 0)}, (4e-6, 4e-6, 4e-5)),
        ({"xyzt_units": 3, "srow_x": (0.004, 0, 0, 3e5)}, (4e-6, 1e-3, 1e-3)),
        ({"xyzt_units": 1, "pixdim": (1, 1e-3, 1e-3, 2e-3, 1, 1, 1, 1), "sform_code": 0}, (1, 1, 2)),
        ({"srow_x": (2000, 0, 0, 9e6)}, (2000, 1, 1)),
    ],
)
def test_unusual_grids_are_read(tmp_path, fields, spacing):
    path = nifti(tmp_path / "a.nii", **fields)
    np.testing.assert_allclose(read(path).spacing_mm, spacing, rtol=1e-5)
    np.testing.assert_allclose(inspect(path).items[0].spacing_mm, spacing, rtol=1e-5)


@pytest.mark.parametrize(("slope", "inter"), [(2.3e-10, 0.5), (1e-25, 0), (-1, 0), (1e15, -1e10), (0, 0)])
def test_unusual_scale_factors_are_read(tmp_path, slope, inter):
    array = read(nifti(tmp_path / "a.nii", scl_slope=slope, scl_inter=inter)).array
    np.testing.assert_allclose(array, ARRAY * (slope or 1.0) + inter, rtol=1e-5)


def test_a_slope_of_nan_says_that_there_is_none(tmp_path):
    np.testing.assert_array_equal(read(nifti(tmp_path / "a.nii", scl_slope=float("nan"))).array, ARRAY)


@pytest.mark.parametrize("value", WORDS)
def test_nrrd_fields_are_refused_by_name(tmp_path, value):
    lps = {"space": "left-posterior-superior"}
    cube = f"({value},0,0) (0,{value},0) (0,0,{value})"
    assert "spacings" in refusal(nrrd(tmp_path / "a.nrrd", spacings=f"{value} {value} {value}"))
    assert "space directions" in refusal(nrrd(tmp_path / "b.nrrd", **lps, space_directions=cube))
    if value in ("1e-30", "1e-9", "0", "1e5"):
        return
    unit = "(1,0,0) (0,1,0) (0,0,1)"
    away = nrrd(tmp_path / "c.nrrd", **lps, space_directions=unit, space_origin=f"({value},0,0)")
    assert "space origin" in refusal(away)


@pytest.mark.parametrize("value", WORDS)
def test_metaimage_fields_are_refused_by_name(tmp_path, value):
    assert "ElementSpacing" in refusal(meta(tmp_path / "a.mha", ElementSpacing=f"1 1 {value}"))
    if value in ("1e-30", "1e-9", "0", "1e5"):
        return
    assert "Offset" in refusal(meta(tmp_path / "b.mha", Offset=f"{value} 0 0"))
    assert "TransformMatrix" in refusal(meta(tmp_path / "c.mha", TransformMatrix=f"{value} 0 0 0 1 0 0 0 1"))


def test_nanometres_are_read_from_every_format(tmp_path):
    cube = "(4,0,0) (0,4,0) (0,0,40)"
    units = {"space": "left-posterior-superior", "space_directions": cube, "space_units": '"nm" "nm" "nm"'}
    for path in (nrrd(tmp_path / "a.nrrd", **units), meta(tmp_path / "a.mha", ElementSpacing="4e-6 4e-6 4e-5")):
        np.testing.assert_allclose(read(path).spacing_mm, (4e-6, 4e-6, 4e-5))


@pytest.mark.parametrize("value", [1e-9, 1e5, float("nan"), float("inf")])
def test_analyze_spacings_are_refused_by_field(tmp_path, value):
    raw = bytearray(348)
    struct.pack_into("<i", raw, 0, 348)
    struct.pack_into("<8h", raw, 40, 3, 4, 5, 6, 1, 1, 1, 1)
    struct.pack_into("<hh", raw, 70, 4, 16)
    struct.pack_into("<4f", raw, 76, 1, value, value, value)
    (tmp_path / "a.hdr").write_bytes(raw)
    (tmp_path / "a.img").write_bytes(RAW)
    assert "pixdim" in refusal(tmp_path / "a.hdr")
