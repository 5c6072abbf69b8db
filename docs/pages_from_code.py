"""Pages that follow from the code: commands, configuration keys, the public functions and classes, the networks.

`conf.py` writes them into `docs/_generated` before every build, so that they cannot differ from the code.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from pathlib import Path

from medseg.commands.reference import command_reference, config_reference

__all__ = ["PUBLIC_MODULES", "write_pages"]

PUBLIC_MODULES = (
    "medseg",
    "medseg.io",
    "medseg.nets",
    "medseg.losses",
    "medseg.augmentation",
    "medseg.metrics",
    "medseg.evaluation",
    "medseg.inference",
    "medseg.studies",
    "medseg.labels",
    "medseg.resampling",
    "medseg.geometry",
    "medseg.errors",
)
# Classes that public functions take or give, and that no public module names.
TYPES = (
    "medseg.volume.Finding",
    "medseg.volume.Metadata",
    "medseg.training.run.Run",
    "medseg.training.validation.Scores",
    "medseg.preparation.grid.GridMap",
    "medseg.preparation.grid.Straightening",
    "medseg.inference.engine.NetworkEngine",
    "medseg.nets.crf.CrfOptions",
    "medseg.studies.ledger.LedgerRow",
    "medseg.region_values.Regions",
    "medseg.evaluation.case_rows.CaseRow",
    "medseg.evaluation.pairs.Sources",
    "medseg.evaluation.statistics.Statistics",
    "medseg.evaluation.summary.AbsentLabel",
    "medseg.evaluation.summary.NotableCases",
    "medseg.evaluation.summary.ReferenceModel",
    "medseg.evaluation.summary.Subgroup",
    "medseg.evaluation.summary.FrocCurve",
    "medseg.evaluation.summary.Confusion",
    "medseg.evaluation.summary.Interval",
    "medseg.evaluation.summary.WorstCase",
    "medseg.evaluation.summary.Outlier",
    "medseg.evaluation.paired.Comparison",
    "medseg.tasks.task.Task",
    "medseg.tasks.task.TaskCase",
    "medseg.tasks.task.TaskScores",
    "medseg.preparation.training_range.Span",
    "medseg.preparation.training_range.TrainingRange",
    "medseg.evaluation.ranking.Ranking",
    "medseg.evaluation.comparison_result.PairedRow",
    "medseg.evaluation.comparison_result.RankingRow",
)
# Texts that lie beside the package, where readers look for them first.
PROJECT_FILES = {
    "architecture": "ARCHITECTURE.md",
    "contributing": "CONTRIBUTING.md",
    "security": "SECURITY.md",
    "changelog": "CHANGELOG.md",
}
PROJECT = Path(__file__).resolve().parents[1]


def write_pages(folder: Path) -> None:
    """Write every generated page into `folder`; a page whose text has not changed is left alone."""
    folder.mkdir(exist_ok=True)
    pages = {
        "commands": _without_title(command_reference()),
        "configuration": _without_title(config_reference()),
        "networks": _networks(),
        "presets": _presets(),
    }
    pages |= {page: _of_the_project(file) for page, file in PROJECT_FILES.items()}
    pages |= {f"api_{name.replace('.', '_')}": _module(name) for name in PUBLIC_MODULES}
    pages["api_types"] = "```{eval-rst}\n" + "\n".join(f".. autoclass:: {name}\n" for name in TYPES) + "```\n"
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _module(name: str) -> str:
    """Directives for every public name of a module, functions and classes first, tables of names last."""
    module = importlib.import_module(name)
    callables, data = [], []
    for public in sorted(module.__all__, key=str.lower):
        value = getattr(module, public)
        if inspect.isclass(value):
            # A class is indexed once, where it is at home.
            elsewhere = "   :no-index:\n" if value.__module__ in PUBLIC_MODULES and value.__module__ != name else ""
            callables.append(f".. autoclass:: {name}.{public}\n   :members:\n{elsewhere}")
        elif callable(value):
            callables.append(f".. autofunction:: {name}.{public}\n")
        elif not public.startswith("__"):
            shown = ", ".join(f"``{each}``" for each in value) if isinstance(value, Iterable) else f"``{value}``"
            data.append(f".. py:data:: {name}.{public}\n\n   {shown}\n")
    head = f".. automodule:: {name}\n   :no-members:\n"
    return "```{eval-rst}\n" + "\n".join([head, *callables, *data]) + "```\n"


def _of_the_project(file: str) -> str:
    """A text of the project with its links as `docs/development/` sees them."""
    text = (PROJECT / file).read_text(encoding="utf-8").replace("](docs/", "](../")
    for page, other in PROJECT_FILES.items():
        text = text.replace(f"]({other})", f"]({page}.md)")
    return text


def _networks() -> str:
    """Names of the networks and backbones, as a configuration takes them."""
    nets = importlib.import_module("medseg.nets")
    return (
        f"Networks: {', '.join(f'`{name}`' for name in nets.NETS)}.\n\n"
        f"Backbones: {', '.join(f'`{name}`' for name in nets.BACKBONES)}.\n"
    )


def _presets() -> str:
    """A table of the configurations that come with medseg."""
    from medseg.config import packaged_presets

    rows = [f"| `{name}` | {line} |" for name, line in packaged_presets().items()]
    return "\n".join(["| preset | for |", "|---|---|", *rows, ""])


def _without_title(page: str) -> str:
    """A reference page made by the package, without its title, which the page that includes it has."""
    return page.partition("\n")[2].lstrip()
