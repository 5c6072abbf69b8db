"""A disk that cannot take what is written: one line, exit code 6, the old file as it was, nothing else left behind.

The limits are the system's own: a largest size of files, and /dev/full in place of the temporary file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from medseg.commands.convert import ConvertOptions, convert
from medseg.disk import archive, atomic
from medseg.disk.atomic import atomic_folder, write_error, write_text_atomic
from medseg.disk.temporary import temporary_folder
from medseg.errors import ReadError, WriteError
from medseg.io import read, write
from medseg.io.annotations import Annotated, write_annotations
from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.capture.write import write_capture
from medseg.io.dicom.deidentify.files import deidentify_files, site_key
from medseg.io.dicom.deidentify.profile import Deidentifier
from medseg.io.dicom.grid import grid_of
from medseg.io.dicom.rtstruct.write import write_rtstruct
from medseg.io.dicom.seg.write import write_dicom_seg
from medseg.io.dicom.series import find_series
from medseg.io.dicom.sr.write import write_measurement_report
from medseg.io.dicom.writing.series import write_dicom_series
from medseg.labels import LabelScheme
from medseg.studies.measurements import measure
from medseg.volume import Volume

KEY = "a key of the site"
MODEL = Algorithm("net", "1.0", "9f2c" * 16)
SCHEME = LabelScheme.from_mapping({"lung": 1, "tumour": 7})
OVERWRITE = ConvertOptions(overwrite=True)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A study of noise, a label map on it, and what is needed to write each in every format."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    image = Volume(rng.integers(0, 4000, (20, 18, 12)).astype(np.int16), np.diag([-1.0, -1.0, 2.0, 1.0]))
    write_dicom_series(image, folder / "study")
    grid = grid_of(find_series(folder / "study")[0])
    labels = Volume(rng.choice([0, 1, 7], (20, 18, 12)).astype(np.uint8), grid.affine)
    picture = Volume(rng.integers(0, 2, (40, 50)).astype(np.uint8), np.eye(4), spacing_known=False)
    write(image, folder / "image.nii.gz")
    write(labels, folder / "labels.nii.gz")
    (folder / "names.yaml").write_text(yaml.safe_dump({"lung": 1, "tumour": 7}))
    return {"folder": folder, "image": image, "grid": grid, "labels": labels, "picture": picture}


def annotated(inputs):
    return Annotated(inputs["picture"], {"lung": 1}, "scan.png")


def convert_labels(inputs, target, kind):
    folder = inputs["folder"]
    options = ConvertOptions(kind, reference=folder / "study", labels=folder / "names.yaml", overwrite=True)
    convert(folder / "labels.nii.gz", target, options)


# Name of the target -> what writes it.
FILES = {
    "a.nii": lambda i, t: write(i["image"], t),
    "a.nii.gz": lambda i, t: write(i["image"], t),
    "a.nrrd": lambda i, t: write(i["image"], t),
    "a.mha": lambda i, t: write(i["image"], t),
    "a.tif": lambda i, t: write(i["image"], t),
    "a.png": lambda i, t: write(i["picture"], t),
    "seg.dcm": lambda i, t: write_dicom_seg(i["labels"], t, SCHEME, i["grid"], MODEL),
    "labelmap.dcm": lambda i, t: write_dicom_seg(i["labels"], t, SCHEME, i["grid"], MODEL, encoding="labelmap"),
    "rtstruct.dcm": lambda i, t: write_rtstruct(i["labels"], t, SCHEME, i["grid"], MODEL),
    "a.sr.dcm": lambda i, t: write_measurement_report(measure(i["labels"], SCHEME, i["image"]), t, i["grid"], MODEL),
    "a.capture.dcm": lambda i, t: write_capture(np.zeros((99, 98, 3), np.uint8), t, i["grid"], MODEL),
    "anonymous.dcm": lambda i, t: write_dicom_seg(
        i["labels"], t, SCHEME, i["grid"], MODEL, deidentifier=Deidentifier.with_key(KEY)
    ),
    "labelme.json": lambda i, t: write_annotations(annotated(i), t, "labelme"),
    "supervisely.json": lambda i, t: write_annotations(annotated(i), t, "supervisely"),
    "coco.json": lambda i, t: write_annotations(annotated(i), t, "coco"),
    "cvat.xml": lambda i, t: write_annotations(annotated(i), t, "cvat"),
    "converted.nii.gz": lambda i, t: convert(i["folder"] / "study", t, OVERWRITE),
    "converted.nrrd": lambda i, t: convert(i["folder"] / "study", t, OVERWRITE),
    "converted.dcm": lambda i, t: convert_labels(i, t, "dicom-seg"),
    "contours.dcm": lambda i, t: convert_labels(i, t, "rtstruct"),
}
FOLDERS = {
    "series": lambda i, t: write_dicom_series(i["image"], t, overwrite=True),
    "copies": lambda i, t: deidentify_files([i["folder"] / "study"], t, KEY, overwrite=True),
    "converted": lambda i, t: convert(i["folder"] / "image.nii.gz", t, ConvertOptions("dicom", overwrite=True)),
}


@contextlib.contextmanager
def largest_file(size):
    """The system lets no file grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def state(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(writer, words):
    with pytest.raises(WriteError, match=words) as caught:
        writer()
    text = str(caught.value)
    assert caught.value.exit_code == 6
    assert "\n" not in text
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path, inputs, name, share):
    FILES[name](inputs, tmp_path / "whole" / name)
    size = (tmp_path / "whole" / name).stat().st_size
    shutil.rmtree(tmp_path / "whole")
    (tmp_path / name).write_bytes(b"old")
    with largest_file(int((size - 1) * share)):
        text = refused(lambda: FILES[name](inputs, tmp_path / name), "too large for that disk")
    assert str(tmp_path / name) in text
    assert state(tmp_path) == {name: b"old"}


