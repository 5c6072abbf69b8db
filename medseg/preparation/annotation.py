"""Cases in which not every label is annotated: checks before training, and how often each label occurs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from medseg.datasets.records import Case
from medseg.errors import DatasetError
from medseg.labels import LabelScheme
from medseg.preparation.case_features import CaseFeatures
from medseg.preparation.fingerprint import CaseFingerprint
from medseg.volume import Finding

__all__ = ["annotated_features", "annotation_findings", "channel_frequencies", "check_annotation"]

_SHOWN = 5


def check_annotation(
    cases: Sequence[Case],
    fingerprints: Sequence[CaseFingerprint],
    scheme: LabelScheme,
    training: Sequence[Sequence[str]],
    taught: Collection[str] = (),
) -> None:
    """Refuse label maps that hold what is said not to be annotated, and labels that no training case has annotated.

    A value of several regions may occur where one of them is annotated.

    Args:
        cases: with the names of their annotated labels.
        fingerprints: which values each case holds.
        scheme: of the data set.
        training: of each fold that is trained, the names of its training cases.
        taught: labels that a model teaches, so that no case needs to have them annotated.

    Raises:
        DatasetError: naming the label, the cases and what to do.
    """
    annotated = {case.name: case.annotated for case in cases if case.annotated is not None}
    if not annotated:
        return
    for name, values in zip(scheme.names, scheme.values, strict=True):
        wrong = [
            case.name
            for case in fingerprints
            if case.name in annotated
            and name not in annotated[case.name]
            and any(case.label_voxels.get(v) for v in values if not _is_of(v, annotated[case.name], scheme))
        ]
        if wrong:
            raise DatasetError(
                f"label {name!r} occurs in {_some(wrong)}, where data.annotated (or the column annotated) leaves it "
                f"out; name it there, or take it out of the label map{'s' if len(wrong) > 1 else ''}"
            )
        for fold, names in enumerate(training):
            if name not in taught and not any(case not in annotated or name in annotated[case] for case in names):
                which = "the training cases" if len(training) == 1 else f"the training cases of fold {fold}"
                raise DatasetError(
                    f"label {name!r} is annotated in none of {which}, so nothing could be learned of it; give another "
                    "data.split or training.fold, or take the label out of data.labels"
                )


def annotation_findings(cases: Sequence[Case], scheme: LabelScheme) -> list[Finding]:
    """A finding that says how many cases have each label annotated; none where all have all."""
    partial = tuple(case.name for case in cases if case.annotated is not None)
    if not partial:
        return []
    counts = [
        f"{name} in {sum(case.annotated is None or name in case.annotated for case in cases)}" for name in scheme.names
    ]
    message = (
        f"{len(partial)} of {len(cases)} cases have only some labels annotated ({', '.join(counts)}); the others are "
        "neither trained nor scored there"
    )
    return [Finding("partial_labels", message, partial)]


def channel_frequencies(
    cases: Sequence[Case], fingerprints: Sequence[CaseFingerprint], scheme: LabelScheme
) -> list[float]:
    """Fraction of voxels of each output channel, background first (regions: of each region).

    Each label is counted in the cases that have it annotated; the background is the rest.

    Args:
        cases: with the names of their annotated labels.
        fingerprints: of these cases, and no others.
        scheme: of the data set.
    """
    annotated = {case.name: case.annotated for case in cases}
    inside = []
    for name, values in zip(scheme.names, scheme.values, strict=True):
        counts: Counter[int] = Counter()
        for case in fingerprints:
            names = annotated.get(case.name)
            if names is None or name in names:
                counts.update(case.label_voxels)
        total = sum(n for value, n in counts.items() if value != scheme.ignore) or 1
        inside.append(sum(counts[v] for v in values) / total)
    return inside if scheme.is_regions else [max(0.0, 1.0 - sum(inside)), *inside]


def annotated_features(features: CaseFeatures, annotated: Sequence[str] | None, names: Sequence[str]) -> CaseFeatures:
    """The features of a case without those of labels that are not annotated, which count as present.

    Whether a label is always present is then decided by the cases that have it annotated.

    Args:
        features: of the case, in the order of `names`.
        annotated: names of its annotated labels; None: all.
        names: of all labels.
    """
    if annotated is None:
        return features
    out = {number for number, name in enumerate(names) if name not in annotated}
    return replace(
        features,
        features=tuple(each for each in features.features if each.label not in out),
        present=tuple(held or number in out for number, held in enumerate(features.present)),
    )


def _is_of(value: int, annotated: Sequence[str] | None, scheme: LabelScheme) -> bool:
    """Whether a value belongs to a label that is annotated."""
    pairs = zip(scheme.names, scheme.values, strict=True)
    return any(value in values for name, values in pairs if annotated is None or name in annotated)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return f"case{'s' if len(names) > 1 else ''} {shown}"
