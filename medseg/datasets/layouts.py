"""Layouts of data sets on disk: MSD, nnU-Net raw, plain folders, CSV, DICOM. No image is read here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg.config import MOST_LIST_BYTES, DataConfig, read_text
from medseg.datasets.csv_layout import csv_layout
from medseg.datasets.dicom_layout import dicom_layout, has_objects, object_pairs
from medseg.datasets.pair_finding import cases_beside, folder_pairs, has_masks_beside
from medseg.datasets.records import Case, Layout
from medseg.disk.directory_walk import is_hidden
from medseg.errors import DatasetError
from medseg.io.case_table import is_case_table
from medseg.io.formats import image_files, is_there, kind_of, stem_of
from medseg.io.label_maps import LabelSource
from medseg.io.naming import composed, file_named, group_channels

__all__ = ["described_labels", "find_layout", "images_in"]

# Names that are nearly those of the folders of MSD and nnU-Net.
_FOLDER_NAMES = {
    **dict.fromkeys(("imagestr", "imagestrain"), "imagesTr"),
    **dict.fromkeys(("labelstr", "labelstrain"), "labelsTr"),
}
_SHOWN = 5


def find_layout(data: DataConfig) -> Layout:
    """The data set at `data.root`, in the given or a recognised layout.

    Raises:
        DatasetError: if no layout is recognised, a file is missing, or `dataset.json` is damaged.
    """
    root = data.root
    if not (is_there(root) and root.is_dir()):
        raise DatasetError(f"data.root: {root} is not a folder; give the folder that contains the data set")
    kind: str = data.layout
    if kind == "auto":
        kind = _recognise(data)
    if kind == "csv":
        return csv_layout(data)
    if kind == "dicom":
        return dicom_layout(data)
    if kind == "folders":
        return _folders(root)
    return _decathlon(root, kind)


def _recognise(data: DataConfig) -> str:
    kind = "csv" if data.csv is not None else _kind_of_folder(data.root)
    if kind:
        return kind
    raise DatasetError(
        f"no data set recognised in {data.root}; expected imagesTr/ with labelsTr/ and dataset.json (MSD, nnU-Net), "
        f"images/ with labels/ or masks/, a CSV with the columns case, image, label (data.csv), masks beside their "
        f"images (a_seg beside a, or a folder with image and mask for each patient), or DICOM studies with a SEG or "
        f"RTSTRUCT each"
        f"{_suggestion(data.root)}"
    )


def _kind_of_folder(root: Path) -> str:
    if (root / "imagesTr").is_dir():
        return "msd"
    tables = sum(is_case_table(path) for path in root.glob("*.csv"))
    # A list of cases says what folders cannot, who is a patient and what is held out; several say nothing together.
    if tables == 1:
        return "csv"
    if folder_pairs(root):
        return "dicom" if object_pairs(root) else "folders"
    if tables:
        return "csv"
    if has_masks_beside(root):
        return "folders"
    if has_objects(root):
        return "dicom"
    return "csv" if any(root.glob("*.csv")) else ""


def _suggestion(root: Path) -> str:
    """Which folders to rename, or which sub-folder to give; '' if nothing resembles a data set."""
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not is_hidden(p))
    inner = [p for p in folders if _kind_of_folder(p)]
    if inner:
        return f"; {inner[0]} is one: give that folder"
    meant = {p.name: _FOLDER_NAMES.get(p.name.lower(), p.name) for p in folders}
    renamed = [f"{name}/ to {right}/" for name, right in meant.items() if name != right]
    if renamed:
        return f"; rename {' and '.join(renamed)}"
    found = [f"{p.name}/" for p in folders] or [p.name for p in sorted(root.iterdir()) if not is_hidden(p)]
    more = ", ..." if len(found) > _SHOWN else ""
    return f"; found {', '.join(found[:_SHOWN])}{more}" if found else "; the folder is empty"


def _folders(root: Path) -> Layout:
    pairs = folder_pairs(root)
    if not pairs and not has_masks_beside(root):
        raise DatasetError(f"{root} has no images/ with labels/ or masks/; check data.root and data.layout")
    if not pairs:
        return Layout("folders", cases_beside(root))
    cases: list[Case] = []
    for pair in pairs:
        found = images_in(pair.images)
        labelled = _with_labels(found, pair.labels, {})
        cases += [replace(case, split=pair.split) for case in labelled]
    return Layout("folders", tuple(cases))


def images_in(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Case -> its image files, one for each channel, or its DICOM study, of a folder of images alone."""
    found = group_channels(image_files(folder), folder)
    # A sub-folder is a DICOM study.
    for study in sorted(p for p in folder.iterdir() if p.is_dir() and not is_hidden(p)):
        found.setdefault(study.name, (study,))
    return found


