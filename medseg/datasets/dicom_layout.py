"""DICOM studies with the SEG or RTSTRUCT objects drawn on each as training data; labels go by the objects' names.

Several objects of one series are united, as where each organ has a SEG of its own. Found: a folder for each patient or
study that holds both, in whatever sub-folders; or `images/` with `labels/`, in which a study and its object have one
name. Headers are read here, no pixel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.config import DataConfig
from medseg.datasets.pair_finding import FolderPair, folder_pairs
from medseg.datasets.records import Case, Layout
from medseg.disk.directory_walk import files_below, is_hidden
from medseg.errors import ConfigError, DatasetError, ReadError
from medseg.io.dicom.objects import ObjectContents, find_reference, object_contents, object_kind
from medseg.io.dicom.series import Series, scan
from medseg.io.formats import has_dicom_magic, image_files, is_dicom_directory, may_be_dicom
from medseg.io.label_maps import LabelSource
from medseg.volume import Finding

__all__ = ["dicom_layout", "has_objects", "object_pairs"]

_SHOWN = 5
_EXPECTED = (
    "expected a folder for each study that holds a DICOM series and the SEG or RTSTRUCT drawn on it, or images/ with "
    "labels/, in which a study and its object have one name"
)


@dataclass(frozen=True, slots=True)
class _Study:
    """A folder (or multi-frame file) of images, and the objects that may belong to it."""

    name: str
    images: Path
    objects: tuple[Path, ...]
    split: str = ""


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A study with the objects that were drawn on one of its series."""

    study: _Study
    objects: Mapping[Path, ObjectContents]
    series: str


def has_objects(folder: Path) -> bool:
    """Whether a SEG or RTSTRUCT object lies in a folder or its sub-folders."""
    return any(object_kind(path) for path in _dicom_files(folder))


def object_pairs(root: Path) -> list[FolderPair]:
    """The pairs of folders of images and labels, if the labels are DICOM objects and the images are studies."""
    pairs = folder_pairs(root)
    if any(image_files(folder) for pair in pairs for folder in (pair.images, pair.labels)):
        return []
    return pairs if any(has_objects(pair.labels) for pair in pairs) else []


def dicom_layout(data: DataConfig) -> Layout:
    """The studies of a data set with their objects, and the values of the labels that the objects name.

    With `data.labels`, names get its values, and other names are refused, or ignored with `data.others: background`.
    Without, the names of all cases, sorted, are numbered from 1. Names are compared without regard to case and blanks.
    Of several objects of a study those without a name of `data.labels` are left out, and the others united.

    Raises:
        DatasetError: a study without an object, or an object without a study; two objects of one study with the same
            name, or drawn on different series; several patients in a study; names that `data.labels` does not give.
        ConfigError: `data.labels` gives a name several values.
        ReadError: a damaged object, or one that does not tell to which of several series it belongs.
    """
    wanted = _wanted(data)
    pairs = object_pairs(data.root)
    studies = [study for pair in pairs for study in _paired(pair)] if pairs else _lying_together(data.root)
    findings: list[Finding] = []
    drawn = [_drawn(study, wanted, findings) for study in studies]
    spellings: dict[str, str] = {}
    holders: dict[str, list[str]] = defaultdict(list)
    for each in drawn:
        for key, name in _by_key(each).items():
            spellings[key] = min(name, spellings.get(key, name))
            holders[key].append(each.study.name)
    if wanted is None:
        values = {key: n for n, key in enumerate(sorted(spellings), start=1)}
        table = ", ".join(f"{spellings[key]}: {n} (in {len(holders[key])})" for key, n in values.items())
        text = f"labels go by the names of the segments and ROIs in the {len(drawn)} cases: {table}"
        findings.append(Finding("labels_by_name", text))
    else:
        values = wanted
        others = {spellings[key]: holders[key] for key in sorted(spellings) if key not in wanted}
        if others:
            findings.append(_others(others, data))
    cases = tuple(_case(each, values) for each in drawn)
    labels = {spellings[key]: value for key, value in values.items()} if wanted is None else None
    return Layout("dicom", cases, labels, findings=tuple(findings))


