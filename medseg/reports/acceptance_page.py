"""One page to print on A4 and sign; nothing is loaded from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from medseg.disk.atomic import write_text_atomic

__all__ = ["AcceptancePage", "PageRow", "PageTable", "write_acceptance_page"]


@dataclass(frozen=True, slots=True)
class PageRow:
    """Cells of a row, the first of which names it; `marked` rows stand out."""

    cells: tuple[str, ...]
    marked: bool = False


@dataclass(frozen=True, slots=True)
class PageTable:
    """A table with its heading, and notes below it."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[PageRow, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AcceptancePage:
    """What the page says. Contains no patient names.

    Args:
        title, subtitle: at its top.
        facts: short name -> number.
        tables: few and short, so that all fits on one page.
        sentences: what the numbers mean.
        warning: what nobody must overlook; '' for nothing.
    """

    title: str
    subtitle: str
    facts: Mapping[str, str]
    tables: tuple[PageTable, ...]
    sentences: tuple[str, ...]
    warning: str = ""


def write_acceptance_page(path: Path, page: AcceptancePage) -> None:
    """Render the page and write it in one step.

    Raises:
        WriteError: if the file cannot be written.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("medseg.reports").joinpath("acceptance.html").read_text(encoding="utf-8"))
    write_text_atomic(path, template.render(page=page))
