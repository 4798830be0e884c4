"""Sliding windows against the original's rule in words, and the mean over windows against a slow version."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpt_plugin.data.windows import Window
from mmpt_plugin.evaluation.windows import (
    merge_by_video,
    merge_windows,
    sliding_windows,
    warn_of_cut_segments,
    windows_of_videos,
)


def slow_windows(seconds: int, size: int, stride: int) -> list[tuple[int, int]]:
    windows, start = [], 0
    while seconds > 0:
        windows.append((start, min(start + size, seconds)))
        if seconds - start <= size:
            break
        start += stride
    return windows


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, []),
        (1, [(0, 1)]),
        (32, [(0, 32)]),
        (33, [(0, 32), (16, 33)]),
        (48, [(0, 32), (16, 48)]),  # 48 - 16 = 32 seconds left: the window from 16 is the last
        (49, [(0, 32), (16, 48), (32, 49)]),
    ],
)
def test_windows_by_hand(seconds: int, expected: list[tuple[int, int]]) -> None:
    assert sliding_windows(seconds) == expected


@given(st.integers(0, 400), st.integers(1, 40), st.data())
def test_windows_follow_the_rule_and_cover_every_second(seconds: int, size: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, size))
    windows = sliding_windows(seconds, size, stride)
    assert windows == slow_windows(seconds, size, stride)
    assert {second for start, end in windows for second in range(start, end)} == set(range(seconds))


@pytest.mark.parametrize(("seconds", "size", "stride"), [(-1, 32, 16), (10, 32, 0), (10, 8, 9)])
def test_windows_refuse_gaps_and_negative_lengths(seconds: int, size: int, stride: int) -> None:
    with pytest.raises(ValueError, match="stride"):
        sliding_windows(seconds, size, stride)


def test_mean_by_hand() -> None:
    merged = merge_windows([(0, 2), (1, 3)], [np.array([[1.0], [2.0]]), np.array([[4.0], [8.0]])])
    np.testing.assert_array_equal(merged, [[1.0], [3.0], [8.0]])  # second 1: (2 + 4) / 2


@given(st.integers(1, 120), st.integers(0, 2**32 - 1))
def test_mean_of_states_gives_the_mean_of_logits(seconds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    windows = sliding_windows(seconds)
    states = [rng.standard_normal((end - start, 5)) for start, end in windows]
    labels = rng.standard_normal((7, 5))
    slow = np.array(
        [
            np.mean([s[t - a] @ labels.T for (a, b), s in zip(windows, states) if a <= t < b], axis=0)
            for t in range(seconds)
        ]
    )
    np.testing.assert_allclose(merge_windows(windows, states) @ labels.T, slow, atol=1e-12)


def test_mean_keeps_float32() -> None:
    assert merge_windows([(0, 1)], [np.ones((1, 2), np.float32)]).dtype == np.float32


def test_mean_refuses_arrays_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="row per second"):
        merge_windows([(0, 2)], [np.zeros((3, 1))])
    with pytest.raises(ValueError, match="one array each"):
        merge_windows([(0, 2)], [])


def test_videos_are_kept_apart_and_empty_ones_left_out() -> None:
    windows = windows_of_videos({"long": 33, "empty": 0, "-x_y": 1})
    assert windows == [Window("long", 0, 32), Window("long", 16, 33), Window("-x_y", 0, 1)]
    values = [np.full((w.end - w.start, 1), i, np.float32) for i, w in enumerate(windows)]
    merged = dict(merge_by_video(windows, values))
    assert list(merged) == ["long", "-x_y"]
    np.testing.assert_array_equal(merged["long"].ravel(), [0] * 16 + [0.5] * 16 + [1])
    np.testing.assert_array_equal(merged["-x_y"], [[2]])


def test_cut_segments_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_cut_segments("coin", [(0.0, 9.5, 10), (9.0, 10.5, 10), (10.0, 12.0, 10)])
    assert "coin: 2 of 3 annotated segments reach beyond" in caplog.text  # ceil(10.5) = 11 and 12 > 10
    assert "1 lie beyond entirely" in caplog.text


def test_no_warning_where_all_segments_fit(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_cut_segments("coin", [(0.0, 10.0, 10)])
    assert not caplog.records
