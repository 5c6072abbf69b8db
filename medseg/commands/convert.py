"""`medseg convert`: DICOM to NIfTI and back, label maps to and from DICOM SEG, RTSTRUCT and annotation formats.

The source is recognised by its content; the target's suffix, or the format asked for, decides what is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from medseg.commands.convert_options import ConvertOptions
from medseg.commands.convert_source import Names, Pending, pending_volumes, values_of
from medseg.commands.convert_target import Target, format_of_target
from medseg.errors import GeometryError, MedsegError, PartialFailure, ReadError
from medseg.geometry import copy_grid
from medseg.io import read, unpacked
from medseg.io.annotations import Annotated
from medseg.io.formats import READABLE, check_source
from medseg.io.label_names import read_label_names
from medseg.labels import LabelScheme
from medseg.volume import Finding, Volume

__all__ = ["Conversion", "ConvertOptions", "convert"]

Progress = Callable[[float, float, str], None]


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was written, which value each class got, what was noticed, and what failed."""

    written: tuple[Path, ...]
    classes: Mapping[str, int]
    findings: tuple[Finding, ...]
    failures: tuple[MedsegError, ...] = ()

    def text(self) -> str:
        """A few lines for people."""
        lines = [f"{path}" for path in self.written]
        lines += [f"{value:6d}  {name}" for name, value in self.classes.items()]
        lines += [f"{f.kind}: {f.message}" for f in dict.fromkeys(self.findings)]
        return "\n".join(lines)

    def raise_for_failures(self) -> None:
        """Raise a `PartialFailure` that names what failed, if anything did."""
        if self.failures:
            reasons = "; ".join(map(str, self.failures))
            raise PartialFailure(f"{len(self.written)} written, {len(self.failures)} failed: {reasons}")


def convert(
    source: str | Path, target: str | Path, options: ConvertOptions | None = None, progress: Progress | None = None
) -> Conversion:
    """Convert what lies at `source` to `target`.

    Args:
        source: image file, DICOM file or folder, zip, SEG, RTSTRUCT, or annotations of Labelme, CVAT, Supervisely or
            COCO.
        target: a file for one volume, a folder for any number. With a folder, an image file becomes a DICOM series and
            all else a NIfTI file per volume (a PNG for annotated pictures), unless a format is asked for.
        options: see `ConvertOptions`.
        progress: called with (volumes done, volumes, name).

    Returns:
        What was written, and what failed: a volume that fails does not stop the others of a folder.

    Raises:
        ReadError, GeometryError, AnnotationError: nothing of the source can be read.
        WriteError: the target exists, cannot be written, or cannot hold the values.
        ConfigError: options that do not fit the source or target.

    Example:
        >>> convert("study/", "study.nii.gz").written
        (PosixPath('study.nii.gz'),)
    """
    options = options or ConvertOptions()
    place, out = Path(source), Path(target)
    check_source(place)
    if options.anonymize:
        return _anonymized(place, out, options)
    run = _Run(Target(out, format_of_target(place, out, options), place, options))
    with unpacked(place) as root:
        run.find(root)
        for number, each in enumerate(run.pending):
            try:
                run.take(number, each)
            except MedsegError as error:
                run.failures.append(error)
            if progress is not None:
                progress(number + 1, len(run.pending), each.name)
    return run.result()


@dataclass
class _Run:
    """A conversion under way: what is still to be read, and what became of the rest."""

    target: Target
    pending: list[Pending] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    annotated: list[Annotated] = field(default_factory=list)
    classes: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    failures: list[MedsegError] = field(default_factory=list)

    def find(self, root: Path) -> None:
        """Look for volumes; refuse a source without any, and one of several if the target is one file."""
        target, place = self.target, self.target.source
        self.pending, damaged = pending_volumes(root, place, target.format, target.options)
        self.failures = [*damaged]
        if not self.pending:
            raise self.failures[0] if self.failures else ReadError(f"{place} contains no image; expected {READABLE}")
        if len(self.pending) > 1 and target.out.suffix and target.format.content != "annotations":
            names = ", ".join(each.name for each in self.pending[:8])
            raise ReadError(
                f"{place} holds {len(self.pending)} volumes ({names}), but {target.out} is one file; give a folder, "
                "or --series UID"
            )

    def take(self, number: int, each: Pending) -> None:
        """Read one volume and write it; annotations are kept, as they are written together."""
        volume, known = each.load()
        if self.target.options.copy_grid is not None:
            volume = _on_grid_of(volume, self.target.options.copy_grid, each.name)
        if self.target.format.holds_labels_only and known is None:
            known = self._names_of(volume)
        if self.target.format.content == "annotations":
            self.annotated.append(Annotated(volume, _flat(known), each.name))
        else:
            # Not before the first volume is read: a conversion that fails leaves no folder behind.
            self.paths = self.paths or self.target.paths(self.pending)
            self.findings += self.target.write(volume, self.paths[number], known)
            self.written.append(self.paths[number])
        self.findings += volume.findings
        self.classes |= _flat(known)

    def result(self) -> Conversion:
        """What was written; raises the first failure if nothing was."""
        if self.failures and not (self.written or self.annotated):
            raise self.failures[0]
        if self.annotated:
            self.target.write_annotations(self.annotated)
            self.written.append(self.target.out)
        return Conversion(tuple(self.written), self.classes, tuple(self.findings), tuple(self.failures))

    def _names_of(self, volume: Volume) -> Names:
        if self.target.options.labels is not None:
            return read_label_names(self.target.options.labels).mapping
        return {f"label_{value}": int(value) for value in np.unique(volume.array) if value}


def _on_grid_of(volume: Volume, image: Path, name: str) -> Volume:
    check_source(image)
    try:
        return copy_grid(volume, read(image))
    except GeometryError as error:
        raise GeometryError(f"{name} cannot get the grid of {image}: {error}") from None


def _flat(names: Names | None) -> dict[str, int]:
    """One value for each name: of a region, that of its voxels in no smaller region."""
    if all(isinstance(value, int) for value in (names or {}).values()):
        return cast(dict[str, int], dict(names or {}))
    return values_of(LabelScheme.from_mapping(names or {}))


def _anonymized(place: Path, out: Path, options: ConvertOptions) -> Conversion:
    from medseg.io.dicom.deidentify.files import deidentify_files
    from medseg.io.dicom.deidentify.profile import Deidentifier
    from medseg.io.dicom.deidentify.site_key import site_key
    from medseg.io.dicom.deidentify.texts import PrivateTexts

    key = site_key()
    with PrivateTexts(Deidentifier.with_key(key)).guarded([place]), unpacked(place) as root:
        findings = deidentify_files([root], out, key, overwrite=options.overwrite)
    return Conversion((out,), {}, tuple(findings))
