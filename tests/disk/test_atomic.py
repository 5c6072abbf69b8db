"""Files appear whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from medseg.disk.atomic import atomic_folder, atomic_path, replaced_folder, write_error, write_text_atomic
from medseg.errors import ReadError, WriteError
from medseg.io import write
from medseg.volume import Volume


def test_the_file_appears_at_the_end_with_the_same_suffixes(tmp_path):
    target = tmp_path / "new" / "a.nii.gz"
    with atomic_path(target) as temporary:
        assert temporary.name.startswith(".")
        assert temporary.name.endswith("a.nii.gz")
        temporary.write_text("x")
        assert not target.exists()
    assert target.read_text() == "x"
    assert list(target.parent.iterdir()) == [target]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    write_text_atomic(target, "old")
    with pytest.raises(WriteError, match=r"a\.txt.*disk is full") as caught, atomic_path(target) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.exit_code == 6
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), ReadError("damaged")])
def test_other_errors_pass_through_and_leave_nothing(tmp_path, error):
    with pytest.raises(type(error)), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "a.txt", tmp_path / "file" / "deep" / "a.txt"):
        with pytest.raises(WriteError, match="not a folder"):
            write_text_atomic(path, "text")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.png", "a.tif", "a.nrrd", "a.mha"])
def test_every_writer_reports_a_file_it_cannot_write_and_leaves_nothing(tmp_path, name, monkeypatch):
    from pathlib import Path

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    shape = (4, 4) if name == "a.png" else (4, 4, 4)
    with pytest.raises(WriteError, match="disk is full"):
        write(Volume(np.zeros(shape, np.uint8), np.eye(4)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_short_write_of_numpy_is_called_a_full_disk():
    assert "disk is full" in str(write_error(Path("image.npy"), OSError("8000 requested and 7136 written")))


def test_a_folder_whose_replacement_was_killed_between_two_renames_comes_back(tmp_path):
    target = tmp_path / "series"
    with atomic_folder(target) as fresh:
        (fresh / "old.txt").write_text("old")
    target.rename(replaced_folder(target))
    with pytest.raises(WriteError, match="not empty"), atomic_folder(target):
        pass
    assert (target / "old.txt").read_text() == "old"
    with atomic_folder(target, overwrite=True) as fresh:
        (fresh / "new.txt").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["series"] and (target / "new.txt").is_file()