@pytest.mark.parametrize("name", FILES)
def test_a_full_disk_is_called_so_by_every_writer(tmp_path, inputs, name, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda n: "0" * 2 * n)
    (tmp_path / f".00000000-{name}").symlink_to("/dev/full")
    (tmp_path / name).write_bytes(b"old")
    refused(lambda: FILES[name](inputs, tmp_path / name), "the disk is full; free some space")
    assert state(tmp_path) == {name: b"old"}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("is_there", [True, False])
def test_a_folder_that_does_not_fit_leaves_the_old_one(tmp_path, inputs, name, share, is_there):
    FOLDERS[name](inputs, tmp_path / "whole")
    size = max(len(content) for content in state(tmp_path / "whole").values())
    shutil.rmtree(tmp_path / "whole")
    target = tmp_path / "new" / name
    if is_there:
        target.mkdir(parents=True)
        (target / "old").write_bytes(b"old")
    with largest_file(int((size - 1) * share)):
        refused(lambda: FOLDERS[name](inputs, target), "too large for that disk")
    assert state(tmp_path) == ({f"new/{name}/old": b"old"} if is_there else {})
    # Folders that were made for it are gone, too.
    assert (tmp_path / "new").exists() == is_there


def test_new_folders_go_with_the_file_that_could_not_be_written(tmp_path):
    with largest_file(3):
        refused(lambda: write_text_atomic(tmp_path / "a" / "b" / "c.txt", "more than three"), "too large")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with pytest.raises(KeyError), atomic_folder(tmp_path / "a" / "b" / "c"):
        raise KeyError
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota is used up"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
        (errno.EIO, "reports an error"),
        (errno.ENAMETOOLONG, "the name is too long"),
    ],
)
def test_an_error_that_a_library_wrapped_is_told_as_the_system_gave_it(number, words):
    # As pydicom does for each element, and again for each sequence around it.
    try:
        try:
            raise OSError(number, os.strerror(number))
        except OSError as first:
            raise OSError(f"With tag (7FE0,0010) got exception: {first}\nTraceback ...") from first
    except OSError as second:
        text = str(write_error(Path("a.dcm"), second))
    assert words in text
    assert "\n" not in text


def test_an_error_without_a_number_is_told_by_its_first_line():
    assert str(write_error(Path("a"), OSError("odd\nTraceback"))) == "cannot write a: odd"


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha", "a.png", "a.tif"])
def test_a_name_that_is_too_long_and_a_folder_in_the_way_are_told(tmp_path, inputs, name):
    picture = inputs["picture"]
    refused(lambda: write(picture, tmp_path / f"{'x' * 300}{name}"), "the name is too long")
    (tmp_path / name).mkdir()
    refused(lambda: write(picture, tmp_path / name), "a folder of that name exists")
    assert list(tmp_path.iterdir()) == [tmp_path / name]
    assert list((tmp_path / name).iterdir()) == []


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_whose_name_is_too_long_is_told(tmp_path, inputs, name):
    refused(lambda: FOLDERS[name](inputs, tmp_path / ("x" * 300)), "the name is too long")
    assert list(tmp_path.iterdir()) == []


def test_a_zip_that_does_not_fit_into_the_temporary_folder_leaves_nothing(tmp_path, inputs, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as out:
        out.write(inputs["folder"] / "image.nii.gz", "image.nii.gz")
    with largest_file(1000):
        text = refused(lambda: read(tmp_path / "study.zip"), "too large for that disk")
    assert str(tmp_path / "study.zip") in text
    assert list((tmp_path / "temporary").iterdir()) == []
    # Whoever asks for what cannot be read gets an answer, too.
    monkeypatch.setattr(archive, "_SPARE_BYTES", 1 << 60)
    with pytest.raises(ReadError) as caught:
        read(tmp_path / "study.zip")
    assert caught.value.exit_code == 6


def test_a_temporary_folder_that_cannot_be_begun_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(WriteError, match="the disk is full"), temporary_folder():
        raise AssertionError
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_a_place_for_temporary_files_that_does_not_exist_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(WriteError, match="cannot write"), temporary_folder():
        raise AssertionError


def test_half_a_key_is_not_left_behind(tmp_path):
    with largest_file(10):
        refused(lambda: site_key(tmp_path / "deidentify.key"), "too large for that disk")
    assert list(tmp_path.iterdir()) == []
    assert len(site_key(tmp_path / "deidentify.key")) == 64


@pytest.mark.parametrize("arguments", [("--format", "dicom"), ("--format", "nrrd"), ("--anonymize",)])
def test_the_command_line_ends_with_6_and_one_line(tmp_path, inputs, arguments):
    source = inputs["folder"] / ("study" if "--anonymize" in arguments else "image.nii.gz")
    target = tmp_path / ("a.nrrd" if "nrrd" in arguments else "new/folder")
    script = (
        "import resource, sys; from medseg.cli import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)); sys.argv[0] = 'medseg'; main()"
    )
    environment = os.environ | {"XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path)}
    command = [sys.executable, "-c", script, "convert", str(source), str(target), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 6, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("convert: ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("medseg: cannot write")
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".key"] == []
