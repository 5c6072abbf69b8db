"""TIFF files of ImageJ and OME carry their spacing; others have none."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from medseg.io import read

STACK = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)


def imagej(path, array=STACK, **options):
    known = {"resolution": (1 / 0.5, 1 / 0.25), "metadata": {"axes": "ZYX", "unit": "um", "spacing": 2.0}} | options
    tifffile.imwrite(path, array, imagej=True, **known)
    return read(path)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("um", 1e-3), ("micron", 1e-3), ("\\u00B5m", 1e-3), ("mm", 1), ("cm", 10), ("nm", 1e-6), ("inch", 25.4)],
)
def test_imagej_gives_the_spacing_in_its_unit(tmp_path, unit, factor):
    volume = imagej(tmp_path / "a.tif", metadata={"axes": "ZYX", "unit": unit, "spacing": 2.0})
    assert volume.spacing_known
    assert volume.spacing_mm == pytest.approx((0.5 * factor, 0.25 * factor, 2 * factor), rel=1e-5)
    np.testing.assert_array_equal(volume.array, STACK.T)


def test_a_compressed_imagej_file_has_its_spacing(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif",
        STACK[0],
        compression="lzw",
        resolution=(2, 4),
        description="ImageJ=1.53\nunit=mm\n",
        metadata=None,
    )
    assert read(tmp_path / "a.tif").spacing_mm == pytest.approx((0.5, 0.25))


@pytest.mark.parametrize(
    "metadata",
    [
        {"axes": "ZYX", "unit": "pixel", "spacing": 2.0},
        {"axes": "ZYX", "unit": "um"},
        {"axes": "TYX", "unit": "um", "spacing": 2.0},
        {"axes": "ZYX"},
    ],
)
def test_a_stack_without_a_whole_spacing_has_none(tmp_path, metadata):
    volume = imagej(tmp_path / "a.tif", metadata=metadata)
    assert not volume.spacing_known
    np.testing.assert_array_equal(volume.affine, np.eye(4))


def test_ome_gives_the_spacing_in_its_units(tmp_path):
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "mm"}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, metadata={"axes": "ZYX", **sizes})
    assert read(tmp_path / "a.ome.tif").spacing_mm == pytest.approx((0.5e-3, 0.25e-3, 2.0))
    tifffile.imwrite(
        tmp_path / "b.ome.tif", STACK[0], metadata={"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}
    )
    assert read(tmp_path / "b.ome.tif").spacing_mm == pytest.approx((0.5e-3, 0.25e-3))


def test_a_print_resolution_is_no_spacing(tmp_path):
    Image.fromarray(STACK[0].astype(np.uint8)).save(tmp_path / "a.tif", dpi=(300, 300))
    assert not read(tmp_path / "a.tif").spacing_known