def _wanted(data: DataConfig) -> dict[str, int] | None:
    """Key of a name -> value, from `data.labels`."""
    if data.labels is None:
        return None
    wanted: dict[str, int] = {}
    for name, value in data.labels.items():
        if not isinstance(value, int):
            raise ConfigError(
                f"data.labels gives {name!r} the values {list(value)}; in DICOM objects a label is one segment or ROI: "
                f"give one integer for each name, such as {name}: {value[0] if value else 1}"
            )
        if _key(name) in wanted:
            raise ConfigError(f"data.labels names {name!r} twice, as names of DICOM objects count in any case")
        wanted[_key(name)] = value
    return wanted


def _others(others: Mapping[str, Sequence[str]], data: DataConfig) -> Finding:
    listed = "; ".join(f"{name!r} (in {len(cases)} case(s), e.g. {cases[0]})" for name, cases in others.items())
    if data.others != "background":
        raise DatasetError(
            f"the objects of {data.root} hold {len(others)} name(s) that data.labels does not give: {listed}; add them "
            "to data.labels, or give data.others=background to leave them out"
        )
    return Finding("names_left_out", f"names that data.labels does not give are background: {listed}")


def _paired(pair: FolderPair) -> Iterator[_Study]:
    objects: dict[str, list[Path]] = defaultdict(list)
    for path in _dicom_files(pair.labels):
        if object_kind(path):
            inside = path.relative_to(pair.labels)
            objects[_name(inside) if len(inside.parts) == 1 else inside.parts[0]].append(path)
    images = {
        _name(path): path
        for path in sorted(pair.images.iterdir())
        if not is_hidden(path) and (_dicom_files(path) if path.is_dir() else may_be_dicom(path))
    }
    _refuse(f"studies in {pair.images} have no object of their name in {pair.labels}", images.keys() - objects.keys())
    _refuse(f"objects in {pair.labels} have no study of their name in {pair.images}", objects.keys() - images.keys())
    for name, place in images.items():
        yield _Study(name, place, tuple(objects[name]), pair.split)


def _name(path: Path) -> str:
    return path.stem if path.suffix.lower() in (".dcm", ".dicom", ".ima") else path.name


def _lying_together(root: Path) -> list[_Study]:
    """A study for each lowest folder that holds objects, and the images that they were drawn on."""
    objects, holding = [], set()
    for path in _dicom_files(root):
        if object_kind(path):
            objects.append(path)
        elif _is_dicom(path):
            holding |= _folders_above(path, root)
    if not objects or root not in holding:
        what = "no DICOM image" if objects else "no SEG or RTSTRUCT object"
        raise DatasetError(f"{root} holds {what}; {_EXPECTED}")
    places: dict[Path, list[Path]] = defaultdict(list)
    for path in objects:
        places[next(folder for folder in path.parents if folder in holding)].append(path)
    for inner in sorted(places, key=lambda folder: len(folder.parts), reverse=True):
        # An object beside a folder with images and an object of its own may belong to these images as well.
        outer = next((folder for folder in inner.parents if folder in places), None)
        if outer is not None:
            places[outer] += places.pop(inner)
    covered = {folder for place in places for folder in (place, *place.parents)}
    below = {folder for folder in holding if folder.parent == root}
    without = {} if root in places else {folder.name: folder for folder in below if folder not in covered}
    _refuse(f"folders of {root} hold images but no SEG or RTSTRUCT object", without)
    result = []
    for place in sorted(places):
        name = "_".join(place.relative_to(root).parts) or root.resolve().name
        result.append(_Study(name, place, tuple(sorted(places[place]))))
    return result


def _folders_above(path: Path, root: Path) -> set[Path]:
    return {folder for folder in path.parents if folder.is_relative_to(root)}


