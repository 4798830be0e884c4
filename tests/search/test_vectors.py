"""Exact search against the plain product of all."""

from __future__ import annotations

import numpy as np
import pytest

from mmpt_plugin.search import vectors
from mmpt_plugin.search.vectors import VectorIndex


def filled(rng: np.random.Generator, rows: int, width: int = 16, first_video: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Vectors, and windows of videos of ten windows each."""
    places = np.arange(rows)
    windows = np.stack([first_video + places // 10, places % 10 * 4, places % 10 * 4 + 8], axis=1)
    return (rng.standard_normal((rows, width)) * rng.uniform(0.1, 9, (rows, 1))).astype(np.float16), windows


def brute(rows: np.ndarray, windows: np.ndarray, query: np.ndarray, k: int) -> list[tuple[float, list[int]]]:
    scores = rows.astype(np.float32) @ query
    return [(float(scores[place]), windows[place].tolist()) for place in np.argsort(-scores, kind="stable")[:k]]


def as_list(found):
    return [(score, window) for score, window in zip(found[0].tolist(), found[1].tolist())]


def check(index: VectorIndex, rows: np.ndarray, windows: np.ndarray, rng: np.random.Generator, k: int = 10) -> None:
    for _ in range(20):
        query = rng.standard_normal(rows.shape[1]).astype(np.float32)
        found, expected = as_list(index.search(query, k)), brute(rows, windows, query, k)
        assert [window for _, window in found] == [window for _, window in expected]
        np.testing.assert_allclose([s for s, _ in found], [s for s, _ in expected], rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 7, 300, 3000])
def test_it_is_exact(rows):
    rng = np.random.default_rng(rows)
    data = filled(rng, rows)
    index = VectorIndex(16)
    index.add(*data)
    check(index, *data, rng)


def test_it_is_exact_where_the_codes_mislead(monkeypatch):
    """A row far outside makes the codes so coarse that the first candidates cannot be the proof."""
    monkeypatch.setattr(vectors, "CANDIDATES", 12)
    rng = np.random.default_rng(1)
    rows, windows = filled(rng, 2000)
    rows[7] = 3000
    index = VectorIndex(16)
    index.add(rows, windows)
    check(index, rows, windows, rng)


def test_it_is_exact_while_it_grows_and_shrinks():
    rng = np.random.default_rng(2)
    index = VectorIndex(16)
    rows, windows = filled(rng, 1200)
    index.add(rows, windows)
    check(index, rows, windows, rng)
    for step in range(40):
        more, their_windows = filled(rng, 30, first_video=1000 + 3 * step)
        index.add(more * np.float16(3), their_windows)
        rows, windows = np.concatenate([rows, more * np.float16(3)]), np.concatenate([windows, their_windows])
        gone = set(rng.choice(np.unique(windows[:, 0]), 2).tolist())
        index.remove(gone)
        left = ~np.isin(windows[:, 0], list(gone))
        rows, windows = rows[left], windows[left]
        assert len(index) == len(rows) and index.videos() == set(windows[:, 0].tolist())
        if step % 8 == 0:
            check(index, rows, windows, rng)


def test_a_growing_library_is_not_coded_again_and_again(monkeypatch):
    """Many small additions join the small parts only: each row is coded a few times and not once for each addition."""
    coded = []
    code = VectorIndex._coded_segment
    monkeypatch.setattr(
        VectorIndex, "_coded_segment", lambda self, first, end: coded.append(end - first) or code(self, first, end)
    )
    rng = np.random.default_rng(6)
    index = VectorIndex(16)
    rows, windows = filled(rng, 1000)
    index.add(rows, windows)
    for step in range(100):
        index.search(np.ones(16, np.float32), 3)
        more, theirs = filled(rng, 10, first_video=1000 + step)
        index.add(more, theirs)
        rows, windows = np.concatenate([rows, more]), np.concatenate([windows, theirs])
    check(index, rows, windows, rng)
    assert sum(coded) < 4 * len(rows) and len(index._segments) <= vectors.MOST_SEGMENTS


def test_many_removed_rows_are_forgotten(monkeypatch):
    monkeypatch.setattr(vectors, "MOST_DEAD", 50)
    rng = np.random.default_rng(3)
    rows, windows = filled(rng, 400)
    index = VectorIndex(16)
    index.add(rows, windows)
    index.search(np.ones(16, np.float32), 1)
    index.remove(range(1, 20))
    assert index.count == len(index) == 210
    check(index, rows[190:], windows[190:], rng)


def test_within_some_videos_and_more_than_there_are():
    rng = np.random.default_rng(4)
    rows, windows = filled(rng, 500)
    index = VectorIndex(16)
    index.add(rows, windows)
    query = rng.standard_normal(16).astype(np.float32)
    own = np.isin(windows[:, 0], [3, 40])
    assert [w for _, w in as_list(index.search(query, 100, [3, 40]))] == [
        w for _, w in brute(rows[own], windows[own], query, 100)
    ]
    assert len(index.search(query, 9999)[0]) == 500
    assert len(VectorIndex(16).search(query, 5)[0]) == 0


def test_what_is_unlike_the_rest():
    rng = np.random.default_rng(5)
    rows, windows = filled(rng, 300)
    rows[:] = rng.normal(0, 0.1, rows.shape)
    rows[::2, 0] += 5
    rows[1::2, 1] += 5
    rows[123] = [0] * 15 + [5]
    index = VectorIndex(16)
    index.add(rows, windows)
    scores, found = index.unlike_the_rest(3)
    assert found[0].tolist() == windows[123].tolist() and scores[0] > scores[1]
    assert set(index.unlike_the_rest(3, [5])[1][:, 0].tolist()) == {5}
