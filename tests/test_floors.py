"""Imports point down: the floors of ARCHITECTURE.md, read from the import statements."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

import medseg
import medseg.geometry
import medseg.inference
import medseg.resampling
import medseg.studies

PACKAGE = Path(medseg.__file__).parent

FLOORS = [
    {
        *(
            "config",
            "disk",
            "errors",
            "faults",
            "file_formats",
            "geometry",
            "label_grouping",
            "labels",
            "legend",
            "lookup",
        ),
        *("machine", "net_catalogue", "output_formats", "plugins", "progress", "region_values", "resampling"),
        *("sample_labels", "side_names", "version", "volume", "windowing"),
    },
    {"datasets", "io", "metrics", "phantoms", "preparation", "tasks"},
    {"augmentation", "losses", "nets"},
    {"evaluation", "inference", "reports", "studies", "training"},
    {
        *(
            "__main__",
            "cli",
            "cli_complete",
            "cli_deploy",
            "cli_evaluate",
            "cli_exit",
            "cli_help",
            "cli_loop",
            "cli_options",
            "cli_predict",
            "cli_service",
            "cli_site",
            "cli_training",
            "cli_pretrain",
            "cli_weak",
        ),
        "commands",
        "service",
    },
]
SIDEWAYS = {
    ("datasets", "io"),
    ("preparation", "io"),
    ("preparation", "datasets"),
    ("tasks", "metrics"),
    ("nets", "losses"),
    ("training", "inference"),
    ("training", "reports"),
    ("studies", "inference"),
    ("studies", "reports"),
    ("evaluation", "reports"),
    *(
        ("cli", f"cli_{part}")
        for part in (
            "complete",
            "deploy",
            "evaluate",
            "exit",
            "help",
            "loop",
            "options",
            "predict",
            "pretrain",
            "service",
            "site",
            "training",
            "weak",
        )
    ),
    ("cli", "commands"),
    *(
        (f"cli_{part}", "cli_help")
        for part in ("deploy", "evaluate", "loop", "options", "predict", "service", "site", "training")
    ),
    *(
        (f"cli_{part}", f"cli_{other}")
        for part in ("deploy", "evaluate", "loop", "predict", "pretrain", "service", "site", "training", "weak")
        for other in ("complete", "options")
    ),
    ("cli_training", "commands"),
    ("cli_deploy", "commands"),
    ("cli_service", "service"),
    ("cli_site", "commands"),
    ("cli_loop", "commands"),
    # The reference page of the commands is made from the program.
    ("commands", "cli"),
    ("commands", "cli_help"),
    ("__main__", "cli"),
}
# Tensors in, tensors out: networks, losses and augmentation know no data set and no Volume.
CLOSED_TO_FLOOR_2 = {
    *("datasets", "disk", "geometry", "io", "metrics", "phantoms", "preparation", "resampling", "tasks", "volume"),
}
FLOOR_OF = {part: n for n, parts in enumerate(FLOORS) for part in parts}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    """Parts of medseg that a file imports anywhere, inside functions too."""
    package = ["medseg", *path.relative_to(PACKAGE).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(p for p in (base, node.module or "") if p)
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "medseg" else [module]
        found |= {name.split(".")[1] for name in names if name.startswith("medseg.")}
    return found


def complaint(part: str, imported: str) -> str | None:
    """Why this import is not allowed, or None."""
    if imported not in FLOOR_OF:
        return None if imported in medseg.__all__ else f"{imported} is on no floor"
    here, there = FLOOR_OF[part], FLOOR_OF[imported]
    if there > here:
        return f"{imported} lies on floor {there}, above floor {here}"
    if here == 2 and imported in CLOSED_TO_FLOOR_2:
        return f"{imported} is closed to floor 2"
    if here == there and here > 0 and part != imported and (part, imported) not in SIDEWAYS:
        return f"{part} and {imported} lie side by side on floor {here}"
    return None


FILES = sorted(p for p in PACKAGE.rglob("*.py") if "_packaged" not in p.parts and p != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path: Path) -> None:
    part = part_of(path)
    assert part in FLOOR_OF, f"medseg/{part} is on no floor: add it to FLOORS and to ARCHITECTURE.md"
    wrong = {name: why for name in imported_parts(path) if (why := complaint(part, name))}
    assert not wrong, f"{path.relative_to(PACKAGE)}: {wrong}"


def test_the_public_face_imports_nothing_of_medseg_when_it_is_loaded() -> None:
    """Only names for type checkers, and names looked up on first use."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    at_load = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    assert not any("medseg" in ast.unparse(n) for n in at_load)


@pytest.mark.parametrize(
    ("part", "imported", "allowed"),
    [
        ("io", "volume", True),
        ("volume", "geometry", True),
        ("volume", "io", False),
        ("preparation", "io", True),
        ("io", "preparation", False),
        ("metrics", "tasks", False),
        ("nets", "io", False),
        ("losses", "labels", True),
        ("augmentation", "volume", False),
        ("training", "inference", True),
        ("inference", "training", False),
        ("evaluation", "reports", True),
        ("training", "cli", False),
        ("cli", "training", True),
    ],
)
def test_the_rules_themselves(part: str, imported: str, allowed: bool) -> None:
    assert (complaint(part, imported) is None) is allowed


def test_imports_are_found_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "nets"
    folder.mkdir()
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    source = folder / "net.py"
    source.write_text(
        "import medseg.io.dicom\nfrom medseg import volume\nfrom ..training.loop import fit\n"
        "from . import blocks\nimport numpy\ndef f():\n    from medseg.tasks import TASKS\n"
    )
    assert imported_parts(source) == {"io", "volume", "training", "nets", "tasks"}


def folders_imported(path: Path) -> set[str]:
    """Folders of medseg, such as `io/dicom`, that a file imports from, without its own and those it lies in."""
    own = path.parent.relative_to(PACKAGE)
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("medseg."):
            place = PACKAGE.joinpath(*(node.module or "").split(".")[1:])
            folder = place if place.is_dir() else place.parent
            found.add(folder.relative_to(PACKAGE))
    return {f.as_posix() for f in found if f != own and f != Path() and not own.is_relative_to(f)}


def test_no_folder_imports_itself_by_way_of_others() -> None:
    """But for backbones, which share the blocks of the networks that are built on them."""
    arrows: dict[str, set[str]] = {}
    for path in FILES:
        own = path.parent.relative_to(PACKAGE).as_posix()
        arrows.setdefault(own, set()).update(folders_imported(path))
    for own in ("nets/backbones", "."):
        arrows.pop(own, None)
    order = graphlib.TopologicalSorter({k: {v for v in vs if not v.startswith(f"{k}/")} for k, vs in arrows.items()})
    order.prepare()  # raises CycleError, which names the circle


def test_names_of_the_last_release_still_work_and_warn() -> None:
    with pytest.warns(DeprecationWarning, match=r"has moved to medseg\.studies"):
        assert medseg.inference.predict_studies is medseg.studies.predict_studies
    with pytest.warns(DeprecationWarning, match=r"has moved to medseg\.resampling"):
        assert medseg.geometry.resample_like is medseg.resampling.resample_like


def test_no_file_grows_past_400_lines() -> None:
    long = {p.relative_to(PACKAGE).as_posix(): n for p in FILES if (n := len(p.read_text().splitlines())) > 400}
    assert not long, f"split these: {long}"
