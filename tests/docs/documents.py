"""The documents of the project, their code blocks and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *(PROJECT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted(path for path in (PROJECT / "docs").rglob("*.md") if not {"_build", "_generated"} & set(path.parts)),
]
# What is said above a block that no test can run, or that takes longer than the default suite may.
NOT_RUN = re.compile(r"<!-- not run: (?P<why>\S.+) -->")
SLOW = "<!-- run in the slow tests -->"
_FENCE = re.compile(r"(?P<fence>`{3,}|:{3,})(?P<language>.*)")


@dataclass(frozen=True)
class Block:
    """A block of code: where it begins, its language, its lines, and the comment above it."""

    document: Path
    line: int
    language: str
    text: str
    mark: str

    @property
    def where(self) -> str:
        return f"{self.document.relative_to(PROJECT)}:{self.line}"


def blocks_of(document: Path) -> Iterator[Block]:
    """Every fenced block of a document, in order."""
    lines = document.read_text(encoding="utf-8").splitlines()
    n = 0
    while n < len(lines):
        opened = _FENCE.fullmatch(lines[n])
        if opened:
            end = lines.index(opened["fence"], n + 1)
            above = lines[n - 1] if n else ""
            mark = above if above.startswith("<!-- ") else ""
            yield Block(document, n + 1, opened["language"].strip(), "\n".join(lines[n + 1 : end]), mark)
            n = end
        n += 1


def prose_of(document: Path) -> str:
    """A document without its code."""
    text = re.sub(r"^(`{3,}).*?^\1$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)
