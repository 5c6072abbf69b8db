"""Which prediction belongs to which reference, image and patient."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import DatasetError
from medseg.io.formats import is_hidden, kind_of, stem_of
from medseg.volume import Finding

__all__ = ["Pair", "find_pairs"]

_SHOWN = 8
_CHANNEL = re.compile(r"_\d{4}$")


@dataclass(frozen=True, slots=True)
class Pair:
    """One case to score. `group` is the patient; `images` may be empty."""

    case: str
    pred: Path
    ref: Path
    group: str
    images: tuple[Path, ...] = ()


def find_pairs(
    pred: Path, ref: Path, images: Path | None = None, cases: Path | None = None
) -> tuple[tuple[Pair, ...], tuple[Finding, ...]]:
    """Match predictions to references by case name: the path inside the folder without image suffixes.

    Args:
        pred: folder of predicted label maps, or one file.
        ref: folder of references, or one file.
        images: folder of images (channels as `<case>_0000`), or one file.
        cases: CSV with a column `case`, and `group` or `patient` for cases of the same patient. Only these cases count.

    Raises:
        DatasetError: for a missing folder, no references, two files of one case, or a prediction that is missing.
    """
    if pred.is_file() and ref.is_file():
        case = _file_case(ref)
        preds, refs = {case: pred}, {case: ref}
    else:
        preds, refs = _label_files(pred, "prediction"), _label_files(ref, "reference")
        if len(preds) == len(refs) == 1 and (pred.is_file() or ref.is_file()):
            # A single file was named by hand, so its name need not match.
            preds = dict(zip(refs, preds.values(), strict=True))
    groups = _read_groups(cases) if cases else None
    findings: list[Finding] = []
    if groups is not None:
        absent = sorted(set(groups) - set(refs))
        if absent:
            raise DatasetError(f"{cases} names {_listed(absent, 'case')} without a reference in {ref}")
        left_out = sorted(set(refs) - set(groups))
        if left_out:
            findings.append(
                Finding(
                    "cases_left_out", f"{_listed(left_out, 'reference')} not named in {cases.name if cases else ''}"
                )
            )
        refs = {name: path for name, path in refs.items() if name in groups}
        preds = {name: path for name, path in preds.items() if name not in left_out}
    missing = sorted(set(refs) - set(preds))
    if missing:
        found = f"it holds {_listed(sorted(preds), 'mask')}" if preds else "it holds no masks"
        raise DatasetError(
            f"no prediction in {pred} for {_listed(missing, 'reference')}; {found}. Predict these cases, or name the "
            "cases to score in a CSV with a column 'case' (--cases)"
        )
    extra = sorted(set(preds) - set(refs))
    if extra:
        findings.append(Finding("extra_predictions", f"{_listed(extra, 'prediction')} without a reference, not scored"))
    shown = _image_files(images, refs) if images else {}
    without = sorted(set(refs) - set(shown)) if images else []
    if without:
        findings.append(Finding("no_image", f"{_listed(without, 'case')} without an image in the folder of images"))
    pairs = tuple(
        Pair(name, preds[name], refs[name], groups[name] if groups else name, shown.get(name, ()))
        for name in sorted(refs)
    )
    return pairs, tuple(findings)


def _label_files(source: Path, what: str) -> dict[str, Path]:
    if source.is_file():
        return {_file_case(source): source}
    if not source.is_dir():
        raise DatasetError(f"{source}: no such file or folder; give the {what} masks")
    found: dict[str, Path] = {}
    for path in _files(source):
        case = _case(path, source)
        if case in found:
            raise DatasetError(f"{found[case]} and {path} both are the {what} of case {case!r}; keep one of them")
        found[case] = path
    if what == "reference" and not found:
        raise DatasetError(f"{source} holds no reference masks (NIfTI, NRRD, MetaImage, PNG, TIFF or JPEG)")
    return found


def _files(folder: Path) -> list[Path]:
    paths = (p for p in sorted(folder.rglob("*")) if kind_of(p) in ("nifti", "itk", "raster") and p.is_file())
    return [p for p in paths if not any(is_hidden(Path(part)) for part in p.relative_to(folder).parts)]


def _case(path: Path, folder: Path) -> str:
    return (path.parent / stem_of(path)).relative_to(folder).as_posix()


def _file_case(path: Path) -> str:
    return stem_of(path)


def _image_files(source: Path, wanted: Iterable[str]) -> dict[str, tuple[Path, ...]]:
    if source.is_file():
        return dict.fromkeys(list(wanted)[:1], (source,))
    if not source.is_dir():
        raise DatasetError(f"{source}: no such folder of images")
    found: dict[str, tuple[Path, ...]] = {}
    names = set(wanted)
    for path in _files(source):
        case = _case(path, source)
        if case not in names:
            case = _CHANNEL.sub("", case)
        if case in names:
            found[case] = (*found.get(case, ()), path)
    return found


def _read_groups(path: Path) -> dict[str, str]:
    """Case -> patient, from the columns `case` and `group` (or `patient`) of a CSV."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: cannot be read as a CSV of cases ({error})") from None
    if not rows or "case" not in rows[0]:
        raise DatasetError(f"{path}: expected a CSV with a column 'case', and 'group' for cases of one patient")
    column = next((c for c in ("group", "patient") if c in rows[0]), None)
    return {row["case"]: (row[column] or row["case"]) if column else row["case"] for row in rows if row["case"]}


def _listed(names: list[str], what: str) -> str:
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names)} {what}{'s' if len(names) != 1 else ''} ({shown})"
