"""Damaged annotation files: an error with the file's name, never a crash, a hang or a full memory."""

from __future__ import annotations

import random
import re
import resource
import time

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.io.annotations import FORMATS, Annotated, read_annotations, write_annotations
from medseg.volume import Volume

SECONDS = 10
MEGABYTES = 1500

EXTREMES = [
    b"1000000000",
    b"-1",
    b"0",
    b"65536",
    b"16000",
    b"1e308",
    b"NaN",
    b"Infinity",
    b"null",
    b"[]",
    b"{}",
    b'"text"',
    b"99999999999999999999999",
    b"9" * 400,
    b"0.5",
    b"true",
    b"nan",
    b"inf",
]


def bit_flips(data, rng):
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 12)):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def cut(data, rng):
    return data[: rng.randrange(len(data))]


def removed(data, rng):
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 40) :]


def repeated(data, rng):
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randint(1, 200)]
    return data[:start] + piece * rng.randint(2, 50) + data[start:]


def extreme_numbers(data, rng):
    places = list(re.finditer(rb"-?\d+(\.\d+)?", data))
    damaged = data
    for place in sorted(rng.sample(places, min(len(places), rng.randint(1, 3))), key=lambda m: -m.start()):
        damaged = damaged[: place.start()] + rng.choice(EXTREMES) + damaged[place.end() :]
    return damaged


def other_types(data, rng):
    places = list(re.finditer(rb'"[^"]*"|\[|\]|\{|\}', data))
    place = rng.choice(places)
    return (
        data[: place.start()] + rng.choice([*EXTREMES, b'"', b"[", b"]", b"{", b"}", b"<", b"&"]) + data[place.end() :]
    )


MUTATIONS = [bit_flips, cut, removed, repeated, extreme_numbers, other_types]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sound file of each format, with polygons, holes and overlap; and a CVAT video."""
    folder = tmp_path_factory.mktemp("whole")
    labels = np.zeros((24, 20), np.uint8)
    labels[2:20, 3:17] = 1
    labels[6:12, 6:12] = 0
    labels[8:10, 7:9] = 2
    labels[22] = 2
    flat = Annotated(Volume(labels, np.eye(4), spacing_known=False), {"organ": 1, "lesion": 2}, "scan.png")
    stack = Annotated(
        Volume(np.stack([labels, labels.T.copy().T], axis=2), np.eye(4), spacing_known=False), flat.classes, "ct.mp4"
    )
    files = {}
    for format in FORMATS:
        write_annotations(flat, folder / format, format)
        files[format] = (folder / format).read_bytes()
    write_annotations(stack, folder / "video", "cvat")
    files["video"] = (folder / "video").read_bytes()
    return files


def run(whole, format, folder, count, seed):
    rng = random.Random(seed)
    path = folder / "damaged-file"
    outcomes = {"read": 0, "refused": 0}
    slowest = 0.0
    for _ in range(count):
        data = rng.choice(MUTATIONS)(whole[format], rng)
        path.write_bytes(data)
        start = time.perf_counter()
        try:
            read_annotations(path)
            outcomes["read"] += 1
        except MedsegError as error:
            outcomes["refused"] += 1
            assert "damaged-file" in str(error)
            assert "\n" not in str(error)
            assert len(str(error)) < 700
        slowest = max(slowest, time.perf_counter() - start)
    assert slowest < SECONDS
    return outcomes


@pytest.mark.parametrize("format", [*FORMATS, "video"])
def test_damaged_files_are_read_or_refused_by_name(whole, tmp_path, format):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = run(whole, format, tmp_path, 160, seed=1)
    assert outcomes["refused"] > 40
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES


@pytest.mark.slow
@pytest.mark.parametrize("format", [*FORMATS, "video"])
def test_two_thousand_damaged_files_of_each_format(whole, tmp_path, format):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = run(whole, format, tmp_path, 2000, seed=2)
    assert outcomes["refused"] > 500
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES
