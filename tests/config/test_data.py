"""`data`: tables of labels as people write them, and names that are nearly right."""

from __future__ import annotations

from typing import Any

import pytest

from medseg.config import RunConfig, config_from_values
from medseg.errors import ConfigError
from medseg.labels import LabelScheme


def load(**data: Any) -> RunConfig:
    return config_from_values({"data": {"root": "x", **data}}, {}, "c.yaml", "c")


@pytest.mark.parametrize("name", ["ignore", "Ignore"])
def test_a_label_called_ignore_is_the_value_to_ignore(name: str) -> None:
    config = load(labels={"a": 1, name: 2})
    assert (config.data.labels, config.data.ignore) == ({"a": 1}, 2)
    assert config.label_scheme() == LabelScheme.from_mapping({"a": 1}, 2)
    assert load(labels={"a": 1, name: 2}, ignore=2).data.ignore == 2
    with pytest.raises(ConfigError, match="to ignore is 3 by the key ignore, and 2 by a label"):
        load(labels={"a": 1, name: 2}, ignore=3)


def test_a_table_from_values_to_names_is_turned_round() -> None:
    assert load(labels={0: "background", 1: "liver", 2: "tumour"}).data.labels == {
        "background": 0,
        "liver": 1,
        "tumour": 2,
    }
    assert load(labels={"1": "liver"}).data.labels == {"liver": 1}
    with pytest.raises(ConfigError, match="two values are called 'liver'"):
        load(labels={1: "liver", 2: "liver"})


def test_regions_are_pointed_to_the_labels() -> None:
    with pytest.raises(ConfigError, match=r"regions are labels given as lists.*data\.labels"):
        load(regions={"whole": [1, 2]})
    with pytest.raises(ConfigError, match=r"did you mean 'data\.labels'"):
        config_from_values({"data": {"root": "x"}}, {"data.regions": {"a": [1]}}, "c.yaml", "c")


@pytest.mark.parametrize(("wrong", "meant"), [("CTT", "CT"), ("MRR", "MR"), ("PETT", "PET"), ("CTA", "CT")])
def test_a_misspelt_modality_is_answered_with_the_nearest(wrong: str, meant: str) -> None:
    for value in (wrong, ["MR", wrong]):
        with pytest.raises(ConfigError, match=f"'{wrong}' is not a modality; did you mean '{meant}'"):
            load(modality=value)


@pytest.mark.parametrize("name", ["CT", "ct", "MR", "OCT", "T1ce", "FLAIR", "fundus", "microscopy", "PET", "arterial"])
def test_names_of_modalities_and_channels_are_accepted(name: str) -> None:
    assert load(modality=name).data.modality == name
