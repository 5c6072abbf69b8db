"""Zips of studies: what is fine is unpacked, what is hostile is refused before anything is written."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from medseg.disk import archive
from medseg.disk.archive import split_zip_path, unpack
from medseg.errors import ReadError
from medseg.io import read, write
from medseg.volume import Volume


def zipped(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            out.writestr(name, content)
    return path


def refused(path: Path, folder: Path, words: str) -> None:
    folder.mkdir(exist_ok=True)
    with pytest.raises(ReadError, match=words) as caught:
        unpack(path, folder)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(folder.iterdir()) == []


def test_a_study_is_unpacked_and_read(tmp_path):
    volume = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([1.0, 2, 3, 1]))
    write(volume, tmp_path / "ct.nii.gz")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as out:
        out.write(tmp_path / "ct.nii.gz", "study/ct.nii.gz")
    np.testing.assert_array_equal(read(tmp_path / "study.zip").array, volume.array)


def test_only_the_members_asked_for_are_unpacked(tmp_path):
    path = zipped(tmp_path / "a.zip", one=b"1", two=b"2")
    (tmp_path / "out").mkdir()
    unpack(path, tmp_path / "out", ["two"])
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["two"]
    with pytest.raises(ReadError, match="has changed"):
        unpack(path, tmp_path / "out", ["three"])


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/evil.txt", "..\\evil.txt", "C:\\evil.txt"])
def test_names_that_lead_outside_are_refused(tmp_path, name):
    refused(zipped(tmp_path / "a.zip", **{"fine.txt": b"x", name: b"x"}), tmp_path / "out", "leads out")


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("link.nii")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr(link, "/etc/hostname")
    refused(tmp_path / "a.zip", tmp_path / "out", "link or device")


def test_encrypted_archives_are_refused(tmp_path):
    raw = bytearray(zipped(tmp_path / "a.zip", one=b"1").read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(signature) + flags] |= 1
    (tmp_path / "a.zip").write_bytes(raw)
    refused(tmp_path / "a.zip", tmp_path / "out", "encrypted")


def test_a_bomb_is_refused_by_what_its_directory_says(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", zeros=bytes(10**7))
    monkeypatch.setattr(archive, "_BOMB_BYTES", 10**6)
    refused(path, tmp_path / "out", "zip bomb")


def test_entries_that_share_their_bytes_are_refused(tmp_path):
    raw = zipped(tmp_path / "a.zip", one=np.random.default_rng(0).bytes(3000)).read_bytes()
    start = raw.index(b"PK\x01\x02")
    end = raw.index(b"PK\x05\x06")
    entry = raw[start:end]
    entries = b"".join(entry.replace(b"one", name) for name in (b"one", b"two", b"six"))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 3, 3, len(entries), start, 0)
    (tmp_path / "a.zip").write_bytes(raw[:start] + entries + tail)
    refused(tmp_path / "a.zip", tmp_path / "out", "share their bytes")


def test_no_room_on_the_disk_is_said_before_unpacking(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_SPARE_BYTES", 1 << 60)
    refused(zipped(tmp_path / "a.zip", one=b"1"), tmp_path / "out", "GB are free")


def test_two_files_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out, pytest.warns(UserWarning, match="Duplicate"):
        out.writestr("one", "1")
        out.writestr("one", "2")
    refused(tmp_path / "a.zip", tmp_path / "out", "two files of one name")


def test_damage_is_refused_by_name(tmp_path):
    raw = zipped(tmp_path / "a.zip", one=np.random.default_rng(0).bytes(3000)).read_bytes()
    (tmp_path / "a.zip").write_bytes(raw[:500])
    refused(tmp_path / "a.zip", tmp_path / "out", "damaged")


def test_a_file_without_a_name_is_damage(tmp_path):
    raw = zipped(tmp_path / "a.zip", one=b"1").read_bytes()
    # The name in the directory begins with the character that ends names.
    place = raw.index(b"one", raw.index(b"PK\x01\x02"))
    (tmp_path / "a.zip").write_bytes(raw[:place] + b"\0" + raw[place + 1 :])
    refused(tmp_path / "a.zip", tmp_path / "out", "no name")


def test_paths_into_a_zip_are_split(tmp_path):
    path = zipped(tmp_path / "a.zip", one=b"1")
    assert split_zip_path(path / "study" / "1.dcm") == (path, "study/1.dcm")
    assert split_zip_path(tmp_path / "study" / "1.dcm") is None


def test_a_packed_folder_comes_back_and_its_bytes_do_not_depend_on_the_day(tmp_path):
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "b.bin").write_bytes(bytes(range(256)) * 100)
    (folder / "a.txt").write_text("text")
    archive.pack(folder, tmp_path / "one.zip")
    os.utime(folder / "a.txt", (1e9, 1e9))
    archive.pack(folder, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    (tmp_path / "back").mkdir()
    archive.unpack(tmp_path / "one.zip", tmp_path / "back")
    names = ["a.txt", "inner/b.bin"]
    assert [(tmp_path / "back" / name).read_bytes() for name in names] == [
        (folder / name).read_bytes() for name in names
    ]
