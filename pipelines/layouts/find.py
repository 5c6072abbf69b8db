"""The cases of a data set as it was delivered: which images, which masks, and which of the masks is the reference.

1. What medseg reads by itself: imagesTr/labelsTr, images/ with labels/ or masks/, a CSV.
2. A folder per patient, each with images (its channels) and masks; or the folder of one patient.
3. Images and masks together, matched by their names: `Image_01L` with `Image_01L_1stHO`, `ct-64` with `wholeLung-64`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from layouts.roles import Role, roles_in

from medseg.config import DataConfig
from medseg.datasets.cases import find_cases
from medseg.datasets.layouts import find_layout
from medseg.errors import DatasetError
from medseg.labels import LabelScheme

__all__ = ["Found", "find_files"]

_OBSERVERS = re.compile(r"1st|2nd|first|second|observer|manual|expert|rater|reader", re.IGNORECASE)
Files = Mapping[str, Mapping[str, Role]]
"""Case -> what a file is called beside the name of its case -> file."""


@dataclass(frozen=True, slots=True)
class Found:
    """One case: a file per channel, masks whose union is the reference, a second observer's, and the patient.

    `patient` is "" where nothing but the name of the case tells it.
    """

    name: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    second: tuple[Path, ...] = ()
    patient: str = ""


def find_files(
    data: Path, scheme: LabelScheme, words: Sequence[str] = (), mask: str = "", values: Sequence[int] = ()
) -> list[Found]:
    """Every case below a folder, sorted by name; what was taken for what is printed.

    Args:
        data: the folder.
        scheme: values that a reference may hold; with one label, any mask of two levels may be it.
        words: what references are called, in lower case, where several masks could be it.
        mask: a part of the reference's name, to be looked for in place of `words`.
        values: with one label, which values of a map of several are it; () for masks of two levels.

    Raises:
        DatasetError: no cases, or masks of which none or several could be the reference, named.
    """
    if _is_known(data):
        labels = {name: tuple(values) for name, values in zip(scheme.names, scheme.values, strict=True)}
        config = DataConfig(root=data, labels=labels)
        stated = {case.name: case.group for case in find_layout(config).cases}
        return [
            Found(
                c.name,
                c.images,
                tuple(_of_kind(s.path, data, mask) for s in c.labels),
                (),
                stated[c.name] or (c.group if c.group != c.name else ""),
            )
            for c in find_cases(config).cases
        ]
    folders = [data, *sorted(p for p in data.rglob("*") if p.is_dir() and not p.name.startswith("."))]
    held = {folder: roles for folder in folders if (roles := roles_in(folder))}
    per_patient = data not in held and all({r.is_mask for r in roles} == {True, False} for roles in held.values())
    cases = _by_folder(data, held) if per_patient else _by_name(data, [r for roles in held.values() for r in roles])
    images = {name: {k: r for k, r in files.items() if not r.is_mask} for name, files in cases.items()}
    masks = {name: {k: r for k, r in files.items() if r.is_mask} for name, files in cases.items()}
    channels = sorted(set.intersection(*(set(files) for files in images.values()))) if images else []
    if not channels:
        raise DatasetError(f"{data}: no image that every case holds; give images/ and labels/ with files of one name")
    first, second = _references(data, masks, scheme, words, mask, values)
    used = {*channels, *first, *second}
    unused = sorted({k for files in cases.values() for k in files} - used)
    for what, keys in (("image", channels), ("reference", first), ("second observer", second), ("left out", unused)):
        if keys and any(keys):
            print(f"{what}: {' + '.join(sorted(k or 'the case itself' for k in keys))}")
    return [
        Found(
            name,
            tuple(images[name][k].path for k in channels),
            tuple(masks[name][k].path for k in first if k in masks[name]),
            tuple(masks[name][k].path for k in second if k in masks[name]),
            name if per_patient else "",
        )
        for name in sorted(cases)
    ]


def _of_kind(reference: Path, data: Path, mask: str) -> Path:
    """A case's reference, or the file of that name in the only folder beside it whose name holds `mask`."""
    if mask.lower() in reference.relative_to(data).as_posix().lower():
        return reference
    beside = sorted(f for f in reference.parent.parent.iterdir() if f.is_dir() and mask.lower() in f.name.lower())
    if len(beside) == 1 and (found := beside[0] / reference.name).is_file():
        return found
    raise DatasetError(
        f"{data}: --mask {mask} is to name the references, but that of {reference.name} is {reference}, and "
        f"{len(beside)} folder(s) beside it are called so; give a part of the name of one that holds all references"
    )


def _is_known(data: Path) -> bool:
    """Whether medseg reads the folder by itself; a CSV counts where it lists cases and their labels."""
    if (data / "imagesTr").is_dir():
        return True
    if (data / "images").is_dir() and any((data / name).is_dir() for name in ("labels", "masks")):
        return True
    heads = [path.read_text(encoding="utf-8-sig", errors="replace").partition("\n")[0] for path in data.glob("*.csv")]
    return any({"case", "label"} <= {column.strip() for column in head.split(",")} for head in heads)


