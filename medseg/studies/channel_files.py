"""Image files whose names make them channels of one case: `p1/p1_flair.nii.gz` and `p1/p1_t1ce.nii.gz`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.io.channel_names import kind_of_name, split_name
from medseg.io.formats import stem_of
from medseg.io.naming import CHANNEL_NAME

__all__ = ["ChannelFiles", "group_by_kind"]


@dataclass(frozen=True, slots=True)
class ChannelFiles:
    """One case found by the names of its files.

    Args:
        case: the common name of the files, or of the folder if each patient has one.
        paths: one per channel, in the model's order; whatever was found if `error` is set.
        left_out: files next to them that are other sequences, or not channels (label maps, brain masks).
        error: which channel is missing or ambiguous, '' if there is no error.
    """

    case: str
    paths: tuple[Path, ...]
    left_out: tuple[Path, ...]
    error: str = ""


def group_by_kind(
    files: Iterable[Path], root: Path, channels: Sequence[str]
) -> tuple[tuple[ChannelFiles, ...], tuple[Path, ...]]:
    """Cases whose channels are separate files, and the files that belong to none.

    nnU-Net's `_0000` takes precedence. A case needs at least two kinds of files; a single file may have all channels.

    Args:
        files: image files below `root`.
        root: the folder that case names are relative to.
        channels: names of the model's channels, e.g. ('FLAIR', 'T1c').

    Returns:
        Cases by name; all other files.
    """
    files = list(files)
    wanted = [kind_of_name(name) for name in channels]
    if len(wanted) < 2 or "" in wanted or len(set(wanted)) < len(wanted):
        return (), tuple(files)
    groups: dict[tuple[Path, str], dict[str, list[Path]]] = {}
    for path in sorted(files):
        kind, rest = split_name(stem_of(path))
        if kind and not CHANNEL_NAME.match(stem_of(path)):
            groups.setdefault((path.parent, rest), {}).setdefault(kind, []).append(path)
    groups = {key: kinds for key, kinds in groups.items() if len(kinds) > 1 and set(kinds) & set(wanted)}
    grouped = {path for kinds in groups.values() for paths in kinds.values() for path in paths}
    others = [path for path in files if path not in grouped]
    in_folder = Counter(folder for folder, _ in groups)
    besides = _beside(groups, others)
    cases = []
    for (folder, rest), kinds in sorted(groups.items()):
        alone = in_folder[folder] == 1
        beside = besides.get((folder, rest), [])
        # 'Flair_normalised' is named after its folder, 'p1_flair' after itself.
        leads = not stem_of(next(iter(kinds.values()))[0]).startswith(rest)
        case = _name(folder, "" if leads and alone else rest, alone, root)
        cases.append(_case(case, kinds, channels, wanted, beside))
    taken = {path for paths in besides.values() for path in paths}
    return tuple(sorted(cases, key=lambda c: c.case)), tuple(path for path in others if path not in taken)


def _beside(groups: Iterable[tuple[Path, str]], others: Sequence[Path]) -> dict[tuple[Path, str], list[Path]]:
    """The other files of each group: in its folder if it is alone there, otherwise those with the same prefix.

    A file with the prefix of several groups goes to the first by name, which is the shortest.
    """
    names: dict[Path, set[str]] = {}
    for folder, rest in groups:
        names.setdefault(folder, set()).add(rest)
    found: dict[tuple[Path, str], list[Path]] = {}
    for path in others:
        stem, here = stem_of(path), names.get(path.parent, set())
        starts = (stem[:end] for end in range(1, len(stem) + 1))
        for rest in here if len(here) == 1 else (each for each in starts if each in here):
            found.setdefault((path.parent, rest), []).append(path)
            break
    return found


def _name(folder: Path, rest: str, alone: bool, root: Path) -> str:
    parts = folder.relative_to(root).parts
    if alone and (parts or not rest):
        return "_".join(parts) or root.resolve().name
    return "_".join((*parts, rest)) if rest else "_".join((*parts, folder.resolve().name))


def _case(
    case: str, kinds: dict[str, list[Path]], channels: Sequence[str], wanted: Sequence[str], beside: Sequence[Path]
) -> ChannelFiles:
    unused = [p for kind, paths in sorted(kinds.items()) if kind not in wanted for p in paths]
    found = tuple(p for kind in wanted for p in kinds.get(kind, []))
    for name, kind in zip(channels, wanted, strict=True):
        paths = kinds.get(kind, [])
        if len(paths) != 1:
            what = "no file" if not paths else f"{len(paths)} files ({', '.join(p.name for p in paths)})"
            error = f"{found[0].parent} has {what} for channel {name}; expected one, named like {found[0].name}"
            return ChannelFiles(case, found, tuple(unused), error)
    return ChannelFiles(case, found, (*unused, *beside))
