"""Which series of a study a model sees: every rule on headers, hand-checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from inference_bundles import make_plan
from pydicom.dataset import FileDataset
from selection_studies import STUDY, write_series

from medseg.config import SelectRule
from medseg.errors import ReadError
from medseg.preparation.plan import ChannelPlan, Plan
from medseg.studies.candidates import candidate_of, misfit
from medseg.studies.selection import select_series
from medseg.studies.sources import Source, find_studies, read_source


def plan(*rules: dict[str, Any], channels: int | None = None) -> Plan:
    count = channels or max(1, len(rules))
    return make_plan(
        in_channels=count,
        normalization=(ChannelPlan(kind="zscore"),) * count,
        select=tuple(SelectRule(**rule) for rule in rules),
    )


def chosen(folder: Path, *rules: dict[str, Any], series: str | None = None, channels: int | None = None) -> Source:
    (source,) = find_studies(folder, series)
    return select_series(source, plan(*rules, channels=channels), asked=series is not None)


@pytest.fixture
def chest(tmp_path: Path) -> Path:
    """A scout, thin and thick axial, a coronal reformat, a MIP: 40 mm of CT."""
    folder = tmp_path / "p1"
    write_series(folder, 1, slices=2, spacing=20, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(folder, 2, slices=40, spacing=1)
    write_series(folder, 3, slices=8, spacing=5)
    write_series(folder, 4, slices=20, spacing=2, plane="coronal", ImageType=["DERIVED", "SECONDARY", "REFORMATTED"])
    write_series(folder, 5, slices=40, spacing=1, ImageType=["DERIVED", "PRIMARY", "MIP"])
    return folder


def test_of_many_series_the_thin_axial_original_is_taken_and_the_others_are_explained(chest):
    source = chosen(chest)
    assert (source.error, source.series_uid, len(source.paths)) == ("", f"{STUDY}.2", 40)
    assert source.reason == (
        "of 5 series the best of 3 that fit (CT, axial, 1.0 mm, 40 slices); left out: "
        f"{STUDY}.1 (CT, axial, 20.0 mm, 2 slices) because localizer; "
        f"{STUDY}.3 (CT, axial, 5.0 mm, 8 slices) because thicker; "
        f"{STUDY}.4 (CT, coronal, 2.0 mm, 20 slices) because derived or secondary; "
        f"{STUDY}.5 (CT, axial, 1.0 mm, 40 slices) because projection (MIP)"
    )
    assert read_source(source).shape == (6, 5, 40)


def test_without_a_model_the_study_is_refused_as_before(chest):
    (source,) = find_studies(chest)
    assert len(source.candidates) == 5
    with pytest.raises(ReadError, match=r"5 series, expected one.*--series"):
        read_source(source)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"thickness_mm": (4, 6)}, 3),
        ({"orientation": "coronal"}, 4),
        ({"min_slices": 39}, 2),
        ({"description": "THICK|8 slices"}, 3),
        ({"description": "^series 4$"}, 4),
        ({"modality": "ct"}, 2),
        ({"name": "CT"}, 2),
    ],
)
def test_a_rule_of_the_plan_binds(chest, rule, expected):
    for path in (chest / "3").iterdir():
        edit(path, SeriesDescription="thick")
    assert chosen(chest, rule).series_uid == f"{STUDY}.{expected}"


def edit(path: Path, **tags: Any) -> None:
    data: FileDataset = pydicom.dcmread(path)
    for key, value in tags.items():
        setattr(data, key, value)
    data.save_as(path)


def test_contrast_body_part_and_modality_tell_series_apart(tmp_path):
    write_series(tmp_path / "p", 1, ContrastBolusAgent="Iopamidol", BodyPartExamined="CHEST")
    write_series(tmp_path / "p", 2, BodyPartExamined="CHEST")
    write_series(tmp_path / "p", 3, BodyPartExamined="ABDOMEN")
    write_series(tmp_path / "p", 4, Modality="MR", BodyPartExamined="CHEST")
    rule = {"modality": "CT", "body_part": "chest|thorax", "contrast": True}
    source = chosen(tmp_path / "p", rule)
    assert source.series_uid.endswith(".1")
    assert "(CT, axial, 1.0 mm, 12 slices, contrast agent)" in source.reason
    assert chosen(tmp_path / "p", {**rule, "contrast": False}).series_uid.endswith(".2")
    assert chosen(tmp_path / "p", {"modality": "MR"}).series_uid.endswith(".4")


def test_a_tie_that_nothing_breaks_is_refused_with_the_candidates(tmp_path):
    write_series(tmp_path / "p", 1, SeriesDescription="Lung B70f for Jane Doe")
    write_series(tmp_path / "p", 2, SeriesDescription="Soft B30f for Jane Doe")
    source = chosen(tmp_path / "p")
    assert source.series is None
    assert "2 of 2 series fit the model equally well" in source.error
    assert f"{STUDY}.1 (CT, axial, 1.0 mm, 12 slices); {STUDY}.2" in source.error
    assert "--series UID" in source.error and "Jane" not in source.error
    found = chosen(tmp_path / "p", {"description": "b30f"})
    assert found.series_uid == f"{STUDY}.2"
    assert "its description does not match 'b30f'" in found.reason and "Jane" not in found.reason


def test_a_short_detail_goes_behind_a_whole_scan_although_it_is_thinner(tmp_path):
    write_series(tmp_path / "p", 1, slices=30, spacing=2)
    write_series(tmp_path / "p", 2, slices=20, spacing=0.5)
    source = chosen(tmp_path / "p")
    assert source.series_uid.endswith(".1") and "covers 10 of 60 mm" in source.reason


def test_thick_overlapping_slices_are_thick(tmp_path):
    write_series(tmp_path / "p", 1, slices=40, spacing=1, SliceThickness=5)
    write_series(tmp_path / "p", 2, slices=20, spacing=2, SliceThickness=2)
    assert chosen(tmp_path / "p").series_uid.endswith(".2")


def test_derived_series_are_taken_where_there_is_no_original_or_the_rule_permits(tmp_path):
    write_series(tmp_path / "p", 1, slices=40, spacing=1, ImageType=["DERIVED", "PRIMARY"])
    write_series(tmp_path / "p", 2, slices=20, spacing=2)
    assert chosen(tmp_path / "p").series_uid.endswith(".2")
    assert chosen(tmp_path / "p", {"derived": True}).series_uid.endswith(".1")
    for path in (tmp_path / "p" / "2").iterdir():
        edit(path, ImageType=["DERIVED", "PRIMARY"])
    assert chosen(tmp_path / "p").series_uid.endswith(".1")


def test_nothing_that_fits_is_refused_with_a_reason_for_each(tmp_path):
    write_series(tmp_path / "p", 1)
    write_series(tmp_path / "p", 2, slices=4)
    source = chosen(tmp_path / "p", {"modality": "MR"})
    assert source.error.startswith("none of 2 series fits the model")
    assert source.error.count("modality CT, not MR") == 2


def test_the_uid_that_was_asked_for_wins_over_every_rule(chest):
    source = chosen(chest, {"modality": "MR"}, series=f"{STUDY}.4")
    assert (source.series_uid, source.error, source.reason) == (f"{STUDY}.4", "", "asked for by its UID")


def test_a_lone_series_is_held_against_what_is_written_down_and_nothing_else(tmp_path):
    write_series(tmp_path / "p", 1, slices=4, ImageType=["DERIVED", "SECONDARY"], SeriesDescription="x")
    assert chosen(tmp_path / "p").reason == "the only image series of the study (CT, axial, 1.0 mm, 4 slices)"
    assert chosen(tmp_path / "p", {"name": "CT", "modality": "CT"}).error == ""
    assert "modality CT, not MR" in chosen(tmp_path / "p", {"name": "FLAIR", "modality": "MR"}).error


# Channels


@pytest.fixture
def head(tmp_path: Path) -> Path:
    for number, text in enumerate(("T1 pre", "T1 post gad", "FLAIR", "T2", "ADC"), start=1):
        write_series(tmp_path / "h", number, Modality="MR", SeriesDescription=text, value=number)
    return tmp_path / "h"


def test_channels_are_found_by_their_names_in_the_models_order(head):
    source = chosen(head, {"name": "FLAIR"}, {"name": "T1CE"})
    assert source.error == ""
    assert [part.series_uid for part in source.channels] == [f"{STUDY}.3", f"{STUDY}.2"]
    assert source.series_uid == f"{STUDY}.3" and len(source.paths) == 24
    assert source.reason.startswith(f"FLAIR: {STUDY}.3, of 5 series the only one that fits (MR, axial, 1.0 mm, 12 sl")
    assert f"; T1CE: {STUDY}.2, of 5 series" in source.reason
    turned = chosen(head, {"name": "T1c"}, {"name": "FLAIR", "reference": True})
    assert [p.series_uid[-1] for p in turned.channels] == ["2", "3"] and turned.series_uid.endswith(".3")


def test_patterns_of_ones_own_find_channels_but_never_swap_them(head):
    first = {"name": "FLAIR", "description": "^flair"}
    assert chosen(head, first, {"name": "T1c", "description": "gad"}).error == ""
    swapped = chosen(head, {"name": "FLAIR", "description": "post"}, {"name": "T1c", "description": "flair"})
    assert "channel FLAIR" in swapped.error and "its description says t1c, not flair" in swapped.error


def test_a_channel_that_is_missing_or_doubled_or_unknown_is_refused_by_name(head):
    assert "channel PD: none of 5 series" in chosen(head, {"name": "FLAIR"}, {"name": "PD"}).error
    both = chosen(head, {"name": "a", "description": "flair"}, {"name": "b", "description": "fla"})
    assert f"channels a and b would both be series {STUDY}.3" in both.error
    assert "add select" in chosen(head, channels=2).error
    write_series(head, 9, Modality="MR", SeriesDescription="FLAIR fs")
    assert "channel FLAIR: 2 of 6 series fit" in chosen(head, {"name": "FLAIR"}, {"name": "T1c"}).error


def test_one_series_is_not_two_channels(tmp_path):
    write_series(tmp_path / "p", 1, Modality="MR", SeriesDescription="FLAIR")
    error = chosen(tmp_path / "p", {"name": "FLAIR"}, {"name": "T1c"}).error
    assert error.startswith("the model needs 2 channels (FLAIR, T1c), found")


def test_a_candidate_knows_its_geometry(tmp_path):
    write_series(tmp_path / "p", 1, plane="sagittal", slices=9, spacing=3)
    (source,) = find_studies(tmp_path / "p")
    assert source.series is not None
    found = candidate_of(source.series)
    assert (found.orientation, found.slices, found.thickness_mm, found.extent_mm) == ("sagittal", 9, 3.0, 27.0)
    assert misfit(found, SelectRule(min_slices=10)) == "9 slices, fewer than 10"
    bare = replace(source.series, slices=tuple(replace(s, orientation=(), thickness=0.0) for s in source.series.slices))
    assert candidate_of(bare).looks == "CT, 9 slices"
