"""Bootstrap intervals against the normal approximation, and their edge cases."""

import math

import numpy as np
import pytest

from mmpt_plugin.evaluation.bootstrap import percentile_interval, resample


def test_the_interval_of_a_share_is_near_the_normal_one():
    hits = np.arange(2000) < 500  # a share of 1/4 of 2,000
    low, high = percentile_interval(hits[resample(2000, np.random.default_rng(0))].mean(axis=1))
    spread = 1.96 * math.sqrt(0.25 * 0.75 / 2000)  # 0.019
    assert (low, high) == pytest.approx((0.25 - spread, 0.25 + spread), abs=0.002)


def test_the_same_seed_gives_the_same_draw():
    draws = [resample(7, np.random.default_rng(3), resamples=50) for _ in range(2)]
    assert np.array_equal(*draws)
    assert draws[0].shape == (50, 7) and draws[0].min() == 0 and draws[0].max() == 6


def test_undefined_resamples_are_left_out():
    assert percentile_interval(np.array([math.nan, 1.0, 1.0])) == (1.0, 1.0)
    assert all(math.isnan(end) for end in percentile_interval(np.array([math.nan])))


def test_the_level_sets_the_tails():
    assert percentile_interval(np.arange(101.0), level=0.8) == pytest.approx((10, 90))