def _by_folder(data: Path, held: Mapping[Path, Sequence[Role]]) -> Files:
    names = {folder: folder.relative_to(data).as_posix().replace("/", "_") for folder in held}
    return {names[f]: {_rest(role.stem, names[f]): role for role in roles} for f, roles in held.items()}


def _by_name(data: Path, roles: Sequence[Role]) -> Files:
    images, masks = [r for r in roles if not r.is_mask], [r for r in roles if r.is_mask]
    if not images or not masks:
        raise DatasetError(f"{data} holds {len(images)} image(s) and {len(masks)} mask(s); both are needed")
    if len(images) == 1:
        return {images[0].stem: {role.stem: role for role in roles}}
    owners = {mask.path: _owner(mask.stem, [image.stem for image in images]) for mask in masks}
    # Names that share nothing, besides what all share, are channels and masks of one patient, not several patients'.
    common = set.intersection(*(_tokens(role.stem) for role in roles))
    apart = [set.union(*(_tokens(role.stem) - common for role in some)) for some in (images, masks)]
    if not any(owners.values()) and not apart[0] & apart[1] and len({role.shape for role in roles}) == 1:
        return {data.name: {role.stem: role for role in roles}}
    cases: dict[str, dict[str, Role]] = {image.stem: {"": image} for image in images}
    if len(cases) < len(images):
        raise DatasetError(f"{data}: two images share a name; give each a name of its own")
    for mask in masks:
        owner = owners[mask.path]
        if owner is None:
            raise DatasetError(f"{mask.path}: no image, or more than one, has a name that goes with this mask")
        folder = mask.path.parent.relative_to(data).as_posix()
        cases[owner][_rest(f"{folder}-{mask.stem}", owner) or "mask"] = mask
    without = sorted(name for name, files in cases.items() if len(files) == 1)
    if without:
        print(f"left out, as they have no mask: {', '.join(without)}")
    return {name: files for name, files in cases.items() if len(files) > 1}


def _owner(mask: str, images: Sequence[str]) -> str | None:
    """The image a mask belongs to: its name begins or ends the mask's, or what tells it from the others is in it."""
    inside = [i for i in images if re.search(rf"^{re.escape(i)}(?![A-Za-z0-9])|(?<![A-Za-z0-9]){re.escape(i)}$", mask)]
    if inside:
        return max(inside, key=len)
    common = set.intersection(*(_tokens(i) for i in images))
    fits = [i for i in images if _tokens(i) - common <= _tokens(mask)]
    return fits[0] if len(fits) == 1 else None


def _references(
    data: Path, masks: Files, scheme: LabelScheme, words: Sequence[str], asked: str, chosen: Sequence[int]
) -> tuple[list[str], list[str]]:
    """Which masks make the reference, and which are a second observer's."""
    values: dict[str, set[int]] = {}
    several: set[str] = set()
    for files in masks.values():
        for key, role in files.items():
            values.setdefault(key, set()).update(role.values)
            several |= {key} if len(role.values) > 1 else set()
    listed = "; ".join(f"{key or 'mask'} ({', '.join(map(str, sorted(v)))})" for key, v in sorted(values.items()))
    single = len(scheme.names) == 1 and len(scheme.values[0]) == 1
    known = scheme.known_values
    keys = sorted(k for k, v in values.items() if (k not in several if single else v <= known) or v & set(chosen))
    if asked:
        keys = [k for k in keys if asked.lower() in k.lower()]
    elif not single and keys:
        most = max(len(values[k]) for k in keys)
        keys = [k for k in keys if len(values[k]) == most]
    observers = [k for k in keys if _OBSERVERS.search(k)]
    if observers and len(keys) > 1:
        return observers[:1], observers[1:2]
    if len(keys) > 1 and not asked:
        keys = [k for k in keys if any(word in k.lower() for word in words)] or keys
        if not any(word in keys[0].lower() for word in words):
            raise DatasetError(f"{data}: several masks could be the reference: {listed}; name it with --mask")
    if not keys or (len(keys) > 1 and not single):
        wanted = ", ".join(f"{n} {list(v)}" for n, v in zip(scheme.names, scheme.values, strict=True))
        raise DatasetError(f"{data}: which mask is {wanted}? It holds {listed}; name one with --mask, or give --config")
    return keys, []


def _tokens(name: str) -> set[str]:
    return set(re.split(r"[^A-Za-z0-9]+", name)) - {""}


def _rest(name: str, case: str) -> str:
    known = _tokens(case)
    return "-".join(token for token in re.split(r"[^A-Za-z0-9]+", name) if token and token not in known)