def _drawn(study: _Study, wanted: Mapping[str, int] | None, findings: list[Finding]) -> _Drawn:
    found = scan([study.images] if study.images.is_file() else study.images).series
    contents = {path: object_contents(path) for path in study.objects}
    patients = {s.patient_id for series in found for s in series.slices}
    patients |= {each.patient_id for each in contents.values()}
    if len({patient.strip() for patient in patients} - {""}) > 1:
        raise DatasetError(
            f"{study.images} with its objects ({_names([path.name for path in contents])}) holds files of several "
            f"patients (PatientID differs); {_EXPECTED}"
        )
    used = contents
    if len(contents) > 1 and wanted is not None:
        fitting = {p: c for p, c in contents.items() if any(_key(name) in wanted for name in c.names)}
        used = fitting or contents
    if len(used) < len(contents):
        rest = _names([path.name for path in contents if path not in used])
        text = f"{study.name}: no name of data.labels in {rest}, left out; labels are from {_paths(used)}"
        findings.append(Finding("objects_left_out", text))
    _refuse_same_names(study, used, wanted)
    series = {path: _series_of(study, path, each, found) for path, each in used.items()}
    if len({*series.values()}) > 1:
        listed = "; ".join(f"{path.name} on {uid}" for path, uid in series.items())
        raise DatasetError(
            f"case {study.name!r} has objects drawn on different series: {listed}; a case has one image: give each "
            "series a folder of its own with its objects, or data.labels that only the objects of one series hold"
        )
    if len(used) > 1:
        findings.append(Finding("objects_united", f"{study.name}: the labels of {_paths(used)} are united"))
    return _Drawn(study, used, next(iter(series.values())))


def _refuse_same_names(study: _Study, objects: Mapping[Path, ObjectContents], wanted: Mapping[str, int] | None) -> None:
    holders: dict[str, Path] = {}
    for path, contents in objects.items():
        for name in contents.names:
            key = _key(name)
            other = holders.setdefault(key, path)
            if other != path and (wanted is None or key in wanted):
                raise DatasetError(
                    f"case {study.name!r} has {name!r} in {other.name} and in {path.name}, and which one counts is not "
                    "known; keep one of the two objects in the folder, or rename it in one of them"
                )


def _series_of(study: _Study, path: Path, contents: ObjectContents, found: Sequence[Series]) -> str:
    uids = contents.series_uids
    if uids and found and not {series.uid for series in found} & {*uids}:
        raise ReadError(
            f"{path} was drawn on a series that is not in {study.images} ({len(found)} other series there); add that "
            "series, or take the study out"
        )
    return find_reference(study.images, uids).uid


def _by_key(drawn: _Drawn) -> dict[str, str]:
    names: dict[str, str] = {}
    for path, contents in drawn.objects.items():
        of_object: dict[str, str] = {}
        for name in contents.names:
            if _key(name) in of_object:
                raise DatasetError(
                    f"{path} holds {of_object[_key(name)]!r} and {name!r}, which count as one name; rename one of them"
                )
            of_object[_key(name)] = name
        names |= of_object
    return names


def _case(drawn: _Drawn, values: Mapping[str, int]) -> Case:
    sources = []
    for path, contents in drawn.objects.items():
        names = tuple(sorted((name, values[_key(name)]) for name in contents.names if values.get(_key(name))))
        sources.append(LabelSource(path, study=drawn.study.images, names=names))
    return Case(drawn.study.name, (drawn.study.images,), tuple(sources), split=drawn.study.split, series=drawn.series)


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()


def _dicom_files(folder: Path) -> list[Path]:
    return sorted(path for path in files_below(folder)[0] if may_be_dicom(path) and not is_hidden(path))


def _is_dicom(path: Path) -> bool:
    try:
        return has_dicom_magic(path) and not is_dicom_directory(path)
    except ReadError:
        # Reading the study later says what is wrong with the file.
        return False


def _refuse(problem: str, names: Iterable[str]) -> None:
    without = sorted(names)
    if without:
        raise DatasetError(f"{len(without)} {problem}: {_names(without)}; {_EXPECTED}")


def _paths(paths: Iterable[Path]) -> str:
    return _names([path.name for path in paths])


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