def _with_labels(found: Mapping[str, tuple[Path, ...]], folder: Path, known: Mapping[str, Path]) -> tuple[Case, ...]:
    by_stem: dict[str, list[Path]] = {}
    for path in image_files(folder) if folder.is_dir() else []:
        by_stem.setdefault(composed(stem_of(path)), []).append(path)
    found = _frames_apart(found, by_stem.keys() | known.keys())
    cases, without = [], []
    for name, images in found.items():
        suffix = images[0].name[len(stem_of(images[0])) :]
        matches = [known[name]] if name in known else by_stem.get(composed(name), [])
        if not (matches and is_there(matches[0]) and matches[0].is_file()):
            expected = matches[0] if matches else folder / (name + (".nii.gz" if kind_of(images[0]) == "" else suffix))
            without.append((name, expected, images[0]))
            continue
        if len(matches) > 1:
            raise DatasetError(f"case {name!r} has two label files, {matches[0]} and {matches[1]}; keep one of them")
        cases.append(Case(name, images, (LabelSource(matches[0]),)))
    if without:
        raise _unlabelled(without, sorted(set(by_stem) - set(map(composed, found))), by_stem)
    return tuple(cases)


def _frames_apart(found: Mapping[str, tuple[Path, ...]], labelled: Set[str]) -> dict[str, tuple[Path, ...]]:
    """The images of each case, where files numbered from `_0000` are channels of one case only if their labels are not.

    `scan_0000`, `scan_0001` with labels of the same names are frames: cases of their own.
    """
    result: dict[str, tuple[Path, ...]] = {}
    for name, images in found.items():
        stems = [stem_of(path) for path in images]
        if composed(name) not in labelled and name not in stems and not labelled.isdisjoint(map(composed, stems)):
            result.update({stem: (path,) for stem, path in zip(stems, images, strict=True)})
        else:
            result[name] = images
    return result


def _unlabelled(
    without: Sequence[tuple[str, Path, Path]], unused: Sequence[str], files: Mapping[str, Sequence[Path]]
) -> DatasetError:
    name, expected, image = without[0]
    text = f"case {name!r} has no label file: expected {str(expected)[:300]}; add it or remove {image}"
    if len(without) > 1:
        others = [other for other, _, _ in without[1:]]
        rest = ", ..." if len(others) > _SHOWN else ""
        text += f"; the same applies to {len(others)} more case(s): {', '.join(others[:_SHOWN])}{rest}"
    if unused:
        rest = ", ..." if len(unused) > _SHOWN else ""
        text += "; label files without an image of their name: "
        text += ", ".join(files[stem][0].name for stem in unused[:_SHOWN]) + rest
    return DatasetError(text)


def _decathlon(root: Path, kind: str) -> Layout:
    folder = root / "imagesTr"
    if not folder.is_dir():
        raise DatasetError(f"{root} has no imagesTr/, which the {kind} layout needs; check data.root and data.layout")
    description = _json(root / "dataset.json") if (root / "dataset.json").is_file() else {}
    if not isinstance(description, dict):
        raise DatasetError(f"{root / 'dataset.json'}: expected keys and values, found {type(description).__name__}")
    images, labels = _listed(description, root)
    if not labels and not (root / "labelsTr").is_dir():
        raise DatasetError(f"{root} has imagesTr/ but no labelsTr/ with the label maps{_suggestion(root)}")
    if not images:
        images = group_channels(image_files(folder), folder)
    cases = _with_labels(images, root / "labelsTr", labels)
    values, ignore = _described_labels(description, root)
    channels = description.get("channel_names", description.get("modality", {}))
    names: Sequence[Any] = ()
    if isinstance(channels, dict):
        names = [channels[k] for k in sorted(channels, key=lambda k: int(k) if str(k).isdigit() else 0)]
    elif isinstance(channels, list):
        names = channels
    return Layout(kind, cases, values, ignore, tuple(str(n) for n in names), *_folds(root))


