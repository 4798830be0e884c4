"""Clusters out of neighbour lists: hand-worked cases, slow versions, and what the reference data says of them."""

import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmpt_plugin.retrieval.clusters import cluster_statistics, draw_seeds, form_clusters


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(("num_videos", "count"), [(32, 1), (63, 1), (64, 2), (3000, 93)])
def test_one_seed_a_whole_cluster(num_videos: int, count: int, rng: np.random.Generator) -> None:
    seeds = draw_seeds(num_videos, 32, rng)
    assert len(seeds) == len(set(seeds)) == count  # 3000 // 32 = 93, as many clusters as the original makes of 3,000
    assert all(0 <= seed < num_videos for seed in seeds)


def test_every_video_is_a_seed_equally_often(rng: np.random.Generator) -> None:
    counts = np.bincount(np.concatenate([draw_seeds(10, 3, rng) for _ in range(4000)]), minlength=10)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_too_few_videos_for_a_cluster(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="clusters of 32 videos need at least as many videos, got 31"):
        draw_seeds(31, 32, rng)


def test_random_pick_draws_every_set_of_neighbours_equally_often(rng: np.random.Generator) -> None:
    # 4 of 7 neighbours: 35 possible sets, the query (the first) in 4/7 of them, so it is not always kept.
    lists = np.tile([50, 11, 12, 13, 14, 15, 16], (7000, 1))
    drawn = Counter(tuple(sorted(cluster)) for cluster in form_clusters(lists, 4, rng))
    assert drawn.keys() == set(combinations([11, 12, 13, 14, 15, 16, 50], 4))
    assert stats.chisquare(list(drawn.values())).pvalue > 1e-4


def test_nearest_pick_takes_the_first(rng: np.random.Generator) -> None:
    clusters = form_clusters([[3, 9, 1, 4], [0, -1, 7, 2]], 3, rng, pick="nearest")
    np.testing.assert_array_equal(clusters, [[3, 9, 1], [0, 7, 2]])


rows = st.lists(st.lists(st.integers(-1, 30), max_size=12), min_size=1, max_size=6)


@settings(deadline=None)
@given(rows, st.integers(1, 6), st.sampled_from(["random", "nearest"]))
def test_exactly_k_distinct_videos_or_an_error(lists: list[list[int]], size: int, pick: str) -> None:
    distinct = [list(dict.fromkeys(video for video in row if video >= 0)) for row in lists]
    if min(map(len, distinct)) < size:
        with pytest.raises(ValueError, match=f"a cluster needs {size} distinct neighbours"):
            form_clusters(lists, size, np.random.default_rng(0), pick=pick)
        return
    clusters = form_clusters(lists, size, np.random.default_rng(0), pick=pick)
    assert len(clusters) == len(lists)
    for cluster, row in zip(clusters, distinct, strict=True):
        assert len(cluster) == len(set(cluster)) == size and set(cluster) <= set(row)
        if pick == "nearest":
            assert cluster.tolist() == row[:size]


def test_short_lists_are_refused_by_number(rng: np.random.Generator) -> None:
    lists = [[0, 1, 2], [1, 1, 2], [2, 0, -1]]
    with pytest.raises(ValueError, match="2 of 3 lists have fewer, the first is list 1 with 2"):
        form_clusters(lists, 3, rng)


def test_unknown_pick_and_size(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match=r"pick must be one of .* got 'best'"):
        form_clusters([[0, 1]], 2, rng, pick="best")
    with pytest.raises(ValueError, match="1 or more, got 0"):
        form_clusters([[0, 1]], 0, rng)


def test_no_queries_make_no_clusters(rng: np.random.Generator) -> None:
    assert form_clusters(np.empty((0, 64), dtype=np.int64), 32, rng) == []


def test_draws_depend_on_the_generator_alone() -> None:
    lists = np.arange(640).reshape(10, 64)
    first, again, other = (form_clusters(lists, 32, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (np.stack(first) != np.stack(other)).any()


def test_statistics_of_a_hand_worked_case(rng: np.random.Generator) -> None:
    # Videos on a line at 0, 3, 4, 10 and 20 eighths. Pairs of {0, 1, 2}: 3, 4, 1; of {1, 2, 3}: 1, 7, 6; mean 22/6 / 8.
    # Seen: 0, 1, 2, 3 of five videos, in 1, 2, 2, 1 clusters. Far from 0, where plain products lose their precision.
    vectors = 1000 + np.float32([[0, 0], [3, 0], [4, 0], [10, 0], [20, 0]]) / 8
    figures = cluster_statistics([np.array([0, 1, 2]), np.array([1, 2, 3])], vectors, rng)
    assert figures.pop("random_distance") > 0
    assert figures == pytest.approx(
        {
            "within_cluster_distance": 22 / 6 / 8,
            "share_of_videos_seen": 4 / 5,
            "mean_repeats": 6 / 4,
            "max_repeats": 2,
        }
    )
    assert all(type(value) is float for value in figures.values())


def test_random_distance_is_that_of_two_random_videos(rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((400, 8)).astype(np.float32)
    clusters = [np.array([0, 1]), np.array([2, 3])] * 300
    every_pair = np.mean([np.linalg.norm(a - b) for a, b in combinations(vectors.astype(np.float64), 2)])
    figures = cluster_statistics(clusters, vectors, rng)
    assert figures["random_distance"] == pytest.approx(every_pair, rel=0.05)
    pairs = np.linalg.norm(vectors[[0, 2]] - vectors[[1, 3]], axis=1)
    assert figures["within_cluster_distance"] == pytest.approx(pairs.mean(), rel=0.05)


def test_random_groups_hold_each_video_once(rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((5, 3)).astype(np.float32)
    figures = cluster_statistics([np.arange(5)] * 3, vectors, rng)  # a group of five is all videos, in any order
    assert figures["random_distance"] == pytest.approx(figures["within_cluster_distance"], rel=1e-6)


def test_clusters_of_one_video_have_no_distance(rng: np.random.Generator) -> None:
    assert cluster_statistics([np.array([1])], np.eye(2, dtype=np.float32), rng)["within_cluster_distance"] == 0.0


def test_reference_neighbours_make_near_clusters(golden: Path, rng: np.random.Generator) -> None:
    vectors = np.load(golden / "retrieval" / "vectors.npy")
    position = {name: i for i, name in enumerate(json.loads((golden / "retrieval" / "video_ids.json").read_text()))}
    exact = json.loads((golden / "retrieval" / "neighbours.json").read_text())["exact_l2_top63_plus_self"]
    clusters = form_clusters([[position[name] for name in row] for row in exact], 32, rng)
    assert {len(set(cluster)) for cluster in clusters} == {32}
    figures = cluster_statistics(clusters, vectors, rng)
    slow = np.mean(
        [np.linalg.norm(vectors[a] - vectors[b]) for cluster in clusters for a, b in combinations(cluster, 2)]
    )
    assert figures["within_cluster_distance"] == pytest.approx(slow, rel=1e-5)
    assert figures["within_cluster_distance"] < 0.8 * figures["random_distance"]
