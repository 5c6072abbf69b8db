"""Which prediction belongs to which reference, image, field of view, probabilities and patient."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medseg.disk.directory_walk import is_hidden
from medseg.errors import DatasetError
from medseg.evaluation.case_list import CaseList, listed, read_case_list
from medseg.io.formats import is_image_file, is_probability_file, is_there, stem_of
from medseg.io.naming import composed
from medseg.volume import Finding

__all__ = ["PARTIAL", "Missing", "Pair", "Sources", "find_pairs"]

Missing = Literal["refuse", "empty"]
PARTIAL = "partial"
"""Kind of the findings that say that not everything was scored as it should be."""

_CHANNEL = re.compile(r"_\d{4}$")


@dataclass(frozen=True, slots=True)
class Pair:
    """One case to score. `group` is the patient; what was not given or not found is None or empty.

    `pred` is None where the prediction is missing and counts as an empty mask; `annotated` names the labels that the
    reference has annotated, None: all.
    """

    case: str
    pred: Path | None
    ref: Path
    group: str
    images: tuple[Path, ...] = ()
    fov: Path | None = None
    probabilities: Path | None = None
    second: Path | None = None
    subgroups: Mapping[str, str] = field(default_factory=dict)
    annotated: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """What may lie beside predictions and references, each a folder or one file, or None.

    Args:
        images: channels as `<case>_0000`.
        fov: masks of the voxels that count.
        probabilities: `.npz` as `medseg predict --save-probabilities` writes them, NIfTI or PNG.
        second: references by another observer.
        cases: CSV with a column `case`, `group` or `patient` for cases of the same patient, `annotated` for references
            that lack labels, others for subgroups. Only these cases count.
    """

    images: Path | None = None
    fov: Path | None = None
    probabilities: Path | None = None
    second: Path | None = None
    cases: Path | None = None


def find_pairs(
    pred: Path, ref: Path, beside: Sources | None = None, missing: Missing = "refuse"
) -> tuple[tuple[Pair, ...], tuple[Finding, ...]]:
    """Match predictions to references by case name: the path inside the folder without image suffixes.

    Args:
        pred: folder of predicted label maps, or one file.
        ref: folder of references, or one file.
        beside: further files of the cases.
        missing: "refuse" references without a prediction, or count these predictions as "empty" masks.

    Raises:
        DatasetError: for a missing folder, no references, two files of one case, folders that look swapped, no name in
            common, or a prediction that is missing.
    """
    beside = beside or Sources()
    findings: list[Finding] = []
    if is_there(pred) and pred.is_file() and is_there(ref) and ref.is_file():
        case = stem_of(ref)
        preds, refs = {case: pred}, {case: ref}
    else:
        preds, refs = _label_files(pred, "prediction"), _label_files(ref, "reference")
        _check_not_swapped(pred, ref)
        if len(preds) == len(refs) == 1 and (pred.is_file() or ref.is_file()):
            # A single file was named by hand, so its name need not match.
            preds = dict(zip(refs, preds.values(), strict=True))
    if pred.resolve() == ref.resolve():
        findings.append(Finding("same_files", f"predictions and references are the same files ({pred})"))
    known = read_case_list(beside.cases) if beside.cases else None
    if known is not None:
        refs, preds, found = _only_listed(refs, preds, known, ref)
        findings += found
    findings += _check_missing(preds, refs, pred, missing)
    extra = sorted(set(preds) - set(refs))
    if extra:
        findings.append(Finding("extra_predictions", f"{listed(extra, 'prediction')} without a reference, not scored"))
    images = _files_beside(beside.images, refs, "image", findings)
    fovs = _one_each(_files_beside(beside.fov, refs, "field of view", findings))
    probabilities = _one_each(_files_beside(beside.probabilities, refs, "probability file", findings))
    seconds = _one_each(_files_beside(beside.second, refs, "second reference", findings))
    pairs = tuple(
        Pair(
            name,
            preds.get(name),
            refs[name],
            known.groups[name] if known else name,
            images.get(name, ()),
            fovs.get(name),
            probabilities.get(name),
            seconds.get(name),
            known.subgroups[name] if known else {},
            known.annotated.get(name) if known else None,
        )
        for name in sorted(refs)
    )
    return pairs, tuple(findings)


def _only_listed(
    refs: dict[str, Path], preds: dict[str, Path], known: CaseList, ref: Path
) -> tuple[dict[str, Path], dict[str, Path], list[Finding]]:
    absent = sorted(set(known.groups) - set(refs))
    if absent:
        raise DatasetError(f"{known.path} names {listed(absent, 'case')} without a reference in {ref}")
    left_out = sorted(set(refs) - set(known.groups))
    if not left_out:
        return refs, preds, []
    finding = Finding("cases_left_out", f"{listed(left_out, 'reference')} not named in {known.path.name}, not scored")
    kept = {name: path for name, path in refs.items() if name in known.groups}
    return kept, {name: path for name, path in preds.items() if name not in left_out}, [finding]


def _check_not_swapped(pred: Path, ref: Path) -> None:
    """`medseg predict` leaves a ledger beside its masks: nobody draws references that way."""
    if ref.is_dir() and (ref / "ledger.jsonl").is_file() and not (pred.is_dir() and (pred / "ledger.jsonl").is_file()):
        raise DatasetError(
            f"{ref} is given as the references, yet it holds ledger.jsonl, as medseg predict writes it, and {pred} "
            "does not: the two look swapped; call medseg evaluate PREDICTIONS REFERENCES (or move the ledger away, if "
            "predictions are to be the reference)"
        )


def _check_missing(preds: dict[str, Path], refs: dict[str, Path], pred: Path, missing: Missing) -> list[Finding]:
    absent = sorted(set(refs) - set(preds))
    if not absent:
        return []
    if not preds:
        raise DatasetError(f"{pred} contains no masks{_instead(pred)}; give the folder that medseg predict wrote")
    if len(absent) == len(refs):
        raise DatasetError(
            f"no name in common: {pred} holds {listed(sorted(preds), 'mask')}, the references are "
            f"{listed(absent, 'case')}; a case's files must be called the same but for the suffix (.nii.gz, .png)"
        )
    what = f"no prediction in {pred} for {listed(absent, 'reference')}{_failed(pred, absent)}"
    if missing == "empty":
        return [Finding(PARTIAL, f"{what}; counted as empty masks")]
    raise DatasetError(
        f"{what}; it holds {listed(sorted(preds), 'mask')}. Predict these cases, or name the cases to score in a CSV "
        "with a column 'case' (--cases), or count missing ones as empty masks (--missing empty)"
    )


def _instead(pred: Path) -> str:
    if pred.is_dir() and any(pred.glob("*.npz")):
        return " but probabilities (.npz), which go to --probabilities beside masks"
    if pred.is_dir() and (pred / "model.json").is_file():
        return ": it is a model"
    return " (NIfTI, NRRD, MetaImage, PNG, TIFF or JPEG)"


def _failed(pred: Path, absent: list[str]) -> str:
    """What the ledger of the predictions says of the missing cases."""
    ledger = pred / "ledger.jsonl"
    if not ledger.is_file():
        return ""
    states: dict[str, str] = {}
    for line in ledger.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            states[str(row["case"])] = str(row["state"])
        except (ValueError, KeyError, TypeError):
            continue
    failed = [name for name in absent if states.get(name) == "failed"]
    return f" ({len(failed)} of them failed, says its ledger)" if failed else ""


def _label_files(source: Path, what: str) -> dict[str, Path]:
    if is_there(source) and source.is_file():
        return {stem_of(source): source}
    if not (is_there(source) and source.is_dir()):
        raise DatasetError(f"{source}: no such file or folder; give the {what} masks")
    found: dict[str, Path] = {}
    for path in (p for p in _files(source) if not is_probability_file(p)):
        case = _case(path, source)
        if case in found:
            raise DatasetError(f"{found[case]} and {path} both are the {what} of case {case!r}; keep one of them")
        found[case] = path
    if what == "reference" and not found:
        raise DatasetError(f"{source} contains no reference masks (NIfTI, NRRD, MetaImage, PNG, TIFF or JPEG)")
    return found


def _files(folder: Path) -> list[Path]:
    paths = (p for p in sorted(folder.rglob("*")) if is_image_file(p) or is_probability_file(p))
    return [p for p in paths if p.is_file() and not _is_aside(p.relative_to(folder))]


def _is_aside(path: Path) -> bool:
    """Hidden files, and the small pictures and maps of uncertainty that `medseg predict` lays beside its masks."""
    return not {"previews", "uncertainty"}.isdisjoint(path.parts[:-1]) or any(
        is_hidden(Path(part)) for part in path.parts
    )


def _case(path: Path, folder: Path) -> str:
    stem = path.stem if is_probability_file(path) else stem_of(path)
    return composed((path.parent / stem).relative_to(folder).as_posix())


def _files_beside(
    source: Path | None, wanted: Iterable[str], what: str, findings: list[Finding]
) -> dict[str, tuple[Path, ...]]:
    """Case -> its files; cases without one become a finding."""
    if source is None:
        return {}
    names = list(wanted)
    if source.is_file():
        if len(names) == 1:
            return {names[0]: (source,)}
        raise DatasetError(f"{source} is one {what} for {len(names)} cases; give a folder with one per case")
    if not source.is_dir():
        raise DatasetError(f"{source}: no such folder; expected one {what} per case in it")
    found: dict[str, tuple[Path, ...]] = {}
    files = _files(source)
    # Beside stored probabilities lie the masks that were made of them.
    stored = what == "probability file" and any(is_probability_file(path) for path in files)
    for path in files:
        if is_probability_file(path) != stored:
            continue
        case = _case(path, source)
        if case not in names:
            case = _CHANNEL.sub("", case)
        if case in names:
            found[case] = (*found.get(case, ()), path)
    without = sorted(set(names) - set(found))
    if without:
        kind = "no_" + what.replace(" ", "_")
        findings.append(Finding(kind, f"{listed(without, 'case')} without a {what} in {source.name}"))
    return found


def _one_each(found: dict[str, tuple[Path, ...]]) -> dict[str, Path]:
    return {case: paths[0] for case, paths in found.items()}
