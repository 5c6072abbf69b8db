"""What became of the initial weights of a training, in sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from medseg.nets import PretrainedReport

__all__ = ["sentences"]

SHOWN = 4
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def sentences(report: PretrainedReport, path: Path) -> list[str]:
    """What was loaded, adapted, dropped and missing.

    Args:
        report: of `load_pretrained`.
        path: where the weights came from.

    Example:
        >>> report = PretrainedReport(loaded=["conv1.weight"], missing=["head.weight"], dropped=["fc.weight"])
        >>> for sentence in sentences(report, Path("resnet18.pth")):
        ...     print(sentence)
        training.init: 1 of the network's 2 weights and statistics comes from resnet18.pth.
        Not in the file, so the training begins it anew: head.weight.
        Not used of the file, as the network has no place for it: fc.weight.
    """
    return list(_sentences(report, path))


def _sentences(report: PretrainedReport, path: Path) -> Iterator[str]:
    anew = [name for name, how in report.how.items() if how.startswith("new")]
    taken = [*report.loaded, *(name for name in report.adapted if name not in anew)]
    total = len(taken) + len(anew) + len(report.missing)
    verb = "comes" if len(taken) == 1 else "come"
    yield f"training.init: {len(taken)} of the network's {total} weights and statistics {verb} from {path}."
    norms = sum(name.endswith("running_mean") for name in report.loaded)
    if norms:
        yield f"The running statistics of {norms} batch norm{'s are' if norms > 1 else ' is'} kept."
    for change, names in _changes(report.how).items():
        yield _described(change, names)
    if report.missing:
        them = "it" if len(report.missing) == 1 else "them"
        yield f"Not in the file, so the training begins {them} anew: {_listed(report.missing)}."
    # Without a batch norm in the network, its statistics are a matter of their own.
    statistics = [name for name in report.dropped if name.endswith(STATISTICS)] if not norms else []
    others = [name for name in report.dropped if name not in {*statistics, *anew}]
    if others:
        them = "it" if len(others) == 1 else "them"
        yield f"Not used of the file, as the network has no place for {them}: {_listed(others)}."
    if statistics:
        yield (
            "The file holds running statistics of batch norms, which this network does not have; "
            "net.norm=batch keeps them."
        )


def _changes(how: dict[str, str]) -> dict[str, list[str]]:
    """Each change and the names that underwent it."""
    found: dict[str, list[str]] = {}
    for name, changes in how.items():
        for change in changes.split("; "):
            found.setdefault(change, []).append(name)
    return found


def _described(change: str, names: Sequence[str]) -> str:
    listed = _listed(names)
    if channels := re.fullmatch(r"(\d+) channels to (\d+)", change):
        given, taken = int(channels[1]), int(channels[2])
        if taken == 1:
            summed = "red, green and blue" if given == 3 else f"the {given} channels"
            return (
                f"The images have 1 channel instead of {given}, so the filters for {summed} were added up, as if "
                f"the grey image stood in all of them: {listed}."
            )
        return (
            f"The images have {taken} channels instead of {given}, so each gets the mean of the filters, scaled by "
            f"{given}/{taken}: {listed}."
        )
    if classes := re.fullmatch(r"new, (\d+) classes to (\d+)", change):
        return f"The last layer begins anew, with {classes[2]} classes instead of {classes[1]}: {listed}."
    if change.startswith("inflated by "):
        where = "in their middle slice" if change.endswith("centre") else "over all their slices"
        return f"2D kernels became 3D, with their values {where}: {listed}."
    return f"Fully connected in the file, {change} in the network: {listed}."


def _listed(names: Sequence[str]) -> str:
    """The first names; a file may call its weights whatever it likes."""
    shown = ["".join(c if c.isprintable() else "?" for c in name[:80]) for name in names[:SHOWN]]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
