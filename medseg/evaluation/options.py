"""`EvaluateOptions`: how masks are scored, and what is given in addition to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import ConfigError
from medseg.evaluation.pairs import Missing, Sources
from medseg.labels import LabelScheme
from medseg.lookup import check_choice
from medseg.metrics.options import METRICS, ScoreOptions
from medseg.tasks import Task, get_task

__all__ = ["EvaluateOptions"]

_TOLERANCE_MM = 2.0


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """How `evaluate` scores masks; every field is a keyword of `evaluate`, too.

    Args:
        task: "vessel", "lung" or "tumor": its metrics, tolerance, measures, tables and, with images, its baseline.
        labels: scheme, mapping `{name: value or values}`, or a YAML file of them (a training config will do). Without
            it `labels.json` beside the predictions, then the task's; without these every integer in the references,
            named by its number.
        images: folder of images (or one file) to show in the report, and for tasks to measure in.
        cases: CSV with the columns `case` and `group` (the patient): which cases count, and which belong together. A
            column `annotated` names the labels that the case's reference has annotated, joined by `;`: only these are
            scored there. Any other column makes subgroups.
        fov: folder of masks of the voxels that count, for tasks and scores of probabilities.
        probabilities: folder of `.npz` (as `medseg predict --save-probabilities` writes them), NIfTI or PNG.
        second_reference: folder of references by another observer, scored like a model.
        missing: "refuse" a reference without prediction, or score an "empty" mask for it; then `complete` is False.
        resample_prediction: bring predictions to their reference's grid (nearest) instead of refusing other grids.
        label_threshold: voxels above it are label 1, for 0/255 masks; a file of only 0 and 1 is left as it is.
        metrics: any of `medseg.metrics.ALL_METRICS`; by default the task's, else those of `METRICS`. Those of
            probabilities ("auc", "average_precision", "brier", "ece") need `probabilities` and named labels.
        tolerance_mm: of NSD; by default the task's, else 2 mm.
        miou: "labels" for the mean IoU over the labels; "voc" adds that of PASCAL VOC, `miou_voc`: with background,
            and reference voxels of value 255 (or what `labels` ignores) take part in nothing.
        surface, hd95, assd, boundary, lesion_iou, brats_dilation, brats_min_mm3: conventions, see
            `medseg.metrics.conventions.Conventions`.
        seed: of the bootstrap and the permutations.
        memory_gb: memory that cases scored side by side may take; by default 60% of what is free.
        demonstration: why the scores say nothing about new patients, as where none was held out from training. The
            report, the summary and its text then begin with it.
        view3d: NiiVue's `niivue.umd.js`: the report then shows the worst case in 3D, and grows by the script's 2 MB.

    Raises:
        ConfigError: for an unknown task, metric, convention or `missing`, or a number out of range.

    Example:
        >>> EvaluateOptions(task="lung").score_options.tolerance_mm
        2.0
    """

    task: str | None = None
    labels: LabelScheme | Mapping[str, int | Sequence[int]] | str | Path | None = None
    images: str | Path | None = None
    cases: str | Path | None = None
    fov: str | Path | None = None
    probabilities: str | Path | None = None
    second_reference: str | Path | None = None
    missing: Missing = "refuse"
    resample_prediction: bool = False
    label_threshold: float | None = None
    metrics: Sequence[str] | None = None
    tolerance_mm: float | None = None
    miou: str = "labels"
    surface: str = "voxel"
    hd95: str = "max_directed"
    assd: str = "pooled"
    boundary: float | None = None
    lesion_iou: float = 0.1
    brats_dilation: int = 3
    brats_min_mm3: float = 50.0
    seed: int = 0
    memory_gb: float | None = None
    demonstration: str = ""
    view3d: str | Path | None = None

    def __post_init__(self) -> None:
        if self.missing not in ("refuse", "empty"):
            raise ConfigError(f"missing={self.missing!r}: expected 'refuse' or 'empty'")
        check_choice("miou", self.miou, ("labels", "voc"))
        # Unknown tasks, metrics and conventions are refused here, before any file is read.
        _ = self.score_options

    @property
    def known_task(self) -> Task | None:
        """The task's record."""
        return None if self.task is None else get_task(self.task)

    @property
    def score_options(self) -> ScoreOptions:
        """Metrics and conventions, those of the task where none are given."""
        task = self.known_task
        usual, tolerance = (METRICS, _TOLERANCE_MM) if task is None else (task.metrics, task.tolerance_mm)
        return ScoreOptions(
            usual if self.metrics is None else tuple(self.metrics),
            tolerance_mm=tolerance if self.tolerance_mm is None else self.tolerance_mm,
            surface=self.surface,
            hd95=self.hd95,
            assd=self.assd,
            boundary=self.boundary,
            lesion_iou=self.lesion_iou,
            brats_dilation=self.brats_dilation,
            brats_min_mm3=self.brats_min_mm3,
        )

    @property
    def sources(self) -> Sources:
        """What is given in addition to predictions and references."""
        beside = (self.images, self.fov, self.probabilities, self.second_reference, self.cases)
        return Sources(*(None if path is None else Path(path) for path in beside))

    def check_probabilities(self, scheme: LabelScheme | None) -> None:
        """Refuse metrics of probabilities that cannot be computed.

        Raises:
            ConfigError: where probabilities or the names of the labels are missing.
        """
        names = ", ".join(self.score_options.of_probabilities)
        if names and self.probabilities is None:
            raise ConfigError(f"{names} need probabilities: give their folder with --probabilities (probabilities=...)")
        if names and scheme is None:
            raise ConfigError(
                f"{names} need to know which label the probabilities belong to: name the labels with --labels "
                "(labels=...)"
            )
