"""Training with a teacher: its plan, its labels, whose network it may be, and that nothing else changes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from inference_bundles import make_info, make_plan, unet_weights
from safetensors.torch import load_file

import medseg
from medseg.config import RunConfig, load_config
from medseg.errors import CheckpointError, ConfigError
from medseg.inference import load_bundle, save_bundle
from medseg.labels import LabelScheme
from medseg.preparation import load_plan
from medseg.preparation.plan import ChannelPlan, Plan
from medseg.training.checkpoint import load_checkpoint
from medseg.training.data import Batch
from medseg.training.loop import _Trainer
from medseg.training.run import prepare_run
from medseg.training.teacher import load_teacher

UNIT = (ChannelPlan(kind="unit"),)
# Of the teacher: other than what is planned for the data set by itself.
INPUT: dict[str, Any] = {
    "spacing_mm": (1.25, 1.25, 1.5),
    "normalization": UNIT,
    "patch_size": (12, 16, 8),
    "padding": "zero",
}
SHORT = {"training.max_iterations": 2, "plan.patch_size": None, "training.mixed_precision": False}


def teacher(folder: Path, labels: dict[str, Any] | None = None, folds: int = 1, **plan: Any) -> Path:
    """A bundle of untrained networks."""
    info = make_info(make_plan(**{**INPUT, **plan}), labels=labels or {"ball": 1})
    return save_bundle(folder / "teacher", info, {fold: unet_weights(info, seed=fold) for fold in range(folds)})


def train(dataset: Path, path: Path, resume: bool = False, **overrides: Any) -> medseg.training.Run:
    return medseg.train(dataset / "config.yaml", {**SHORT, "distill.teacher": str(path), **overrides}, resume=resume)


def weights(run: medseg.training.Run) -> Mapping[str, torch.Tensor]:
    return load_file(run.bundle / "weights_fold0.safetensors")


def test_a_student_takes_the_teachers_input_and_its_bundle_names_the_teacher(tiny_dataset: Path) -> None:
    path = teacher(tiny_dataset, folds=2)
    run = train(tiny_dataset, path)
    plan = load_plan(run.folder / "plan.yaml")
    assert {key: getattr(plan, key) for key in INPUT} == INPUT
    assert plan.channels == (4, 8) and "The patch is the teacher's." in (run.folder / "plan.yaml").read_text()
    made = load_bundle(run.bundle).info.provenance.teacher
    assert made is not None and made.name == "teacher" and made.weight == 0.5
    assert made.hash == load_bundle(path).model_hash
    card = (run.bundle / "README.md").read_text()
    assert f"distilled from the model teacher (hash {made.hash})" in card


def test_a_resumed_training_with_a_teacher_has_the_same_bits_and_another_teacher_is_refused(
    tiny_dataset: Path,
) -> None:
    path = teacher(tiny_dataset)
    mixing = {"augmentation.mixup_probability": 1.0, "augmentation.cutmix_probability": 0.5}
    settings = {"training.max_iterations": 4, "training.accumulate": 2, "training.schedule": "constant", **mixing}
    whole = train(tiny_dataset, path, output=str(tiny_dataset / "whole"), **settings)
    part = {**settings, "output": str(tiny_dataset / "part"), "training.max_iterations": 2}
    train(tiny_dataset, path, **part)
    for change in ({"distill.weight": 0.25}, {"distill.temperature": 3.0}, {"distill.teacher": None}):
        with pytest.raises(CheckpointError, match="teacher or seed"):
            train(tiny_dataset, path, resume=True, **{**part, **change})
    resumed = train(tiny_dataset, path, resume=True, **{**part, "training.max_iterations": 4})
    mine, theirs = weights(resumed), weights(whole)
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    shutil.rmtree(path)
    other = teacher(tiny_dataset, folds=2)
    with pytest.raises(CheckpointError, match="teacher or seed"):
        train(tiny_dataset, other, resume=True, **{**part, "training.max_iterations": 6})


def test_a_teacher_of_weight_zero_changes_no_bit_of_a_training(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = teacher(tiny_dataset)
    seen: list[torch.Tensor] = []
    step = _Trainer._step

    def recording(self: _Trainer, batch: Batch, rate: float) -> torch.Tensor:
        seen.append(batch.images.clone())
        return step(self, batch, rate)

    monkeypatch.setattr(_Trainer, "_step", recording)
    taught = train(
        tiny_dataset, path, **{"distill.weight": 0.0, "net.deep_supervision": True, "net.channels": [4, 4, 8]}
    )
    folder = tiny_dataset / "alone"
    folder.mkdir()
    shutil.copy(taught.folder / "plan.yaml", folder)
    alone = train(
        tiny_dataset,
        path,
        **{"distill.teacher": None, "output": str(folder), "net.deep_supervision": True, "net.channels": [4, 4, 8]},
    )
    assert all(torch.equal(value, weights(alone)[name]) for name, value in weights(taught).items())
    assert len(seen) == 4 and torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])


def loaded(path: Path, labels: dict[str, Any], plan: Plan) -> Any:
    config = RunConfig.model_validate({"data": {"root": "x"}, "distill": {"teacher": str(path)}})
    return load_teacher(config, plan, LabelScheme.from_mapping(labels), torch.device("cpu"))


@pytest.mark.parametrize("regions", [False, True])
def test_channels_are_those_of_the_same_names(tmp_path: Path, regions: bool) -> None:
    theirs = {"a": [1, 2, 3], "b": [2, 3], "c": [3]} if regions else {"a": 1, "b": 2, "c": 3}
    mine = {name: theirs[name] for name in ("c", "a", "b")}
    path = teacher(tmp_path, theirs, folds=2)
    plan, sample = make_plan(**INPUT), torch.randn(2, 1, 12, 16, 8)
    found = loaded(path, mine, plan).logits(sample)
    whole = loaded(path, theirs, plan).logits(sample)
    order = (2, 0, 1) if regions else (0, 3, 1, 2)
    assert torch.equal(found, whole[:, list(order)]) and not found.requires_grad
    nets = [medseg.load_model(path, "cpu", folds=[fold]).nets[0] for fold in range(2)]
    torch.testing.assert_close(whole, (nets[0](sample) + nets[1](sample)) / 2)


@pytest.mark.parametrize(
    ("changes", "labels", "overrides", "said"),
    [
        ({}, {"tumour": 1}, {}, "finds tumour, but the labels of this data set are ball"),
        ({}, {"ball": [1]}, {}, "has overlapping regions, but this data set has labels that exclude"),
        ({"in_channels": 2, "normalization": UNIT * 2}, None, {}, "takes images of 2 channels, .* have 1"),
        ({}, None, {"plan.spacing_mm": [1, 1, 1]}, r"spacing_mm \[1.25, 1.25, 1.5\].*leave plan.spacing_mm out"),
        ({}, None, {"data.normalization": "zscore"}, "normalization .*unit.* leave data.normalization"),
        ({"dims": 2, "patch_size": (16, 16), "strides": ((1, 1), (2, 2))}, None, {"net.dims": 3}, "dims 2, .* has 3"),
        (
            {"dims": 2, "orientation": None, "spacing_mm": None, "patch_size": (16, 16), "strides": ((1, 1), (2, 2))},
            None,
            {"net.dims": 2},
            "trained with orientation None, .* has RAS; the teacher has to see images as it was trained on",
        ),
    ],
    ids=["labels", "regions", "channels", "spacing", "normalization", "dims", "photographs"],
)
def test_a_teacher_of_other_labels_or_other_input_is_refused_before_the_first_step(
    tiny_dataset: Path, changes: dict[str, Any], labels: dict[str, Any] | None, overrides: dict[str, Any], said: str
) -> None:
    path = teacher(tiny_dataset, labels, **changes)
    with pytest.raises(ConfigError, match=said) as refused:
        train(tiny_dataset, path, **overrides)
    assert str(path) in str(refused.value) and refused.value.exit_code == 2
    assert not list((tiny_dataset / "run").glob("**/last.pt"))


def test_a_kept_plan_of_another_input_is_refused_with_advice(tiny_dataset: Path) -> None:
    config = load_config(tiny_dataset / "config.yaml")
    prepare_run(config)
    path = teacher(tiny_dataset)
    with pytest.raises(ConfigError, match="delete it to plan anew"):
        train(tiny_dataset, path)
    (tiny_dataset / "run" / "plan.yaml").unlink()
    assert prepare_run(load_config(tiny_dataset / "config.yaml", {"distill.teacher": str(path)})).plan.padding == "zero"


def test_channels_in_another_order_are_refused(tmp_path: Path) -> None:
    from medseg.preparation.teacher_plan import check_teacher_fits

    config = RunConfig.model_validate({"data": {"root": "x"}, "distill": {"teacher": "t"}})
    both = {"in_channels": 2, "normalization": UNIT * 2}
    mine, theirs = (
        make_plan(**both, select=[{"name": name} for name in names]) for names in (("t1", "flair"), ("FLAIR", "T1"))
    )
    with pytest.raises(ConfigError, match="in the order flair, t1, but the data set has t1, flair"):
        check_teacher_fits(mine, theirs, config)
    check_teacher_fits(mine, mine, config)


def test_a_student_is_not_mirrored_where_the_teacher_was_not(tiny_dataset: Path) -> None:
    path = teacher(tiny_dataset, unmirrored=[{"axis": 1, "reason": "left and right"}])
    config = load_config(tiny_dataset / "config.yaml", {"plan.patch_size": None, "distill.teacher": str(path)})
    unmirrored = prepare_run(config).plan.unmirrored
    assert unmirrored is not None and 1 in [each.axis for each in unmirrored]


def test_a_teacher_that_is_absent_or_damaged_is_refused(tiny_dataset: Path) -> None:
    with pytest.raises(CheckpointError, match=r"distill\.teacher: .*nowhere does not exist"):
        train(tiny_dataset, tiny_dataset / "nowhere")
    path = teacher(tiny_dataset)
    (path / "weights_fold0.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"distill\.teacher: .*damaged") as refused:
        train(tiny_dataset, path)
    assert refused.value.exit_code == 5


STRICT = """
from torch import nn
class Net(nn.Conv3d):
    def forward(self, x):
        if tuple(x.shape[2:]) != (12, 16, 8):
            raise ValueError("only 12 x 16 x 8")
        return super().forward(x)
