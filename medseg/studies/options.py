"""`PredictOptions`: how a batch of studies is predicted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medseg.config import MOST_OVERLAP
from medseg.errors import ConfigError
from medseg.inference.engines.names import ENGINES, unknown_engine
from medseg.inference.load_options import LoadOptions
from medseg.io.dicom.grid import Irregular, check_irregular
from medseg.output_formats import several_formats
from medseg.plugins import permitted_modules

__all__ = ["DEFAULT_MARK", "PredictOptions"]

DEFAULT_MARK = "RESEARCH"
"""What the SeriesDescription of DICOM outputs begins with."""


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """Options of `predict_studies`.

    Args:
        format: 'nifti', 'png', 'dicom-seg', 'rtstruct', 'sr' (measurements), 'capture' (a picture of the contours), or
            several of them joined by commas; None follows the input: PNG for pictures (PNG, JPEG, TIFF, BMP, GIF),
            otherwise NIfTI. The DICOM kinds need DICOM studies.
        series: SeriesInstanceUID, if a study has several; for many studies one of each. Studies without any of them are
            skipped.
        device: 'auto', 'cpu', 'cuda', ...
        save_probabilities: also write `<case>.npz` with float16 `probabilities` (labels, I, J[, K]) and `labels`.
        overwrite: also repeat cases that are done.
        dry_run: find the cases, check the model, write nothing.
        mirror: test-time mirroring; None: as the bundle permits.
        overlap: minimum overlap of windows, 0 to 0.95; None: the bundle's.
        crf: refine the masks with a dense CRF (2D images, or volumes if the bundle contains fitted options).
        time_limit: minutes after which a case is stopped as failed; None: no limit.
        settle: wait until nothing below the sources has been written for this many seconds, at most ten times as long;
            cases whose files are more recent then, or change during the run, fail as still being written. None: 1.
        register: align the channels of a case by a rigid registration; such cases need review.
        fast: permit bfloat16 where the CPU has it and it is faster; a few voxels get another label, see `load_model`.
        estimate_quality: also predict the Dice of each label and write `uncertainty/<case>.nii.gz`, 0 (certain) to 100;
            for models trained with `prediction.quality=calibrate`.
        preview: also write `previews/<case>.png`, the mask outlined on the slice where it covers most.
        anonymize: remove the patient's identity from DICOM outputs (PS3.15 Basic Profile), the ledger, logs and errors;
            cases whose names contain the patient's name, a number or a UID get a pseudonym.
        mark: what the SeriesDescription of DICOM outputs begins with; '' for nothing.
        timestamps: date DICOM outputs now, instead of at the study's date; their bytes then differ from run to run.
        engine: 'local' (this process) or 'ray' (workers on the machines of a Ray cluster, see `RayEngine`).
        network_engine: how the networks are run, see `load_model`; None: measured where that pays.
        allow_code: modules from which the model may take a network that is not part of medseg, see `load_model`; those
            of `MEDSEG_ALLOW_CODE` are added when the options are created, so that workers on other machines agree.
        irregular: what to do with missing or unevenly spaced DICOM slices: 'error' (the case fails), 'resample' (the
            mask lies on the interpolated grid) or 'allow' (treated as evenly spaced); the last two need review.
        folds: the folds of the model to average; None: all.
        roi: the labels that are wanted of a model made of parts; only parts that find them are run. (): all.
        weights: the folder of TotalSegmentator's weights, for models such as `totalsegmentator:total`.
        compatible: repeat nnU-Net's half-precision steps and its mirroring, see `load_model`.
        ensemble: further models, whose probabilities are averaged with the first one's.
        ray_address: HOST:PORT of the cluster's head; None: this machine's cores and GPUs, for this run alone.

    Raises:
        ConfigError: if a format or engine is unknown, an overlap or time is impossible, or `allow_code` names no
            module.
    """

    format: str | None = None
    series: str | tuple[str, ...] | None = None
    device: str = "auto"
    save_probabilities: bool = False
    overwrite: bool = False
    dry_run: bool = False
    mirror: bool | None = None
    overlap: float | None = None
    anonymize: bool = False
    crf: bool = False
    register: bool = False
    time_limit: float | None = None
    settle: float | None = None
    fast: bool = False
    estimate_quality: bool = False
    preview: bool = True
    mark: str = DEFAULT_MARK
    timestamps: bool = False
    engine: str = "local"
    network_engine: str | None = None
    ray_address: str | None = None
    allow_code: tuple[str, ...] = ()
    irregular: Irregular = "error"
    folds: tuple[int, ...] | None = None
    roi: tuple[str, ...] = ()
    weights: str | None = None
    compatible: bool = False
    ensemble: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.format is not None:
            object.__setattr__(self, "format", ",".join(several_formats(self.format)))
        check_irregular(self.irregular)
        object.__setattr__(self, "allow_code", permitted_modules(self.allow_code))
        if self.engine not in ("local", "ray"):
            raise ConfigError(f"engine is {self.engine!r}; choose local or ray")
        if self.ray_address is not None and self.engine != "ray":
            raise ConfigError("a Ray address is given, but the engine is local; add --engine ray")
        if self.network_engine is not None and self.network_engine not in ENGINES:
            raise ConfigError(f"network engine {self.network_engine!r}: {unknown_engine(self.network_engine)}")
        if self.compatible and (self.crf or self.estimate_quality):
            surplus = "--crf" if self.crf else "--estimate-quality"
            raise ConfigError(f"--compatible does what nnU-Net does, which has no {surplus}; omit one of the two")
        _ = self.loading
        if self.overlap is not None and not 0 <= self.overlap <= MOST_OVERLAP:
            raise ConfigError(f"overlap is {self.overlap}; expected a fraction from 0 to {MOST_OVERLAP}, below 1")
        if self.time_limit is not None and not self.time_limit > 0:
            raise ConfigError(f"time limit is {self.time_limit} minutes; expected more than 0")
        if self.settle is not None and not 0 <= self.settle < math.inf:
            raise ConfigError(f"settle is {self.settle} seconds; expected 0 or more")

    @property
    def loading(self) -> LoadOptions:
        """How the model is loaded.

        Raises:
            ConfigError: for choices that contradict each other.
        """
        return LoadOptions(
            self.device,
            self.network_engine,
            self.fast,
            self.allow_code,
            self.folds,
            self.roi,
            self.weights,
            self.compatible,
            self.ensemble,
        )
