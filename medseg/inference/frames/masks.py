"""One frame to one mask: the model as `predict` runs it, on the whole frame at once where that finds the same."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.config import NetConfig
from medseg.errors import ConfigError
from medseg.inference.same_labels import holds_labels, same_labels
from medseg.preparation.grid import map_to_network_grid
from medseg.preparation.net_needs import needs_of
from medseg.preparation.patch import total_stride
from medseg.volume import Volume

if TYPE_CHECKING:
    from medseg.inference.predictor import Model

__all__ = ["FrameMasks", "is_new_scene"]

log = logging.getLogger(__name__)

# Pixels of a frame that goes through the network at once without being asked for: 1920 x 1080.
MOST_PIXELS = 2**21
# After so many frames without labels to compare, the windows stay.
MOST_UNDECIDED = 30
# Pixels between those that scenes are compared by.
STEP = 8
# Of the mean deviation of the grey levels: two pictures that have nothing to do with each other differ by 1.4 of it.
NEW_SCENE = 0.7


class FrameMasks:
    """Masks of frames that come one after the other.

    Args:
        model: of 2D images.
        smoothing: share of the earlier logits in [0, 1), see `FrameStream`.
        whole: pass frames as a whole, in windows (False), or as a whole where the labels are the same (None).
        mirror: as in `Model.predict`.

    Raises:
        ConfigError: whole frames for an exported model, whose graph takes windows of one size.
    """

    def __init__(self, model: Model, smoothing: float, whole: bool | None, mirror: bool | None) -> None:
        if model.info.network.format != "safetensors":
            if whole:
                patch = " x ".join(map(str, model.info.plan.patch_size))
                raise ConfigError(
                    f"this model was exported for windows of {patch} pixels, so it cannot take whole frames of another "
                    "size; leave whole out, or stream the model that it was exported from"
                )
            whole = False
        self._model, self._smoothing, self._whole, self._mirror = model, smoothing, whole, mirror
        self._undecided = 0
        self._by_size: dict[tuple[int, ...], Model] = {}
        self._mean: NDArray[np.float32] | None = None
        self._scene: NDArray[np.float32] | None = None

    def of(self, frame: Volume) -> Volume:
        """The label map of a frame, on its grid.

        Raises:
            GeometryError, ReadError: as `Model.predict`.
        """
        model = self._model_for(frame)
        if not self._smoothing:
            return model.predict(frame, mirror=self._mirror)
        logits, grid = model.predict_logits(frame, mirror=self._mirror)
        return model.to_labels(self._smooth(_as_array(logits), frame), grid, frame)

    def _smooth(self, logits: NDArray[np.float32], frame: Volume) -> NDArray[np.float32]:
        """The running mean of the logits, kept in one array for as long as the scene and its size stay."""
        scene = frame.array[..., ::STEP, ::STEP].astype(np.float32)
        former, self._scene = self._scene, scene
        if self._mean is None or self._mean.shape != logits.shape or former is None or is_new_scene(former, scene):
            self._mean = logits.copy()
        else:
            self._mean *= self._smoothing
            self._mean += (1 - self._smoothing) * logits
        return self._mean

    def _model_for(self, frame: Volume) -> Model:
        """The model with a window of this frame's size, or as it is."""
        if self._whole is False:
            return self._model
        plan = self._model.info.plan
        shape = map_to_network_grid(frame, plan).network_shape
        if shape == plan.patch_size:
            return self._model
        whole = self._by_size.get(shape) or self._with_window(shape)
        if self._whole is None:
            self._whole = self._same_on(frame, whole) if math.prod(shape) <= MOST_PIXELS else False
            if self._whole is None:
                return self._model
            how = "as a whole" if self._whole else "in windows of the training's size, as the labels differ otherwise"
            log.info("frames of %s pixels go through the network %s", " x ".join(map(str, shape)), how)
        if not self._whole:
            return self._model
        # Frames of one stream have one size; a folder of pictures may have many.
        self._by_size = {shape: whole}
        return whole

    def _with_window(self, shape: Sequence[int]) -> Model:
        info = self._model.info
        needs = needs_of(NetConfig(name=info.net.name, backbone=info.net.backbone, options=info.net.options))
        strides = total_stride(info.plan.strides) if needs is None else (needs.stride,) * len(shape)
        sides = tuple(-(-n // stride) * stride for n, stride in zip(shape, strides, strict=True))
        return replace(
            self._model,
            info=info.model_copy(update={"plan": info.plan.model_copy(update={"patch_size": sides})}),
        )

    def _same_on(self, frame: Volume, whole: Model) -> bool | None:
        """Whether a pass over the whole frame finds the same as windows do; None where there is nothing to find."""
        expected = self._model.predict(frame, mirror=self._mirror).array[None]
        if not holds_labels(expected).any():
            self._undecided += 1
            return False if self._undecided >= MOST_UNDECIDED else None
        return same_labels(expected, whole.predict(frame, mirror=self._mirror).array[None])


def is_new_scene(former: NDArray[np.float32], scene: NDArray[np.float32]) -> bool:
    """Whether two frames, thinned out alike, have so little in common that the first says nothing about the second.

    Example:
        >>> one, other = np.random.default_rng(0).random((2, 30, 40), dtype=np.float32)
        >>> is_new_scene(one, other), is_new_scene(one, 0.8 * one + 0.2 * other)
        (True, False)
    """
    if former.shape != scene.shape:
        return True
    deviation = float(np.abs(former - former.mean()).mean() + np.abs(scene - scene.mean()).mean()) / 2
    return float(np.abs(former - scene).mean()) > NEW_SCENE * max(deviation, 1e-6)


def _as_array(logits: Any) -> NDArray[np.float32]:
    return logits if isinstance(logits, np.ndarray) else np.asarray(logits.cpu())
