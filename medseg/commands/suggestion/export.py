"""Suggested studies with the model's masks, in the form of the tool that people will correct them in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from medseg.disk.atomic import write_text_atomic
from medseg.errors import ConfigError, ReadError
from medseg.inference.predictor import Model
from medseg.io import write
from medseg.io.annotations import Annotated, write_annotations
from medseg.io.annotations.slices import slice_name
from medseg.labels import LabelScheme
from medseg.lookup import nearest_hint
from medseg.studies.outputs import Segmented, algorithm_of, write_mask
from medseg.studies.sources import Source
from medseg.version import __version__
from medseg.volume import Metadata, Volume

__all__ = ["FORMATS", "Exporter", "check_format"]

# Percentiles of the grey levels that pictures show.
SHOWN = (0.5, 99.5)
FORMATS = ("nifti", "dicom-seg", "labelme", "cvat", "supervisely")


def check_format(name: str) -> None:
    """Refuse an unknown form.

    Raises:
        ConfigError: naming those that there are.
    """
    if name not in FORMATS:
        hint = nearest_hint(name, FORMATS)
        raise ConfigError(f"--format {name!r} is not known; choose one of {', '.join(FORMATS)}{hint}")


class Exporter:
    """Writes studies below a folder.

    nifti: `images/` and `labels/`, a data set as it lies. dicom-seg: `labels/<study>.dcm`, which refers to the series.
    The tools that annotate pictures get these as PNG beside their annotations, of a volume one for each slice along
    the third axis, called `<study>_k0012`; CVAT gets the slices of a volume as the frames of a video.

    Args:
        folder: where to write.
        kind: one of `FORMATS`.
        model: whose masks they are.
    """

    def __init__(self, folder: Path, kind: str, model: Model) -> None:
        self.folder, self.kind, self.model = folder, kind, model
        self.scheme: LabelScheme = model.scheme
        self.classes = dict(zip(self.scheme.names, self.scheme.painted, strict=True))
        self.pictures: list[Annotated] = []

    def add(self, source: Source, image: Volume, mask: Volume) -> None:
        """Write one study.

        Args:
            source: where it comes from.
            image: with channels.
            mask: the model's, on its grid.

        Raises:
            ReadError: a DICOM object of a study that is not DICOM.
            WriteError: disk full, no permission.
        """
        name = source.case
        if self.kind == "dicom-seg":
            series = source.channels[self.model.info.plan.reference_channel] if source.channels else source
            if series.series is None:
                raise ReadError(
                    f"{source.paths[0]} is not DICOM, which a DICOM SEG has to refer to; give another --format"
                )
            algorithm = algorithm_of(self.scheme, __version__, self.model.model_hash, {"suggested": True})
            case = Segmented(mask, image, self.scheme, series, ())
            write_mask(case, {"dicom-seg": self.folder / "labels" / f"{name}.dcm"}, algorithm)
        elif self.kind == "nifti":
            self._nifti(name, image, mask)
        else:
            self._annotations(name, image, mask)

    def finish(self) -> None:
        """Write what is said once for all studies."""
        if self.pictures:
            write_annotations(self.pictures, self.folder / "annotations" / "annotations.xml", "cvat")
        if self.kind == "supervisely":
            names = self.scheme.names
            classes = [{"title": name, "shape": "any", "color": _colour(n)} for n, name in enumerate(names)]
            text = json.dumps({"classes": classes, "tags": [], "projectType": "images"}, ensure_ascii=False, indent=2)
            write_text_atomic(self.folder / "annotations" / "meta.json", text + "\n")

    def _nifti(self, name: str, image: Volume, mask: Volume) -> None:
        bytes_alone = image.array.dtype == np.uint8 and image.channels in (1, 3)
        picture = image.dims == 2 and not image.spacing_known and bytes_alone
        suffix = ".png" if picture else ".nii.gz"
        if picture:
            write(_plain(image), self.folder / "images" / f"{name}{suffix}")
        else:
            for channel, values in enumerate(image.array):
                ending = f"_{channel:04d}" if image.channels > 1 else ""
                write(_plain(image.with_array(values)), self.folder / "images" / f"{name}{ending}{suffix}")
        write(_plain(mask), self.folder / "labels" / f"{name}{suffix}")

    def _annotations(self, name: str, image: Volume, mask: Volume) -> None:
        place, drawn, labels = self.folder / "annotations", _drawn(image), _unplaced(mask)
        if self.kind == "cvat" and mask.dims == 3:
            for part, index in _slices(name, mask):
                write(_slice(drawn, index), place / name / f"{part}.png")
            write_annotations(Annotated(labels, self.classes, name), place / f"{name}.xml", "cvat")
            return
        parts = _slices(name, mask) if mask.dims == 3 else [(name, None)]
        for part, index in parts:
            annotated = Annotated(_slice(labels, index), self.classes, f"{part}.png")
            inside = place if index is None else place / name
            if self.kind == "cvat":
                write(_slice(drawn, index), place / f"{part}.png")
                self.pictures.append(annotated)
            elif self.kind == "labelme":
                write(_slice(drawn, index), inside / f"{part}.png")
                write_annotations(annotated, inside / f"{part}.json", "labelme")
            else:
                write(_slice(drawn, index), place / "studies" / "img" / f"{part}.png")
                write_annotations(annotated, place / "studies" / "ann" / f"{part}.png.json", "supervisely")


def _slices(name: str, volume: Volume) -> list[tuple[str, int | None]]:
    return [(slice_name(name, index), index) for index in range(volume.shape[2])]


def _slice(volume: Volume, index: int | None) -> Volume:
    """One slice along the third axis, without a place; None: the whole image."""
    if index is None:
        return volume
    return Volume(volume.array[..., index], np.eye(4), volume.channels, spacing_known=False)


def _plain(volume: Volume) -> Volume:
    """Without identifiers."""
    return replace(volume, metadata=Metadata(), findings=())


def _unplaced(mask: Volume) -> Volume:
    return Volume(mask.array, np.eye(4), spacing_known=False)


def _drawn(image: Volume) -> Volume:
    """Bytes to look at: photographs as they are, else the first channel between its percentiles."""
    if image.channels == 3 and image.array.dtype == np.uint8:
        return Volume(image.array, np.eye(4), 3, spacing_known=False)
    grey = image.array[0].astype(np.float32)
    low, high = np.percentile(grey, SHOWN)
    shown = np.clip((grey - low) / max(float(high - low), 1e-6), 0, 1)
    return Volume(np.rint(255 * shown).astype(np.uint8), np.eye(4), spacing_known=False)


def _colour(number: int) -> str:
    return "#" + "".join(f"{(number * step + 90) % 200 + 55:02x}" for step in (67, 131, 29))
