"""The index against brute force, on the reference vectors and on small worlds with ties."""

import builtins
import json
import logging
import math
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
import torch

from mmpt_plugin.data.workers import available_cores
from mmpt_plugin.retrieval import index as index_module
from mmpt_plugin.retrieval.index import VideoIndex, all_cores
from mmpt_plugin.retrieval.settings import RetrievalConfig, check_retrieval


def build(vectors: np.ndarray, *, seed: int = 1, names: list[str] | None = None, **settings: object) -> VideoIndex:
    """An index with these settings of `task.retrieval`."""
    return VideoIndex(vectors, RetrievalConfig(**settings), seed=seed, names=names)


def brute_force(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    vectors, queries = vectors.astype(np.float64), queries.astype(np.float64)
    distances = (queries**2).sum(axis=1)[:, None] - 2 * queries @ vectors.T + (vectors**2).sum(axis=1)
    indexes = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, indexes, axis=1), indexes


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, exact, strict=True)]))


@pytest.fixture
def vectors() -> np.ndarray:
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((20, 16))
    return (centres[rng.integers(20, size=1000)] + 0.5 * rng.standard_normal((1000, 16))).astype(np.float32)


@pytest.fixture(scope="module")
def reference(golden: Path) -> SimpleNamespace:
    folder = golden / "retrieval"
    position = {name: i for i, name in enumerate(json.loads((folder / "video_ids.json").read_text()))}
    lists = json.loads((folder / "neighbours.json").read_text())
    return SimpleNamespace(
        vectors=np.load(folder / "vectors.npy"),
        queries=np.array([position[name] for name in lists["queries"]]),
        exact=np.array([[position[name] for name in row] for row in lists["exact_l2_top63_plus_self"]]),
    )


def test_flat_equals_brute_force(vectors: np.ndarray) -> None:
    queries = np.random.default_rng(2).standard_normal((30, 16)).astype(np.float32)
    distances, indexes = build(vectors).search(queries, 64)
    expected_distances, expected_indexes = brute_force(vectors, queries, 64)
    np.testing.assert_array_equal(indexes, expected_indexes)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-4)
    assert distances.dtype == np.float32 and indexes.dtype == np.int64


def test_flat_neighbours_equal_the_reference_lists(reference: SimpleNamespace) -> None:
    found = build(reference.vectors).neighbours_of(reference.queries, 64)
    np.testing.assert_array_equal(found[:, 0], reference.queries)
    np.testing.assert_array_equal(np.sort(found), np.sort(reference.exact))


def test_flat_neighbours_of_all_reference_vectors_equal_brute_force(reference: SimpleNamespace) -> None:
    # In order, too: without a second look at near ties one of the 3,000 sets differs.
    index = build(reference.vectors)
    found = index.neighbours_of(np.arange(len(reference.vectors)), 64)
    np.testing.assert_array_equal(found, brute_force(reference.vectors, reference.vectors, 64)[1])
    assert index.recall == 1.0 and index.nprobe is None and index.num_centroids is None


@pytest.mark.parametrize(("min_recall", "num_centroids"), [(0.8, None), (0.95, None), (0.95, 75), (1.0, 20)])
def test_ivf_reaches_its_recall(
    reference: SimpleNamespace, min_recall: float, num_centroids: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="mmpt_plugin"):
        index = build(reference.vectors, index="ivf", min_recall=min_recall, num_centroids=num_centroids)
    assert index.recall >= min_recall
    assert recall(index.neighbours_of(reference.queries, 64), reference.exact) >= min_recall - 0.03  # another sample
    assert index.num_centroids == (num_centroids or 55)  # sqrt(3000) = 54.8 < 3000 / 39 = 76.9
    assert f"{index.nprobe} of {index.num_centroids} lists searched, recall@64 {index.recall:.3f}" in caplog.text


def test_ivf_takes_the_smallest_nprobe_that_will_do(reference: SimpleNamespace) -> None:
    settings = {"index": "ivf", "num_centroids": 75, "min_recall": 0.95}
    index = build(reference.vectors, **settings)
    assert index.nprobe is not None and 1 < index.nprobe < 75
    assert build(reference.vectors, **settings, max_nprobe=index.nprobe).nprobe == index.nprobe
    with pytest.raises(
        ValueError, match=rf"min_recall 0.95 not reached: recall@64 is 0\.\d+ with {index.nprobe - 1} of 75"
    ):
        build(reference.vectors, **settings, max_nprobe=index.nprobe - 1)


def test_ivf_is_the_same_for_the_same_seed(reference: SimpleNamespace) -> None:
    one, two = (build(reference.vectors, index="ivf", seed=3) for _ in range(2))
    assert (one.nprobe, one.recall) == (two.nprobe, two.recall)
    np.testing.assert_array_equal(one.neighbours_of(reference.queries, 64), two.neighbours_of(reference.queries, 64))


