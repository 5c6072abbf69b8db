"""CDs of studies: a DICOMDIR, files without suffix in nested folders, a viewer and pictures beside."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.fileset import FileSet

from medseg.commands.convert import ConvertOptions, convert
from medseg.commands.inspect import inspect
from medseg.errors import ReadError
from medseg.io import read, read_all
from medseg.io.formats import is_dicom_directory
from medseg.studies.find import find_sources

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


@pytest.fixture
def disc(small_series, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    files = FileSet()
    for path in sorted(small_series(tmp_path / "series").iterdir()):
        data = pydicom.dcmread(path)
        data.PatientName, data.PatientID, data.SeriesNumber, data.StudyID = "Zqxsmith^Jane", "ZQXMRN-1", 1, "1"
        data.StudyDate, data.StudyTime, data.AccessionNumber = "20200102", "101010", ""
        files.add(data)
    files.ID = "ZQXDISC"
    files.write(tmp_path / "disc")
    files._stage["t"].cleanup()
    place = tmp_path / "disc"
    (place / "README.TXT").write_text("open index.html")
    (place / "VIEWER").mkdir()
    (place / "VIEWER" / "VIEWER.EXE").write_bytes(b"MZ" + bytes(500))
    # Begins as files of the first version of DICOM do.
    (place / "VIEWER" / "FONT.DAT").write_bytes(b"\x08\0\x05\0" + bytes(range(200)))
    (place / "autorun.inf").write_text("[autorun]")
    (place / "index.html").write_text("<html>")
    (place / "THUMB").mkdir()
    (place / "THUMB" / "0001.JPG").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    return place


def as_it_is(disc: Path) -> None:
    pass


def in_lower_case(disc: Path) -> None:
    (disc / "DICOMDIR").rename(disc / "dicomdir")


def with_a_version(disc: Path) -> None:
    (disc / "DICOMDIR").rename(disc / "DICOMDIR.;1")


def as_siemens_calls_it(disc: Path) -> None:
    (disc / "DICOMDIR").rename(disc / "DIRFILE")


def named_like_an_image(disc: Path) -> None:
    (disc / "DICOMDIR").rename(disc / "contents.dcm")


def in_a_folder(disc: Path) -> None:
    (disc / "CD1").mkdir()
    for name in ("DICOMDIR", "PT000000"):
        (disc / name).rename(disc / "CD1" / name)


def cut_short(disc: Path) -> None:
    (disc / "DICOMDIR").write_bytes((disc / "DICOMDIR").read_bytes()[:700])


def overwritten(disc: Path) -> None:
    content = bytearray((disc / "DICOMDIR").read_bytes())
    content[400:900] = b"\xff" * 500
    (disc / "DICOMDIR").write_bytes(content)


def empty(disc: Path) -> None:
    (disc / "DICOMDIR").write_bytes(b"")


def without_preamble(disc: Path) -> None:
    (disc / "DICOMDIR").write_bytes((disc / "DICOMDIR").read_bytes()[132:])


def without_any_meta_information(disc: Path) -> None:
    content = (disc / "DICOMDIR").read_bytes()
    (disc / "DICOMDIR").unlink()
    (disc / "list.dcm").write_bytes(content[144 + int.from_bytes(content[140:144], "little") :])


CHANGES = [as_it_is, in_lower_case, with_a_version, as_siemens_calls_it, named_like_an_image, in_a_folder, cut_short]
CHANGES += [overwritten, empty, without_preamble, without_any_meta_information]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_disc_is_copied_without_its_directory(disc, tmp_path, change: Callable[[Path], None], packed):
    slices = len(list((disc / "PT000000").rglob("IM*")))
    change(disc)
    source = disc
    if packed:
        source = tmp_path / "disc.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in sorted(disc.rglob("*")):
                archive.write(path, path.relative_to(disc))
    done = convert(source, tmp_path / "out", ConvertOptions(anonymize=True))
    copies = contents(tmp_path / "out")
    assert slices > 1 and len(copies) == slices
    assert not any(mark in content for content in copies.values() for mark in (b"Zqx", b"ZQX"))
    told = [finding.message for finding in done.findings if finding.kind == "left_out"]
    assert told == [
        "1 file(s) are lists of patients (DICOMDIR) and were not copied",
        "6 file(s) are not DICOM objects and were not copied",
    ]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_disc_is_read_inspected_and_predicted_as_its_study(disc, change: Callable[[Path], None]):
    change(disc)
    assert read(disc).dims == 3
    (case,) = find_sources([disc], None, disc)
    assert case.error == "" and case.series is not None
    assert [item.refused for item in inspect(disc).items if item.kind == "DICOM"] == [""]


def test_an_image_that_is_damaged_still_stops_the_copy(disc, tmp_path):
    first = min((disc / "PT000000").rglob("IM*"))
    first.write_bytes(first.read_bytes()[:132] + b"\xff" * 300)
    with pytest.raises(ReadError, match="IM000000"):
        convert(disc, tmp_path / "out", ConvertOptions(anonymize=True))
    assert not (tmp_path / "out").exists()


def test_an_image_is_no_directory_whatever_it_refers_to(disc):
    assert not any(is_dicom_directory(path) for path in (disc / "PT000000").rglob("IM*"))
    assert is_dicom_directory(disc / "DICOMDIR")
    shutil.copy(disc / "DICOMDIR", disc / "x")
    assert is_dicom_directory(disc / "x")


def test_the_directory_of_a_disc_stands_for_its_folder(disc):
    directory = disc / "DICOMDIR"
    assert read(directory).shape == read(disc).shape
    (case,) = find_sources([directory], None, disc)
    assert case.error == "" and case.series is not None
    (item,) = [item for item in inspect(directory).items if item.kind == "DICOM"]
    assert item.refused == "" and item.images == 6


@pytest.fixture
def zips(small_series, tmp_path) -> Path:
    (tmp_path / "zips" / "more").mkdir(parents=True)
    for n, place in enumerate(("a.zip", "more/b.zip")):
        study = small_series(f"study{n}", StudyInstanceUID=f"1.2.{n}", SeriesInstanceUID=f"1.3.{n}")
        with zipfile.ZipFile(tmp_path / "zips" / place, "w") as archive:
            for path in sorted(study.iterdir()):
                archive.write(path, f"inner/{path.name}")
    return tmp_path / "zips"


def test_a_folder_of_zips_is_read_inspected_and_predicted_as_its_studies(zips):
    assert [volume.shape for volume in read_all(zips)] == [(5, 4, 6)] * 2
    assert [(item.place, item.images) for item in inspect(zips).items] == [("a.zip/inner", 6), ("more/b.zip/inner", 6)]
    cases = find_sources([zips], None, zips)
    assert [(case.error, case.series is not None) for case in cases] == [("", True)] * 2
    with pytest.raises(ReadError, match=r"contains 2 zips, expected one image: a\.zip, b\.zip"):
        read(zips)
    (zips / "more" / "b.zip").unlink()
    assert read(zips).shape == (5, 4, 6)


def test_a_damaged_zip_among_others_is_named_and_stops_none(zips):
    (zips / "c.zip").write_bytes(b"PK" + bytes(100))
    assert len(read_all(zips)) == 2
    assert sum(bool(case.error) for case in find_sources([zips], None, zips)) == 1
    assert [item.place for item in inspect(zips).items if item.refused] == ["c.zip"]


def test_zips_inside_a_zip_are_not_opened(zips, tmp_path):
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(zips / "a.zip", "a.zip")
    for look in (read, read_all, inspect):
        with pytest.raises(ReadError):
            look(tmp_path / "outer.zip")