def described_labels(root: Path) -> tuple[Mapping[str, int | tuple[int, ...]] | None, int | tuple[int, ...] | None]:
    """(name -> value or values, value or values to ignore) from a folder's `dataset.json`; None if it has no labels.

    Raises:
        DatasetError: if `dataset.json` is damaged.
    """
    path = root / "dataset.json"
    description = _json(path) if path.is_file() else {}
    return _described_labels(description, root) if isinstance(description, dict) else (None, None)


def _listed(description: Mapping[str, Any], root: Path) -> tuple[dict[str, tuple[Path, ...]], dict[str, Path]]:
    """Cases that dataset.json lists with their paths: MSD's 'training', nnU-Net's 'dataset'."""
    images: dict[str, tuple[Path, ...]] = {}
    labels: dict[str, Path] = {}
    listed = description.get("dataset")
    if isinstance(listed, dict):
        for name, entry in listed.items():
            if not isinstance(entry, dict) or "images" not in entry or "label" not in entry:
                raise DatasetError(f"{root / 'dataset.json'}: case {name!r} needs 'images' and 'label', found {entry}")
            listed_images = entry["images"] if isinstance(entry["images"], list) else [entry["images"]]
            images[str(name)] = tuple(root / str(p) for p in listed_images)
            labels[str(name)] = root / str(entry["label"])
    elif isinstance(description.get("training"), list):
        for entry in description["training"]:
            if not isinstance(entry, dict) or "image" not in entry or "label" not in entry:
                return {}, {}
            image = root / str(entry["image"])
            # nnU-Net v1 lists cases without the channel number that its files carry.
            if not is_there(image) and is_there(image.with_name(stem_of(image) + "_0000.nii.gz")):
                return {}, {}
            images[stem_of(image)], labels[stem_of(image)] = (image,), root / str(entry["label"])
    for name, paths in images.items():
        images[name] = tuple(file_named(path) or path for path in paths)
        labels[name] = file_named(labels[name]) or labels[name]
        for path in images[name]:
            if not is_there(path):
                raise DatasetError(
                    f"case {name[:120]!r} of {root / 'dataset.json'} has no image file: expected {str(path)[:300]}"
                )
    return images, labels


def _described_labels(
    description: Mapping[str, Any], root: Path
) -> tuple[dict[str, int | tuple[int, ...]] | None, int | tuple[int, ...] | None]:
    entries = description.get("labels")
    if not isinstance(entries, dict) or not entries:
        return None, None
    values: dict[str, int | tuple[int, ...]] = {}
    ignore: int | tuple[int, ...] | None = None
    code: int | tuple[int, ...]
    try:
        for key, value in entries.items():
            if isinstance(value, str) and str(key).lstrip("-").isdigit():
                name, code = value, int(key)
            elif isinstance(value, list):
                name, code = str(key), tuple(int(v) for v in value)
            else:
                name, code = str(key), int(value)
            if name.casefold() == "ignore":
                ignore = code
            else:
                values[name] = code
    except (TypeError, ValueError, OverflowError):
        raise DatasetError(
            f"{root / 'dataset.json'}: labels {str(entries)[:300]} are neither {{'1': name}} nor "
            "{name: 1}; give data.labels"
        ) from None
    if len(values) + (ignore is not None) < len(entries):
        raise DatasetError(f"{root / 'dataset.json'}: two labels share a name in {entries}; give data.labels")
    return values, ignore


def _folds(root: Path) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]:
    """Validation and training cases of each fold of `splits_final.json`; the second is () where no fold lists them."""
    path = root / "splits_final.json"
    if not path.is_file():
        return (), ()
    content = _json(path)
    if not isinstance(content, list) or not all(
        isinstance(f, dict) and isinstance(f.get("val"), list) and isinstance(f.get("train", []), list) for f in content
    ):
        raise DatasetError(f"{path}: expected a list of {{'train': [...], 'val': [...]}}")
    with_train = ["train" in fold for fold in content]
    if any(with_train) and not all(with_train):
        raise DatasetError(f"{path}: fold {with_train.index(False)} has no list 'train', others have; add it")
    validation, train = ([[str(name) for name in fold.get(key, [])] for fold in content] for key in ("val", "train"))
    return tuple(map(tuple, validation)), tuple(map(tuple, train)) if all(with_train) else ()


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path, MOST_LIST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not readable JSON ({str(error)[:200]})") from None
