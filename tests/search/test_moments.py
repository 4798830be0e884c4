"""Bounds, merging and fusion, with the arithmetic in sight."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmpt_plugin.search.moments import Hits, Span, find_bounds, fuse, merge_overlapping, overlap, smooth, threshold


def test_smoothing_is_a_mean_over_what_there_is():
    assert smooth(np.array([0.0, 3.0, 6.0, 0.0]), 3).tolist() == [1.5, 3.0, 3.0, 3.0]
    assert smooth(np.array([2.0]), 5).tolist() == [2.0]


@pytest.mark.parametrize("start, end", [(10, 22), (0, 7), (33, 40)])
def test_a_clear_moment_is_found_to_the_second(start, end):
    scores = np.zeros(40)
    scores[start:end] = 1
    window = max(0, start - 3), min(40, start + 5)
    found = find_bounds(scores, *window)
    assert abs(found[0] - start) <= 1 and abs(found[1] - end) <= 1


def test_a_short_dip_does_not_end_a_moment_and_a_long_one_does():
    scores = np.zeros(60)
    scores[10:30] = 1
    scores[20] = 0
    assert find_bounds(scores, 12, 20)[:2] == find_bounds(scores, 12, 28)[:2]
    assert find_bounds(scores, 12, 20)[1] >= 29
    scores[18:26] = 0
    assert find_bounds(scores, 10, 16)[1] <= 19


def test_noise_does_not_widen_it():
    rng = np.random.default_rng(0)
    ious = []
    for _ in range(50):
        scores = rng.normal(0, 0.25, 70)
        scores[30:42] += 1
        start, end, _ = find_bounds(scores, 28, 44)
        ious.append(overlap(Span(1, start, end, 0), Span(1, 30, 42, 0)))
    assert np.mean(ious) > 0.85


def test_flat_scores_give_a_moment_all_the_same():
    start, end, _ = find_bounds(np.ones(9), 2, 6)
    assert 0 <= start < end <= 9


def test_overlap():
    assert overlap(Span(1, 0, 10, 0), Span(1, 5, 15, 0)) == pytest.approx(5 / 15)
    assert overlap(Span(1, 0, 10, 0), Span(2, 0, 10, 0)) == 0
    assert overlap(Span(1, 0, 10, 0), Span(1, 10, 12, 0)) == 0


def test_of_overlapping_moments_the_best_stays():
    spans = [Span(1, 0, 10, 1), Span(1, 9, 12, 3), Span(2, 0, 10, 2), Span(1, 12, 20, 0.5)]
    assert merge_overlapping(spans) == [spans[1], spans[2], spans[3]]


PICTURES = [Span(1, 10, 20, 9.0), Span(2, 0, 8, 7.0), Span(3, 50, 60, 5.0)]
WORDS = [Span(2, 9, 11, 4.0), Span(4, 5, 7, 3.0), Span(4, 6, 8, 2.0)]


def test_fusion_adds_reciprocal_ranks():
    found = fuse(PICTURES, WORDS, 0.5)
    # video 2: second picture and first line, spoken a second after it: 0.5 / 62 + 0.5 / 61
    assert [one.span.video for one in found] == [2, 1, 4, 3]
    assert [one.score for one in found] == pytest.approx([0.5 / 62 + 0.5 / 61, 0.5 / 61, 0.5 / 62, 0.5 / 63])
    assert (found[0].shown, found[0].said) == (7.0, 4.0)
    assert (found[2].shown, found[2].said) == (0.0, 3.0)


def test_only_pictures_and_only_words():
    assert [(one.span, one.score) for one in fuse(PICTURES, WORDS, 0)] == [(span, span.score) for span in PICTURES]
    # the two lines of video 4 overlap and are one hit
    assert [(one.span, one.score) for one in fuse(PICTURES, WORDS, 1)] == [(span, span.score) for span in WORDS[:2]]


def test_without_words_the_order_is_that_of_the_pictures():
    assert [one.span for one in fuse(PICTURES, [], 0.7)] == PICTURES


def test_threshold_is_passed_by_chance_once_in_twenty_libraries():
    rng = np.random.default_rng(0)
    passed = [(scores := rng.normal(3, 2, 2000)).max() > threshold(scores, len(scores)) for _ in range(400)]
    assert 0.02 < np.mean(passed) < 0.09


def test_confidence():
    assert Hits(best=4.0, threshold=3.5).confident
    assert not Hits(best=3.0, threshold=3.5).confident
    assert not Hits().confident and Hits(words=True).confident
    assert math.isnan(threshold(np.zeros(0), 0))
