"""Compares a case with the reference ranges of the training cases; each relevant difference becomes a finding."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medseg.inference.bundle_info import BundleInfo
from medseg.labels import LabelScheme
from medseg.preparation.case_features import CaseFeatures, measure_case
from medseg.preparation.training_range import KINDS, ComparedFeature, TrainingRange
from medseg.volume import Finding, Volume

__all__ = ["OUTSIDE", "REVIEW", "CaseCheck", "check_case", "examine_case", "needs_review"]

# Beginning of the kinds of findings that ask for review.
REVIEW = "review_"
OUTSIDE = "features outside the training ranges"
"""The figure that counts the features of a case that lie outside the reference ranges."""
# Kinds of features that show another scanner, protocol or noise level whatever the mask is.
_FIGURES = frozenset({"spacing", "level", "grain"})
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class CaseCheck:
    """A case compared with the training cases.

    Args:
        findings: see `check_case`.
        figures: name -> value: spacing, grey levels and difference of neighbouring voxels of the image as the network
            sees them, and `OUTSIDE`; empty where the bundle contains no reference ranges.
    """

    findings: tuple[Finding, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)


def check_case(image: Volume, mask: Volume, info: BundleInfo) -> tuple[Finding, ...]:
    """Compare a case and its mask with the training cases of a model.

    Args:
        image: as read.
        mask: the predicted label map on the same grid.
        info: of the model.

    Returns:
        One finding per kind of difference, describing the worst feature; none where all is as in training, or where the
        bundle contains no reference ranges (written before they were measured). Each asks for review.

    Example:
        >>> image, mask = medseg.read("study/"), medseg.read("references/study.nii.gz")
        >>> not_in_hu = image.with_array(image.array + 1000)
        >>> check_case(not_in_hu, mask, medseg.load_model("runs/lung/model").info)[0].message
        'grey level at 1% is -20, trained on -1022 to -1020: another scanner, sequence or contrast phase, or a CT ...
    """
    return examine_case(image, mask, info).findings


def examine_case(image: Volume, mask: Volume, info: BundleInfo) -> CaseCheck:
    """As `check_case`, with the figures that later cases can be compared by.

    Args:
        image, mask, info: see `check_case`.
    """
    known = info.reference_ranges
    if known is None:
        return CaseCheck()
    case = measure_case(image, mask, info.scheme, known.background).normalized(info.plan.zscored)
    channels = len(info.plan.zscored)
    figures = {
        feature.what + (f" in channel {feature.channel + 1}" if feature.channel >= 0 and channels > 1 else ""): float(
            f"{feature.value:.{_DIGITS}g}"
        )
        for feature in case.features
        if feature.kind in _FIGURES and math.isfinite(feature.value)
    }
    figures[OUTSIDE] = float(sum(compared.distance > 1 for compared in known.compare(case)))
    return CaseCheck(findings_of(case, known, info.scheme, image), figures)


def needs_review(findings: Sequence[Finding]) -> bool:
    """Whether any of the findings asks for a look at the mask."""
    return any(finding.kind.startswith(REVIEW) for finding in findings)


def findings_of(case: CaseFeatures, known: TrainingRange, scheme: LabelScheme, image: Volume) -> tuple[Finding, ...]:
    """The findings of a case that is measured already; of `image` only the modality and the scale are used."""
    found = []
    modality = image.metadata.modality
    if modality and known.modalities and modality not in known.modalities:
        found.append(Finding(f"{REVIEW}modality", f"modality is {modality}, trained on {', '.join(known.modalities)}"))
    if image.spacing_known != known.spacing_known:
        found.append(
            Finding(
                f"{REVIEW}scale",
                "the image has no physical scale, the training cases have one"
                if known.spacing_known
                else "the image has a physical scale, the training cases have none",
            )
        )
    by_kind: dict[str, list[ComparedFeature]] = defaultdict(list)
    for compared in known.compare(case):
        if compared.distance > 1:
            by_kind[compared.span.kind].append(compared)
    channels = len(known.pictures)
    for kind, several in by_kind.items():
        sentence = _sentence(several, scheme, channels)
        found.append(
            Finding(f"{REVIEW}{kind}", sentence if known.spacing_known else sentence.replace(" mm", " pixels"))
        )
    order = known.better_order(case)
    if order is not None:
        shown = ", ".join(str(n + 1) for n in order)
        found.append(
            Finding(f"{REVIEW}channel_order", f"the channels look swapped: they fit training in the order {shown}")
        )
    for name, always, present in zip(scheme.names, known.always_present, case.present, strict=False):
        if always and not present:
            found.append(
                Finding(f"{REVIEW}absent", f"{name} was not found; each of the {known.cases} training cases holds it")
            )
    return tuple(found)


def _sentence(several: Sequence[ComparedFeature], scheme: LabelScheme, channels: int) -> str:
    """The worst feature of one kind in words, and how many more there are."""
    worst = max(several, key=lambda compared: compared.distance)
    feature, span = worst.feature, worst.span
    kind = KINDS[span.kind]
    where = f" of {scheme.names[feature.label]}" if feature.label >= 0 else ""
    where += f" in channel {feature.channel + 1}" if feature.channel >= 0 and channels > 1 else ""
    low, high = f"{span.low:.4g}", f"{span.high:.4g}"
    trained = low if low == high else f"{low} to {high}"
    more = f" ({len(several) - 1} more of this kind)" if len(several) > 1 else ""
    value = f"{feature.value:.4g}{kind.unit}"
    return f"{feature.what}{where} is {value}, trained on {trained}{kind.unit}: {kind.meaning}{more}"
