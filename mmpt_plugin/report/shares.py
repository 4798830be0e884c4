"""Intervals of shares: as those of the metrics, by resampling videos, since queries of one video resemble each other."""

from __future__ import annotations

import numpy as np

RESAMPLES = 400
AT_ONCE = 50  # resamples whose weights are held


def share_intervals(
    hits: np.ndarray, videos: np.ndarray | None, rng: np.random.Generator, *, resamples: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap 95% intervals of the mean of each column.

    Args:
        hits: (N, K) 0 or 1; N >= 1.
        videos: (N,) the video of each row; None where it is not known, and rows are resampled.
        rng: draws the videos.
        resamples: how often.

    Returns:
        Lower and upper ends, (K,) each.
    """
    places = np.arange(len(hits)) if videos is None else np.unique(videos, return_inverse=True)[1]
    groups = int(places.max()) + 1
    sizes = np.bincount(places).astype(np.float64)
    sums = np.stack([np.bincount(places, column, groups) for column in np.asarray(hits, np.float64).T], axis=1)
    shares = []
    for first in range(0, resamples, AT_ONCE):
        draws = [rng.integers(groups, size=groups) for _ in range(min(AT_ONCE, resamples - first))]
        weights = np.stack([np.bincount(draw, minlength=groups) for draw in draws]).astype(np.float64)
        shares.append((weights @ sums) / (weights @ sizes)[:, None])
    low, high = np.quantile(np.concatenate(shares), [0.025, 0.975], axis=0)
    return low, high
