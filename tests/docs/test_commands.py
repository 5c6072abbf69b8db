"""Commands and Python in the documents run as they are written, in the order of their page, on the samples.

A block that cannot run says why in a comment above it. One that takes minutes runs in the slow tests.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest
from documents import DOCUMENTS, NOT_RUN, PROJECT, SLOW, Block, blocks_of
from typer.testing import CliRunner

import medseg
from medseg.cli import app
from medseg.studies import run

# Languages of blocks that are no program; a toctree and the like are directives.
SHOWN = {"text", "diff", "yaml", "json", "toml", ""}
PAGES = {
    document: [block for block in blocks_of(document) if block.language in ("bash", "python")] for document in DOCUMENTS
}


def id_of(document: Path) -> str:
    return str(document.relative_to(PROJECT))


@pytest.fixture(scope="session")
def after_the_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has in the source folder after `make demo`, whose training is cut short here."""
    root = tmp_path_factory.mktemp("reader")
    for name in ("data_samples", "configs"):
        shutil.copytree(PROJECT / name, root / name)
    short = {"training.max_iterations": 2, "training.max_minutes": None, "prediction.postprocess": "off"}
    short |= {
        "prediction.mirror": False,
        "prediction.overlap": 0,
        "plan.patch_size": [24, 24, 24],
        "net.channels": [4, 8],
    }
    medseg.train("demo", {"data.root": str(root / "data_samples" / "chest"), "output": str(root / "run"), **short})
    (root / "demo_out").mkdir()
    (root / "run").rename(root / "demo_out" / "run")
    return root


@pytest.fixture
def reader(after_the_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder for one page."""
    shutil.copytree(after_the_demo, tmp_path / "here", copy_function=os.link)
    monkeypatch.chdir(tmp_path / "here")
    # The files have just been written, and are whole.
    monkeypatch.setattr(run, "SETTLE_SECONDS", 0.0)
    return tmp_path / "here"


def perform(block: Block, names: dict[str, object]) -> None:
    """Run a block; a command that ends with another code than 0 fails the test."""
    if block.language == "python":
        exec(compile(block.text, block.where, "exec"), names)
        return
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        assert words[0] == "medseg", f"{block.where} runs {words[0]}, which this test cannot; say above it why not"
        result = CliRunner().invoke(app, words[1:])
        reason = result.exception if result.exception is not None else result.output
        assert result.exit_code == 0, f"{block.where}: {line}\n{reason}"


@pytest.mark.parametrize("document", [d for d in PAGES if any(not b.mark for b in PAGES[d])], ids=id_of)
@pytest.mark.usefixtures("reader")
def test_the_commands_of_a_page_run_as_written(document: Path) -> None:
    names: dict[str, object] = {"__name__": "page"}
    for block in PAGES[document]:
        if not block.mark:
            perform(block, names)


@pytest.mark.slow
@pytest.mark.parametrize("document", [d for d in PAGES if any(b.mark == SLOW for b in PAGES[d])], ids=id_of)
@pytest.mark.usefixtures("reader")
def test_the_long_commands_of_a_page_run_as_written(document: Path) -> None:
    names: dict[str, object] = {"__name__": "page"}
    for block in PAGES[document]:
        if not NOT_RUN.fullmatch(block.mark):
            perform(block, names)


@pytest.mark.parametrize("document", PAGES, ids=id_of)
def test_every_block_says_what_it_is_and_whether_it_runs(document: Path) -> None:
    for block in blocks_of(document):
        assert block.mark in ("", SLOW) or NOT_RUN.fullmatch(block.mark), f"{block.where}: {block.mark}"
        known = block.language in SHOWN or block.language in ("bash", "python") or block.language.startswith("{")
        assert known, f"{block.where} is in {block.language!r}, which is not run: call it text, bash or python"


def test_most_pages_with_commands_show_some_that_run() -> None:
    with_blocks = [blocks for blocks in PAGES.values() if blocks]
    assert sum(any(not b.mark for b in blocks) for blocks in with_blocks) > len(with_blocks) / 2
