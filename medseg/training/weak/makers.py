"""What turns a case into steps towards its label map: a classifier's activation maps, or boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from medseg.config import RunConfig
from medseg.labels import LabelScheme
from medseg.nets.classifier import Classifier
from medseg.resampling import average_array, resample_array
from medseg.training.weak.boxes import Box, BoxSource, box_odds, boxes_in
from medseg.training.weak.classify import batch_of
from medseg.training.weak.maps import WAYS
from medseg.training.weak.pictures import Levels, Picture, dims_of, levels_of, part_of, picture_of, slices_of
from medseg.training.weak.refine import Steps, from_boxes, from_maps, scaled_together
from medseg.volume import Volume

__all__ = ["BoxMaker", "ClassifierMaker", "Made", "Maker"]


@dataclass(frozen=True, slots=True)
class Made:
    """What is known of an image, or of a slice of one.

    Args:
        index: of the slice; None: the whole image.
        shown: names of its labels; None where nobody said, and all of it is ignored.
        steps: towards its label map; None where it shows no label.
        allowed: `(labels, I, J[, K])` on the image's own grid, where each label may be.
        place: the part of the image, along its axes, that steps and `allowed` cover.
        probabilities: of the labels, by the classifier.
    """

    index: int | None
    shown: frozenset[str] | None
    steps: Steps | None = None
    allowed: NDArray[np.bool_] | None = None
    place: tuple[slice, ...] = ()
    probabilities: Mapping[str, float] | None = None


class Maker(Protocol):
    """Gives the images of a case, one after the other."""

    def images(self, case: str, image: Volume, labels: Volume | None) -> Iterator[Made]:
        """What is known of the images of a case, or of its slices.

        Args:
            case: its name.
            image: channels first.
            labels: its label map, where the data set has one.
        """
        ...


class ClassifierMaker:
    """Label maps from the activation maps of a classifier.

    Args:
        net: in eval mode.
        pictures: all of them.
        scheme: of the labels.
        config: `weak` and `net.dims` count.
        device: of the network.
    """

    def __init__(
        self, net: Classifier, pictures: Sequence[Picture], scheme: LabelScheme, config: RunConfig, device: torch.device
    ) -> None:
        self._net, self._config, self._device, self._scheme = net, config, device, scheme
        self._pictures = {(picture.case, picture.index): picture for picture in pictures}

    def images(self, case: str, image: Volume, labels: Volume | None) -> Iterator[Made]:
        """See `Maker`."""
        indices = slices_of(image, dims_of(image, case, self._config))
        found = {index: self._pictures.get((case, index)) for index in indices}
        pictures = [picture for picture in found.values() if picture is not None and picture.shown]
        steps = dict(zip([picture.index for picture in pictures], self._steps(pictures), strict=True))
        for index, picture in found.items():
            if picture is None:
                yield Made(index, None)
            elif not picture.shown:
                yield Made(index, picture.shown)
            else:
                yield self._made(picture, steps[index], part_of(image.array, index).shape[1:])

    def _steps(self, pictures: Sequence[Picture]) -> list[Steps]:
        """Steps towards the label maps of all slices of a case that show a label."""
        weak, mirrored = self._config.weak, not self._scheme.sides
        if not pictures:
            return []
        allowed = [self._is_shown(picture) & ~picture.empty for picture in pictures]
        images = [batch_of([picture], self._device)[0] for picture in pictures]
        ways = []
        for way in WAYS[weak.method]:
            maps = [way(self._net, image, weak.scales, mirrored).cpu().numpy() for image in images]
            ways.append(scaled_together(maps, allowed))
        mean = [np.mean(each, axis=0) for each in zip(*ways, strict=True)]
        return from_maps(mean, [picture.image.astype(np.float32) for picture in pictures], allowed, weak)

    def _is_shown(self, picture: Picture) -> NDArray[np.bool_]:
        shown = [name in picture.shown for name in self._scheme.names]
        return np.array(shown).reshape(-1, *[1] * picture.empty.ndim)

    def _made(self, picture: Picture, steps: Steps, shape: tuple[int, ...]) -> Made:
        with torch.no_grad():
            probabilities = torch.sigmoid(self._net(batch_of([picture], self._device)))[0].tolist()
        empty = resample_array(picture.empty.astype(np.uint8), shape, 0) > 0
        place = tuple(slice(0, n) for n in shape)
        told = dict(zip(self._scheme.names, probabilities, strict=True))
        return Made(picture.index, picture.shown, steps, self._is_shown(picture) & ~empty, place, told)


class BoxMaker:
    """Label maps from boxes.

    Args:
        boxes: case -> its boxes, or None where the label maps show them.
        scheme: of the labels.
        config: `weak` and `net.dims` count.
    """

    def __init__(self, boxes: BoxSource | None, scheme: LabelScheme, config: RunConfig) -> None:
        self._boxes, self._scheme, self._config = boxes, scheme, config

    def images(self, case: str, image: Volume, labels: Volume | None) -> Iterator[Made]:
        """See `Maker`."""
        found, levels = self.boxes_of(case, image, labels), levels_of(image, self._config.data)
        for index in slices_of(image, dims_of(image, case, self._config)):
            here = [box for box in found if index is None or box.start[2] <= index < box.stop[2]]
            yield self._made(here, index, image, levels) if here else Made(index, frozenset())

    def boxes_of(self, case: str, image: Volume, labels: Volume | None) -> list[Box]:
        """The boxes of a case.

        Raises:
            DatasetError: see `BoxSource.of`.
        """
        if self._boxes is not None:
            return self._boxes.of(case, image.shape, self._scheme)
        assert labels is not None
        return boxes_in(labels.array, self._scheme)

    def _made(self, boxes: Sequence[Box], index: int | None, image: Volume, levels: Sequence[Levels]) -> Made:
        """The boxes of a slice with some of what is around them, where the grey levels of the rest are seen."""
        names, weak = self._scheme.names, self._config.weak
        shape = image.shape if index is None else image.shape[:2]
        low = np.min([box.start for box in boxes], axis=0)[: len(shape)]
        high = np.max([box.stop for box in boxes], axis=0)[: len(shape)]
        around = np.maximum((high - low) // 2, LEAST_AROUND)
        place = tuple(
            slice(max(0, int(a - m)), min(n, int(b + m))) for a, b, m, n in zip(low, high, around, shape, strict=True)
        )
        whole = place if index is None else (*place, slice(index, index + 1))
        moved = [_moved(box, whole) for box in boxes]
        odds, allowed = box_odds(moved, [s.stop - s.start for s in whole], names)
        at = None if index is None else 0
        odds, allowed = part_of(odds, at), part_of(allowed, at)
        array = part_of(image.array[:, *whole], at)
        picture = picture_of(("", index), frozenset(), array, levels, self._config)
        small = picture.empty.shape
        may = average_array(allowed.astype(np.float32), small) > 0
        steps = from_boxes(average_array(odds, small), picture.image.astype(np.float32), may, weak)
        return Made(index, frozenset(box.label for box in boxes), steps, allowed, place)


# Voxels around boxes whose grey levels are those of background.
LEAST_AROUND = 10


def _moved(box: Box, place: Sequence[slice]) -> Box:
    # A box that spans several slices is cut by the one that is looked at, and is widest in its middle.
    start = tuple(a - s.start for a, s in zip(box.start, place, strict=True))
    stop = tuple(b - s.start for b, s in zip(box.stop, place, strict=True))
    return Box(box.label, start, stop, box.where)
