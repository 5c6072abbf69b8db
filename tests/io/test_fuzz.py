"""Whatever is done to an input, it is read or refused by name in one line: no crash, no hang, no memory blow-up.

Each case is read in a process that may use 4 GB and 10 seconds. A failure is named by kind and number, and
`python tests/io/fuzzing.py nrrd:17` repeats it alone.
"""

from __future__ import annotations

import pytest
from fuzz_seeds import ENTRIES
from fuzzing import Worker, build, judge, spread


def wrong(cases: list[str]) -> dict[str, str]:
    return {case: found for case, found in judge(cases).items() if found not in ("read", "refused")}


def test_undamaged_seeds_are_read(tmp_path):
    for entry in ENTRIES:
        folder = tmp_path / entry.name
        folder.mkdir()
        entry.read(entry.make(folder))


def test_a_case_is_the_same_input_every_time(tmp_path):
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        _, target = build("nrrd:3", tmp_path / name)
        contents.append(target.read_bytes())
    assert contents[0] == contents[1]


def test_a_crash_and_a_hang_are_told_apart_from_an_answer(monkeypatch):
    import fuzzing

    worker = Worker()
    try:
        assert worker.ask("png:0") in ("read", "refused")
        assert worker._process is not None
        worker._process.kill()
        worker._process.wait()
        assert "crashed" in worker.ask("png:1")
        # The next case starts a new process.
        assert worker.ask("png:2") in ("read", "refused")
        monkeypatch.setattr(fuzzing, "SECONDS", 0.0)
        assert "hung" in worker.ask("zip:0")
    finally:
        worker.stop()


def test_some_hundred_damaged_inputs_are_read_or_refused():
    assert wrong(spread(300)) == {}


# Pages in a circle, LZW that made a codec write beyond its memory, a file name longer than any disk takes.
KNOWN = ("tiff:464", "tiff-lzw:2198", "dataset-csv:1030")


def test_what_once_went_wrong_stays_right():
    assert wrong(list(KNOWN)) == {}


@pytest.mark.slow
def test_two_thousand_damaged_inputs_are_read_or_refused():
    assert wrong(spread(2000, first=1000)) == {}
