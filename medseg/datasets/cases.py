"""The cases of a data set, with their labels and channels."""

from __future__ import annotations

from dataclasses import dataclass

from medseg.config import DataConfig
from medseg.datasets.layouts import find_layout
from medseg.datasets.records import Case, Layout
from medseg.errors import ConfigError, DatasetError
from medseg.labels import LabelScheme

__all__ = [
    "Case",
    "Dataset",
    "find_cases",
]


@dataclass(frozen=True, slots=True)
class Dataset:
    """The cases of a data set, sorted by name, and the meaning of their labels and channels.

    Args:
        cases: at least one, with unique names.
        labels: from `data.labels`, otherwise from the data set's own `dataset.json`.
        channel_names: modality or name of each channel, () if neither the config nor the data set names them.
        folds: names of the validation cases of each fold, from `splits_final.json`; () if there is none.
    """

    cases: tuple[Case, ...]
    labels: LabelScheme
    channel_names: tuple[str, ...]
    folds: tuple[tuple[str, ...], ...] = ()


def find_cases(data: DataConfig) -> Dataset:
    """The cases of the data set at `data.root`. No image is opened.

    Layouts: MSD and nnU-Net raw (`imagesTr`, `labelsTr`, `dataset.json`), `images/` with `labels/` or `masks/`, CSV.

    Raises:
        DatasetError: if there are no cases, a file or column is missing, two cases share a name, or numbers of channels
            differ.
        ConfigError: if neither `data.labels` nor a `dataset.json` names the labels.

    Example:
        >>> dataset = find_cases(DataConfig(root="chest", labels={"lung": 1, "tumour": 2}))
        >>> len(dataset.cases), dataset.labels.names
        (10, ('lung', 'tumour'))
    """
    layout = find_layout(data)
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
    known = set(names)
    for fold, validation in enumerate(layout.folds):
        missing = sorted(set(validation) - known)
        if missing:
            raise DatasetError(
                f"splits_final.json of {data.root}: fold {fold} names {missing[0]!r}, which is not a case"
            )
    cases = tuple(sorted(layout.cases, key=lambda c: c.name))
    return Dataset(cases, _scheme(data, layout), _channel_names(data, layout), layout.folds)


def _scheme(data: DataConfig, layout: Layout) -> LabelScheme:
    if data.labels is not None:
        return LabelScheme.from_mapping(data.labels, data.ignore)
    if layout.labels:
        return LabelScheme.from_mapping(layout.labels, layout.ignore if data.ignore is None else data.ignore)
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
