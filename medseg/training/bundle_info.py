"""What a finished training puts into the bundle beside the weights."""

from __future__ import annotations

from hashlib import sha256

import torch

from medseg.config import PostprocessConfig, RunConfig
from medseg.inference.bundle_info import BundleInfo, NetInfo, PredictionInfo, Provenance
from medseg.inference.bundle_parts import TeacherInfo
from medseg.preparation.annotation import annotated_features
from medseg.preparation.kept_split import split_of_run
from medseg.preparation.prepare import Preparation
from medseg.preparation.store import case_notes
from medseg.preparation.training_range import TrainingRange, learn_range
from medseg.training.crf_choice import CrfChoice
from medseg.training.data import mirror_axes
from medseg.training.loop import Trained
from medseg.version import __version__

__all__ = ["bundle_info"]


def bundle_info(
    config: RunConfig,
    preparation: Preparation,
    net_info: NetInfo,
    number: int,
    trained: Trained,
    crf: CrfChoice | None = None,
    teacher: TeacherInfo | None = None,
) -> BundleInfo:
    """`model.json` of one trained fold; `crf` None: none was tried; `teacher`: of a distillation."""
    plan, scheme = preparation.plan, preparation.dataset.labels
    ranges = _training_range(config, preparation, number)
    split = split_of_run(preparation.dataset, config, number)
    content = config.model_dump_json(
        exclude={
            "output": True,
            "data": {"root": True, "csv": True},
            "distill": {"teacher": True},
            # A training without it keeps the hash that it had before there was this part.
            "semi": {"unlabelled": True} if config.semi.unlabelled is not None else True,
        }
    )
    full = config.training.fold == "full"
    scores = {
        "dice": trained.scores.dice,
        "mean_dice": trained.scores.mean_dice,
        "cases": trained.scores.cases,
        "postprocess_gains": trained.postprocess_gains if config.prediction.postprocess == "choose" else {},
    }
    if crf is not None:
        scores |= {"crf_gain": round(crf.gain, 4), "crf_cases": crf.cases}
    return BundleInfo(
        labels=scheme.written.mapping,
        ignore=scheme.ignore_entry,
        spare=scheme.written.spare if scheme.is_regions else None,
        plan=plan,
        net=net_info,
        prediction=PredictionInfo(
            overlap=config.prediction.overlap,
            # A net is mirrored at test time only where it was in training.
            mirror_axes=mirror_axes(config.augmentation, plan, scheme) if config.prediction.mirror else (),
            side_names="few" if plan.unmirrored is None else "all",
            crf=None if crf is None else crf.options,
            postprocess=_postprocess(config, trained),
        ),
        provenance=Provenance(
            medseg=__version__,
            torch=torch.__version__,
            config_hash=sha256(content.encode()).hexdigest(),
            dataset={
                "training_cases": len(split.train),
                "validation_cases": len(split.validation),
                "channels": list(preparation.dataset.channel_names),
            },
            iterations=trained.iterations,
            seconds=round(trained.seconds, 1),
            teacher=teacher,
        ),
        scores={} if full else {f"fold{number}": scores},
        folds="all" if full else None,
        reference_ranges=ranges,
    )


def _training_range(config: RunConfig, preparation: Preparation, number: int) -> TrainingRange:
    """Of the cases that trained: those of this fold, or where all folds are trained all."""
    trained = split_of_run(preparation.dataset, config, number).train
    whole = config.training.fold == "all"
    cases = [case for case in preparation.fingerprint.cases if whole or case.name in trained]
    names = preparation.dataset.labels.names
    annotated = {case.name: case.annotated for case in preparation.dataset.cases}
    return learn_range(
        [
            annotated_features(case.features, annotated[case.name], names).normalized(preparation.plan.zscored)
            for case in cases
        ],
        [case.modality for case in cases],
        all(case.spacing_known for case in cases),
        all(case_notes(preparation.cases[case.name]).inside_body for case in cases),
    )


def _postprocess(config: RunConfig, trained: Trained) -> PostprocessConfig:
    rules = config.prediction.postprocess
    if isinstance(rules, PostprocessConfig):
        return rules
    return trained.postprocess if rules == "choose" else PostprocessConfig()
