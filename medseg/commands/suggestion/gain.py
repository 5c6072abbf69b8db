"""What a model would gain from a study's labels: how unsure it is there, and how unlike the others the study is.

Disagreement is that of the folds, of mirrored passes and of slightly altered copies, and how far the probabilities are
from certain; studies are then taken one after the other, each by its disagreement times its distance from the nearest
study that is already taken, so that ten studies of one kind are not ten times the same lesson (a greedy core set:
Sener and Savarese, ICLR 2018, weighted as in Ash et al., ICLR 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.inference.given_networks import GivenNetworks
from medseg.inference.predictor import Model
from medseg.preparation.case_features import measure_case
from medseg.volume import Volume

__all__ = ["Picked", "StudyGain", "gain_of", "picked"]


@dataclass(frozen=True, slots=True, eq=False)
class StudyGain:
    """How unsure a model is on a study, and what the study looks like.

    Args:
        disagreement: 0 (certain) to 1, mean over the labels.
        picture: block means of the image along the patient's axes, with mean 0 and standard deviation 1.
    """

    disagreement: float
    picture: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Picked:
    """A chosen study: its index, its expected gain, and the two numbers that this is the product of."""

    index: int
    gain: float
    disagreement: float
    distance: float


def gain_of(model: Model, image: Volume) -> StudyGain:
    """Predict a study and measure how far the model agrees with itself.

    Networks that are not torch's, and models made of others, are judged by their probabilities alone.

    Args:
        model: a model.
        image: as for `Model.predict`.

    Raises:
        GeometryError, ReadError: as `Model.predict`.
        ConfigError: a model that gives no probabilities.
    """
    held: list[NDArray[np.float16]] = []

    def kept(shape: tuple[int, ...]) -> NDArray[np.float16]:
        held.append(np.zeros(shape, dtype=np.float16))
        return held[0]

    mask = model.predict(image, probabilities=kept)
    scheme = model.scheme
    found = [scheme.mask(mask.array, name) for name in scheme.names]
    doubts = [[1 - _expected(chance, each)] if each.any() else [] for chance, each in zip(held[0], found, strict=True)]
    if type(model) is Model and not isinstance(model.engine, GivenNetworks):
        from medseg.inference.quality.disagreement import disagreement

        among = disagreement(model, image)
        for doubt, agreement, stability in zip(doubts, among.agreement, among.stability, strict=True):
            doubt += [1 - agreement, 1 - float(np.mean(stability))]
    picture = np.concatenate(measure_case(image, mask, scheme).pictures)
    return StudyGain(float(np.mean([np.mean(doubt) if doubt else 0.0 for doubt in doubts])), picture)


def _expected(chance: NDArray[np.float16], mask: NDArray[np.bool_]) -> float:
    """Dice of the mask with a truth drawn from the probabilities."""
    both = float(chance.sum(dtype=np.float64)) + int(np.count_nonzero(mask))
    return 2 * float(chance[mask].sum(dtype=np.float64)) / both


def picked(studies: Sequence[StudyGain], count: int) -> list[Picked]:
    """The studies to label, the one of the largest expected gain first.

    Args:
        studies: all that there are.
        count: how many to pick, at most.

    Example:
        >>> same, other = np.array([1.0, -1.0]), np.array([-1.0, 1.0])
        >>> studies = [StudyGain(0.5, same), StudyGain(0.4, same), StudyGain(0.2, other)]
        >>> [each.index for each in picked(studies, 2)]
        [0, 2]
    """
    if not studies:
        return []
    pictures = np.array([each.picture for each in studies])
    doubt = np.array([each.disagreement for each in studies])
    distance = np.ones(len(studies))
    taken: list[Picked] = []
    left = list(range(len(studies)))
    while left and len(taken) < count:
        # Of equally promising studies the first; where none promises anything, the most distant one.
        best = max(left, key=lambda n: (doubt[n] * distance[n], distance[n], -n))
        taken.append(Picked(best, float(doubt[best] * distance[best]), float(doubt[best]), float(distance[best])))
        left.remove(best)
        # Half the root mean square difference: 0 for the same picture, 1 for its negative.
        apart = np.sqrt(np.mean((pictures - pictures[best]) ** 2, axis=1)) / 2
        distance = np.minimum(distance, apart)
    return taken
