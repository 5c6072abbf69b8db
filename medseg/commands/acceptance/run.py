"""Runs a model on a site's own cases, scores the masks and writes what is to be signed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from medseg.commands.acceptance.attributes import attributes_of, grouped, listed_attributes
from medseg.commands.acceptance.files import write_acceptance
from medseg.commands.acceptance.page import summary_lines
from medseg.config import DataConfig
from medseg.datasets.cases import find_cases
from medseg.datasets.records import Case
from medseg.disk.atomic import atomic_folder
from medseg.errors import DatasetError, GeometryError, MedsegError, PartialFailure, WriteError
from medseg.evaluation.acceptance import Acceptance, AcceptedCase, AcceptedLabel, accept_cases
from medseg.inference.load import load_model
from medseg.inference.predictor import Model
from medseg.inference.quality import examine_case
from medseg.io.formats import is_there
from medseg.io.naming import composed
from medseg.metrics import score_case
from medseg.preparation.sources import Reading, read_case, reading_of
from medseg.studies.case_work import asks_for_review
from medseg.studies.measurements import findings_of_padding, measure
from medseg.studies.monitored import monitored_figures
from medseg.volume import Finding, Volume

__all__ = ["AcceptOptions", "run_acceptance"]

Progress = Callable[[float, float, str], None]


@dataclass(frozen=True, slots=True)
class AcceptOptions:
    """How a model is accepted.

    Args:
        table: CSV with the column `case` and further ones, such as scanner, kernel, slice_thickness.
        width: wanted width of the 95% interval of the mean Dice.
        least_dice: what the mean Dice of every label has to exceed; None: nothing.
        label_threshold: for masks such as 0/255: what is above it is label 1.
        device: 'auto', 'cpu', 'cuda' or 'cuda:N'.
        allow_code: see `load_model`.
    """

    table: Path | None = None
    width: float = 0.05
    least_dice: float | None = None
    label_threshold: float | None = None
    device: str = "auto"
    allow_code: tuple[str, ...] = ()


def run_acceptance(path: Path, local: Path, out: Path, options: AcceptOptions, progress: Progress) -> str:
    """Predict and score all cases, and write `acceptance.html`, `acceptance.json` and `cases.csv`.

    Args:
        path: a bundle.
        local: cases with masks, in any layout that training reads.
        out: folder that is new or empty.
        options: see there.
        progress: called as `progress(done, total, text)`.

    Returns:
        A summary for a console.

    Raises:
        CheckpointError: for what is not a model.
        ConfigError: a width or Dice out of range.
        DatasetError, ReadError, GeometryError: no cases, or none of them can be used.
        PartialFailure: some cases failed; all files are written, and name them.
        WriteError: a folder that holds something, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WriteError(f"{out} exists and is not an empty folder; give another one with -o")
    if not (is_there(local) and local.is_dir()):
        raise DatasetError(f"{local} is not a folder; give the folder with the site's cases and their masks")
    accept_cases((), (), "ml", options.width, options.least_dice)
    model = load_model(path, options.device, allow_code=options.allow_code)
    data = DataConfig(
        root=local,
        labels=model.scheme.mapping,
        ignore=model.scheme.ignore_entry,
        label_threshold=options.label_threshold,
    )
    cases = tuple(case for case in find_cases(data).cases if case.labels)
    if not cases:
        raise DatasetError(f"{local} contains no case with a mask; acceptance needs both")
    listed = listed_attributes(local, options.table)
    if options.table is not None and not any(composed(case.name) in listed for case in cases):
        raise DatasetError(
            f"{options.table} names none of the {len(cases)} cases, the first of which is {cases[0].name!r}; its "
            "column case must hold their names"
        )
    reading = reading_of(data, model.scheme)
    found, errors = [], []
    for number, case in enumerate(cases):
        progress(number, len(cases), case.name)
        try:
            found.append(_accepted(case, model, reading, listed.get(composed(case.name), {})))
        except MedsegError as error:
            errors.append(error)
            found.append(AcceptedCase(case.name, case.group or case.name, error=" ".join(str(error).split())))
    if len(errors) == len(cases):
        raise errors[0]
    attributes, left_out = grouped([case.attributes for case in found])
    found = [replace(case, attributes=each) for case, each in zip(found, attributes, strict=True)]
    unit = "ml" if _has_volume(model) else "voxels"
    result = accept_cases(found, model.scheme.names, unit, options.width, options.least_dice)
    with atomic_folder(out, overwrite=True) as folder:
        write_acceptance(result, folder, model.model_hash, _name(path.resolve()), left_out)
    progress(len(cases), len(cases), "")
    text = "\n".join([*summary_lines(result), f"Written to {out}: acceptance.html is the page to sign"])
    if errors:
        raise PartialFailure(f"{len(errors)} of {len(cases)} cases failed, first {_first_failed(result)}\n{text}")
    return text


def _name(path: Path) -> str:
    """Of a bundle; that of a run folder goes before its `model`."""
    return f"{path.parent.name}/{path.name}" if path.name == "model" else path.name


def _has_volume(model: Model) -> bool:
    """Whether sizes are in ml: the model takes 3D images with a physical scale."""
    return model.info.plan.spatial_dims == 3 and model.info.plan.spacing_mm is not None


def _first_failed(result: Acceptance) -> str:
    return f"{result.failed[0].case}: {result.failed[0].error}"


def _accepted(case: Case, model: Model, reading: Reading, listed: dict[str, str]) -> AcceptedCase:
    image, reference = read_case(case, reading)
    plan, scheme = model.info.plan, model.scheme
    if (image.dims, image.channels) != (plan.spatial_dims, plan.in_channels):
        raise GeometryError(
            f"{case.images[0]} is a {image.dims}D image of {image.channels} channel(s), the model takes "
            f"{plan.spatial_dims}D images of {plan.in_channels}"
        )
    scheme.check_values([int(value) for value in np.unique(reference.array)], f"case {case.name!r}")
    mask = model.predict(image)
    check = examine_case(image, mask, model.info)
    measured = measure(mask, scheme, image)
    findings: list[Finding] = [*image.findings, *check.findings, *findings_of_padding(measured)]
    review = asks_for_review(findings)
    return AcceptedCase(
        case.name,
        case.group or case.name,
        _labels(case, mask, reference, model),
        attributes_of(case, image, listed),
        review,
        tuple(finding.message for finding in findings),
        monitored_figures("needs_review" if review else "done", check.figures, [asdict(each) for each in measured]),
    )


def _labels(case: Case, mask: Volume, reference: Volume, model: Model) -> dict[str, AcceptedLabel]:
    """The labels that are annotated in the case."""
    scheme = model.scheme
    spacing = reference.spacing_mm if reference.spacing_known else None
    scores = score_case(mask.array, reference.array, spacing, scheme, ("dice",))
    # Voxels that the reference leaves open count on neither side.
    counted = np.full(reference.shape, True) if scheme.ignore is None else reference.array != scheme.ignore
    if _has_volume(model) and not reference.spacing_known:
        raise GeometryError(
            f"{case.images[0]} has no known spacing, which the model needs; convert it with its spacing"
        )
    volume = abs(float(np.linalg.det(reference.affine[:3, :3]))) / 1000 if _has_volume(model) else 1.0
    return {
        name: AcceptedLabel(
            scores[name]["dice"],
            int(np.count_nonzero(scheme.mask(mask.array, name) & counted)) * volume,
            int(np.count_nonzero(scheme.mask(reference.array, name) & counted)) * volume,
        )
        for name in scheme.names
        if case.annotated is None or name in case.annotated
    }
