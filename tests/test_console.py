"""What a user sees on the console: our own sentences, no warnings of libraries."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian

import medseg

FIELD = Path(medseg.__file__).parents[2] / "shared" / "field"
BAD = Path(medseg.__file__).parents[2] / "shared" / "data" / "dicom_bad"
RAW = re.compile(
    r"Warning:|^\s*warnings\.warn|^WARNING\b|Traceback|site-packages|^pixdim\[|_code \d+ not valid", re.MULTILINE
)


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "medseg", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def _odd_dicom(folder: Path) -> None:
    folder.mkdir()
    for n in range(3):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = f"1.2.3.{n + 1}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.4"
        dataset.Modality, dataset.Rows, dataset.Columns = "CT", 8, 8
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, n], [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [1, 1], 1
        dataset.PixelData = np.zeros((8, 8), np.int16).tobytes()
        dataset.save_as(folder / f"{n}.dcm", enforce_file_format=True)
        # A UID with a leading zero, which pydicom warns of.
        content = (folder / f"{n}.dcm").read_bytes()
        (folder / f"{n}.dcm").write_bytes(content.replace(b"1.2.3\x00", b"1.02.3"))


def _odd_nifti(folder: Path) -> None:
    folder.mkdir()
    image = nib.Nifti1Image(np.zeros((6, 6, 6), np.int16), np.eye(4))
    image.header["pixdim"][1:4] = -1
    image.header["qform_code"] = 77
    path = folder / "odd.nii.gz"
    nib.save(image, path)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[252:254] = (77).to_bytes(2, "little")
    path.write_bytes(gzip.compress(bytes(content)))


@pytest.mark.parametrize("make", [_odd_dicom, _odd_nifti])
def test_odd_files_are_told_in_our_words_only(make, tmp_path: Path) -> None:
    make(tmp_path / "in")
    for arguments in (("inspect", tmp_path / "in"), ("convert", tmp_path / "in", tmp_path / "out")):
        done = _run(*arguments)
        assert not RAW.search(done.stderr + done.stdout), done.stderr + done.stdout


def test_a_library_that_warns_is_not_heard_but_with_debug(tmp_path: Path) -> None:
    # Pillow warns of a picture of so many pixels; matplotlib and others warn through their logs.
    program = (
        "import logging, sys, warnings; from medseg import cli\n"
        "cli.app = lambda **_: (warnings.warn('raw python'), logging.getLogger('pydicom').warning('raw log'), "
        "logging.getLogger('medseg.io').warning('our sentence'))\n"
        "cli.main()"
    )
    for debug, heard in (((), False), (("--debug",), True)):
        command = [sys.executable, "-c", program, *debug]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
        text = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stderr
        assert "our sentence" in text
        assert ("raw python" in text) is heard and ("raw log" in text) is heard


@pytest.mark.slow
@pytest.mark.skipif(not FIELD.is_dir(), reason="the small inputs of ../shared/field are not there")
@pytest.mark.parametrize(
    "name", sorted(path.name for path in FIELD.iterdir() if path.is_dir()) if FIELD.is_dir() else []
)
def test_inspecting_the_inputs_of_the_field_shows_no_raw_warning(name: str) -> None:
    done = _run("inspect", FIELD / name)
    assert not RAW.search(done.stderr + done.stdout), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not BAD.is_dir(), reason="the damaged DICOM files of ../shared/data are not there")
def test_inspecting_damaged_dicom_shows_no_raw_warning() -> None:
    done = _run("inspect", BAD)
    assert not RAW.search(done.stderr + done.stdout), done.stderr


def test_a_picture_of_many_pixels_is_told_in_our_words_only(tmp_path: Path) -> None:
    Image.new("1", (10_000, 9_500)).save(tmp_path / "large.png")
    done = _run("inspect", tmp_path / "large.png")
    assert not RAW.search(done.stderr + done.stdout), done.stderr
