"""Where `medseg convert` writes: the format, the names of the files, and the writing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import cast

from medseg.commands.convert_options import ConvertOptions
from medseg.commands.convert_source import Names, Pending, is_annotation
from medseg.disk.atomic import write_error
from medseg.errors import ConfigError, WriteError
from medseg.geometry import reorient
from medseg.io import write
from medseg.io.annotations import Annotated, write_annotations
from medseg.io.annotations import Format as AnnotationFormat
from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.grid import SeriesGrid, grid_of
from medseg.io.dicom.objects import find_reference
from medseg.io.formats import is_image_file
from medseg.io.output_names import claim_names
from medseg.labels import LabelScheme
from medseg.output_formats import OUTPUT_FORMATS, OutputFormat, format_of_name
from medseg.region_values import MOST_COMBINATIONS
from medseg.version import __version__
from medseg.volume import Finding, Metadata, Volume, orientation_of

__all__ = ["Target", "format_of_target"]


def format_of_target(place: Path, out: Path, options: ConvertOptions) -> OutputFormat:
    """The format that was asked for, else the one of the target's suffix; for a folder, the source decides.

    Raises:
        ConfigError: no format has the suffix of the target.
    """
    if options.format is not None:
        return OUTPUT_FORMATS[options.format]
    asked = format_of_name(out)
    if asked is not None:
        return asked
    if out.suffix:
        names = "|".join(OUTPUT_FORMATS)
        raise ConfigError(f"{out}: no format is known for a {out.suffix.lower()} file; give --format {names}")
    if is_annotation(place):
        return OUTPUT_FORMATS["png"]
    is_image = place.is_file() and is_image_file(place)
    return OUTPUT_FORMATS["dicom" if is_image else "nifti"]


@dataclass(frozen=True, slots=True)
class Target:
    """The result of a conversion on disk.

    Args:
        out: a file, or a folder for any number of files.
        format: what is written.
        source: what is read; it is never replaced.
        options: see `ConvertOptions`.
    """

    out: Path
    format: OutputFormat
    source: Path
    options: ConvertOptions

    def paths(self, pending: Sequence[Pending]) -> list[Path]:
        """A path for each volume; in a folder of results no study takes the name of another."""
        if self.out.suffix or (self.format.content == "slices" and len(pending) == 1):
            return [self.out for _ in pending]
        names = claim_names(self.out, [(each.name, each.owner) for each in pending], lambda index, name: None)
        return [self.out / f"{name}{self.format.suffix}" for name in names]

    def write(self, volume: Volume, path: Path, classes: Names | None) -> Sequence[Finding]:
        """Write one volume.

        Args:
            volume: an image or a label map.
            path: one of `paths`.
            classes: name -> value, or values of a region, of a label map.

        Returns:
            What was noticed.

        Raises:
            WriteError: the path exists or cannot be written, or the format cannot hold the volume.
            ConfigError: SEG and RTSTRUCT without a reference.
        """
        self._refuse_existing(path, (self.source, self.options.reference))
        if self.format.content == "voxels":
            # Identifiers stay out of files that do not need them.
            write(replace(volume, metadata=Metadata()), path)
            return ()
        grid = self._reference_grid(volume)
        if grid is not None and volume.dims == 3 and volume.orientation != orientation_of(grid.affine):
            # Programs that write NIfTI often reorder the axes; the voxels stay where they are in the patient.
            volume = reorient(volume, orientation_of(grid.affine))
        if self.format.content == "slices":
            from medseg.io.dicom.writing.series import write_dicom_series

            return write_dicom_series(volume, path, reference=grid, overwrite=self.options.overwrite)
        if grid is None:
            raise ConfigError(
                f"{self.format.name} refers to the slices it was drawn on: give their folder with --reference STUDY"
            )
        scheme = _scheme(classes, self.source)
        made = datetime.now() if self.options.timestamps else None
        algorithm = Algorithm("medseg convert", __version__, "", made=made)
        if self.format.name == "rtstruct":
            from medseg.io.dicom.rtstruct.write import write_rtstruct

            write_rtstruct(volume, path, scheme, grid, algorithm)
        else:
            from medseg.io.dicom.seg.write import write_dicom_seg

            write_dicom_seg(volume, path, scheme, grid, algorithm)
        return ()

    def write_annotations(self, annotated: Sequence[Annotated]) -> None:
        """Write label maps as one set of annotations.

        Raises:
            WriteError: the target exists or cannot be written.
        """
        self._refuse_existing(self.out, ())
        write_annotations(annotated, self.out, cast(AnnotationFormat, self.format.name))

    def _reference_grid(self, volume: Volume) -> SeriesGrid | None:
        if self.options.reference is None:
            return None
        wanted = (volume.metadata.series_instance_uid, self.options.series or "")
        return grid_of(find_reference(self.options.reference, wanted), self.options.irregular)

    def _refuse_existing(self, path: Path, sources: Sequence[Path | None]) -> None:
        """Refuse to replace what exists without being asked to, and a folder that contains a source in any case."""
        try:
            is_taken = path.exists() and not (path.is_dir() and not any(path.iterdir()))
            held = next(
                (s for s in sources if s and path.is_dir() and s.resolve().is_relative_to(path.resolve())), None
            )
        except OSError as error:
            raise write_error(path, error) from error
        if held is not None:
            raise WriteError(f"cannot write {path}: it holds {held}, which is read; give another name")
        if is_taken and not self.options.overwrite:
            raise WriteError(f"{path} exists; give another name, or --overwrite to replace it")


def _scheme(classes: Names | None, source: Path) -> LabelScheme:
    """The labels that an object gets.

    Raises:
        WriteError: their voxels overlap in more ways than the object can describe.
    """
    scheme = LabelScheme.from_mapping(dict(classes or {}) or {"label_1": 1})
    try:
        fits = max(map(len, scheme.written.values)) <= MOST_COMBINATIONS
    except ConfigError:
        fits = False
    if not fits:
        raise WriteError(
            f"the {len(scheme.names)} labels of {source} overlap in more ways than one object can describe; write "
            "fewer of them to each object: in Python, medseg.io.dicom.objects.read_object(..., values={NAME: VALUE}) "
            "reads those that are chosen"
        )
    return scheme
