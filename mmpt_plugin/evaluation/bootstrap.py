"""Bootstrap intervals (Efron & Tibshirani 1993): resample the queries (or videos), recompute, take percentiles."""

from __future__ import annotations

import numpy as np

RESAMPLES = 1000


def resample(items: int, rng: np.random.Generator, *, resamples: int = RESAMPLES) -> np.ndarray:
    """Draws `items` indexes with replacement, many times: (resamples, items) int64."""
    return rng.integers(items, size=(resamples, items))


def percentile_interval(statistics: np.ndarray, *, level: float = 0.95) -> tuple[float, float]:
    """The central interval of a statistic's (resamples,) values; undefined (NaN) resamples are left out.

    Returns:
        (low, high); NaN twice if the statistic is defined in no resample.
    """
    defined = statistics[~np.isnan(statistics)]
    if len(defined) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
