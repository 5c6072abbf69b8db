"""What lies in a file, folder or zip: every study, series and image file with its geometry and findings.

DICOM files are judged by their headers alone: reading every pixel of a PACS export would take hours. Other files are
opened.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError, ReadError
from medseg.io import read_file, unpacked
from medseg.io.formats import READABLE, archives_below, image_files, is_image_file, kind_of
from medseg.volume import Finding, orientation_of

if TYPE_CHECKING:
    from medseg.io.dicom.grid import Irregular
    from medseg.io.dicom.series import Series

__all__ = ["Inspected", "Inspection", "inspect"]

Progress = Callable[[float, float, str], None]
# Longer tables are of no use to a person; JSON lists all.
_MOST_SHOWN = 1000


@dataclass(frozen=True, slots=True)
class Inspected:
    """A volume, or files that should have made one. Patient names and IDs are left out.

    `key` chooses a DICOM series (`--series`); `refused` says why the volume cannot be read, '' where it can.
    """

    place: str
    kind: str
    key: str = ""
    study_instance_uid: str = ""
    modality: str = ""
    description: str = ""
    part: str = ""
    images: int = 1
    shape: tuple[int, ...] = ()
    channels: int = 0
    spacing_mm: tuple[float, ...] = ()
    orientation: str = ""
    affine: tuple[tuple[float, ...], ...] = ()
    findings: tuple[Finding, ...] = ()
    refused: str = ""

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return " ".join(w for w in (self.modality or self.kind, self.description, self.part) if w)


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything found at `source`, and how many files were ignored because they are not images."""

    source: Path
    items: tuple[Inspected, ...]
    passed_over: int

    def to_json(self) -> str:
        """JSON with `format_version`, one object per volume."""
        content = {
            "format_version": 1,
            "source": str(self.source),
            "passed_over": self.passed_over,
            "volumes": [_as_json(item) for item in self.items],
        }
        return json.dumps(content, indent=2, ensure_ascii=False)

    def raise_for_refusals(self) -> None:
        """Raise what the command line ends with where nothing can be read, not one of the volumes.

        Raises:
            ReadError: with the first reason.
        """
        if any(not item.refused for item in self.items):
            return
        more = f" ({len(self.items)} volumes are refused)" if len(self.items) > 1 else ""
        raise ReadError(f"{self.source} contains nothing that can be read{more}: {self.items[0].refused}")

    def text(self, width: int = 120) -> str:
        """A table, and below it every finding in full; of more than 1000 volumes only the first 1000, and the total."""
        from io import StringIO

        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("", "what", "where", "images", "voxels", "spacing (mm)", "axes", "findings"):
            table.add_column(heading, justify="right" if heading == "images" else "left", overflow="fold")
        shown = tuple(enumerate(self.items[:_MOST_SHOWN], start=1))
        for n, item in shown:
            kinds = ", ".join(dict.fromkeys(f.kind for f in item.findings))
            voxels = " x ".join(map(str, item.shape)) + (f" ({item.channels} channels)" if item.channels else "")
            spacing = " x ".join(f"{s:.4g}" for s in item.spacing_mm)
            state = f"refused: {kinds}" if item.refused else kinds
            cells = (str(n), item.title, item.place, str(item.images), voxels, spacing, item.orientation, state)
            table.add_row(*cells)
        out = StringIO()
        console = Console(file=out, width=width, highlight=False, markup=False)
        console.print(table)
        detailed = [(n, item) for n, item in shown if item.key or item.findings]
        for n, item in detailed:
            console.print("\n" * (n == detailed[0][0]) + f"{n}  {item.key or item.place}", soft_wrap=True)
            for finding in item.findings:
                refused = "refused: " if item.refused == finding.message else ""
                console.print(f"   {refused}{finding.kind}: {finding.message}", soft_wrap=True)
        if len(self.items) > len(shown):
            console.print(f"\n{len(self.items)} volumes in total; these are the first, --json lists all")
        if self.passed_over:
            console.print(f"\n{self.passed_over} other file(s) are not images and were ignored")
        return out.getvalue().rstrip()


def inspect(source: str | Path, irregular: Irregular = "error", progress: Progress | None = None) -> Inspection:
    """Every volume in a file, a folder (with sub-folders) or a zip, readable or not, each with its findings.

    Args:
        source: where to look.
        irregular: policy for missing and unevenly spaced slices, as for `medseg.read`.
        progress: called with (volumes examined, volumes, name).

    Raises:
        ReadError: if the source is missing or holds nothing that could be an image.

    Example:
        >>> print(inspect("study/").text())
           what ...
    """
    from medseg.io.dicom.grid import check_irregular

    check_irregular(irregular)
    place = Path(source)
    items, passed_over = _found_at(place, irregular, progress)
    if not items:
        raise ReadError(f"{place} contains no image; expected {READABLE}")
    return Inspection(place, tuple(items), passed_over)


