"""No hash of a short number stands in an output: who tries all numbers of a clinic finds no patient again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import planted
import pytest

PATIENT, ACCESSION, STUDY = "518204", "734261", "662913"
KINDS = ("md5", "sha1", "sha256", "sha512")


@pytest.fixture
def studies(tmp_path, monkeypatch) -> Path:
    """Two studies of one folder, told apart by their identifiers alone."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    # Always the same: of millions of hashes one would be a token by chance now and then.
    (tmp_path / "config" / "medseg").mkdir(parents=True)
    (tmp_path / "config" / "medseg" / "deidentify.key").write_text("a key for these tests alone")
    root = tmp_path / "in" / "ct"
    for n in range(2):
        number = str(int(PATIENT) + n)
        place = planted.series(root, set(), n, n, PatientID=number, AccessionNumber=ACCESSION, StudyID=STUDY)
        for path in sorted(place.iterdir()):
            path.rename(root / f"{n}{path.name}")
    return tmp_path / "in"


def tokens(folder: Path, *texts: str) -> set[str]:
    """Everything of at least 8 hexadecimal digits in names, files and texts, in lower case."""
    pieces = [piece for name, content in planted.contents(folder) for piece in (name.encode(), content)]
    pieces += [text.encode() for text in texts]
    return {token.decode().lower() for piece in pieces for token in re.findall(rb"[0-9a-fA-F]{8,}", piece)}


def reversed_(found: set[str], numbers: Iterable[str]) -> list[str]:
    """The numbers whose plain hash, whole or its beginning or end, is one of the tokens."""
    lengths = sorted({len(token) for token in found})
    hits = []
    for number in numbers:
        for kind in KINDS:
            digest = hashlib.new(kind, number.encode()).hexdigest()
            if any(digest[:n] in found or digest[-n:] in found for n in lengths if n <= len(digest)):
                hits.append(f"{number} by {kind}")
    return hits


def likely() -> set[str]:
    alone = [str(int(PATIENT) + n) for n in range(2)] + [ACCESSION, STUDY]
    uids = [f"1.3.6.1.4.1.99999.{n}.498.77" for n in range(2)]
    return {*alone, *(f"{a}{join}{b}" for a in alone for b in ["", *uids] for join in ("/", "|", "", "\0"))}


def test_the_dictionary_finds_a_plain_hash():
    name = hashlib.sha256(f"{PATIENT}/".encode()).hexdigest()[:8]
    assert reversed_({name}, likely()) == [f"{PATIENT}/ by sha256"]


@pytest.mark.parametrize("private", [(), ("--anonymize",)], ids=["plain", "anonymize"])
def test_no_hash_of_a_number_is_in_an_output(studies, unet_bundle, tmp_path, run, private):
    outputs, texts = tmp_path / "out", []
    for kind in ("nifti", "dicom-seg"):
        _, *said = run("predict", unet_bundle, studies, "-o", outputs / kind, "--format", kind, "--json", *private)
        texts += said
    found = tokens(outputs, *texts)
    assert any(len(token) == 64 for token in found) and any(len(token) == 8 for token in found)
    assert reversed_(found, likely()) == []


@pytest.mark.slow
def test_no_number_of_six_digits_can_be_found_by_trying_all(studies, unet_bundle, tmp_path, run):
    _, *texts = run("predict", unet_bundle, studies, "-o", tmp_path / "out", "--format", "dicom-seg", "--anonymize")
    _, *more = run("convert", studies / "ct", tmp_path / "out" / "copies", "--anonymize")
    found = {t for t in tokens(tmp_path / "out", *texts, *more) if len(t) >= 10}
    found |= {t for path in (tmp_path / "out").rglob("*") for t in re.findall("[0-9a-f]{8,}", path.name.lower())}
    assert any(len(token) == 8 for token in found)
    assert reversed_(found, (f"{n:06d}" for n in range(10**6))) == []
