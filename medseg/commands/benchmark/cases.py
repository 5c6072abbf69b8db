"""The images that models are measured on, with their references where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg.commands.benchmark.contenders import BenchmarkModel
from medseg.config import DataConfig
from medseg.datasets.layouts import find_layout
from medseg.datasets.patients import find_patients
from medseg.datasets.records import Case
from medseg.disk.directory_walk import is_hidden
from medseg.errors import DatasetError, GeometryError
from medseg.io.formats import image_files, is_there, stem_of
from medseg.io.images import read_image
from medseg.io.label_maps import LabelSource
from medseg.io.naming import composed, group_channels

__all__ = ["check_fit", "find_benchmark_cases"]


def find_benchmark_cases(data: Path, references: Path | None, most: int | None) -> tuple[Case, ...]:
    """The cases in the order of their names, each with its patient; all have references, or none has.

    Args:
        data: a data set in any layout that training reads; a folder of images, or of DICOM studies, one a sub-folder.
        references: label maps of the same names as the images; None: those of the data set, if it has any.
        most: how many cases; None: all.

    Raises:
        DatasetError: no images, or an image without its reference.
    """
    if not (is_there(data) and data.is_dir()):
        raise DatasetError(f"--data {data} is not a folder; give the folder that holds the images")
    cases = _of_layout(data) if references is None else _referenced(data, references)
    cases = tuple(sorted(cases, key=lambda case: case.name))
    if not cases:
        raise DatasetError(f"--data {data} contains no images; expected images/ with labels/, or a folder of images")
    return find_patients(cases, None).cases[:most]


def _of_layout(data: Path) -> tuple[Case, ...]:
    try:
        return find_layout(DataConfig(root=data)).cases
    except DatasetError:
        alone = _images_alone(data)
        if not alone:
            raise
        return alone


def _images_alone(data: Path) -> tuple[Case, ...]:
    """Images without references: files, or sub-folders with a DICOM study each."""
    folder = data / "images" if (data / "images").is_dir() else data
    files = image_files(folder)
    if files:
        return tuple(Case(name, paths, ()) for name, paths in group_channels(files, folder).items())
    studies = sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path))
    return tuple(Case(path.name, (path,), ()) for path in studies)


def _referenced(data: Path, references: Path) -> tuple[Case, ...]:
    if not (is_there(references) and references.is_dir()):
        raise DatasetError(f"--references {references} is not a folder; give the folder that holds the label maps")
    maps = {composed(stem_of(path)): path for path in image_files(references)}
    cases = _images_alone(data)
    without = [case.name for case in cases if composed(case.name) not in maps]
    if without:
        raise DatasetError(
            f"{len(without)} of {len(cases)} images have no label map of their name in {references}, the first is "
            f"{without[0]!r}; add them, or leave --references out"
        )
    return tuple(Case(case.name, case.images, (LabelSource(maps[composed(case.name)]),), case.group) for case in cases)


def check_fit(models: Sequence[BenchmarkModel], case: Case) -> None:
    """Refuse models that cannot take the images, before anything is measured.

    Raises:
        GeometryError: other dimensions or channels.
        ReadError: for an image that cannot be read.
    """
    image = read_image(case.images, series=case.series or None)
    for model in models:
        plan = model.info.plan
        if (image.dims, image.channels) != (plan.spatial_dims, plan.in_channels):
            raise GeometryError(
                f"{case.images[0]} is a {image.dims}D image of {image.channels} channel(s), but {model.path} takes "
                f"{plan.spatial_dims}D images of {plan.in_channels}; give the models that fit the images"
            )
