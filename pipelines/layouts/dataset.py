"""A data set in one layout, `images/` and `labels/`, and who is held out when."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from glob import escape
from itertools import pairwise
from pathlib import Path

import numpy as np
from layouts.samples import Sample

import medseg
from medseg.errors import ConfigError
from medseg.geometry import crop
from medseg.io.images import read_image
from medseg.io.naming import natural_order

__all__ = ["DataSet", "Fold", "arrange"]

_SIDES = re.compile(r"^(?P<patient>.*?)[-_ ]?(L|R|left|right|OD|OS)$", re.IGNORECASE)
# One patient cannot be on both sides of a split, but other slices can: every other slab is held out.
_SLABS = 4
# So many patients can spare one in eight: what is learnt from the others is cleaned up by what is right on these.
ENOUGH_TO_VALIDATE = 24

NO_PATIENTS = (
    "the data name one patient or none, so images of one person may be on both sides of the split; neighbours by name "
    "were held out together"
)
ONE_IMAGE = (
    f"one image only: it was cut into {_SLABS} slabs, and every slab was segmented by a model that was "
    "trained on other slabs of the same image"
)


@dataclass(frozen=True, slots=True)
class Fold:
    """What one model does not see.

    Args:
        training: CSV of all other cases, with their patients as groups where there are enough to spare some for
            validation, by which medseg chooses the post-processing; else one group, which all trains. The network is
            planned and trained as if those held out did not exist.
        scored: case, and which of its slices along the last axis the model is to segment.
    """

    training: Path
    scored: tuple[tuple[str, slice], ...]


@dataclass(frozen=True, slots=True)
class DataSet:
    """What `arrange` wrote.

    Args:
        root: holds `images/`, `labels/` and `cases.csv`, perhaps `second/`: whole cases, to be scored.
        training: `images/` and `labels/` to train on: `root`, or slabs of a single case.
        ending: of the files: .png, .tif or .nii.gz.
        shape: of the smallest image to train on, along each axis, without channels.
        patients: case -> patient.
        demonstration: why the scores say nothing about new patients; "" where patients were held out.
    """

    root: Path
    training: Path
    ending: str
    shape: tuple[int, ...]
    patients: dict[str, str]
    demonstration: str = ""

    def image(self, case: str) -> medseg.Volume:
        """The image of a case with all its channels."""
        return read_image(self._channels(case, self.root))

    def _channels(self, case: str, folder: Path) -> list[Path]:
        several = sorted((folder / "images").glob(f"{escape(case)}_[0-9][0-9][0-9][0-9]{self.ending}"))
        return [path.resolve() for path in several or [folder / "images" / f"{case}{self.ending}"]]

    def folds(self, count: int) -> list[Fold]:
        """Each patient, or each slab of the only image, is held out once; writes the CSV of each fold."""
        names = sorted(self.patients, key=natural_order)
        if self.demonstration == ONE_IMAGE:
            parts = list(enumerate(_parts(self.image(names[0]).shape[-1])))
            slabs = [_slab(names[0], n) for n, _ in parts]
            return [
                Fold(self._list(n, slabs[1 - n :: 2]), tuple((names[0], part) for _, part in parts[n::2]))
                for n in (0, 1)
            ]
        if self.demonstration:
            groups = [part.tolist() for part in np.array_split(np.array(names), min(count, len(names)))]
        else:
            order = sorted(set(self.patients.values()), key=natural_order)
            # Names may go round the groups of patients (01_ill, 01_healthy, 02_ill), and every second would be ill.
            np.random.default_rng(0).shuffle(order)
            sides = [order[n::count] for n in range(min(count, len(order)))]
            groups = [[name for name in names if self.patients[name] in side] for side in sides]
        return [
            Fold(
                self._list(n, [name for name in names if name not in held_out]),
                tuple((name, slice(None)) for name in held_out),
            )
            for n, held_out in enumerate(groups)
        ]

    def _list(self, fold: int, names: Sequence[str]) -> Path:
        """A CSV of training cases. Cases of one group all train, and none validates."""
        path = self.training / f"fold{fold}.csv"
        patients = {} if self.demonstration else {name: self.patients[name] for name in names}
        groups = patients if len(set(patients.values())) >= ENOUGH_TO_VALIDATE else {}
        files = {name: self._channels(name, self.training) for name in names}
        channels = [f"image_{n}" for n in range(len(files[names[0]]))] if len(files[names[0]]) > 1 else ["image"]
        rows = [
            (
                name,
                *found,
                (self.training / "labels" / f"{name}{self.ending}").resolve(),
                groups.get(name, "training"),
            )
            for name, found in files.items()
        ]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("case", *channels, "label", "group"), *rows])
        return path

    def keep(self, out: Path, case: str, part: slice, mask: medseg.Volume, probabilities: medseg.Volume) -> None:
        """Write the slices of a prediction that its model was not trained on into `masks/` and `probabilities/`."""
        path, stored = out / "masks" / f"{case}{self.ending}", out / "probabilities" / f"{case}.npz"
        array, odds = mask.array, probabilities.array
        if part != slice(None) and path.exists():
            with np.load(stored) as before:
                array, odds = medseg.read(path).array.copy(), before["probabilities"].copy()
            array[..., part], odds[..., part] = mask.array[..., part], probabilities.array[..., part]
        medseg.write(mask.with_array(array), path)
        stored.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(stored, probabilities=odds)


def arrange(cases: Iterable[Sample], out: Path, slices: bool = False) -> DataSet:
    """Write cases as `images/` and `labels/`, one kind of file, and say who is who.

    Patients are told by the data, by names as `<patient>__<number>`, by two names that differ in left and right, else
    every case is one.

    Args:
        cases: as `layouts.samples.samples` reads them.
        out: folder to write.
        slices: 2D pictures are slices of patients, so a name of its own makes no patient.

    Raises:
        ConfigError: where `out` is there already; nothing is ever removed.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already: give another --out, or remove that run")
    told: dict[str, str] = {}
    ending, shape, last = ".nii.gz", (), None
    for given in cases:
        # A name that ends like a channel's would be taken for one.
        case = replace(given, name=re.sub(r"_(?=\d{4}$)", "-", given.name))
        shape = tuple(map(min, shape or case.image.shape, case.image.shape))
        if len(shape) == 2 and not case.image.spacing_known:
            ending = ".png" if case.image.array.dtype.kind in "ui" and ending != ".tif" else ".tif"
        _write(case, out, ending)
        told[case.name], last = case.patient, case
    patients = _patients(told, unknown=slices and len(shape) == 2)
    demonstration = "" if len(set(patients.values())) > 1 else ONE_IMAGE if len(patients) == 1 else NO_PATIENTS
    training = out
    if last is not None and demonstration == ONE_IMAGE:
        training = out / "slabs"
        for n, part in enumerate(_parts(last.image.shape[-1])):
            start, stop = [0] * len(shape), list(last.image.shape)
            start[-1], stop[-1] = part.start, part.stop
            image, mask = crop(last.image, start, stop), crop(last.mask, start, stop)
            _write(Sample(_slab(last.name, n), image, mask), training, ending)
            shape = tuple(map(min, shape, image.shape))
    with (out / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("case", "group"), *sorted(patients.items())])
    return DataSet(out, training, ending, shape, patients, demonstration)


