"""Cases one after another, each with image and mask in memory, whatever the data set was delivered as."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from layouts.find import find_files
from layouts.roles import SOFT
from numpy.typing import NDArray

import medseg
from medseg.errors import DatasetError
from medseg.io.annotations import iter_annotations
from medseg.io.formats import image_files, stem_of
from medseg.io.images import channels_first, read_image
from medseg.labels import LabelScheme

__all__ = ["Sample", "integers", "samples"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One case.

    Args:
        name: of the case.
        image: `(C, I, J[, K])`.
        mask: label values, `(I, J[, K])`.
        second: a second observer's, or None.
        patient: "" where only the name of the case tells it.
    """

    name: str
    image: medseg.Volume
    mask: medseg.Volume
    second: medseg.Volume | None = None
    patient: str = ""


def samples(
    data: Path,
    scheme: LabelScheme,
    words: Sequence[str] = (),
    mask: str = "",
    values: Sequence[int] = (),
    per_patient: int = 0,
) -> Iterator[Sample]:
    """The cases of a data set.

    Args:
        data: its folder, or an HDF5 file.
        scheme, words, mask, values: see `layouts.find.find_files`.
        per_patient: of HDF5 files, how many in a row are of one patient; 0: not known.

    Raises:
        DatasetError: see `find_files`.
    """
    hdf5 = [data] if data.is_file() else [p for p in sorted(data.iterdir()) if p.suffix in (".h5", ".hdf5")]
    if hdf5:
        for file in hdf5:
            yield from _patches(file, scheme, values, per_patient)
    elif image_files(data) and [*data.glob("*.json"), *data.glob("*.xml")]:
        yield from _annotated(data, scheme)
    else:
        for case in find_files(data, scheme, words, mask, values):
            image = read_image(case.images)
            found = _mask(image, case.masks, scheme, values)
            second = _mask(image, case.second, scheme, values) if case.second else None
            yield Sample(case.name, image, found, second, case.patient)


def _annotated(data: Path, scheme: LabelScheme) -> Iterator[Sample]:
    """Pictures with polygons beside them, of Labelme, CVAT, Supervisely or COCO."""
    pictures = {stem_of(path): path for path in image_files(data)}
    classes = {name: values[0] for name, values in zip(scheme.names, scheme.values, strict=True)}
    for found in iter_annotations(data, classes):
        name = stem_of(Path(found.image_name))
        if name not in pictures:
            raise DatasetError(f"{data}: the annotations name {name!r}, of which there is no picture")
        yield Sample(name, read_image([pictures[name]]), found.label_map)


def _patches(file: Path, scheme: LabelScheme, chosen: Sequence[int], per_patient: int) -> Iterator[Sample]:
    """Arrays `images` and `labels`, `(N, C, I, J[, K])` or without channels."""
    try:
        import h5py
    except ImportError:
        raise DatasetError(f"{file} needs h5py, which is not installed: pip install h5py") from None
    with h5py.File(file) as stored:
        keys = [next((k for k in names if k in stored), "") for names in (("images", "image"), ("labels", "masks"))]
        if not all(keys):
            raise DatasetError(f"{file} holds {', '.join(stored)}; expected the arrays images and labels")
        images, labels = stored[keys[0]][()], stored[keys[1]][()]
    labels = labels[:, 0] if labels.ndim == images.ndim and labels.shape[1] == 1 else labels
    images = images if images.ndim > labels.ndim else images[:, None]
    for n, (image, label) in enumerate(zip(images, labels, strict=True)):
        patient = f"{file.stem}-{n // per_patient + 1:03d}" if per_patient else ""
        volume = medseg.Volume(image.astype(np.float32), np.eye(4), channels=len(image), spacing_known=False)
        mask = volume.with_array(_values(label, scheme, chosen, file))
        yield Sample(f"{patient or file.stem}__{n:05d}", volume, mask, None, patient)


def _mask(image: medseg.Volume, files: Sequence[Path], scheme: LabelScheme, chosen: Sequence[int]) -> medseg.Volume:
    """The union of the files' masks, on the image's grid."""
    painted = np.zeros(image.shape, scheme.dtype)
    for file in files:
        volume = channels_first(medseg.read(file))
        if volume.shape != image.shape or not np.allclose(volume.affine, image.affine, atol=1e-2):
            raise DatasetError(f"{file} does not lie on its image's grid: {volume} against {image}")
        values = _values(volume.array[0], scheme, chosen, file)
        np.copyto(painted, values, where=values != 0)
    return image.with_array(painted)


def _values(array: NDArray[np.generic], scheme: LabelScheme, chosen: Sequence[int], file: Path) -> NDArray[np.generic]:
    """Label values. With one label any two-level mask holds it, and soft edges are cut in the middle."""
    found = np.unique(array)
    if len(scheme.names) == 1 and len(scheme.values[0]) == 1:
        value = scheme.dtype(scheme.values[0][0])
        if chosen:
            return np.where(np.isin(array, chosen), value, 0)
        if len(found) <= 2 and found[0] == 0:
            return np.where(array != 0, value, 0)
        if found[-1] == SOFT:
            return np.where(array > SOFT // 2, value, 0)
    if not set(found.tolist()) <= scheme.known_values:
        raise DatasetError(
            f"{file} holds {', '.join(f'{v:g}' for v in found[:8].tolist())}, the config says "
            f"{dict(zip(scheme.names, scheme.values, strict=True))}; give a fitting --config, or --values for one label"
        )
    return array.astype(scheme.dtype)


def integers(text: str) -> tuple[int, ...]:
    """'1,2' -> (1, 2)."""
    return tuple(int(part) for part in text.split(","))
