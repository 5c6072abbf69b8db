"""A configuration from a folder of data alone: layout, labels and the name of the run are found in the folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.config import DataConfig, RunConfig, config_from_values, load_config, packaged_configs
from medseg.datasets.cases import Case
from medseg.datasets.csv_layout import case_list_in
from medseg.datasets.layouts import described_labels, find_layout
from medseg.errors import ConfigError, DatasetError, MedsegError
from medseg.io.formats import is_there, kind_of
from medseg.io.label_maps import read_label_map
from medseg.machine import available_cpus
from medseg.preparation import checks
from medseg.preparation.fingerprint import count_labels
from medseg.preparation.parallel import run_over_cases

__all__ = ["FolderConfig", "config_for_folder", "config_of", "label_values"]

_log = logging.getLogger("medseg")
# A label map with more values than this is taken for an image.
MOST_VALUES = 255


@dataclass(frozen=True, slots=True)
class FolderConfig:
    """What a folder of data says.

    Args:
        config: ready to train with.
        found: dotted key -> value of what was found in the folder, beside `data.root`.
        said: what was concluded, in whole sentences for the user.
        to_name: how to name labels that nothing in the folder names; '' where something does.
    """

    config: RunConfig
    found: Mapping[str, Any]
    said: tuple[str, ...]
    to_name: str


def config_of(source: str | Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """The configuration in a YAML file or preset, or for a folder of data, with dotted overrides on top.

    What a folder leaves open and what was concluded is logged.

    Args:
        source: a YAML file, the name of a preset, or a folder of data.
        overrides: dotted key -> value.

    Raises:
        ConfigError: an unknown key, an impossible value, or a name that is both a preset and a folder.
        DatasetError, ReadError: a folder that contains no data set, or label maps without a label.
    """
    overrides = overrides or {}
    folder = Path(source)
    if not is_there(folder) and len(folder.parts) > 1 and folder.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"{source} does not exist; give a YAML file, a folder of data, or a preset (medseg presets)")
    if not (is_there(folder) and folder.is_dir()):
        return load_config(source, overrides)
    if str(source) in packaged_configs():
        if "data.root" in overrides:
            return load_config(source, overrides)
        raise ConfigError(
            f"{source} is the name of a preset and of a folder here; give {folder.resolve()} for the folder, or "
            f"{source} data.root=FOLDER for the preset"
        )
    found = config_for_folder(folder, overrides)
    for line in (*found.said, found.to_name):
        if line:
            _log.info("%s", line)
    return found.config


def config_for_folder(root: Path, overrides: Mapping[str, Any]) -> FolderConfig:
    """The configuration for a folder of data: `data.root` is the folder, `output` is `runs/<name of the folder>`.

    The only CSV that lists cases is followed, as it says which cases are of one patient; it comes after MSD and nnU-Net
    raw. Labels are those of `data.labels`, else of `dataset.json`; else the values in the label maps are listed as
    `label_<value>`. Masks with the one value 255, and pictures with any one value, become `label_1` by
    `data.label_threshold`.

    Args:
        root: the folder.
        overrides: dotted key -> value.

    Raises:
        ConfigError: an unknown key, an impossible value, or `data.root` among the overrides.
        DatasetError: no data set, no labelled voxel, or values that can mean several things.
        ReadError: a label map that cannot be read.
    """
    if "data.root" in overrides or "data" in overrides:
        raise ConfigError(
            f"data.root is given twice, as the folder {root} and as a setting; leave out one of them, and give other "
            "settings of data singly, e.g. data.modality=CT"
        )
    found: dict[str, Any] = {}
    said = []
    to_name = ""
    data = _config(root, overrides).data
    if data.csv is None and data.layout == "auto" and not (root / "imagesTr").is_dir():
        case_list = case_list_in(root)
        if case_list is not None:
            found["data.csv"] = str(case_list)
            said.append(f"The cases are those that {case_list} lists.")
            data = data.model_copy(update={"csv": case_list})
    if data.labels is None:
        labels, sentence, to_name = _labels(data)
        found |= labels
        said += [sentence] if sentence else []
    return FolderConfig(_config(root, {**overrides, **found}), found, tuple(said), to_name)


def label_values(cases: Sequence[Case], threshold: float | None) -> dict[str, tuple[int, ...]]:
    """Name of the case -> label values in its label map, ascending, without background (0). No image is opened.

    Args:
        cases: whose label maps are read.
        threshold: as `data.label_threshold`.

    Raises:
        DatasetError, ReadError, GeometryError: naming the label maps that cannot be used.
    """
    checks.check_labels_given(cases)
    found: dict[str, tuple[int, ...]] = {}
    errors: dict[str, MedsegError] = {}

    def on_done(case: Case, result: tuple[int, ...] | MedsegError) -> None:
        if isinstance(result, MedsegError):
            errors[case.name] = result
        else:
            found[case.name] = result

    def values_in(case: Case) -> tuple[int, ...]:
        return tuple(int(value) for value in count_labels(read_label_map(case.labels, threshold).array)[0] if value)

    run_over_cases(values_in, cases, workers=available_cpus(), processes=False, on_done=on_done)
    checks.raise_gathered(errors, len(cases))
    return found


def _config(root: Path, overrides: Mapping[str, Any]) -> RunConfig:
    return config_from_values({"data": {"root": str(root)}}, overrides, str(root), root.resolve().name or "run")


def _labels(data: DataConfig) -> tuple[dict[str, Any], str, str]:
    """Settings for the labels, a sentence on them, and how to name them; empty where the layout names them itself."""
    layout = find_layout(data)
    if layout.labels:
        return {}, "", ""
    found: dict[str, Any] = {}
    described, ignore = described_labels(data.root)
    if described:
        found["data.labels"] = dict(described)
        sentence = f"The labels are those that {data.root / 'dataset.json'} names: {', '.join(described)}."
        if ignore is not None and data.ignore is None:
            found["data.ignore"] = ignore
        return found, sentence, ""
    cases = [case for case in layout.cases if case.split != "test"]
    if not cases:
        raise DatasetError(f"{data.root} contains no case to train on ({layout.name} layout); check the folder")
    by_case = label_values(cases, data.label_threshold)
    values = sorted({value for each in by_case.values() for value in each} - {*data.ignored})
    if not values:
        raise DatasetError(
            f"no label map of {data.root} holds a labelled voxel, so there is nothing to learn; check the masks"
        )
    if len(values) > MOST_VALUES:
        raise DatasetError(
            f"the label maps of {data.root} hold {len(values)} different values; expected a few integers: are these "
            "images? If not, name the labels by data.labels='{NAME: VALUE, ...}'"
        )
    if len(values) > 1 and max(values) == 255:
        raise DatasetError(
            f"the label maps of {data.root} hold the values {_listed(values)}; for 0/255 masks with soft edges give "
            "data.label_threshold=127, for labels of these values data.labels='{NAME: VALUE, ...}'"
        )
    sources = [source for case in cases for source in case.labels]
    pictures = all(kind_of(source.path) == "raster" for source in sources)
    plain = all(source.value is None for source in sources)
    if plain and len(values) == 1 and values[0] > 1 and (values[0] == 255 or pictures):
        threshold = values[0] // 2
        sentence = f"The masks of {data.root} hold 0 and {values[0]}: what is above {threshold} is called label_1"
        found["data.label_threshold"] = threshold
        values = [1]
    else:
        sentence = f"Nothing in {data.root} names the labels; the label maps hold {_listed(values)}, called "
        sentence += _listed([f"label_{value}" for value in values])
    example = ", ".join(f"NAME{n}: {value}" for n, value in enumerate(values, start=1))
    to_name = f"To name them, give data.labels='{{{example}}}' or start with medseg init {data.root}."
    return found | {"data.labels": {f"label_{value}": value for value in values}}, f"{sentence}.", to_name


def _listed(words: Sequence[object]) -> str:
    shown = [str(word) for word in words]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "")
