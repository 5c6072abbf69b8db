"""`requirements-deploy.txt` covers what prediction without torch imports, and the image is made from it."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parents[1]
# Where `medseg predict` begins; what these import at their top, and what that imports, is always loaded.
ENTRIES = ("medseg.cli", "medseg.cli_predict", "medseg.studies.run", "medseg.inference.load")
# What prediction imports where it is needed, with a clear message where it is absent.
REFUSED = {"torch", "SimpleITK", "ray"}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _listed() -> set[str]:
    lines = (PROJECT / "requirements-deploy.txt").read_text().splitlines()
    return {_canonical(line) for line in lines if line and not line.startswith("#")}


def _with_needs(names: set[str]) -> set[str]:
    """The distributions and all that they need without extras."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        needs = [Requirement(line) for line in requires(name) or []]
        waiting += [_canonical(n.name) for n in needs if n.marker is None or n.marker.evaluate({"extra": ""})]
    return found


def _file(module: str) -> Path | None:
    path = PROJECT.joinpath(*module.split("."))
    return next((p for p in (path / "__init__.py", path.with_suffix(".py")) if p.is_file()), None)


def _imports(body: list[ast.stmt], inside: bool) -> set[str]:
    """Modules imported at the top of a file; `inside`: in its functions too."""
    found: set[str] = set()
    for node in body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif inside or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in ("body", "orelse", "finalbody"):
                found |= _imports(getattr(node, part, []), inside)
            for handler in getattr(node, "handlers", []):
                found |= _imports(handler.body, inside)
    return found


def _loaded() -> set[Path]:
    """The files of medseg that are loaded by the imports at their tops, from `ENTRIES` on."""
    seen: set[str] = set()
    files: set[Path] = set()
    waiting = list(ENTRIES)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if (path := _file(name)) is None:
            continue
        files.add(path)
        waiting += [".".join(name.split(".")[:n]) for n in range(1, name.count(".") + 1)]
        waiting += [m for m in _imports(ast.parse(path.read_text()).body, False) if m.startswith("medseg")]
    return files


def _third_party(path: Path, inside: bool) -> set[str]:
    tops = {module.partition(".")[0] for module in _imports(ast.parse(path.read_text()).body, inside)}
    return tops - {"medseg"} - set(sys.stdlib_module_names)


def test_every_import_at_the_top_of_a_file_on_the_way_of_prediction_is_covered() -> None:
    covered, homes = _with_needs(_listed()), packages_distributions()
    loaded = _loaded()
    assert len(loaded) > 100
    missing = {
        (path.name, module)
        for path in loaded
        for module in _third_party(path, inside=False)
        if not {_canonical(home) for home in homes[module]} & covered
    }
    assert not missing


@pytest.mark.parametrize("folder", ["io", "disk", "preparation", "studies"])
def test_every_import_inside_a_function_that_reads_or_writes_is_covered_or_refused(folder: str) -> None:
    covered, homes = _with_needs(_listed()), packages_distributions()
    used = {m for path in (PROJECT / "medseg" / folder).rglob("*.py") for m in _third_party(path, inside=True)}
    missing = {m for m in used - REFUSED if not {_canonical(home) for home in homes.get(m, ())} & covered}
    assert not missing


def test_what_training_alone_needs_is_not_listed_and_versions_are_pinned() -> None:
    listed = _listed()
    assert not _with_needs(listed) & {"torch", "monai", "simpleitk", "scikit-image", "safetensors", "matplotlib"}
    pinned = {_canonical(line.partition("==")[0]) for line in (PROJECT / "constraints.txt").read_text().splitlines()}
    assert listed <= pinned


def test_the_image_runs_as_an_ordinary_user_with_these_requirements_and_no_others() -> None:
    lines = (PROJECT / "Dockerfile").read_text().splitlines()
    installs = [line for line in lines if "pip install" in line]
    assert any("-c constraints.txt -r requirements-deploy.txt" in line for line in installs)
    assert all("-r requirements-deploy.txt" in line or "--no-deps" in line for line in installs)
    (user,) = [line.split()[1] for line in lines if line.startswith("USER")]
    assert user.split(":")[0] not in ("root", "0")
    last_stage = max(n for n, line in enumerate(lines) if line.startswith("FROM"))
    assert any(line.startswith("USER") for line in lines[last_stage:])
    for line in lines:
        if line.startswith("COPY") and "--from" not in line:
            assert all((PROJECT / source).exists() for source in line.split()[1:-1]), line
