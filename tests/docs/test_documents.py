"""Documents keep to their size, their links lead somewhere, and their pictures are small."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from documents import DOCUMENTS, PROJECT, prose_of

GALLERY = sorted((PROJECT / "docs" / "gallery").glob("*.py"))
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")


def name(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def anchors_of(document: Path) -> set[str]:
    """The names under which headings can be linked, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_readme_has_at_most_900_words() -> None:
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_the_first_screen_of_the_readme_says_what_to_type() -> None:
    first = (PROJECT / "README.md").read_text(encoding="utf-8").splitlines()[:25]
    assert any(line.startswith("make demo") for line in first)
    assert any(line.startswith("make test") for line in first)


def test_the_architecture_has_at_most_120_lines() -> None:
    assert len((PROJECT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_within_the_project_lead_somewhere(document: Path) -> None:
    for match in LINK.finditer(prose_of(document)):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{name(document)} links to {target}, which does not exist"
        assert not anchor or anchor in anchors_of(file), f"{name(document)} links to {target}: no such heading"


def test_every_page_is_in_the_contents_of_another() -> None:
    listed = {
        (document.parent / f"{line.strip()}.md").resolve()
        for document in DOCUMENTS
        for block in re.findall(r"^```\{toctree\}$(.*?)^```$", document.read_text(encoding="utf-8"), re.M | re.S)
        for line in block.splitlines()
    }
    pages = {document for document in DOCUMENTS if (PROJECT / "docs") in document.parents}
    assert pages - listed == {PROJECT / "docs" / "index.md"}


@pytest.mark.parametrize("picture", sorted((PROJECT / "docs").rglob("pictures/*.png")), ids=name)
def test_pictures_are_small(picture: Path) -> None:
    assert picture.stat().st_size < 200_000


@pytest.mark.parametrize("script", GALLERY, ids=name)
def test_a_picture_of_the_gallery_is_drawn_by_its_program(script: Path, tmp_path: Path) -> None:
    runpy.run_path(str(script))["draw"](tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert (script.parent / "pictures" / f"{script.stem}.png").is_file()
    page = (script.parent / "index.md").read_text(encoding="utf-8")
    assert f"(pictures/{script.stem}.png)" in page and f"{script.name}\n" in page


def test_hashed_constraints_pin_what_the_constraints_pin_and_name_no_registry() -> None:
    hashed = (PROJECT / "constraints-hashed.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (PROJECT / "constraints.txt").read_text(encoding="utf-8"), re.M))
    plain = {re.sub(r"[-_.]+", "-", each.lower()): version for each, version in pins.items()}
    found = dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", hashed, re.M))
    assert len(found) > 40
    assert {each: plain.get(re.sub(r"[-_.]+", "-", each.lower())) for each in found} == found
    assert "--hash=sha256:" in hashed
    assert not re.search(r"^--|://", hashed, re.M)
