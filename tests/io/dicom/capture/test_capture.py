"""Secondary captures: the picture as it was drawn, in the study it belongs to."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from seg_cases import MODEL, grid_in

from medseg.errors import WriteError
from medseg.io.dicom.capture.write import write_capture
from medseg.io.dicom.deidentify.profile import Deidentifier

TAGS = {"Modality": "CT", "StudyDate": "20240229", "StudyTime": "101112", "StudyID": "S1"}
RESEARCH = replace(MODEL, mark="RESEARCH")


def a_picture(rows=5, columns=7):
    """Odd sizes, so that the pixels end inside a word."""
    return np.random.default_rng(0).integers(0, 256, (rows, columns, 3), np.uint8)


@pytest.fixture
def grid(tmp_path):
    return grid_in(tmp_path / "study", tags=TAGS)


def test_the_picture_comes_back_pixel_by_pixel_in_the_study_it_belongs_to(grid, tmp_path):
    picture = a_picture()
    write_capture(picture, tmp_path / "a.capture.dcm", grid, RESEARCH)
    data, source = pydicom.dcmread(tmp_path / "a.capture.dcm"), pydicom.dcmread(grid.slices[0].path)
    np.testing.assert_array_equal(data.pixel_array, picture)
    assert data.PhotometricInterpretation == "RGB"
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "StudyTime"):
        assert data[keyword].value == source[keyword].value, keyword
    assert data.SeriesInstanceUID != source.SeriesInstanceUID
    assert data.SeriesDescription == "RESEARCH: contours by lung net"
    assert (data.ContentDate, data.ContentTime) == ("20240229", "101112")
    assert [item.ReferencedSOPInstanceUID for item in data.SourceImageSequence] == [
        s.sop_instance_uid for s in grid.slices
    ]
    # The marks identify nobody.
    assert data.BurnedInAnnotation == "NO"


def test_it_says_that_text_is_burned_in_where_the_images_say_so(tmp_path):
    grid = grid_in(tmp_path / "study", tags={**TAGS, "BurnedInAnnotation": "YES"})
    write_capture(a_picture(), tmp_path / "a.dcm", grid, RESEARCH)
    assert pydicom.dcmread(tmp_path / "a.dcm").BurnedInAnnotation == "YES"


def test_the_same_picture_gives_the_same_bytes_and_another_one_another_object(grid, tmp_path):
    seen = set()
    for n, (picture, algorithm) in enumerate(
        [(a_picture(), MODEL), (255 - a_picture(), MODEL), (a_picture(), RESEARCH), (a_picture(7, 5), MODEL)]
    ):
        for name in ("once", "twice"):
            write_capture(picture, tmp_path / name, grid, algorithm)
        assert (tmp_path / "once").read_bytes() == (tmp_path / "twice").read_bytes(), n
        data = pydicom.dcmread(tmp_path / "once")
        seen |= {data.SOPInstanceUID, data.SeriesInstanceUID}
    assert len(seen) == 8


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.uint16)]
)
def test_what_is_no_rgb_picture_is_refused(grid, tmp_path, pixels):
    with pytest.raises(WriteError, match=r"a\.dcm: a capture is RGB"):
        write_capture(pixels, tmp_path / "a.dcm", grid, MODEL)
    assert not (tmp_path / "a.dcm").exists()


def test_a_deidentified_capture_is_still_marked_and_asks_to_look_at_its_pixels(grid, tmp_path):
    found = write_capture(a_picture(), tmp_path / "a.dcm", grid, RESEARCH, Deidentifier.with_key("a secret"))
    assert [finding.kind for finding in found] == ["burned_in_text"]
    data, source = pydicom.dcmread(tmp_path / "a.dcm"), pydicom.dcmread(grid.slices[0].path)
    assert data.SeriesDescription.startswith("RESEARCH")
    raw = (tmp_path / "a.dcm").read_bytes()
    secrets = (source.PatientName, source.PatientID, source.StudyInstanceUID, source.SOPInstanceUID)
    assert [text for text in map(str, secrets) if text.encode() in raw] == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_dciodvfy_only_warns_that_the_side_of_the_body_part_is_unknown(grid, tmp_path):
    """The conformance checker of David Clunie's dicom3tools."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (Debian: apt-get install dicom3tools)")
    write_capture(a_picture(), tmp_path / "a.dcm", grid, RESEARCH)
    said = subprocess.run([program, tmp_path / "a.dcm"], capture_output=True, text=True, check=False)
    lines = [line for line in (said.stdout + said.stderr).splitlines() if line.strip() != "SCImage"]
    assert all("only permitted to be empty when actually unknown" in line for line in lines), lines
