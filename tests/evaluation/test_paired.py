"""Paired tests, corrections and rankings by hand and against scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from medseg.evaluation.columns import record_of
from medseg.evaluation.outliers import notable_cases, robust_z
from medseg.evaluation.paired import compare_paired, holm, permutation_test, wilcoxon_test
from medseg.evaluation.ranking import rank_models


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_eight_differences_of_one_sign_are_two_patterns_of_256() -> None:
    assert permutation_test([1.0] * 8, rng()) == 2 / 256
    assert permutation_test([0.0] * 8, rng()) == 1.0


def test_all_patterns_agree_with_scipy() -> None:
    differences = rng().normal(0.4, 1.0, 9)
    oracle = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert permutation_test(differences, rng()) == pytest.approx(float(oracle.pvalue))


def test_random_patterns_come_near_all_patterns() -> None:
    differences = rng().normal(0.3, 1.0, 14)
    exact = np.mean([abs(np.dot(s, differences)) >= abs(differences.sum()) - 1e-12
                     for s in itertools.product((-1, 1), repeat=14)])  # fmt: skip
    assert permutation_test(differences, rng()) == pytest.approx(float(exact), abs=0.015)


def test_wilcoxon_by_hand() -> None:
    # Ranks 1..5, all on one side: 2 of 32 patterns.
    assert wilcoxon_test([0.1, 0.2, 0.3, 0.4, 0.5]) == pytest.approx(2 / 32)
    assert wilcoxon_test([0.0] * 10) == 1.0


def test_holm_by_hand_and_missing_tests_do_not_count() -> None:
    assert holm([0.01, None, 0.02, 0.03]) == pytest.approx([0.03, None, 0.04, 0.04])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([None]) == [None]


def test_cases_of_one_patient_count_as_their_mean() -> None:
    first = [1.0, 0.0, *[0.6] * 7]
    found = compare_paired(first, [0.4] * 9, ["a", "a", *"bcdefgh"], rng())
    assert found.n_patients == 8
    assert found.difference == pytest.approx((0.1 + 7 * 0.2) / 8)
    assert found.p_permutation == 2 / 256


def test_too_few_patients_get_a_difference_and_nothing_else() -> None:
    found = compare_paired([0.9] * 7, [0.8] * 7, range(7), rng())
    assert found.difference == pytest.approx(0.1)
    assert (found.ci_low, found.ci_high, found.p_permutation, found.p_wilcoxon) == (None,) * 4


def test_ranks_are_taken_per_case_and_averaged() -> None:
    # Case 1: a, b, c; case 2: a and b tie before c; case 3: c, a, b.
    bad = np.array([[1, 1, 2], [2, 1, 3], [3, 2, 1]], float)[:, :, None]
    found = rank_models(bad, ["x", "y", "z"], rng())
    assert found.mean_rank == pytest.approx(((1 + 1.5 + 2) / 3, (2 + 1.5 + 3) / 3, (3 + 3 + 1) / 3))
    assert found.rank == (1, 2, 3)
    assert found.kendall_tau is None and found.rank_low == ()


def test_a_model_that_always_wins_is_first_in_every_resample() -> None:
    bad = np.stack([np.full((10, 1), 0.1), rng().random((10, 1)) + 0.2])
    found = rank_models(bad, range(10), rng())
    assert found.first_share == (1.0, 0.0) and found.rank_low == found.rank_high == (1.0, 2.0)
    assert found.kendall_tau == 1.0


def test_equal_models_share_the_first_place() -> None:
    found = rank_models(np.ones((2, 10, 2)), range(10), rng())
    assert found.rank == (1, 1) and found.first_share == (1.0, 1.0)


def test_scores_that_a_case_does_not_have_do_not_count() -> None:
    bad = np.array([[[1.0, np.nan]], [[2.0, np.nan]]])
    assert rank_models(bad, ["x"], rng()).mean_rank == (1.0, 2.0)


def test_robust_z_by_hand() -> None:
    # Median 3, absolute deviations 2 1 0 1 97, MAD 1.
    assert robust_z([1, 2, 3, 4, 100]) == pytest.approx(0.6745 * np.array([-2, -1, 0, 1, 97]))
    assert robust_z([5.0] * 9).tolist() == [0.0] * 9
    assert robust_z([0.0] * 9 + [10.0])[-1] == pytest.approx(10 / 1.253314)


def test_worst_cases_and_outliers_lie_on_the_worse_side() -> None:
    dice = [0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.3, 0.999]
    found = notable_cases(record_of("dice"), list("abcdefghi"), dice)
    assert [w.case for w in found.worst] == ["h", "a", "b", "c", "d"]
    assert [o.case for o in found.outliers] == ["h"]
    assert notable_cases(record_of("volume_difference_ml"), ["a", "b"], [-9.0, 2.0]).worst[0].case == "a"
    assert notable_cases(record_of("volume_ml_left_reference"), ["a"], [1.0]).worst == ()
