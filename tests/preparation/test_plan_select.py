"""The plan says which series of a study each channel is, as far as the data set or the configuration tell."""

from __future__ import annotations

import pytest
from plans import SCHEME, case

from medseg.config import RunConfig, validate_model
from medseg.errors import ConfigError
from medseg.preparation import Fingerprint, Plan, load_plan, make_plan, save_plan


def plan(names=(), channels=1, shape=(36, 50, 35), **data) -> Plan:
    spacing = (1.0,) * 3 if len(shape) == 3 else None
    cases = (case(shape, spacing, channels=channels),)
    return make_plan(Fingerprint(cases, names), RunConfig(data={"root": "x", **data}), SCHEME, 8.0, False)


def test_names_of_channels_become_rules_with_their_modality(tmp_path) -> None:
    made = plan(("FLAIR", "T1c"), 2)
    assert [(r.name, r.modality) for r in made.select] == [("FLAIR", "MR"), ("T1c", "MR")]
    assert made.reference_channel == 0
    save_plan(made, tmp_path / "plan.yaml")
    assert load_plan(tmp_path / "plan.yaml") == made


def test_nothing_known_and_photographs_give_no_rules() -> None:
    assert plan().select == ()
    assert plan(("R", "G", "B"), 3, (64, 64)).select == ()


def test_the_configuration_goes_before_and_has_to_fit() -> None:
    rules = [{"description": "flair"}, {"name": "T1c", "reference": True}]
    made = plan(("FLAIR", "T1c"), 2, select=rules)
    assert [(r.name, r.description) for r in made.select] == [("FLAIR", "flair"), ("T1c", None)]
    assert made.reference_channel == 1
    with pytest.raises(ConfigError, match=r"2 rules.*1 channels"):
        plan(select=rules)
    with pytest.raises(ConfigError, match="regular expression"):
        validate_model(RunConfig, {"data": {"root": "x", "select": [{"description": "("}]}}, "test")
    with pytest.raises(ConfigError, match="only one channel"):
        plan(("FLAIR", "T1c"), 2, select=[{"reference": True}, {"reference": True}])
