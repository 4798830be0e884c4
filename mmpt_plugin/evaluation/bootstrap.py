"""Bootstrap intervals (Efron & Tibshirani 1993) of metrics that are sums over videos.

Queries of one video resemble each other, so whole videos are resampled, never single queries. The gallery stays as it is: a
resample repeats or leaves out queries, but each keeps the rank that it had among all videos.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 1000
PREFIX = "sums_"  # of the arrays' names in a scores file


@dataclass(frozen=True, eq=False)
class VideoSums:
    """What a benchmark's metrics are made of, video by video.

    A metric is the sum of its numerators over the sum of its denominators; where videos come in groups, the mean of the
    groups' own ratios. The median rank is no such ratio and is taken from the ranks.

    Attributes:
        videos: (V,) ids; a video of several groups stands once in each.
        groups: (V,) names.
        names: of the M metrics.
        numerators, denominators: (V, M) float64.
        ranks: (Q,) rank of each query, where there is a median rank.
        rank_videos: (Q,) position in `videos` of each query's video.
    """

    videos: NDArray[np.str_]
    groups: NDArray[np.str_]
    names: tuple[str, ...]
    numerators: NDArray[np.float64]
    denominators: NDArray[np.float64]
    ranks: NDArray[np.int64] | None = None
    rank_videos: NDArray[np.int64] | None = None

    @staticmethod
    def of(
        videos: Sequence[str],
        ratios: Mapping[str, tuple[ArrayLike, ArrayLike]],
        *,
        groups: Sequence[str] | None = None,
        ranks: NDArray[np.integer] | None = None,
    ) -> VideoSums:
        """Add up items (queries, or videos) by their videos.

        Args:
            videos: (N,) the video of each item.
            ratios: metric -> numerator and denominator of each item, (N,) or one number for all.
            groups: (N,) the group of each item; default: all in one.
            ranks: ranks of the first items, for `median_rank`.
        """
        keys = list(zip(groups if groups is not None else [""] * len(videos), videos, strict=True))
        position = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        place = np.array([position[key] for key in keys], np.int64)

        def added(part: int) -> NDArray[np.float64]:
            columns = [np.broadcast_to(np.asarray(pair[part], np.float64), len(keys)) for pair in ratios.values()]
            return np.column_stack([np.bincount(place, column, len(position)) for column in columns])

        return VideoSums(
            videos=np.array([video for _, video in position], str),
            groups=np.array([group for group, _ in position], str),
            names=tuple(ratios),
            numerators=added(0),
            denominators=added(1),
            ranks=None if ranks is None else np.asarray(ranks, np.int64),
            rank_videos=None if ranks is None else place[: len(ranks)],
        )

    def metrics(self, weights: NDArray[np.integer] | None = None) -> dict[str, float]:
        """The metrics where each video counts `weights` (V,) times; NaN where nothing counts."""
        counted = np.ones(len(self.videos), np.int64) if weights is None else weights
        by_group = self._members * counted  # (groups, V)
        above, below = by_group @ self.numerators, by_group @ self.denominators  # (groups, M)
        with np.errstate(invalid="ignore"):
            ratios = np.where(below > 0, above / below, 0.0).sum(axis=0) / (below > 0).sum(axis=0)
        values = dict(zip(self.names, ratios.tolist(), strict=True))
        if self.ranks is not None:
            values["median_rank"] = weighted_median(self.ranks, counted[self.rank_videos])
        return values

    def arrays(self) -> dict[str, np.ndarray]:
        """As arrays of numbers and text, for a scores file."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {PREFIX + name: np.asarray(value) for name, value in parts.items() if value is not None}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> VideoSums:
        """From what `arrays` gave, among others.

        Raises:
            KeyError: if a part is missing.
            ValueError: if the parts do not fit each other.
        """
        sums = VideoSums(
            videos=arrays[PREFIX + "videos"],
            groups=arrays[PREFIX + "groups"],
            names=tuple(arrays[PREFIX + "names"].tolist()),
            numerators=arrays[PREFIX + "numerators"],
            denominators=arrays[PREFIX + "denominators"],
            ranks=arrays.get(PREFIX + "ranks"),
            rank_videos=arrays.get(PREFIX + "rank_videos"),
        )
        videos, metrics = len(sums.videos), len(sums.names)
        none = np.zeros(0, np.int64)
        ranks, places = (none if part is None else part for part in (sums.ranks, sums.rank_videos))
        fits = (
            sums.videos.shape == sums.groups.shape == (videos,)
            and sums.numerators.shape == sums.denominators.shape == (videos, metrics)
            and ranks.shape == places.shape
            and ((places >= 0) & (places < videos)).all()
        )
        if not fits:
            raise ValueError(f"sums of {videos} videos and {metrics} metrics do not fit each other")
        return sums

    @cached_property
    def _members(self) -> NDArray[np.float64]:
        """(groups, V): 1 where the video belongs to the group."""
        return (np.unique(self.groups)[:, None] == self.groups).astype(np.float64)


def weighted_median(values: NDArray[np.integer], weights: NDArray[np.integer]) -> float:
    """The median of values that count `weights` times each; NaN if none counts."""
    total = int(weights.sum())
    if total == 0:
        return float("nan")
    order = np.argsort(values, kind="stable")
    counted = np.cumsum(weights[order])
    middle = np.searchsorted(counted, [(total - 1) // 2, total // 2], side="right")
    return float(values[order][middle].mean())


def intervals(sums: VideoSums, *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, tuple[float, float]]:
    """The bootstrap 95% interval of each metric, by percentiles."""
    drawn = [sums.metrics(weights) for weights in resampled_weights(sums, seed, resamples)]
    return {name: percentile_interval(np.array([metrics[name] for metrics in drawn])) for name in drawn[0]}


def paired_differences(
    first: VideoSums, second: VideoSums, *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, tuple[float, float, float]]:
    """How far `second` is above `first`: the difference of each metric with its bootstrap 95% interval.

    Both are measured on the same resampled videos, so what makes a video hard for both cancels out.

    Returns:
        metric -> difference, lower end, upper end.

    Raises:
        ValueError: if the two were not measured on the same videos and queries.
    """
    measured_on = [
        [*sums.videos.tolist(), *sums.groups.tolist(), *([] if sums.rank_videos is None else sums.rank_videos.tolist())]
        for sums in (first, second)
    ]
    if measured_on[0] != measured_on[1]:
        raise ValueError(
            f"the two were measured on other videos or queries ({len(first.videos)} and {len(second.videos)} videos): "
            "evaluate both on the same data"
        )
    names = [name for name in first.metrics() if name in second.metrics()]
    drawn = []
    for weights in resampled_weights(first, seed, resamples):
        before, after = first.metrics(weights), second.metrics(weights)
        drawn.append([after[name] - before[name] for name in names])
    before, after, differences = first.metrics(), second.metrics(), np.array(drawn)
    return {
        name: (after[name] - before[name], *percentile_interval(differences[:, column]))
        for column, name in enumerate(names)
    }


def resampled_weights(sums: VideoSums, seed: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    """How often each video is drawn, (V,), where as many videos as there are are drawn with replacement in each group."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(row) for row in sums._members]
    for _ in range(resamples):
        weights = np.zeros(len(sums.videos), np.int64)
        for own in members:
            weights[own] = np.bincount(rng.integers(len(own), size=len(own)), minlength=len(own))
        yield weights


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