def test_ivf_fills_lists_that_its_nprobe_leaves_short() -> None:
    # 40 lists of about 50 videos: one list cannot hold 100 neighbours, and then all lists are searched.
    vectors = np.random.default_rng(0).uniform(size=(2000, 2)).astype(np.float32)
    index = build(vectors, index="ivf", num_centroids=40, min_recall=0.3, num_neighbors=10)
    assert index.nprobe == 1
    np.testing.assert_array_equal(index.search(vectors[:50], 100)[1], brute_force(vectors, vectors[:50], 100)[1])


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_a_video_comes_first_among_its_duplicates(kind: str) -> None:
    # 60 copies of one embedding: a search for 5 of them finds 5 others for most queries.
    vectors = np.ones((80, 4), dtype=np.float32)
    vectors[60:] = np.random.default_rng(0).standard_normal((20, 4))
    found = build(vectors, index=kind).neighbours_of(np.arange(80), 5)
    np.testing.assert_array_equal(found[:, 0], np.arange(80))
    assert all(len(set(row)) == 5 for row in found)
    assert (found[:60] < 60).all()


def test_recall_of_ivf_counts_ties_as_found() -> None:
    index = build(np.ones((400, 4), dtype=np.float32), index="ivf", num_centroids=8)
    assert index.recall == 1.0


def test_recall_of_ivf_counts_missing_neighbours() -> None:
    # Two lists of 40 videos: 41 neighbours need both, whatever stands in the place that one list leaves empty.
    vectors = np.full((80, 2), 9, dtype=np.float32)
    vectors[:40] = np.random.default_rng(0).uniform(size=(40, 2))
    one, both = (build(vectors, index="ivf", num_centroids=2, num_neighbors=k, min_recall=1.0) for k in (40, 41))
    assert (one.nprobe, both.nprobe) == (1, 2)


def test_blocks_do_not_change_a_search(vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "SEARCH_BLOCK", 33)
    found = build(vectors).neighbours_of(np.arange(100), 10)
    np.testing.assert_array_equal(found, brute_force(vectors, vectors[:100], 10)[1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_named(vectors: np.ndarray, bad: float) -> None:
    vectors[[3, 40], 5] = bad
    with pytest.raises(ValueError, match="2 of 1000 videos have embeddings that are not finite: v3, v40;"):
        build(vectors, names=[f"v{i}" for i in range(1000)])
    vectors[500:, 0] = bad
    with pytest.raises(ValueError, match=r"502 of 1000 .*: 3, 40, 500, .*, 507, \.\.\.;"):
        build(vectors)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_recall": 1.5}, r"task\.retrieval\.min_recall is 1\.5: it must be more than 0 and at most 1"),
        ({"min_recall": 0.0}, r"min_recall is 0\.0"),
        ({"min_recall": math.nan}, r"min_recall is nan"),
        ({"num_centroids": 0}, r"num_centroids is 0: it must be at least 1"),
        ({"max_nprobe": 0}, r"max_nprobe is 0: it must be at least 1"),
        ({"clips_per_video": 0}, r"clips_per_video is 0"),
        ({"clips_per_video": 10**12}, r"clips_per_video is 10{12}: it must be at least 1 and at most 10000"),
        ({"every": 0}, r"every is 0"),
        ({"start_epoch": 0}, r"start_epoch is 0"),
        ({"num_neighbors": 0}, r"num_neighbors is 0"),
        ({"num_neighbors": 3}, r"num_neighbors is 3: a cluster keeps task\.videos_per_batch=4 of them"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    check_retrieval(RetrievalConfig(), 4)
    check_retrieval(RetrievalConfig(num_centroids=1, max_nprobe=1, min_recall=1.0, num_neighbors=4), 4)
    with pytest.raises(ValueError, match=message):
        check_retrieval(RetrievalConfig(**settings), 4)


def test_more_lists_than_videos(vectors: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"num_centroids is 1001: it must be at most 1000, the videos to index"):
        build(vectors, index="ivf", num_centroids=1001)


def test_fewer_videos_than_neighbours(vectors: np.ndarray) -> None:
    index = build(vectors[:40])
    with pytest.raises(ValueError, match=r"k .* must lie in 1..40, .* got 64"):
        index.neighbours_of([0], 64)
    assert len(index) == 40 and index.neighbours_of([0], 40).shape == (1, 40)


def test_wrong_widths(vectors: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"queries must be \(queries, 16\), got \(2, 8\)"):
        build(vectors).search(vectors[:2, :8], 1)
    with pytest.raises(ValueError, match="at least one video, got shape"):
        build(vectors[:0])


def test_a_missing_faiss_says_what_to_install(vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_faiss(name: str, *args: object, **kwargs: object) -> object:
        if name == "faiss":
            raise ImportError("No module named 'faiss'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_faiss)
    with pytest.raises(ImportError, match=r"pip install faiss-cpu, .* \[gpu\]"):
        build(vectors)


def test_a_gpu_is_used_where_faiss_sees_one() -> None:
    gpu = SimpleNamespace(
        StandardGpuResources=lambda: "resources", get_num_gpus=lambda: 1, index_cpu_to_gpu=lambda *given: given
    )
    assert index_module._on_gpu_if_any(gpu, "index") == ("resources", 0, "index")
    gpu.get_num_gpus = lambda: 0
    assert index_module._on_gpu_if_any(gpu, "index") == "index"
    assert index_module._on_gpu_if_any(SimpleNamespace(), "index") == "index"


def test_the_threads_of_training_are_as_before_the_search() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with all_cores():
            assert faiss.omp_get_max_threads() == available_cores()
            build(np.eye(4, dtype=np.float32)).neighbours_of([0], 2)
        assert faiss.omp_get_max_threads() == 1
    finally:
        torch.set_num_threads(before)
