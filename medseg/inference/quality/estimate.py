"""`--estimate-quality`: the Dice that a mask would probably get, and where the model is not sure.

A logistic regression of true Dice on how sure the probabilities are, how well folds and mirror images agree, whether
the mask is stable under small alterations of the image, and how far image and mask lie from the training cases. It is
fitted after the training, see `medseg.training.calibrate`. It recognises masks that failed; it does not rank good ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from medseg.errors import CheckpointError
from medseg.inference.bundle_info import BundleInfo
from medseg.inference.calibration import VERSION, calibration_inputs
from medseg.inference.predictor import Model
from medseg.inference.quality.check import REVIEW
from medseg.inference.quality.disagreement import Disagreement, disagreement
from medseg.preparation.case_features import measure_case
from medseg.volume import Finding, Volume

__all__ = ["LEAST_DICE", "QualityEstimate", "calibration_inputs_of_case", "check_calibrated", "estimate_quality"]

# A mask whose predicted Dice is below this asks for review.
LEAST_DICE = 0.7


@dataclass(frozen=True, slots=True)
class QualityEstimate:
    """How good a mask probably is.

    Args:
        dice: per label; 0 where nothing was found that every training case holds, None where it may be absent.
        uncertainty: `(I, J[, K])` on the image's grid, uint8: 0 (certain) to 100 (undecided), the binary entropy of
            the least certain label in hundredths of a bit.
        findings: a 'review_quality' for each label whose predicted Dice is below 0.7.
    """

    dice: tuple[float | None, ...]
    uncertainty: Volume
    findings: tuple[Finding, ...]


def check_calibrated(info: BundleInfo) -> None:
    """Refuse a model that was not calibrated, or for the inputs of another version.

    Raises:
        CheckpointError: saying how to do it.
    """
    if info.calibration is None or info.calibration.version != VERSION or info.reference_ranges is None:
        raise CheckpointError(
            "the model was not calibrated for this --estimate-quality; repeat its training command with --resume and "
            "prediction.quality=calibrate (at least 3 validation cases), or predict without --estimate-quality"
        )


def estimate_quality(
    model: Model,
    image: Volume,
    mask: Volume,
    overlap: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> QualityEstimate:
    """Predict the Dice of each label of a mask. Costs a pass per fold and mirror axis, and three more per fold.

    Args:
        model: calibrated.
        image: as read.
        mask: the predicted label map on the same grid.
        overlap: of windows, as for `Model.predict`.
        progress: called with (windows done, windows in all).

    Raises:
        CheckpointError: a model that was not calibrated.
        GeometryError, ReadError: as `Model.predict`.

    Example (with a trained and calibrated model):
        >>> estimate_quality(model, image, model.predict(image)).dice  # doctest: +SKIP
        (0.91, 0.64)
    """
    check_calibrated(model.info)
    assert model.info.calibration is not None and model.info.reference_ranges is not None
    found = disagreement(model, image, overlap, progress)
    dice: list[float | None] = []
    for number, inputs in enumerate(calibration_inputs_of_case(model.info, image, mask, found)):
        expected = model.info.reference_ranges.always_present[number]
        empty = 0.0 if expected else None
        dice.append(empty if inputs is None else round(model.info.calibration.predict(inputs), 4))
    findings = tuple(
        Finding(
            f"{REVIEW}quality",
            f"predicted Dice of {name} is {each:.3f}, below {LEAST_DICE}: look at the mask",
        )
        for name, each in zip(model.scheme.names, dice, strict=True)
        if each is not None and each < LEAST_DICE
    )
    return QualityEstimate(tuple(dice), found.uncertainty, findings)


def calibration_inputs_of_case(
    info: BundleInfo, image: Volume, mask: Volume, found: Disagreement
) -> tuple[tuple[float, ...] | None, ...]:
    """Per label the inputs of `Calibration`; None for a label that the mask does not hold.

    Args:
        info: with reference ranges.
        image, mask: on one grid.
        found: disagreement of the ensemble members on this image.
    """
    assert info.reference_ranges is not None
    case = measure_case(image, mask, info.scheme, info.reference_ranges.background).normalized(info.plan.zscored)
    # Of the image (-1) and of each label, per kind of feature the largest distance.
    far: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for compared in info.reference_ranges.compare(case):
        kinds = far[compared.feature.label]
        kinds[compared.span.kind] = max(kinds[compared.span.kind], compared.distance)
    return tuple(
        calibration_inputs(
            found.expected[n], found.agreement[n], found.stability[n], [*far[-1].values()], [*far[n].values()]
        )
        if present
        else None
        for n, present in enumerate(case.present)
    )
