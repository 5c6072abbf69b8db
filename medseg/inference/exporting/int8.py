"""`medseg export --int8`: what to calibrate with, and what is kept of it in `model.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import ConfigError, DatasetError
from medseg.inference.bundle_info import BundleInfo
from medseg.inference.bundle_parts import Int8Info
from medseg.inference.quantisation import Int8Network
from medseg.inference.quantisation.images import image_cases
from medseg.inference.quantisation.windows import CalibrationCase, stored_cases

__all__ = ["Int8Options", "calibration_cases", "int8_info", "refuse_int8"]


@dataclass(frozen=True, slots=True)
class Int8Options:
    """How a network is written in INT8.

    Args:
        calibration: folder of images, or of a run, to measure on; None: of the run that the model lies in.
        max_loss: Dice that may be lost, 0 to 1.

    Raises:
        ConfigError: a loss out of range.

    Example:
        >>> Int8Options(max_loss=0.002).calibration is None
        True
    """

    calibration: Path | None = None
    max_loss: float = 0.005

    def __post_init__(self) -> None:
        if not 0 <= self.max_loss <= 1:
            raise ConfigError(f"--max-loss is {self.max_loss:g}; expected a loss of Dice from 0 to 1, such as 0.005")


def refuse_int8(info: BundleInfo, format: str) -> None:
    """Refuse a format that has no INT8 of such a network.

    Raises:
        ConfigError: a 3D network for ONNX Runtime.
    """
    if format == "onnx" and info.net.dims == 3:
        raise ConfigError(
            "ONNX Runtime has no 8-bit convolutions of volumes; write a 3D network in INT8 with --format openvino"
        )


def calibration_cases(model: Path, info: BundleInfo, options: Int8Options) -> list[CalibrationCase]:
    """Windows of real cases.

    Args:
        model: the bundle.
        info: its `model.json`.
        options: where the cases are.

    Raises:
        DatasetError: no cases, or cases of another model.
    """
    places = (model, model.parent) if options.calibration is None else (options.calibration,)
    for place in places:
        for prepared in (place / "prepared", place):
            if any(prepared.glob("*/case.json")):
                return stored_cases(prepared, info.plan, info.scheme)
    if options.calibration is None:
        raise DatasetError(
            f"{model} does not lie in its run folder, so there are no prepared cases to measure on; give --calibration "
            "a folder of images, or the run"
        )
    return image_cases(options.calibration, info)


def int8_info(parts: Sequence[Int8Network]) -> Int8Info:
    """What `model.json` keeps of the networks of all folds: the worst of each."""
    return Int8Info(
        loss=max(each.loss for each in parts),
        against="labels" if all(each.by_labels for each in parts) else "float32",
        cases=min(each.cases for each in parts),
        size=max(each.bytes / each.float_bytes for each in parts),
        speed=min(each.float_seconds / each.seconds for each in parts),
        floating=tuple(dict.fromkeys(name for each in parts for name in each.floating)),
        seven_bits=parts[0].reduced,
    )
