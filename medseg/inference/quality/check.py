"""Compares a case with the reference ranges of the training cases; each relevant difference becomes a finding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from medseg.inference.bundle_info import BundleInfo
from medseg.labels import LabelScheme
from medseg.preparation.case_features import CaseFeatures, measure_case
from medseg.preparation.training_range import KINDS, ComparedFeature, TrainingRange
from medseg.volume import Finding, Volume

__all__ = ["REVIEW", "check_case", "needs_review"]

# Beginning of the kinds of findings that ask for review.
REVIEW = "review_"


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
    if info.reference_ranges is None:
        return ()
    case = measure_case(image, mask, info.scheme, info.reference_ranges.background).normalized(info.plan.zscored)
    return findings_of(case, info.reference_ranges, info.scheme, image)


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