def _found_at(place: Path, irregular: Irregular, progress: Progress | None) -> tuple[list[Inspected], int]:
    """The volumes in a file, a folder or a zip, and the number of files that are not images."""
    from medseg.io.dicom.series import scan

    items: list[Inspected] = []
    with unpacked(place) as root:
        # Zips inside a zip are not opened: one can hold itself.
        archives = archives_below(place) if place.is_dir() else []
        is_image = root.is_file() and is_image_file(root)
        found = scan([] if is_image else [root] if root.is_file() else root)
        files = [root] if is_image else [] if root.is_file() else image_files(root, recursive=True)
        total = len(found.series) + len(files)
        for series in found.series:
            items.append(_series(series, root, irregular))
            _report(progress, len(items), total, items[-1])
        for file in files:
            items.append(_file(file, root))
            _report(progress, len(items), total, items[-1])
        for path, error in found.damaged:
            items.append(_refused(Inspected(_below(path, root), "DICOM"), error))
        passed_over = max(0, found.passed_over - len(files) - len(archives))
        for archive in archives:
            where = _below(archive, root)
            try:
                inside, others = _found_at(archive, irregular, progress)
            except MedsegError as error:
                inside, others = [_refused(Inspected(where, "zip"), error)], 0
            items += [replace(item, place=where + item.place.removeprefix(archive.name)) for item in inside]
            passed_over += others
        if place.is_file() and root != place and root != place.parent:
            # An unpacked zip has a name of no meaning.
            items = [replace(item, place=_inside(item.place, place, root)) for item in items]
    return items, passed_over


def _inside(where: str, archive: Path, root: Path) -> str:
    return archive.name if where == root.name else f"{archive.name}/{where}"


def _report(progress: Progress | None, done: int, total: int, item: Inspected) -> None:
    if progress is not None:
        progress(done, total, item.place)


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root and path.is_relative_to(root) else path.name


def _series(series: Series, root: Path, irregular: Irregular) -> Inspected:
    from medseg.io.dicom.grid import grid_of

    first = series.slices[0]
    folders = sorted({s.path.parent for s in series.slices})
    size = (first.columns, first.rows) + ((len(series.slices),) if len(series.slices) > 1 else ())
    known = Inspected(
        place=_below(folders[0], root) if first.path != root else root.name,
        kind="DICOM",
        key=series.key,
        study_instance_uid=first.study_instance_uid,
        modality=first.modality,
        description=first.description,
        part=series.part,
        images=len(series.slices),
        shape=size,
        channels=3 if first.is_colour else 0,
        findings=series.findings,
    )
    try:
        grid = grid_of(series, irregular)
    except MedsegError as error:
        return _refused(known, error)
    shape = (*size[:2], grid.planes) if len(size) == 3 else size
    return _placed(known, shape, grid.affine, grid.findings, grid.spacing_known)


def _file(path: Path, root: Path) -> Inspected:
    kind = {"itk": "NRRD or MetaImage", "nifti": "NIfTI"}.get(kind_of(path), "picture")
    known = Inspected(_below(path, root), kind)
    try:
        volume = read_file(path)
    except MedsegError as error:
        return _refused(known, error)
    known = replace(known, channels=volume.channels)
    return _placed(known, volume.shape, volume.affine, volume.findings, volume.spacing_known)


def _placed(
    item: Inspected,
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
    findings: tuple[Finding, ...],
    spacing_known: bool,
) -> Inspected:
    item = replace(item, shape=shape, findings=findings)
    if not spacing_known:
        return item
    dims = len(shape)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    # Six decimals, more for microscopes.
    decimals = max(6, 4 - math.floor(math.log10(float(lengths[:dims].min()))))
    spacing = tuple(round(float(s), decimals) for s in lengths[:dims])
    rows = tuple(tuple(round(float(v), decimals) for v in row) for row in affine)
    return replace(item, spacing_mm=spacing, orientation=orientation_of(affine)[:dims], affine=rows)


def _refused(item: Inspected, error: MedsegError) -> Inspected:
    finding = Finding(error.kind or "unreadable", str(error), error.files)
    return replace(item, findings=(*item.findings, finding), refused=str(error))


def _as_json(item: Inspected) -> dict[str, Any]:
    content = asdict(item)
    content["series"] = content.pop("key")
    content["readable"] = not item.refused
    return content
