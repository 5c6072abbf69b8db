"""A bundle of a model made of others, written whole: `model.json`, model card, and `members/<name>/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from medseg.disk.atomic import atomic_folder
from medseg.errors import CheckpointError
from medseg.inference.bundle_files import INFO, refuse_foreign
from medseg.inference.bundle_parts import CompositeInfo

__all__ = ["save_composite"]

WORKS = {
    "ensemble": "The probabilities of all members are averaged.",
    "cascade": "Each member sees the labels that the one before it found.",
    "parts": "Each member finds other labels; where two find one, the later member wins.",
}


def save_composite(
    folder: str | Path, info: CompositeInfo, members: Mapping[str, Callable[[Path], object]], text: str = ""
) -> Path:
    """Write a bundle of members; readers see the old one or the new one, never a mixture.

    Args:
        folder: the bundle; one that it holds is replaced.
        info: contents of `model.json`.
        members: what writes each of `info.members` into a folder, e.g. by `save_bundle`.
        text: further lines of the model card, in Markdown.

    Returns:
        The folder.

    Raises:
        WriteError: disk full, no permission, or a folder that holds something else than a bundle.
        CheckpointError: if `members` are not those of `info`.

    Example:
        >>> info = CompositeInfo(kind="ensemble", labels={"lung": 1}, members=("first", "second"))
        >>> bundle = medseg.inference.load_bundle("runs/lung/model")
        >>> write = lambda folder: medseg.inference.save_bundle(folder, bundle.info, bundle.weights)
        >>> save_composite("both", info, {"first": write, "second": write}).name
        'both'
    """
    target = Path(folder)
    if set(members) != set(info.members):
        raise CheckpointError(f"{target}: the members {', '.join(info.members)} are needed, given {', '.join(members)}")
    refuse_foreign(target)
    with atomic_folder(target, overwrite=True) as fresh:
        (fresh / "members").mkdir()
        for name in info.members:
            members[name](fresh / "members" / name)
        (fresh / INFO).write_text(info.to_json(), encoding="utf-8")
        (fresh / "README.md").write_text(_card(info, text), encoding="utf-8")
    return target


def _card(info: CompositeInfo, text: str) -> str:
    labels = "\n".join(f"| {name} | {value} |" for name, value in info.labels.items())
    members = "\n".join(f"- [`{name}`](members/{name}/README.md)" for name in info.members)
    return (
        f"# Model of the kind '{info.kind}'\n\n{WORKS[info.kind]}\n\n{members}\n\n"
        f"| label | value |\n|---|---|\n{labels}\n\n"
        f"Source: {info.source.kind}. Licence of the weights: {info.weight_license}; of the data: "
        f"{info.data_license}.\n{text}"
    )
