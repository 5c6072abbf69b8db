"""`CompositeModel`: a model made of others, which predicts like a single one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.config.crf_options import CrfOptions
from medseg.errors import CheckpointError, ConfigError
from medseg.inference.bundle_info import BundleInfo
from medseg.inference.bundle_parts import COMPOSITES, CompositeInfo
from medseg.inference.composites.engines import MemberEngines
from medseg.inference.composites.mean import mean_labels
from medseg.inference.composites.parts import merged_parts
from medseg.inference.postprocess import keep_largest
from medseg.inference.predictor import Model, as_volume
from medseg.preparation.grid import GridMap
from medseg.volume import Volume

__all__ = ["CompositeModel"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class CompositeModel(Model):
    """A model made of others: an ensemble, a cascade, or parts that find different labels.

    `info` describes the whole as far as a single model's can: labels, and the image that the members expect.

    Args:
        members: by name, in order; of 'parts' with wanted labels only those that are needed.
        composite: contents of `model.json`.
    """

    members: tuple[tuple[str, Model], ...] = ()
    composite: CompositeInfo | None = None

    @property
    def kind(self) -> str:
        """'ensemble', 'cascade' or 'parts'."""
        assert self.composite is not None
        return self.composite.kind

    @property
    def infos(self) -> tuple[BundleInfo, ...]:
        """Contents of `model.json` of every network."""
        return tuple(info for _, member in self.members for info in member.infos)

    @property
    def gives_probabilities(self) -> bool:
        """Whether `predict` can write the probability of each label: not of parts, which never saw each other."""
        return self.kind != "parts"

    @property
    def modules(self) -> Any:
        """A model made of others has no networks of its own.

        Raises:
            CheckpointError: always.
        """
        raise self._refusal("has no network of its own")

    def mirror_axes(self, mirror: bool | None = None) -> tuple[int, ...]:
        """The axes along which any member is mirrored."""
        return tuple(sorted({axis for _, member in self.members for axis in member.mirror_axes(mirror)}))

    def crf_options(self) -> CrfOptions:
        """A CRF sharpens the logits of one network.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"a CRF cannot sharpen the masks of {COMPOSITES[self.kind]}; predict without --crf")

    def stream(self, *arguments: Any, **options: Any) -> Any:
        """Frames go through a single model.

        Raises:
            CheckpointError: always.
        """
        raise self._refusal("cannot be applied to a stream of frames")

    def predict(
        self,
        image: Volume | NDArray[Any],
        affine: NDArray[np.float64] | None = None,
        channels: int = 0,
        *,
        mirror: bool | None = None,
        overlap: float | None = None,
        batch_size: int | None = None,
        crf: CrfOptions | None = None,
        progress: Progress | None = None,
        probabilities: Callable[[tuple[int, ...]], NDArray[np.float16]] | None = None,
        previous: Volume | None = None,
    ) -> Volume:
        """The label map of an image, on the image's own grid; arguments and errors are those of `Model.predict`.

        Raises:
            ConfigError: for a CRF, or probabilities of a model made of parts.
        """
        volume = as_volume(image, affine, channels)
        if crf is not None:
            self.crf_options()
        run = _Run(self, volume, {"mirror": mirror, "overlap": overlap, "batch_size": batch_size}, progress)
        if self.kind == "ensemble":
            return self._mean(run, volume, probabilities)
        if self.kind == "cascade":
            return run.cascade(probabilities)
        if probabilities is not None:
            raise ConfigError("a model made of parts has no probabilities; predict without them")
        assert self.composite is not None
        schemes = {name: member.scheme for name, member in self.members}
        return merged_parts(volume, self.composite, self.scheme, run.callables(), schemes)

    def predict_logits(
        self,
        image: Volume | NDArray[Any],
        affine: NDArray[np.float64] | None = None,
        channels: int = 0,
        *,
        mirror: bool | None = None,
        overlap: float | None = None,
        batch_size: int | None = None,
        crf: CrfOptions | None = None,
        progress: Progress | None = None,
        previous: Volume | None = None,
    ) -> tuple[Any, GridMap]:
        """`Model.predict_logits` of the last member of a cascade.

        Raises:
            CheckpointError: for other kinds, whose members have different grids.
        """
        if self.kind != "cascade":
            raise self._refusal("has no logits on one grid")
        volume = as_volume(image, affine, channels)
        if crf is not None:
            self.crf_options()
        run = _Run(self, volume, {"mirror": mirror, "overlap": overlap, "batch_size": batch_size}, progress)
        return run.last_logits()

    def _mean(
        self, run: _Run, volume: Volume, probabilities: Callable[[tuple[int, ...]], NDArray[np.float16]] | None
    ) -> Volume:
        out = None if probabilities is None else probabilities((len(self.scheme.names), *volume.shape))
        predictions = [partial(_with_probabilities, each, volume) for each in run.callables().values()]
        # Two sure networks that disagree differ by less than half precision resolves; nnU-Net averages in single.
        precision = np.float32 if all(info.source.kind == "nnunet" for info in self.infos) else np.float16
        mask = volume.with_array(mean_labels(predictions, volume.shape, self.scheme, out, precision))
        assert self.composite is not None
        return keep_largest(mask, self.scheme, self.composite.keep_largest)

    def _refusal(self, what: str) -> CheckpointError:
        assert self.composite is not None
        names = ", ".join(f"members/{name}" for name in self.composite.members[:3])
        return CheckpointError(f"a model made of others ({self.kind}) {what}; give one of its members ({names})")


def _with_probabilities(predict: Callable[..., Volume], volume: Volume, make: Callable[..., Any]) -> None:
    predict(volume, probabilities=make)


@dataclass(frozen=True, slots=True)
class _Run:
    """One prediction of all members, with a progress over all of them."""

    model: CompositeModel
    volume: Volume
    options: dict[str, Any]
    progress: Progress | None

    def callables(self) -> dict[str, Callable[..., Volume]]:
        """`predict` of each member by name, with the options of this prediction."""
        return {name: member.predict for name, member in self._members(self.options)}

    def cascade(self, probabilities: Callable[..., Any] | None) -> Volume:
        """The label map of the last member, each seeing that of the one before."""
        found: Volume | None = None
        members = self.callables()
        for number, predict in enumerate(members.values(), 1):
            last = number == len(members)
            found = predict(self.volume, previous=found, probabilities=probabilities if last else None)
        assert found is not None
        return found

    def last_logits(self) -> tuple[Any, GridMap]:
        """The logits of the last member of a cascade."""
        *before, (_, last) = self._members(self.options)
        found: Volume | None = None
        for _, member in before:
            found = member.predict(self.volume, previous=found)
        return last.model.predict_logits(self.volume, previous=found, **last.options)

    def _members(self, options: dict[str, Any]) -> list[tuple[str, _Member]]:
        engines = self.model.engine
        assert isinstance(engines, MemberEngines)
        count = len(self.model.members)
        made = []
        for number, ((name, member), engine) in enumerate(zip(self.model.members, engines.engines, strict=True)):
            progress = None if self.progress is None else _share(self.progress, number, count)
            made.append((name, _Member(replace(member, engine=engine), {**options, "progress": progress})))
        return made


@dataclass(frozen=True, slots=True)
class _Member:
    model: Model
    options: dict[str, Any]

    def predict(self, volume: Volume, **more: Any) -> Volume:
        return self.model.predict(volume, **self.options, **more)


def _share(progress: Progress, number: int, count: int) -> Progress:
    return lambda done, total: progress(number * total + done, count * total)
