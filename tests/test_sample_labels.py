"""Codes of training samples: what is known of a voxel, beside its value."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.labels import LabelScheme
from medseg.sample_labels import SampleLabels

PLAIN = LabelScheme.from_mapping({"liver": 1, "spleen": 4, "tumour": 2}, ignore=9)
REGIONS = LabelScheme.from_mapping({"whole": [1, 2], "core": [2]}, ignore=5)


@pytest.mark.parametrize("scheme", [PLAIN, REGIONS])
def test_where_all_cases_have_all_labels_nothing_changes(scheme: LabelScheme) -> None:
    assert SampleLabels.of(scheme, [None, scheme.names]) == scheme


@pytest.mark.parametrize("scheme", [PLAIN, REGIONS])
def test_codes_of_different_sets_and_values_differ_and_ignored_voxels_keep_their_value(scheme: LabelScheme) -> None:
    samples = SampleLabels.of(scheme, [names[:1] for names in (scheme.names, scheme.names[::-1])])
    assert isinstance(samples, SampleLabels)
    assert len(samples.sets) == 2
    codes = [samples.marking(names) for names in (scheme.names, *samples.sets)]
    plain = sorted(scheme.known_values - {scheme.ignore})
    used = np.concatenate([code[plain] for code in codes])
    assert len(set(used.tolist())) == len(used)
    assert np.array_equal(codes[0], np.arange(len(codes[0])))
    assert all(code[scheme.ignore] == scheme.ignore for code in codes)
    assert used.max() < len(samples.annotated_table())
    table = samples.region_table() if scheme.is_regions else samples.channel_table()
    assert len(samples.annotated_table()) == len(table)


def test_a_code_means_the_channel_of_its_value_and_an_unannotated_label_the_background() -> None:
    samples = SampleLabels.of(PLAIN, [("tumour", "liver")])
    assert isinstance(samples, SampleLabels)
    code = samples.marking(("liver", "tumour"))
    channels = samples.channel_table()
    assert channels[code[[0, 1, 2, 4, 9]]].tolist() == [0, 1, 3, 0, -1]
    assert samples.annotated_table()[code[1]].tolist() == [True, True, False, True]
    assert samples.annotated_table()[1].all()


def test_codes_of_regions_keep_their_memberships() -> None:
    samples = SampleLabels.of(REGIONS, [("core",)])
    assert isinstance(samples, SampleLabels)
    code = samples.marking(("core",))
    assert samples.region_table()[code[[0, 1, 2]]].tolist() == [[0, 0], [1, 0], [1, 1]]
    assert samples.annotated_table()[code[2]].tolist() == [False, True]


def test_spare_values_of_written_masks_make_no_codes() -> None:
    regions = LabelScheme.from_mapping({"whole": [1, 2], "pen": [1], "core": [2]})
    assert regions.written.spare
    assert SampleLabels.of(regions.written, [("pen",)]) == SampleLabels.of(regions, [("pen",)])
