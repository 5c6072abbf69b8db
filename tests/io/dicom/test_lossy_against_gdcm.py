"""Lossy pixels equal what another decoder makes of them: GDCM, by way of SimpleITK."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantoms import Phantom, write_study

from medseg.io import read

TWELVE = Phantom(shape=(21, 18, 4), stored="uint16", bits=12)
EIGHT = Phantom(shape=(21, 18, 4), stored="uint8", bits=8, intercepts=0.0, offset=150.0, origin=(0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("syntax", "phantom"),
    [
        ("JPEG baseline", EIGHT),
        ("JPEG extended 12 bit", TWELVE),
        ("JPEG-LS near-lossless", TWELVE),
        ("JPEG 2000 lossy", TWELVE),
    ],
)
def test_lossy_pixels_equal_those_of_gdcm(tmp_path, syntax, phantom):
    write_study(tmp_path, phantom.but(syntax=syntax))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    volume = read(tmp_path)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(reader.Execute()).T)
    assert "lossy" in [f.kind for f in volume.findings]