def build(dims, in_channels, out_channels):
    return Net(in_channels, out_channels, 1)
"""


def test_a_teacher_of_own_code_needs_permission_and_its_patch(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tiny_dataset / "own_teacher.py").write_text(STRICT)
    monkeypatch.syspath_prepend(str(tiny_dataset))
    info = make_info(make_plan(**INPUT), net="own_teacher:build", labels={"ball": 1})
    state = {"weight": torch.zeros(2, 1, 1, 1, 1), "bias": torch.zeros(2)}
    path = save_bundle(tiny_dataset / "teacher", info, {0: state})
    with pytest.raises(CheckpointError, match=r"distill\.teacher: .*not part of medseg"):
        train(tiny_dataset, path)
    monkeypatch.setenv("MEDSEG_ALLOW_CODE", "own_teacher")
    with pytest.raises(ConfigError, match=r"cannot take patches of \[16, 16, 16\].*give plan.patch_size=\[12, 16, 8\]"):
        train(tiny_dataset, path, **{"plan.patch_size": [16, 16, 16], "output": str(tiny_dataset / "other")})
    assert train(tiny_dataset, path).bundle.is_dir()


def test_a_training_without_a_teacher_has_the_identity_of_older_releases(tiny_dataset: Path) -> None:
    run = medseg.train(tiny_dataset / "config.yaml", {"training.max_iterations": 1})
    recorded = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert recorded.pop("distill") == {"teacher": None, "weight": 0.5, "temperature": 1.0}
    (run.folder / "config.yaml").write_text(yaml.safe_dump(recorded))
    before = load_checkpoint(run.folder / "last.pt").identity
    medseg.train(run.folder / "config.yaml", {"training.max_iterations": 2}, resume=True)
    assert load_checkpoint(run.folder / "last.pt").identity == before
    assert "teacher" not in (run.bundle / "model.json").read_text()
