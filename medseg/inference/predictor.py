"""`Model`: a bundle with its networks built, ready to predict one image after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.config.crf_options import CrfOptions
from medseg.errors import CheckpointError, ConfigError, GeometryError, ReadError
from medseg.inference.array_ops import Values
from medseg.inference.bundle_info import BundleInfo
from medseg.inference.composites.engines import MemberEngines
from medseg.inference.composites.previous import one_hot
from medseg.inference.device import CpuDevice, require_torch
from medseg.inference.given_networks import GivenNetworks
from medseg.inference.layer_memory import layer_memory_kept
from medseg.inference.postprocess import keep_largest, postprocess
from medseg.inference.probabilities import NativeProbabilities
from medseg.inference.restore import Restorer, to_label_map
from medseg.inference.sliding_window import Body, Passes, logit_slabs, whole_logits
from medseg.inference.tta import allowed_mirror_axes, mean_of
from medseg.inference.window_batch import windows_at_a_time
from medseg.inference.window_grid import Windows, stream_axis
from medseg.labels import LabelScheme
from medseg.preparation.assumptions import findings_of_plan
from medseg.preparation.body import body_box, hounsfield_channels
from medseg.preparation.grid import GridMap, to_network_grid
from medseg.preparation.mirroring import plan_axes
from medseg.preparation.normalize import normalize, scales_for
from medseg.preparation.padding import stated_padding
from medseg.volume import Finding, Volume

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from medseg.inference.engine import NetworkEngine
    from medseg.inference.frames.stream import Frame, FrameStream

__all__ = ["Model", "as_volume"]

# Logit of every label outside of the body: e^-20 beside the background's 0.
ABSENT = -20.0


@dataclass(frozen=True, slots=True)
class Model:
    """A model ready to predict; the networks of all folds are loaded.

    Args:
        info: contents of `model.json`.
        nets: one per fold; their logits are averaged. Modules of torch in eval mode on `device`; or, with
            `GivenNetworks` as their engine, each a `medseg.inference.network.Network`, for which no torch is needed.
        device: where the networks are.
        model_hash: identifies `model.json` and all weights.
        engine: how the networks are run.
        folds: those chosen among the bundle's; None: all.
        compatible: predict by nnU-Net's own steps, see `medseg.inference.half_steps`.

    Example:
        >>> labels = medseg.load_model("runs/lung/model").predict(medseg.read("study/"))
        >>> labels.shape
        (65, 63, 40)
    """

    info: BundleInfo
    nets: tuple[Any, ...]
    device: torch.device | CpuDevice
    model_hash: str
    engine: NetworkEngine | GivenNetworks | MemberEngines
    folds: tuple[int, ...] | None = None
    compatible: bool = False

    @property
    def engine_name(self) -> str:
        """How the networks are run: one of `medseg.inference.engine.ENGINES`; '' until it is chosen."""
        return self.engine.name or ""

    @property
    def engine_versions(self) -> dict[str, str]:
        """What runs the networks, by name: torch, or what an exported model needs."""
        if isinstance(self.engine, GivenNetworks):
            return dict(self.engine.versions)
        import torch

        return {"torch": torch.__version__}

    @property
    def infos(self) -> tuple[BundleInfo, ...]:
        """Contents of `model.json` of every network; of a single model its own."""
        return (self.info,)

    @property
    def gives_probabilities(self) -> bool:
        """Whether `predict` can write the probability of each label."""
        return True

    @property
    def scheme(self) -> LabelScheme:
        """What the values of a predicted label map mean."""
        return self.info.scheme

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The networks as modules of torch.

        Raises:
            CheckpointError: for an exported model, whose networks are not torch's.
        """
        if isinstance(self.engine, GivenNetworks):
            raise CheckpointError(
                f"this is an exported model ({self.info.network.format}); give the model that it was exported from"
            )
        nets: Any = self.nets
        return tuple(nets)

    def mirror_axes(self, mirror: bool | None = None) -> tuple[int, ...]:
        """The axes that are mirrored: those the bundle permits, never left to right if it matters; none for False.

        A `compatible` model mirrors along all that the bundle names.
        """
        if mirror is False:
            return ()
        if self.compatible:
            return self.info.prediction.mirror_axes
        plan = self.info.plan
        if plan.unmirrored is None and self.info.prediction.side_names == "all":
            allowed = allowed_mirror_axes(plan.dims, plan.orientation, self.scheme)
        else:
            allowed = plan_axes(plan, self.scheme)
        return tuple(axis for axis in self.info.prediction.mirror_axes if axis in allowed)

    def supposed_of(self, image: Volume) -> tuple[Finding, ...]:
        """What the plans of all networks suppose of an image, and which mirroring is left out."""
        return tuple(
            each
            for info in self.infos
            for each in findings_of_plan(image, info.plan, () if self.compatible else info.prediction.mirror_axes)
        )

    def crf_options(self) -> CrfOptions:
        """The options of a dense CRF for this model: fitted ones, or for 2D images the defaults.

        Raises:
            ConfigError: for a model of volumes without fitted options; unfitted, a CRF does harm in 3D.
        """
        fitted = self.info.prediction.crf
        if fitted is None and self.info.plan.spatial_dims == 3:
            raise ConfigError(
                "a CRF on volumes needs options that were fitted on validation cases (medseg.nets.crf_fit.fit_crf); "
                "this model has none under prediction.crf in its model.json: predict without --crf"
            )
        return fitted or CrfOptions()

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
        progress: Callable[[int, int], None] | None = None,
        probabilities: Callable[[tuple[int, ...]], NDArray[Any]] | None = None,
        previous: Volume | None = None,
    ) -> Volume:
        """The label map of an image, on the image's own grid.

        Logits become labels slab by slab while the windows go over the image, so that they are never all in memory;
        only a CRF needs them all.

        Args:
            image: a volume; or an array (I, J[, K]), (C, I, J[, K]) if `channels` is C. Grey levels as in the files
                the model was trained on (HU for CT).
            affine: of an array: (4, 4) voxel index to mm in RAS+; without it the spacing is unknown.
            channels: of an array: leading channels, 0 for none.
            mirror: test-time mirroring; None and True: along the axes the bundle permits.
            overlap: least overlap of windows in [0, 1); None: the bundle's.
            batch_size: windows per forward pass; None: see `medseg.inference.window_batch`.
            crf: sharpen the logits by a dense CRF, see `crf_options`; None: leave them.
            progress: called with (windows done, windows in all).
            probabilities: makes the array, (labels, I, J[, K]), which then gets the probability of each label or region
                on the image's own grid; a memory map keeps them out of memory. None: they are not wanted.
            previous: for a member of a cascade, the label map that the member before it found, on the image's grid.

        Returns:
            Integers (I, J[, K]) with the dataset's own label values; affine, metadata and findings are the image's, the
            latter with what the plan of an imported model supposes of it.

        Raises:
            GeometryError: dimensions, channels or an unknown spacing that do not fit the model.
            ReadError: NaN or infinite voxels.
            CheckpointError: for a member of a cascade without `previous`.
            MissingPartError: for a CRF where torch is not installed.
        """
        volume = as_volume(image, affine, channels)
        volume = replace(volume, findings=(*volume.findings, *self.supposed_of(volume)))
        array, grid, box = self._network_input(volume, previous)
        if self.compatible:
            if crf is not None:
                raise ConfigError("nnU-Net has no CRF; predict without one, or without compatible")
            logits = self._half_logits(array, mirror, overlap, progress)
            if probabilities is not None:
                out = probabilities((len(self.scheme.names), *volume.shape))
                self._half_steps.half_chances(logits, grid, self.scheme, self.info.plan.logits.order, out)
            return self.to_labels(logits, grid, volume)
        slabs = self._slabs(array, box, mirror, overlap, batch_size, progress)
        axis = stream_axis(grid.network_shape, self.info.plan.patch_size)
        if crf is not None:
            logits = self._sharpened(whole_logits(slabs, grid.network_shape, axis), array, grid, crf)
            slabs = iter([(logits, 0, grid.network_shape[axis])])
        restorer = Restorer(
            grid.network_shape,
            grid.oriented_shape,
            self.info.net.out_channels,
            self.scheme,
            axis,
            self.info.plan.logits.order,
            grid.thick[1],
        )
        chances = None
        if probabilities is not None:
            out = probabilities((len(self.scheme.names), *volume.shape))
            chances = NativeProbabilities(grid, self.scheme, axis, out, self.info.plan.logits.order)
        for slab, first, last in slabs:
            restorer.add(slab, first, last)
            if chances is not None:
                chances.add(slab, first, last)
        if chances is not None:
            chances.finish()
        return self._mask(restorer.label_map, grid, volume)

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
        progress: Callable[[int, int], None] | None = None,
        previous: Volume | None = None,
    ) -> tuple[Any, GridMap]:
        """Mean logits of all folds, float32 (K, *network grid), and the map that leads back to the image's grid.

        They are a torch tensor on the model's device; of an exported model a numpy array, of a `compatible` one a
        float16 tensor on the CPU. Arguments and errors are those of `predict`.
        """
        array, grid, box = self._network_input(as_volume(image, affine, channels), previous)
        if self.compatible:
            return self._half_logits(array, mirror, overlap, progress), grid
        slabs = self._slabs(array, box, mirror, overlap, batch_size, progress)
        logits = whole_logits(slabs, grid.network_shape, stream_axis(grid.network_shape, self.info.plan.patch_size))
        return (logits if crf is None else self._sharpened(logits, array, grid, crf)), grid

    def stream(self, frames: Iterable[Frame] | None = None, **options: Any) -> FrameStream:
        """Frames in, masks out, for models of 2D images; the arguments are those of `medseg.inference.FrameStream`."""
        from medseg.inference.frames.stream import FrameStream

        return FrameStream(self, frames, **options)

    def to_labels(self, logits: Tensor | NDArray[Any], grid: GridMap, like: Volume) -> Volume:
        """The label map of `predict_logits`, post-processed, on the grid of the image they were made from."""
        order = self.info.plan.logits.order
        if self.compatible:
            return self._mask(self._half_steps.half_labels(logits, grid, self.scheme, order), grid, like)
        return self._mask(to_label_map(logits, grid.oriented_shape, self.scheme, order, grid.thick[1]), grid, like)

    def to_probabilities(self, logits: Tensor | NDArray[Any], grid: GridMap, like: Volume) -> Volume:
        """Probability of each label or region, float16 (labels, I, J[, K]) on the image's grid, without background."""
        native = np.empty((len(self.scheme.names), *like.shape), dtype=np.float16)
        chances = NativeProbabilities(grid, self.scheme, 0, native, self.info.plan.logits.order)
        chances.add(logits, 0, grid.network_shape[0])
        chances.finish()
        return like.with_array(native, channels=len(native))

    def _half_logits(
        self,
        image: NDArray[np.float32],
        mirror: bool | None,
        overlap: float | None,
        progress: Callable[[int, int], None] | None,
    ) -> Any:
        windows = Windows.of(self.info.plan, self.info.overlap if overlap is None else overlap)
        channels, axes = self.info.net.out_channels, self.mirror_axes(mirror)
        return self._half_steps.half_logits(self.nets, image, windows, channels, axes, self.device, progress)

    @property
    def _half_steps(self) -> Any:
        # Needs torch, which other models do without.
        from medseg.inference import half_steps

        return half_steps

    def _mask(self, oriented: NDArray[Any], grid: GridMap, like: Volume) -> Volume:
        rules, mask = self.info.prediction, like.with_array(grid.to_native(oriented))
        return keep_largest(postprocess(mask, self.scheme, rules.postprocess), self.scheme, rules.keep_largest)

    def _sharpened(self, logits: Values, image: NDArray[np.float32], grid: GridMap, crf: CrfOptions) -> Values:
        require_torch("a CRF")
        from medseg.inference.torch_passes import sharpened

        return sharpened(logits, image, grid.network_spacing_mm, crf, self.scheme.is_regions)

    def _slabs(
        self,
        image: NDArray[np.float32],
        box: tuple[slice, ...],
        mirror: bool | None,
        overlap: float | None,
        batch_size: int | None,
        progress: Callable[[int, int], None] | None,
    ) -> Iterator[tuple[Values, int, int]]:
        """The mean logits of all folds, slab by slab."""
        windows = Windows.of(self.info.plan, self.info.overlap if overlap is None else overlap)
        given = isinstance(self.engine, GivenNetworks)
        batch_size = batch_size or windows_at_a_time(self.info.net, windows.patch_size, self.device, not given)
        passes = Passes(batch_size, self.mirror_axes(mirror))
        beyond = [*[0.0] * (not self.scheme.is_regions), *[ABSENT] * len(self.scheme.names)]
        body = Body(box, np.array(beyond, dtype=np.float32))
        channels = self.info.net.out_channels
        with layer_memory_kept() if self.device.type == "cpu" else nullcontext():
            if given:
                yield from logit_slabs(mean_of(self.nets), image, windows, channels, passes, body, progress)
            else:
                yield from self._by_torch.slabs(image, windows, channels, passes, body, progress)

    @property
    def _by_torch(self) -> Any:
        from medseg.inference.torch_passes import TorchPasses

        device: Any = self.device
        engine: Any = self.engine
        return TorchPasses(self.nets, device, engine, self.scheme.is_regions)

    def _network_input(
        self, volume: Volume, previous: Volume | None
    ) -> tuple[NDArray[np.float32], GridMap, tuple[slice, ...]]:
        """What the network sees, the way back, and where something may be found."""
        what = volume.metadata.source or "the image"
        if volume.array.dtype.kind not in "biuf":
            raise ReadError(f"{what} holds {volume.array.dtype} values; a model needs real numbers")
        if volume.array.dtype.kind == "f" and not all(np.isfinite(part).all() for part in volume.array):
            raise ReadError(f"{what} holds NaN or infinite voxels; replace them before prediction")
        if not volume.channels:
            volume = volume.with_array(volume.array[None], channels=1)
        array, grid = to_network_grid(volume, self.info.plan)
        known = self.info.reference_ranges
        box = (
            body_box(array, hounsfield_channels(self.info.plan))
            if known is not None and known.inside_body
            else tuple(slice(0, n) for n in array.shape[1:])
        )
        scales = scales_for(array, self.info.plan, stated_padding(volume.metadata, volume.channels))
        array = normalize(array, scales)
        if self.info.previous_labels:
            if previous is None:
                raise CheckpointError("this network is a member of a cascade; give the cascade, not its member")
            array = np.concatenate([array, one_hot(previous, volume, self.info.previous_labels, grid, self.info.plan)])
        return array, grid, box


def as_volume(image: Volume | NDArray[Any], affine: NDArray[np.float64] | None, channels: int) -> Volume:
    """An image as `Model.predict` takes it, as a volume.

    Raises:
        GeometryError: for a volume beside which an affine or a number of channels is given.
    """
    if isinstance(image, Volume):
        if affine is not None or channels not in (0, image.channels):
            raise GeometryError("a Volume brings its own affine and channels; give them only beside an array")
        return image
    return Volume(
        np.asarray(image), np.eye(4) if affine is None else affine, channels, spacing_known=affine is not None
    )
