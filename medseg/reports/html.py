"""One self-contained `report.html`: no script, style, font or picture is loaded from anywhere else."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from medseg.disk.atomic import write_text_atomic
from medseg.reports.view3d import View3D

__all__ = ["Cell", "Picture", "Report", "Table", "write_report"]


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table: what is shown, small remarks below it, and its key for sorting ("" sorts as text)."""

    text: str
    small: tuple[str, ...] = ()
    sort: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Headings and rows; the first cell of a row names it."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG or WebP with the words that go with it; `alt` says what it shows to those who cannot see it."""

    title: str
    caption: str
    alt: str
    content: bytes

    @property
    def source(self) -> str:
        """As a data URI."""
        kind = "webp" if self.content[8:12] == b"WEBP" else "png"
        return f"data:image/{kind};base64," + base64.b64encode(self.content).decode("ascii")


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a report says. Contains no patient names; `warning` is what nobody must overlook."""

    title: str
    subtitle: str
    facts: Mapping[str, str]
    headline: Table
    warning: str = ""
    notes: tuple[str, ...] = ()
    absent: Table | None = None
    overlays: tuple[Picture, ...] = ()
    key: Mapping[str, tuple[str, str]] | None = None
    view: View3D | None = None
    distributions: tuple[Picture, ...] = ()
    agreement: tuple[Picture, ...] = ()
    gallery: tuple[Picture, ...] = ()
    gallery_key: Mapping[str, str] | None = None
    tables: Mapping[str, tuple[Table, ...]] | None = None
    cases: Table | None = None
    definitions: Mapping[str, str] | None = None
    method: str = ""
    versions: Mapping[str, str] | None = None


def write_report(path: Path, report: Report) -> None:
    """Render the report and write it in one step.

    Raises:
        WriteError: if the file cannot be written.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("medseg.reports").joinpath("template.html").read_text(encoding="utf-8"))
    write_text_atomic(path, template.render(report=report))
