"""The cases of a data set, with their labels and channels."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from medseg.config import DataConfig
from medseg.datasets.annotated import with_annotation
from medseg.datasets.corrected import with_corrections
from medseg.datasets.layouts import find_layout
from medseg.datasets.patients import find_patients
from medseg.datasets.records import Case, Layout
from medseg.errors import ConfigError, DatasetError
from medseg.io.naming import composed
from medseg.labels import LabelScheme, check_label_bounds
from medseg.volume import Finding

__all__ = [
    "Case",
    "Dataset",
    "find_cases",
]


_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Dataset:
    """The cases of a data set, sorted by name, and the meaning of their labels and channels.

    Args:
        cases: at least one, with unique names.
        labels: from `data.labels`, otherwise from the data set's own `dataset.json`.
        channel_names: modality or name of each channel, () if neither the config nor the data set names them.
        folds: names of the validation cases of each fold, from `splits_final.json`; () if there is none.
        train_folds: names of the training cases of each fold, likewise; () if it does not list them.
        findings: what was taken for a patient, and what the user should know of the layout.
        patients_found: whether cases were brought together that the data set itself does not call one patient's.
    """

    cases: tuple[Case, ...]
    labels: LabelScheme
    channel_names: tuple[str, ...]
    folds: tuple[tuple[str, ...], ...] = ()
    train_folds: tuple[tuple[str, ...], ...] = ()
    findings: tuple[Finding, ...] = ()
    patients_found: bool = False


def find_cases(data: DataConfig) -> Dataset:
    """The cases of the data set at `data.root`, with their patients. Of DICOM studies headers are read, no pixel.

    Layouts: MSD and nnU-Net raw (`imagesTr`, `labelsTr`, `dataset.json`), `images/` with `labels/` or `masks/`, CSV,
    masks beside their images, DICOM studies with a SEG or RTSTRUCT each (their headers are read).

    Raises:
        DatasetError: if there are no cases, a file or column is missing, two cases share a name, or numbers of channels
            differ.
        ConfigError: if neither `data.labels` nor the data set names the labels, `data.group` matches no name, or
            `data.annotated` does not fit cases and labels.

    Example:
        >>> dataset = find_cases(DataConfig(root="chest", labels={"lung": 1, "tumour": 2}))
        >>> len(dataset.cases), dataset.labels.names
        (10, ('lung', 'tumour'))
    """
    layout = find_layout(data)
    if data.corrected is not None:
        layout = with_corrections(layout, data.corrected)
    if not layout.cases:
        raise DatasetError(f"{data.root} contains no cases ({layout.name} layout); check data.root and data.layout")
    names = [c.name for c in layout.cases]
    twice = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise DatasetError(f"{data.root}: two cases are called {twice[0]!r}; give each a unique name")
    counts = {len(c.images): c for c in layout.cases}
    if len(counts) > 1:
        (a, first), (b, second), *_ = sorted(counts.items())
        raise DatasetError(
            f"{data.root}: case {first.name!r} has {a} channel file(s), case {second.name!r} has {b}; every case needs "
            "the same channels"
        )
    _check_folds(layout, set(map(composed, names)), data)
    scheme = _scheme(data, layout)
    cases = with_annotation(data, sorted(layout.cases, key=lambda c: c.name), scheme)
    patients = find_patients(cases, data.group)
    return Dataset(
        patients.cases,
        scheme,
        _channel_names(data, layout),
        layout.folds,
        layout.train_folds,
        (*layout.findings, *_unlisted(layout, data), *patients.findings),
        patients.found,
    )


def _check_folds(layout: Layout, known: Set[str], data: DataConfig) -> None:
    for fold, validation in enumerate(layout.folds):
        train = layout.train_folds[fold] if layout.train_folds else ()
        where = f"splits_final.json of {data.root}: fold {fold}"
        missing = sorted(name for name in {*validation, *train} if composed(name) not in known)
        if missing:
            raise DatasetError(f"{where} names {missing[0]!r}, which is not a case")
        both = sorted({*validation} & {*train})
        if both:
            raise DatasetError(f"{where} lists {both[0]!r} for training and for validation; keep it in one list")


def _unlisted(layout: Layout, data: DataConfig) -> tuple[Finding, ...]:
    """A finding for cases that no list of `splits_final.json` names, where it decides."""
    if data.split is not None or not layout.train_folds:
        return ()
    listed = {composed(name) for fold in (*layout.folds, *layout.train_folds) for name in fold}
    without = tuple(sorted(case.name for case in layout.cases if composed(case.name) not in listed))
    if not without:
        return ()
    shown = ", ".join(without[:_SHOWN]) + (f" and {len(without) - _SHOWN} more" if len(without) > _SHOWN else "")
    message = (
        f"{len(without)} of {len(layout.cases)} cases are in no list of splits_final.json and neither train nor "
        f"validate: {shown}; add them to its lists, or give data.split"
    )
    return (Finding("cases_in_no_split", message, without),)


def _scheme(data: DataConfig, layout: Layout) -> LabelScheme:
    if data.labels is not None:
        return LabelScheme.from_mapping(data.labels, data.ignore)
    if layout.labels:
        labels = LabelScheme.from_mapping(layout.labels, layout.ignore if data.ignore is None else data.ignore)
        check_label_bounds(layout.labels, labels.ignored)
        return labels
    raise ConfigError(
        f"the meaning of the labels of {data.root} is unknown; write e.g. 'data: {{labels: {{lung: 1, tumour: 2}}}}' "
        "into the config (name: integer in the label maps), because label values are never guessed"
    )


def _channel_names(data: DataConfig, layout: Layout) -> tuple[str, ...]:
    if data.modality is None:
        return layout.channel_names
    names = (data.modality,) if isinstance(data.modality, str) else data.modality
    files = len(layout.cases[0].images)
    if len(names) == 1:
        return names * max(len(layout.channel_names), files)
    if files > 1 and len(names) != files:
        raise ConfigError(f"data.modality names {len(names)} channels, the cases of {data.root} have {files}")
    return names
