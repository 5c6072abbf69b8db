"""`postprocessing.json`: what nnUNetv2_determine_postprocessing found to help, as names of labels.

nnU-Net applies the pickle beside it, which names functions; here that is never opened.

Source: nnU-Net 2.8.1, `remove_connected_components.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.errors import CheckpointError
from medseg.inference.importing.nnunet import read_json
from medseg.labels import LabelScheme

__all__ = ["postprocessing_file", "postprocessing_rules"]

NAME = "postprocessing.json"
PICKLE = "postprocessing.pkl"
RESULTS = "crossval_results_folds_"
KNOWN = "remove_all_but_largest_component_from_segmentation"
MOST_RULES = 1024


def postprocessing_file(folder: Path, folds: Collection[str] = ()) -> Path | None:
    """The rules beside a model: in its folder, or in that of the cross-validation of just its folds.

    Args:
        folder: `TRAINER__PLANS__CONFIGURATION`, or that of an ensemble.
        folds: of the model, as `checkpoints_in` names them.

    Raises:
        CheckpointError: rules of which only the pickle is there.
    """
    places = [folder, *sorted(path for path in folder.glob(f"{RESULTS}*") if path.is_dir())]
    for place in places:
        if (place / PICKLE).exists() and not (place / NAME).exists():
            raise CheckpointError(
                f"{place / PICKLE} is a pickle, which may run anything and is not opened; copy {NAME}, which nnU-Net "
                "writes beside it, or remove the pickle to predict without post-processing"
            )
    wanted = RESULTS + "_".join(sorted(folds, key=lambda fold: (len(fold), fold)))
    return next((each / NAME for each in places if (each / NAME).exists() and each.name in (folder.name, wanted)), None)


def postprocessing_rules(path: Path, scheme: LabelScheme) -> tuple[tuple[str, ...], ...]:
    """The labels of which, taken together, only the largest component stays; step by step.

    Args:
        path: `postprocessing.json`.
        scheme: the labels of the model.

    Raises:
        CheckpointError: a damaged file, another function than nnU-Net's, or values that are not labels.
    """
    content = read_json(path)
    names, options = content.get("postprocessing_fns"), content.get("postprocessing_kwargs")
    if not isinstance(names, list) or not isinstance(options, list) or not len(names) == len(options) <= MOST_RULES:
        raise CheckpointError(f"{path} is not as nnU-Net writes it: expected a list of functions and of their options")
    for name in names:
        if name != KNOWN:
            raise CheckpointError(f"{path} names {str(name)[:100]!r}; medseg knows {KNOWN}")
    return tuple(_rule(each, scheme, path) for each in options)


def _rule(options: Any, scheme: LabelScheme, path: Path) -> tuple[str, ...]:
    wanted = options.get("labels_or_regions") if isinstance(options, Mapping) else None
    values = set(_values(wanted))
    surplus = set(options) - {"labels_or_regions", "background_label"} if isinstance(options, Mapping) else {"options"}
    if not values or surplus or options.get("background_label", 0) != 0:
        raise CheckpointError(f"{path} has the options {str(options)[:200]}, which medseg does not know")
    held = {name: set(each) for name, each in zip(scheme.names, scheme.trained.values, strict=True)}
    names = tuple(name for name, each in held.items() if each <= values)
    if set().union(*(held[name] for name in names)) != values:
        known = sorted(set().union(*held.values()))
        raise CheckpointError(f"{path} names the values {sorted(values)}; those of the labels are {known}")
    return names


def _values(wanted: Any) -> list[int]:
    """The values of a label, of a region, or of a list of either."""
    if type(wanted) is int:
        return [wanted]
    if not isinstance(wanted, Sequence) or isinstance(wanted, str) or len(wanted) > MOST_RULES:
        return []
    return [value for each in wanted for value in (each if isinstance(each, list) else [each]) if type(value) is int]