def _write(case: Sample, out: Path, ending: str) -> None:
    colour = ending == ".png" and case.image.channels == 3
    if colour or case.image.channels == 1:
        image = case.image if colour else case.image.with_array(case.image.array[0])
        medseg.write(image, out / "images" / f"{case.name}{ending}")
    else:
        for n, channel in enumerate(case.image.array):
            medseg.write(case.image.with_array(channel), out / "images" / f"{case.name}_{n:04d}{ending}")
    medseg.write(case.mask, out / "labels" / f"{case.name}{ending}")
    if case.second is not None:
        medseg.write(case.second, out / "second" / f"{case.name}{ending}")


def _patients(told: dict[str, str], unknown: bool) -> dict[str, str]:
    sides = {name: match["patient"] for name in told if (match := _SIDES.match(name)) and match["patient"]}
    shared = [patient for patient in sides.values() if list(sides.values()).count(patient) > 1]

    def of(name: str) -> str:
        if told[name] or "__" in name:
            return told[name] or name.split("__")[0]
        if sides.get(name) in shared:
            return sides[name]
        return "not known" if unknown else name

    return {name: of(name) for name in told}


def _slab(name: str, n: int) -> str:
    return f"{name}__slab{n}"


def _parts(size: int) -> list[slice]:
    edges = [round(n * size / _SLABS) for n in range(_SLABS + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]
