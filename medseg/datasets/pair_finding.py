"""Images and masks as people keep them: `Images/Labels`, `train/images`, `a_seg` beside `a`, a folder per patient."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.datasets.records import Case
from medseg.disk.directory_walk import is_hidden
from medseg.errors import DatasetError
from medseg.io.channel_names import kind_of_name
from medseg.io.formats import image_files, stem_of
from medseg.io.label_maps import LabelSource

__all__ = ["FolderPair", "cases_beside", "folder_pairs", "has_masks_beside"]

_IMAGES = ("images", "image", "imgs", "img", "volumes", "scans")
_LABELS = ("labels", "masks", "label", "mask", "segmentations", "segmentation", "annotations", "seg", "segs", "gt")
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_MASK = r"seg|segmentation|mask|masks|label|labels|labelmap|gt|groundtruth|ground_truth|manual"
_IS_MASK = re.compile(rf"(?:(?P<image>.+)[-_. ])?(?:{_MASK})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FolderPair:
    """A folder of images with its folder of label maps, and the split that their names say ('' for none)."""

    images: Path
    labels: Path
    split: str = ""


def folder_pairs(root: Path) -> list[FolderPair]:
    """The folders of images and labels of a data set: in the root, in `train/`, `val/` and `test/`, or above these.

    Names count in any case; of several candidates the first of `images`, `image`, ... and of `labels`, `masks`, ... is
    taken. Without a part for validation, the cases of the training part have no split.
    """
    pair = _pair(root)
    if pair is not None:
        inner = [
            FolderPair(images, labels, split)
            for split, images in _parts(pair.images).items()
            if (labels := _parts(pair.labels).get(split)) is not None
        ]
        pairs = [pair] if image_files(pair.images) or not inner else inner
    else:
        parts = _parts(root)
        pairs = [FolderPair(p.images, p.labels, split) for split, part in parts.items() if (p := _pair(part))]
    if any(pair.split == "validation" for pair in pairs):
        return pairs
    return [replace(pair, split="") if pair.split == "train" or len(pairs) == 1 else pair for pair in pairs]


def has_masks_beside(root: Path) -> bool:
    """Whether images and their masks lie side by side, in one folder or in a folder for each patient."""
    return any(True for _ in _folders_with_masks(root))


def cases_beside(root: Path) -> tuple[Case, ...]:
    """The cases of a folder in which masks lie beside their images: `a.nii.gz` with `a_seg.nii.gz`, or `p1/image`,
    `p1/mask`; with several images of one mask, these are channels by the kind that their names tell.

    Raises:
        DatasetError: an image without a mask or a mask without an image, several masks, or channels that differ.
    """
    folders = list(_folders_with_masks(root))
    if folders == [root]:
        return tuple(_flat(root))
    without = [p.name for p in _folders(root) if p not in folders and image_files(p)]
    if without:
        raise DatasetError(
            f"{root}: {len(without)} of {len(folders) + len(without)} folders hold images but no mask, e.g. "
            f"{without[0]}; expected image and mask in each, such as image.nii.gz and mask.nii.gz"
        )
    return _of_patients(folders)


def _pair(root: Path) -> FolderPair | None:
    names = {p.name.casefold(): p for p in reversed(_folders(root))} | {p.name: p for p in _folders(root)}
    images, labels = (next((names[name] for name in each if name in names), None) for each in (_IMAGES, _LABELS))
    return None if images is None or labels is None else FolderPair(images, labels)


def _parts(root: Path) -> dict[str, Path]:
    return {_SPLITS[p.name.casefold()]: p for p in _folders(root) if p.name.casefold() in _SPLITS}


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not is_hidden(p))


def _folders_with_masks(root: Path) -> Iterator[Path]:
    if any(_IS_MASK.fullmatch(stem_of(path)) for path in image_files(root)):
        yield root
        return
    for folder in _folders(root):
        if any(_IS_MASK.fullmatch(stem_of(path)) for path in image_files(folder)):
            yield folder


def _flat(folder: Path) -> Iterator[Case]:
    files = {stem_of(path): path for path in image_files(folder)}
    masks: dict[str, Path] = {}
    for stem, path in files.items():
        match = _IS_MASK.fullmatch(stem)
        image = (match["image"] or "") if match else None
        if image is None:
            continue
        if image not in files:
            raise DatasetError(f"{path} looks like the mask of {image or 'an image'!r}, which is not in {folder}")
        if image in masks:
            raise DatasetError(f"{image!r} in {folder} has two masks, {masks[image].name} and {path.name}; keep one")
        masks[image] = path
    without = sorted(stem for stem in files if stem not in masks and files[stem] not in masks.values())
    if without:
        raise DatasetError(
            f"{len(without)} of {len(masks) + len(without)} images in {folder} have no mask, e.g. {without[0]}; "
            f"expected {without[0]}_seg or {without[0]}_mask beside it"
        )
    for stem, mask in masks.items():
        yield Case(stem, (files[stem],), (LabelSource(mask),))


def _of_patients(folders: list[Path]) -> tuple[Case, ...]:
    cases, kinds = [], {}
    for folder in folders:
        files = image_files(folder)
        masks = [path for path in files if _IS_MASK.fullmatch(stem_of(path))]
        images = [path for path in files if path not in masks]
        if len(masks) > 1 or not images:
            names = ", ".join(path.name for path in files[:8])
            raise DatasetError(
                f"{folder} holds {len(images)} image(s) and {len(masks)} masks ({names}); expected one mask and its "
                "image; list several masks of a case in a CSV (label: file:value;file:value)"
            )
        channels = sorted((kind_of_name(stem_of(path)) if len(images) > 1 else "", path) for path in images)
        told = [kind for kind, _ in channels]
        if len(images) > 1 and (len(set(told)) < len(told) or "" in told):
            names = ", ".join(path.name for path in images[:8])
            raise DatasetError(
                f"{folder} holds {len(images)} images beside one mask ({names}), whose names do not tell which channel "
                "each is (t1, t2, flair, ct, ...); list the cases in a CSV with a column image_<channel> for each"
            )
        kinds[folder.name] = told
        cases.append(Case(folder.name, tuple(path for _, path in channels), (LabelSource(masks[0]),)))
    first = folders[0].name
    other = next((name for name, told in kinds.items() if told != kinds[first]), None)
    if other is not None:
        raise DatasetError(
            f"{folders[0].parent}: {first} has the channels {', '.join(kinds[first]) or 'one image'}, {other} has "
            f"{', '.join(kinds[other]) or 'one image'}; every case needs the same"
        )
    return tuple(cases)
