"""The words of docstrings, comments and messages: terms of the field, none that house style has replaced."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import medseg

PACKAGE = Path(medseg.__file__).parent
# Folders and modules that keep to the list: the whole package.
CLEAN = ["."]
# Words and phrases that readers from the field stumbled over -> the term to use.
REPLACED = {
    "mend": "repair, correct or remedy",
    "mends": "repairs or remedies",
    "mended": "repaired or corrected",
    "strayed": "out of range",
    "strays": "outliers",
    "stray": "outlying",
    "strangeness": "out-of-range score",
    "told": "reported",
    "told apart": "separated or distinguished",
    "tell apart": "distinguish",
    "taken apart": "split",
    "nobody takes": "",
    "nobody knows": "unknown",
    "holds no word": "has no entry",
    "holds no": "contains no",
    "told with": "reported with",
    "goes by": "follows",
    "stands for": "means",
    "lies beside": "is next to",
    "looked into": "listed or searched",
    "is no": "is not a",
    "are no": "are not",
    "to be had": "available",
    "passed over": "skipped",
}
PATTERN = re.compile(rf"(?<!there )\b(?:{'|'.join(sorted(REPLACED, key=len, reverse=True))})\b")


def texts(path: Path) -> list[tuple[int, str]]:
    """Line and text of every comment, docstring and message of a file; f-strings without their values."""
    source = path.read_text()
    found = [
        (token.start[0], token.string)
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            found += [(node.lineno + n, line) for n, line in enumerate(node.value.splitlines())]
    return found


def clean_files() -> list[Path]:
    places = [PACKAGE / name for name in CLEAN]
    return [file for place in places for file in ([place] if place.is_file() else sorted(place.rglob("*.py")))]


def test_replaced_words_do_not_come_back():
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}: {match[0]!r}, better {REPLACED[match[0]]!r}"
        for path in clean_files()
        for line, text in texts(path)
        for match in PATTERN.finditer(text.lower())
    ]
    assert not wrong, "\n".join(wrong)


def test_the_list_names_files_that_exist():
    assert len(clean_files()) > 100 and all(path.is_file() for path in clean_files())


@pytest.mark.parametrize(
    "line",
    ['"""A fault that is mended."""', 'f"{1} cannot be told apart"', "x = 'holds no word'"],
)
def test_docstrings_comments_and_messages_are_read(tmp_path, line):
    path = tmp_path / "module.py"
    path.write_text(line + "\n")
    assert [PATTERN.search(text) is not None for _, text in texts(path)] == [True]
