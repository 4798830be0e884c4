"""Bootstrap intervals over videos: by hand, by simulated data sets, and their edge cases."""

import math

import numpy as np
import pytest

from mmpt_plugin.evaluation.bootstrap import (
    VideoSums,
    intervals,
    paired_differences,
    percentile_interval,
    resampled_weights,
    weighted_median,
)


def test_sums_and_metrics_by_hand():
    sums = VideoSums.of(
        ["b", "a", "b"],
        {"R@1": ([True, False, False], 1), "iou": ([0.5, 0.25, 1], [2, 1, 2])},
        ranks=np.array([1, 7, 4]),
    )
    assert sums.videos.tolist() == ["b", "a"]
    assert sums.numerators.tolist() == [[1, 1.5], [0, 0.25]] and sums.denominators.tolist() == [[2, 4], [1, 1]]
    assert sums.metrics() == {"R@1": 1 / 3, "iou": 1.75 / 5, "median_rank": 4}
    assert sums.metrics(np.array([2, 0])) == {"R@1": 1 / 2, "iou": 3 / 8, "median_rank": 2.5}
    assert all(math.isnan(value) for value in sums.metrics(np.array([0, 0])).values())


def test_groups_count_alike_and_keep_their_number_of_videos():
    # group a: 5 of 5; b: 0 of 5; c shows nothing and has no metric of its own
    groups, videos = [*"aaaaabbbbbc"], [f"v{i}" for i in range(11)]
    sums = VideoSums.of(videos, {"recall": ([1] * 5 + [0] * 6, [1] * 10 + [0])}, groups=groups)
    assert sums.metrics() == {"recall": 0.5}
    assert intervals(sums, resamples=50) == {"recall": (0.5, 0.5)}
    for weights in resampled_weights(sums, 0, 20):
        assert (weights[:5].sum(), weights[5:10].sum(), weights[10]) == (5, 5, 1)


@pytest.mark.parametrize("values", [[3], [2, 8], [5, 1, 9], [4, 4, 1, 7]])
def test_the_weighted_median_is_that_of_repeated_values(values):
    rng = np.random.default_rng(0)
    for _ in range(20):
        weights = rng.integers(0, 4, len(values))
        repeated = np.repeat(values, weights)
        expected = np.median(repeated) if len(repeated) else math.nan
        assert weighted_median(np.array(values), weights) == pytest.approx(expected, nan_ok=True)


def test_the_interval_of_a_share_is_near_the_normal_one():
    hits = np.arange(2000) < 500  # a share of 1/4 of 2,000
    low, high = intervals(VideoSums.of([f"v{i}" for i in range(2000)], {"R@1": (hits, 1)}))["R@1"]
    spread = 1.96 * math.sqrt(0.25 * 0.75 / 2000)  # 0.019
    assert (low, high) == pytest.approx((0.25 - spread, 0.25 + spread), abs=0.002)


def test_the_interval_covers_the_truth_where_queries_of_a_video_are_alike():
    """60 videos of 8 queries: half of a query's chance to be right is its video's. Queries resampled would cover 75%."""
    rng = np.random.default_rng(1)
    videos = [f"v{i // 8}" for i in range(480)]
    covered = 0
    for _ in range(200):
        chance = np.repeat(rng.choice([0.05, 0.95], 60), 8)
        low, high = intervals(VideoSums.of(videos, {"R@1": (rng.random(480) < chance, 1)}), resamples=200)["R@1"]
        covered += low <= 0.5 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_the_same_seed_gives_the_same_draw():
    sums = VideoSums.of([*"abcdefg"], {"R@1": (1, 1)})
    first, second, other = (np.stack([*resampled_weights(sums, seed, 50)]) for seed in (3, 3, 4))
    assert np.array_equal(first, second) and not np.array_equal(first, other)
    assert (first.sum(axis=1) == 7).all() and first.min() == 0 and first.max() > 1


def test_a_paired_difference_forgets_what_is_hard_for_both():
    rng = np.random.default_rng(0)
    videos, hard = [f"v{i}" for i in range(300)], rng.random(300) < 0.5
    before = VideoSums.of(videos, {"R@1": (~hard, 1)}, ranks=np.where(hard, 9, 1))
    better = ~hard | (rng.random(300) < 0.1)  # 5 of 100 more
    after = VideoSums.of(videos, {"R@1": (better, 1)}, ranks=np.where(better, 1, 9))
    difference, low, high = paired_differences(before, after)["R@1"]
    assert difference == pytest.approx((better.sum() - (~hard).sum()) / 300)
    assert 0 < low < difference < high < 0.1
    own = intervals(after)["R@1"]
    assert high - low < (own[1] - own[0]) / 2
    assert paired_differences(before, before)["median_rank"] == (0, 0, 0)


def test_other_videos_cannot_be_paired():
    first, second = (VideoSums.of(videos, {"R@1": (1, 1)}) for videos in (["a", "b"], ["a", "c"]))
    with pytest.raises(ValueError, match=r"other videos or queries \(2 and 2 videos\)"):
        paired_differences(first, second)
    fewer = VideoSums.of(["a"], {"R@1": (1, 1)}, ranks=np.array([1]))
    with pytest.raises(ValueError, match="2 and 1 videos"):
        paired_differences(first, fewer)


def test_sums_go_into_a_scores_file_and_come_back():
    sums = VideoSums.of(["ä", "b"], {"R@1": ([1, 0], 1), "edit": (0.5, 1)}, groups=["x", "y"], ranks=np.array([2, 3]))
    back = VideoSums.from_arrays({**sums.arrays(), "similarities": np.eye(2)})
    assert back.metrics() == sums.metrics() and back.videos.tolist() == ["ä", "b"]
    assert paired_differences(sums, back)["R@1"] == (0, 0, 0)
    with pytest.raises(KeyError):
        VideoSums.from_arrays({"similarities": np.eye(2)})


def test_undefined_resamples_are_left_out():
    assert percentile_interval(np.array([math.nan, 1.0, 1.0])) == (1.0, 1.0)
    assert all(math.isnan(end) for end in percentile_interval(np.array([math.nan])))


def test_the_level_sets_the_tails():
    assert percentile_interval(np.arange(101.0), level=0.8) == pytest.approx((10, 90))
