"""Hostile input, through the command: one line that names the file, nothing written elsewhere, the rest is done."""

from __future__ import annotations

import gzip
import json
import os
import resource
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest

import medseg
from medseg.disk import archive
from medseg.phantoms import samples_folder
from medseg.volume import Volume

HUGE = (3000, 3000, 3333)  # 60 GB of 16 bits
MOST_BYTES = 300 << 20  # more than this on top of what is in memory already, and a case was not refused by its header
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def model(threshold_bundle) -> Path:
    return threshold_bundle(patch_size=(32, 32, 32))


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """A folder with one study that nothing is wrong with."""
    folder = tmp_path / "in"
    folder.mkdir()
    medseg.write(Volume(np.eye(12, dtype=np.float32)[None].repeat(12, 0), np.eye(4)), folder / "good.nii.gz")
    return folder


def states(out: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    return {row["case"]: row["state"] for row in rows}


def errors(out: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    return {row["case"]: row["error"] for row in rows if row["error"]}


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def zipped(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def nifti_header() -> bytes:
    header = nib.Nifti1Header()
    header.set_data_shape(HUGE)
    header.set_data_dtype(np.int16)
    header.set_sform(np.eye(4), 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    return bytes(header.binaryblock) + bytes(4)


def nrrd(encoding: str, body: bytes) -> bytes:
    return (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\n"
        f"sizes: {' '.join(map(str, HUGE))}\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n"
        f"endian: little\nencoding: {encoding}\n\n"
    ).encode() + body


def metaimage(compressed: bool, body: bytes) -> bytes:
    return (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"CompressedData = {compressed}\n"
        + (f"CompressedDataSize = {len(body)}\n" if compressed else "")
        + f"ElementSpacing = 1 1 1\nDimSize = {' '.join(map(str, HUGE))}\nElementType = MET_SHORT\n"
        "ElementDataFile = LOCAL\n"
    ).encode() + body


def dicom(folder: Path, syntax: str = "", body: bytes = b"", **tags: Any) -> None:
    data = pydicom.dcmread(sorted((samples_folder() / "study").iterdir())[0])
    data.StudyInstanceUID = data.SeriesInstanceUID = f"1.2.3.{zlib.crc32(folder.name.encode())}"
    for name, value in tags.items():
        setattr(data, name, value)
    if syntax:
        data.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
        data.PixelData = pydicom.encaps.encapsulate([body])
        data["PixelData"].is_undefined_length = True
    folder.mkdir()
    data.save_as(folder / "1.dcm")


def test_headers_that_declare_60_gb_cost_nothing_and_the_rest_goes_on(run, model, studies, tmp_path):
    (studies / "nii.nii").write_bytes(nifti_header() + bytes(1000))
    (studies / "niigz.nii.gz").write_bytes(gzip.compress(nifti_header() + bytes(1000)))
    (studies / "sparse.nii").write_bytes(nifti_header())
    os.truncate(studies / "sparse.nii", 352 + 2 * int(np.prod(HUGE)))
    (studies / "nrrd.nrrd").write_bytes(nrrd("raw", bytes(1000)))
    (studies / "nrrdgz.nrrd").write_bytes(nrrd("gzip", gzip.compress(bytes(1000))))
    (studies / "mha.mha").write_bytes(metaimage(False, bytes(1000)))
    (studies / "mhaz.mha").write_bytes(metaimage(True, zlib.compress(bytes(1000))))
    dicom(studies / "rows", Rows=65535, Columns=65535)
    dicom(studies / "frames", Rows=512, Columns=512, NumberOfFrames=5000)
    dicom(studies / "most", Rows=512, Columns=512, NumberOfFrames=2**31 - 1)
    rle = struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\0" * 100
    dicom(studies / "rle", "RLELossless", rle, Rows=65535, Columns=65535)
    dicom(studies / "jpeg2000", "JPEG2000Lossless", b"\xff\x4f\xff\x51" + bytes(100), Rows=65535, Columns=65535)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = tmp_path / "out"
    code, _, err = run("predict", model, studies, "-o", out)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert code == 4 and err.count("\nmedseg: ") == 1
    assert grown < MOST_BYTES
    found = states(out)
    assert found.pop("good") == "done"
    assert len(found) == 12 and set(found.values()) == {"failed"}
    for case, error in errors(out).items():
        # Series are named by their UID, files by their path.
        assert str(studies) in error and "\n" not in error, case


def test_inspect_lists_what_declares_60_gb_and_convert_refuses_it(run, studies, tmp_path):
    (studies / "bad.nii").write_bytes(nifti_header() + bytes(1000))
    code, text, _ = run("inspect", studies)
    assert code == 0 and "bad.nii is cut short" in text.replace("\n", "") and "12 x 12 x 12" in text
    code, _, err = run("convert", studies, tmp_path / "out")
    assert code == 4 and "bad.nii is cut short" in err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["good.nii.gz", "names.jsonl"]


@pytest.mark.parametrize(
    "name", ["../evil.nii.gz", "/evil.nii.gz", "C:\\evil.nii.gz", "c:evil.nii.gz", "a/..\\..\\evil.nii.gz"]
)
def test_zips_that_lead_outside_are_refused_and_the_next_source_is_done(run, model, studies, tmp_path, name):
    good = (studies / "good.nii.gz").read_bytes()
    bad = zipped(tmp_path / "bad.zip", **{"fine.nii.gz": good, name: good})
    before = everything(tmp_path)
    code, _, err = run("predict", model, bad, studies, "-o", tmp_path / "out")
    assert code == 4 and "bad.zip" in err and "leads out of its folder" in err
    assert states(tmp_path / "out") == {"bad": "failed", "good": "done"}
    inside = [p for p in everything(tmp_path) if not p.is_relative_to(tmp_path / "out")]
    assert inside == before
    for command in (["inspect", bad], ["convert", bad, tmp_path / "converted"]):
        code, _, err = run(*command)
        assert code == 3 and "leads out of its folder" in err
    assert not (tmp_path / "converted").exists()


def test_zip_bombs_and_links_are_refused_by_the_directory_alone(run, model, studies, tmp_path, monkeypatch):
    good = (studies / "good.nii.gz").read_bytes()
    places = []
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        packed.writestr("random", np.random.default_rng(0).bytes(1_000_000))  # hides the ratio of the whole
        with packed.open("zeros.nii", "w") as member:
            for _ in range(20):
                member.write(bytes(1 << 20))
    monkeypatch.setattr(archive, "_BOMB_BYTES", 16 << 20)
    places.append(bomb)
    places.append(zipped(tmp_path / "many.zip", **{f"d/{n}": b"" for n in range(60)}, **{"good.nii.gz": good}))
    monkeypatch.setattr(archive, "_MOST_MEMBERS", 50)
    places.append(tmp_path / "link.zip")
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as packed:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, "/etc")
        packed.writestr("link/x.nii.gz", good)
    code, _, err = run("predict", model, *places, studies, "-o", tmp_path / "out")
    assert code == 4 and err.count("\nmedseg: ") == 1
    assert states(tmp_path / "out") == {"bomb": "failed", "many": "failed", "link": "failed", "good": "done"}
    told = errors(tmp_path / "out")
    assert "zip bomb" in told["bomb"] and "more than 50 files" in told["many"] and "link or device" in told["link"]


def test_a_huge_directory_of_a_zip_is_refused_before_it_is_parsed(run, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_LARGEST_DIRECTORY", 1000)
    bad = zipped(tmp_path / "bad.zip", **{f"{n}": b"" for n in range(60)})
    code, _, err = run("inspect", bad)
    assert code == 3 and "bad.zip has more than" in err


def test_a_zip_in_a_zip_is_not_unpacked(run, model, studies, tmp_path):
    inner = zipped(tmp_path / "inner.zip", **{"evil.nii.gz": bytes(10**6)})
    outer = zipped(
        tmp_path / "outer.zip",
        **{"inner.zip": inner.read_bytes(), "good.nii.gz": (studies / "good.nii.gz").read_bytes()},
    )
    code, _, _ = run("predict", model, outer, "-o", tmp_path / "out")
    assert code == 0 and states(tmp_path / "out") == {"good": "done"}


def test_links_that_go_round_end_and_links_that_lead_elsewhere_are_named(run, model, studies, tmp_path):
    (studies / "round").symlink_to(studies)
    (studies / "self").symlink_to(studies / "self")
    (studies / "deep").mkdir()
    (studies / "deep" / "root").symlink_to("/")
    (studies / "gone.nii.gz").symlink_to(studies / "nothing")
    assert run("predict", model, studies, "-o", tmp_path / "out")[0] == 0
    assert states(tmp_path / "out") == {"good": "done"}
    (tmp_path / "elsewhere").mkdir()
    (studies / "case2").symlink_to(tmp_path / "elsewhere")
    code, _, err = run("predict", model, studies, "-o", tmp_path / "out2")
    assert code == 4 and "case2 is a link to a folder elsewhere" in err
    assert states(tmp_path / "out2") == {"good": "done", "case2": "failed"}


@pytest.mark.parametrize("count", [1000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_tiny_files_beside_a_study_are_passed_over(run, model, studies, tmp_path, count):
    (studies / "rest").mkdir()
    for n in range(count):
        (studies / "rest" / f"{n}").write_bytes(b"x")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert run("predict", model, studies, "-o", tmp_path / "out")[0] == 0
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_BYTES
    assert states(tmp_path / "out") == {"good": "done"}
    code, text, _ = run("inspect", studies)
    assert code == 0 and f"{count} other file(s) are not images and were ignored" in text


def test_pipes_devices_and_sockets_are_never_opened(run, model, studies, tmp_path):
    for name in ("pipe.nii.gz", "pipe.dcm", "pipe"):
        os.mkfifo(studies / name)
    (studies / "zero.nii").symlink_to("/dev/zero")
    (studies / "pair.hdr").write_bytes(nifti_header()[:348])
    os.mkfifo(studies / "pair.img")
    (studies / "named.nhdr").write_bytes(nrrd("gzip", b"").replace(b"\n\n", b"\ndata file: pipe.nii.gz\n"))
    code, _, err = run("predict", model, studies, "-o", tmp_path / "out")
    assert code == 4 and "named.nhdr" in err
    assert states(tmp_path / "out") == {"good": "done", "named": "failed"}
    for source in (studies / "pipe.nii.gz", Path("/dev/zero")):
        for command in (["predict", model, source, "-o", tmp_path / "o"], ["inspect", source]):
            code, _, err = run(*command)
            assert code == 3 and str(source) in err and "Traceback" not in err


def test_names_that_are_no_text_or_too_long_become_safe_names(run, model, studies, tmp_path):
    good = (studies / "good.nii.gz").read_bytes()
    for name in (b"caf\xe9.nii.gz", b"two\nlines.nii.gz", b"\x1b[31mred.nii.gz", b"-o.nii.gz"):
        (studies / os.fsdecode(name)).write_bytes(good)
    code, text, _ = run("predict", model, studies, "-o", tmp_path / "out", "--json")
    assert code == 0 and len(json.loads(text)["cases"]) == 5
    assert set(states(tmp_path / "out")) == {"caf%E9", "two%0Alines", "%1B[31mred", "-o", "good"}
    long = tmp_path / "deep" / ("x" * 200) / ("y" * 200)
    long.mkdir(parents=True)
    (long / "a.nii.gz").write_bytes(good)
    (long / "b.nii.gz").write_bytes(good)
    assert run("predict", model, tmp_path / "deep", "-o", tmp_path / "long")[0] == 0
    assert len(states(tmp_path / "long")) == 2 and all(len(case) < 151 for case in states(tmp_path / "long"))
    assert run("inspect", studies)[0] == 0
    assert run("convert", studies, tmp_path / "converted")[0] == 0


def test_a_failing_case_with_a_name_that_is_no_text_is_in_the_ledger(run, model, studies, tmp_path):
    (studies / os.fsdecode(b"caf\xe9.nii.gz")).write_bytes(b"nothing")
    code, _, err = run("predict", model, studies, "-o", tmp_path / "out")
    assert code == 4 and "Traceback" not in err
    assert states(tmp_path / "out") == {"good": "done", "caf%E9": "failed"}
    assert run("predict", model, studies, "-o", tmp_path / "out")[0] == 4


def test_a_batch_is_told_the_series_of_each_study_and_a_uid_with_a_slip_is_named(run, model, tmp_path):
    studies = tmp_path / "batch"
    files = (samples_folder() / "study").iterdir()
    slices = sorted(files, key=lambda f: float(pydicom.dcmread(f).ImagePositionPatient[2]))[::5]
    uids = []
    for study in ("p1", "p2"):
        for series in ("1", "2"):
            folder = studies / study / series
            folder.mkdir(parents=True)
            for n, path in enumerate(slices):
                data = pydicom.dcmread(path)
                data.StudyInstanceUID = f"1.2.{study[1]}"
                data.SeriesInstanceUID = f"1.2.{study[1]}.{series}"
                data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{data.SeriesInstanceUID}.{n}"
                data.save_as(folder / f"{n}.dcm")
            uids.append(f"1.2.{study[1]}.{series}")
    command = ["predict", model, studies, "-o", tmp_path / "out", "--series", uids[1], "--series"]
    code, _, err = run(*command, "1.2.2.9")
    assert code == 3 and "no study contains series 1.2.2.9" in err and not (tmp_path / "out").exists()
    assert run(*command, uids[2])[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()]
    assert {row["case"]: row["series_uid"] for row in rows} == {"p1": uids[1], "p2": uids[2]}
    assert {row["series_reason"] for row in rows} == {"asked for by its UID"}


@pytest.mark.parametrize("place", ["/sys/masks", "/proc/masks", "/dev/null"])
def test_an_output_that_cannot_be_written_is_one_line(run, model, studies, place):
    code, _, err = run("predict", model, studies, "-o", place)
    assert code == 6 and place in err and "Traceback" not in err
    code, _, err = run("convert", studies / "good.nii.gz", f"{place}/x.nii.gz")
    assert code == 6 and place in err and "Traceback" not in err


@pytest.fixture
def small_files() -> Iterator[Callable[[], None]]:
    """Called once: no file may grow beyond 20 kB, as on a full disk; called again: all is as before."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def change() -> None:
        now = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]) if now == limits else limits)

    yield change
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(run, model, studies, small_files, tmp_path):
    noise = np.random.default_rng(0).normal(size=(80, 80, 40)).astype(np.float32)
    medseg.write(Volume(noise, np.eye(4)), studies / "large.nii.gz")
    out = tmp_path / "out"
    small_files()
    code, _, err = run("predict", model, studies, "-o", out)
    small_files()
    assert code == 6
    last = err.splitlines()[-1]
    assert last.startswith(f"medseg: cannot write {out}/large") and "too large" in last
    # No mask that is cut short, no temporary file.
    assert not [p for p in out.rglob("*") if p.name.startswith(".") or p.name.startswith("large")]
    assert run("predict", model, studies, "-o", out)[0] == 0
    assert (out / "large.nii.gz").exists() and (out / "good.nii.gz").exists()
