"""Whose fault an unexpected exception is: told by the innermost frame, whatever the exception's kind."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

import medseg
from medseg.cli import main
from medseg.errors import InternalError, ReadError
from medseg.faults import internal_error, is_fault_of_a_file, traceback_of
from medseg.io import library_errors
from medseg.io.voxel_files import nifti
from medseg.volume import Volume

KINDS = [TypeError, AttributeError, KeyError, IndexError, ValueError, ZeroDivisionError, AssertionError, RuntimeError]


def raised_by(source: str, file: str, error: type[Exception] = TypeError) -> Exception:
    """What `call(error)` of a module that lies at `file` raises, called from a line of `medseg/io`."""
    names: dict[str, object] = {}
    exec(compile(source, file, "exec"), names)
    reader = "def read(call, error):\n    call(error)\n"
    inside: dict[str, object] = {}
    exec(compile(reader, str(Path(library_errors.__file__).with_name("voxel_files") / "x.py"), "exec"), inside)
    try:
        inside["read"](names["call"], error)  # type: ignore[operator]
    except Exception as caught:
        return caught
    raise AssertionError


RAISES = "def call(error):\n    raise error('x')\n"


@pytest.mark.parametrize("error", KINDS)
def test_what_a_library_raises_while_a_reader_calls_it_is_the_files_fault(error):
    assert is_fault_of_a_file(raised_by(RAISES, pydicom.__file__, error))
    assert is_fault_of_a_file(raised_by(RAISES, "imagecodecs/_jpeg2k.pyx", error))


@pytest.mark.parametrize("error", KINDS)
@pytest.mark.parametrize("file", [medseg.io.__file__, medseg.metrics.__file__, "/home/somebody/net.py", "<string>"])
def test_what_our_own_lines_and_plug_ins_raise_is_no_fault_of_a_file(file, error):
    caught = raised_by(RAISES, file, error)
    assert not is_fault_of_a_file(caught)
    told = internal_error(caught)
    assert isinstance(told, InternalError) and told.exit_code == 1
    assert error.__name__ in str(told) and "please report it" in str(told) and "\n" not in str(told)


def test_what_a_library_raises_elsewhere_is_our_fault():
    with pytest.raises(np.linalg.LinAlgError) as caught:
        np.linalg.inv(np.zeros((2, 2)))  # called from this file, not from a reader
    assert not is_fault_of_a_file(caught.value)


def test_tracebacks_name_files_from_the_package_on():
    caught = raised_by(RAISES, medseg.metrics.__file__)
    assert str(Path(medseg.__file__).parents[1]) not in traceback_of(caught) and "medseg/metrics" in traceback_of(
        caught
    )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    medseg.write(Volume(np.zeros((4, 4, 4), np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    return tmp_path / "a.nii.gz"


def boom(*_: object, **__: object) -> None:
    raise TypeError("planted")


def test_a_mistake_of_ours_in_a_reader_is_not_told_as_a_bad_file(image, monkeypatch):
    monkeypatch.setattr(nifti, "read_nifti", boom)
    with pytest.raises(TypeError, match="planted"):
        medseg.read(image)


def test_what_a_library_trips_over_in_a_file_names_the_file(image, monkeypatch):
    monkeypatch.setattr(nifti, "read_nifti", lambda path: _raise(raised_by(RAISES, pydicom.__file__)))
    with pytest.raises(ReadError, match=r"a\.nii\.gz cannot be read \(TypeError: x\)"):
        medseg.read(image)


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("command", ["inspect", "convert", "evaluate"])
def test_every_command_tells_our_mistakes_as_such_in_one_line(image, tmp_path, monkeypatch, capsys, command):
    monkeypatch.setattr(nifti, "read_nifti", boom)
    arguments = {
        "inspect": [image],
        "convert": [image, tmp_path / "b.nrrd"],
        "evaluate": [image, image, "-o", tmp_path / "report"],
    }[command]
    monkeypatch.setattr(sys, "argv", ["medseg", command, *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    last = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 1 and last.startswith("medseg: internal error") and "TypeError: planted" in last
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--debug"])
    with pytest.raises(TypeError, match="planted"):
        main()
