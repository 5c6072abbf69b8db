"""Rigid registration of one channel to another, for patients who moved between series; only on request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GeometryError, MissingPartError
from medseg.geometry import flip_lps_ras
from medseg.preparation.deskew import is_orthogonal
from medseg.volume import Volume

__all__ = ["Registration", "register_rigid", "require_simpleitk"]

SEED = 20240501
BINS = 32
# Levels from coarse to fine: shrink factor, smoothing in voxels.
LEVELS = ((4, 2.0), (2, 1.0), (1, 0.0))
SAMPLES = 100_000
STEP_MM, SMALLEST_STEP_MM, ITERATIONS = 2.0, 1e-3, 150
# Below this mutual information (in nats) the images are unrelated; noise alone reaches about 0.01.
LEAST_INFORMATION = 0.05
# Samples differ, so without any motion a little information may be lost.
SMALLEST_GAIN = 0.95
# More than a patient turns or shifts between two series of one examination.
LARGEST_TURN_DEGREES, LARGEST_SHIFT_MM = 45.0, 100.0


@dataclass(frozen=True, slots=True)
class Registration:
    """The result of registering a moving image to a fixed one.

    Args:
        volume: the moving image with its new affine; its voxels are unchanged.
        shift_mm: displacement of the centre of the fixed image's field of view, mm.
        turn_degrees: angle of the rotation.
        information: mutual information at the end, in nats.
    """

    volume: Volume
    shift_mm: float
    turn_degrees: float
    information: float


def require_simpleitk() -> Any:
    """The module SimpleITK.

    Raises:
        MissingPartError: it is not installed.
    """
    try:
        import SimpleITK as sitk
    except ImportError:
        raise MissingPartError(
            "--register needs SimpleITK, which is not installed here: in the folder of medseg, "
            "pip install -c constraints.txt SimpleITK"
        ) from None
    return sitk


def register_rigid(fixed: Volume, moving: Volume) -> Registration:
    """Rotation and shift that align a 3D image with another of the same patient, by mutual information.

    Mattes mutual information of 32 bins over about 100,000 random voxels (fixed seed, one thread: the same result on
    every run), three levels of resolution, regular-step gradient descent. It starts from the header positions, or with
    aligned centres if those positions hardly overlap.

    Args:
        fixed, moving: one channel each, (I, J, K) or (1, I, J, K), with known spacing, on orthogonal grids.

    Raises:
        GeometryError: if the images cannot be registered, or the result is implausible: less information than before,
            hardly any information, or a motion beyond 45 degrees or 100 mm.
        MissingPartError: SimpleITK is not installed.

    Source:
        Mattes et al., PET-CT image registration in the chest, IEEE TMI 22 (2003).
    """
    sitk = require_simpleitk()
    with _one_thread(sitk):
        a, b = _image(sitk, fixed), _image(sitk, moving)
        start = _start(sitk, a, b)
        method = _method(sitk, int(np.prod(fixed.shape)), min(fixed.spacing_mm))
        method.SetInitialTransform(start, inPlace=False)
        try:
            before = -float(method.MetricEvaluate(a, b))
            found = method.Execute(a, b)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1][:160]
            raise GeometryError(f"the registration failed ({reason}); register the series by hand") from None
        # Measured in the same way before and after; the optimiser's last value is from another sample.
        method.SetInitialTransform(found, inPlace=False)
        information = -float(method.MetricEvaluate(a, b))
    matrix = _matrix(found)
    centre = _centre(fixed)
    shift = float(np.linalg.norm((matrix @ centre - centre)[:3]))
    slid = float(np.linalg.norm((matrix @ centre - _matrix(start) @ centre)[:3]))
    turn = float(np.degrees(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1))))
    what = f"moved by {shift:.1f} mm and turned by {turn:.1f} degrees, mutual information {information:.3f}"
    if information < LEAST_INFORMATION or information < SMALLEST_GAIN * before:
        raise GeometryError(
            f"the registration found no match ({what}, {before:.3f} before); are both of the same region?"
        )
    if turn > LARGEST_TURN_DEGREES or slid > LARGEST_SHIFT_MM:
        raise GeometryError(f"the registration gave an impossible motion ({what}); register the series by hand")
    # The transform maps fixed to moving positions; moving the affine back saves an interpolation.
    placed = replace(moving, affine=np.linalg.inv(matrix) @ moving.affine)
    return Registration(placed, shift, turn, information)


@contextmanager
def _one_thread(sitk: Any) -> Iterator[None]:
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _image(sitk: Any, volume: Volume) -> Any:
    if volume.dims != 3 or not volume.spacing_known or volume.channels > 1:
        raise GeometryError(f"registration needs 3D images of one channel with known spacing, found {volume!r}")
    if not is_orthogonal(volume.affine, volume.shape):
        raise GeometryError(f"{volume!r} is on a sheared grid, which cannot be registered")
    array = (volume.array[0] if volume.channels else volume.array).astype(np.float32)
    affine = flip_lps_ras(volume.affine)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(volume.spacing_mm)
    image.SetOrigin(affine[:3, 3].tolist())
    # The nearest rotation, because ITK refuses directions that are not exactly orthogonal.
    left, _, right = np.linalg.svd(affine[:3, :3] / np.array(volume.spacing_mm))
    image.SetDirection((left @ right).ravel().tolist())
    return image


def _method(sitk: Any, voxels: int, spacing_mm: float) -> Any:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    shares = [min(1.0, SAMPLES * shrink**3 / voxels) for shrink, _ in LEVELS]
    method.SetMetricSamplingPercentagePerLevel(shares, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel([shrink for shrink, _ in LEVELS])
    method.SetSmoothingSigmasPerLevel([sigma * spacing_mm for _, sigma in LEVELS])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetOptimizerAsRegularStepGradientDescent(STEP_MM, SMALLEST_STEP_MM, ITERATIONS, relaxationFactor=0.8)
    method.SetOptimizerScalesFromPhysicalShift()
    return method


def _start(sitk: Any, fixed: Any, moving: Any) -> Any:
    """The identity about the fixed image's centre, or aligned centres if that one is outside the moving image."""
    size = fixed.GetSize()
    centre = fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in size])
    there = moving.TransformPhysicalPointToContinuousIndex(centre)
    start = sitk.Euler3DTransform()
    start.SetCenter(centre)
    if not all(0 <= at <= n - 1 for at, n in zip(there, moving.GetSize(), strict=True)):
        middle = moving.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in moving.GetSize()])
        start.SetTranslation([b - a for a, b in zip(centre, middle, strict=True)])
    return start


def _matrix(transform: Any) -> NDArray[np.float64]:
    """(4, 4), fixed to moving positions in RAS mm."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    for axis in range(3):
        matrix[:3, axis] = np.array(transform.TransformPoint(tuple(np.eye(3)[axis].tolist()))) - origin
    matrix[:3, 3] = origin
    lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    return np.asarray(lps @ matrix @ lps)


def _centre(volume: Volume) -> NDArray[np.float64]:
    return np.asarray(volume.affine @ np.array([*((n - 1) / 2 for n in volume.shape), 1.0]))
