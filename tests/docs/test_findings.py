"""The table of findings names every finding that the readers and writers of images give, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import medseg

PROJECT = Path(__file__).resolve().parents[2]
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
# Tables and lists out of which findings are made; their entries begin with the kind, or lead to it.
TABLES = {("findings", "_NOTES"), ("grid", "checks"), ("repeated_positions", "_KINDS"), ("read", "noticed")}


def kinds_in(path: Path) -> Iterator[str]:
    """Every text that stands where the kind of a finding does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == "Finding" or (called == "add" and len(node.args) == 2):
                yield from texts(node.args[0])
            elif called == "append" and getattr(getattr(node.func, "value", None), "id", "") in ("noticed", "notes"):
                yield from of_table(ast.List([node.args[0]]))
            elif called.endswith("Error"):
                yield from (text for keyword in node.keywords if keyword.arg == "kind" for text in texts(keyword.value))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and (path.stem, target.id) in TABLES:
                yield from of_table(node.value)
            elif isinstance(target, ast.Name) and target.id == "kind":
                yield from texts(node.value)
            elif isinstance(target, ast.Tuple) and getattr(target.elts[0], "id", "") == "kind":
                yield from texts(node.value.elts[0] if isinstance(node.value, ast.Tuple) else node.value)


def of_table(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Dict):
        yield from (text for value in node.values for text in texts(value))
    rows = [node.elt] if isinstance(node, ast.ListComp) else getattr(node, "elts", [])
    for row in rows:
        # A sentence stands beside the kind; other tables of these names hold numbers and functions.
        if isinstance(row, ast.Tuple) and any(is_text(each) for each in row.elts[1:]):
            yield from texts(row.elts[0])


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr | ast.Name) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAME.fullmatch(node.value):
        yield node.value


def test_every_finding_about_an_image_or_a_data_set_has_its_row_in_the_documentation() -> None:
    package = Path(medseg.__file__).parent
    files = [
        path
        for folder in ("io", "datasets", "preparation", "training")
        for path in sorted((package / folder).rglob("*.py"))
    ]
    found = {kind for path in files for kind in kinds_in(path)}
    page = (PROJECT / "docs" / "reference" / "findings.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert "missing_slices" in found and len(found) > 40
    assert found - described == set(), "without a row"
    assert described - found == set(), "rows of findings that do not exist"
