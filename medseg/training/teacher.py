"""`distill.teacher`: the trained network whose probabilities another one learns, see `medseg.losses.distillation`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from medseg.config import DistillConfig, RunConfig
from medseg.errors import CheckpointError, ConfigError
from medseg.inference.bundle import load_bundle
from medseg.inference.bundle_info import BundleInfo
from medseg.inference.bundle_parts import TeacherInfo
from medseg.inference.load import load_by
from medseg.inference.load_options import LoadOptions
from medseg.inference.predictor import Model
from medseg.inference.tta import mean_of
from medseg.labels import LabelScheme
from medseg.nets.weights_file import first_line
from medseg.plugins import is_plugin, permitted_modules
from medseg.preparation.plan import Plan

__all__ = ["Teacher", "channel_order", "load_teacher", "teacher_info"]


_KEYS = {False: "distill.teacher", True: "training.init"}


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """A model whose networks are run on the samples of a training, without gradients.

    Args:
        model: in eval mode, on the device of the training.
        order: of each channel of the student, the teacher's channel.
        settings: weight and temperature.
        name: of the bundle's folder or file, for the model card.
    """

    model: Model
    order: tuple[int, ...]
    settings: DistillConfig
    name: str

    @torch.no_grad()
    def logits(self, images: Tensor, precision: torch.dtype | None = None) -> Tensor:
        """The mean logits of all folds, float32 `(B, C, I, J[, K])` in the student's order of channels.

        Args:
            images: `(B, channels, I, J[, K])`, as the student sees them.
            precision: that autocast computes in; None: float32.
        """
        with torch.autocast(images.device.type, precision, enabled=precision is not None):
            taught: Tensor = mean_of(self.model.modules)(images)
        return taught if self.order == tuple(range(len(self.order))) else taught[:, list(self.order)]

    @property
    def info(self) -> TeacherInfo:
        """What the model card says of it."""
        return TeacherInfo(
            name=self.name,
            hash=self.model.model_hash,
            weight=self.settings.weight,
            temperature=self.settings.temperature,
        )

    @property
    def identity(self) -> list[object]:
        """What must not change between the parts of one training."""
        return [self.model.model_hash, self.settings.weight, self.settings.temperature]


def teacher_info(config: RunConfig) -> BundleInfo | None:
    """`model.json` of the teacher; None without one.

    Raises:
        CheckpointError: a teacher that is absent or damaged.
    """
    path = config.distill.teacher
    if path is None:
        return None
    if not path.exists():
        raise CheckpointError(
            f"distill.teacher: {path} does not exist; give a model bundle, or a run folder that holds one"
        )
    try:
        return load_bundle(path).info
    except CheckpointError as error:
        raise CheckpointError(f"distill.teacher: {error}") from None


def channel_order(teacher: LabelScheme, student: LabelScheme, path: Path) -> tuple[int, ...]:
    """Of each channel of the student, the teacher's channel of the same label.

    Args:
        teacher, student: their labels; the values may differ, the names decide.
        path: of the teacher, for the message.

    Raises:
        ConfigError: for other labels, or regions where the other has plain labels.

    Example:
        >>> one, other = ({"liver": 1, "spleen": 2}, {"spleen": 1, "liver": 2})
        >>> channel_order(LabelScheme.from_mapping(one), LabelScheme.from_mapping(other), Path("model"))
        (0, 2, 1)
    """
    if set(teacher.names) != set(student.names):
        raise ConfigError(
            f"distill.teacher {path} finds {', '.join(teacher.names)}, but the labels of this data set are "
            f"{', '.join(student.names)}; give a teacher of the same labels, or name them alike in data.labels"
        )
    if teacher.is_regions != student.is_regions:
        kinds = {True: "overlapping regions", False: "labels that exclude each other"}
        raise ConfigError(
            f"distill.teacher {path} has {kinds[teacher.is_regions]}, but this data set has "
            f"{kinds[student.is_regions]}; give both the same kind of labels"
        )
    places = [teacher.names.index(name) for name in student.names]
    return tuple(places) if student.is_regions else (0, *(place + 1 for place in places))


def load_teacher(config: RunConfig, plan: Plan, scheme: LabelScheme, device: torch.device) -> Teacher | None:
    """The teacher of a training on its device, tried on an empty sample; None without one.

    A network that is not part of medseg is built where the configuration names its module for the student, or
    `MEDSEG_ALLOW_CODE` does.

    Args:
        config: of the run.
        plan: of the run; patch and channels of its samples.
        scheme: the labels of the run.
        device: of the training.

    Raises:
        CheckpointError: a teacher that is absent, damaged, or of a module that is not permitted.
        ConfigError: other labels, or a network that does not take the patch.
    """
    path = config.training.init if config.training.keep_classes else config.distill.teacher
    if path is None:
        return None
    own: Sequence[str] = (config.net.name.partition(":")[0],) if is_plugin(config.net.name) else ()
    try:
        model = load_by(path, LoadOptions(str(device), allow_code=permitted_modules(own)))
    except CheckpointError as error:
        raise CheckpointError(f"{_KEYS[config.training.keep_classes]}: {error}") from None
    place = path.resolve()
    name = place.parent.name if place.name == "model" else place.name
    # Labels that are kept come first, in the order of the model that has them.
    kept = config.training.keep_classes
    order = tuple(range(model.scheme.out_channels)) if kept else channel_order(model.scheme, scheme, path)
    teacher = Teacher(model, order, config.distill, _printable(name))
    _try(teacher, plan, path)
    return teacher


def _try(teacher: Teacher, plan: Plan, path: Path) -> None:
    patch = plan.patch_size
    sample = torch.zeros(1, plan.in_channels, *patch, device=str(teacher.model.device))
    own = list(teacher.model.info.plan.patch_size)
    advice = f"give plan.patch_size={own}, on which it was trained"
    try:
        found = teacher.logits(sample).shape
    except Exception as error:  # Each network fails in its own way on a size that it does not take.
        raise ConfigError(
            f"distill.teacher {path} cannot take patches of {list(patch)} voxels ({first_line(error)}); {advice}"
        ) from None
    if tuple(found[2:]) != tuple(patch):
        raise ConfigError(
            f"distill.teacher {path} gives {list(found[2:])} voxels for patches of {list(patch)}; {advice}"
        )


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)[:200]
