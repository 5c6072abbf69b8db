"""The battery's machinery: a case writes a study and says what it means; `judge` holds a reader against that."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dicom_phantoms import PATIENT_ID, PATIENT_NAME, Truth

import medseg
from medseg.errors import MedsegError

__all__ = ["Case", "Verdict", "judge", "table"]

Outcome = Literal["read", "several", "refused", "either"]


@dataclass(frozen=True, slots=True)
class Case:
    """A study and what a reader owes it.

    Args:
        name: what is special about the study.
        build: f(folder) writes it and returns the volumes in it.
        outcome: 'read': one volume, right. 'several': `read` refuses and names them, `read_all` returns each, right.
            'refused': an error that names a file. 'either': right or refused, but never wrong.
        findings: kinds that every volume must carry.
        says: words of which one has to stand in the refusal.
    """

    name: str
    build: Callable[[Path], Sequence[Truth]]
    outcome: Outcome = "read"
    findings: tuple[str, ...] = ()
    says: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """`answer` is 'right', 'refused', 'WRONG' (a volume that is not in the study) or 'CRASH' (no MedsegError);
    `fault` says what is still owed, '' if nothing."""

    name: str
    answer: Literal["right", "refused", "WRONG", "CRASH"]
    detail: str = ""
    fault: str = ""


def judge(case: Case, folder: Path) -> Verdict:
    """Write the case's study into an empty folder and read it with `medseg.read` and `medseg.read_all`."""
    truths = case.build(folder)
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    one, refusal = _tried(lambda: [medseg.read(folder)])
    every, later = _tried(lambda: medseg.read_all(folder))
    for error in (refusal, later):
        if error is not None and not isinstance(error, MedsegError):
            return Verdict(case.name, "CRASH", f"{type(error).__name__}: {error}", "crashed")
    for volumes in (one, every):
        # With several volumes in the study, one of them alone is a silent choice.
        wrong = _unlike(volumes, truths) or (
            "one of several read" if volumes is one and one and len(truths) > 1 else ""
        )
        if wrong:
            return Verdict(case.name, "WRONG", wrong, wrong)
    answer: Literal["right", "refused"] = "right" if every else "refused"
    message = str(refusal or later or "")
    return Verdict(case.name, answer, message, _owed(case, len(truths), one, every, message, names))


def table(verdicts: Sequence[Verdict]) -> str:
    """case -> right | refused: reason | WRONG, one line each, and the counts."""
    width = max(len(v.name) for v in verdicts)
    lines = []
    for v in verdicts:
        note = f": {v.detail}" if v.detail else ""
        lines.append(f"{'FAIL' if v.fault else 'ok  '} {v.name:<{width}}  {v.answer}{note}")
        if v.fault and v.fault not in v.detail:
            lines.append(f"     {'':<{width}}  -> {v.fault}")
    counts = ", ".join(f"{sum(v.answer == a for v in verdicts)} {a}" for a in ("right", "refused", "WRONG", "CRASH"))
    return "\n".join([*lines, f"{len(verdicts)} cases: {counts}; {sum(bool(v.fault) for v in verdicts)} not as owed"])


def _tried(read: Callable[[], list[Any]]) -> tuple[list[Any], Exception | None]:
    try:
        return read(), None
    except Exception as error:  # whatever a reader throws is its verdict
        return [], error


def _unlike(volumes: Sequence[Any], truths: Sequence[Truth]) -> str:
    """What is wrong with volumes that should each be another one of the truths."""
    if len(volumes) > len(truths):
        return f"{len(volumes)} volumes, the study holds {len(truths)}"
    for order in itertools.permutations(range(len(truths)), len(volumes)):
        if not any(truths[t].faults(v) for t, v in zip(order, volumes, strict=True)):
            return ""
    return "; ".join(" / ".join(t.faults(v) or "right" for t in truths) for v in volumes) if volumes else ""


def _owed(case: Case, count: int, one: Sequence[Any], every: Sequence[Any], message: str, names: set[str]) -> str:
    texts = [message, *(f.message for v in (*one, *every) for f in v.findings)]
    if any(secret in text for text in texts for secret in (*PATIENT_NAME.split("^"), PATIENT_ID)):
        return "the patient is named"
    if "\n" in message:
        return "the refusal is longer than a line"
    if case.outcome == "read" and not (one and every):
        return f"should be read, got: {message}"
    if case.outcome == "several" and (one or len(every) != count):
        return f"read_all gave {len(every)} of {count} volumes" + (", read chose one" if one else "")
    if case.outcome == "refused" and (one or every):
        return "should be refused"
    if case.outcome in ("refused", "either") and not every and not any(name in message for name in names):
        return f"the refusal names no file: {message}"
    if message and case.says and not any(word.lower() in message.lower() for word in case.says):
        return f"the refusal says none of {case.says}: {message}"
    for volume in (*one, *every):
        kinds = {finding.kind for finding in volume.findings}
        if missing := set(case.findings) - kinds:
            return f"no finding {sorted(missing)}, only {sorted(kinds)}"
    return ""
