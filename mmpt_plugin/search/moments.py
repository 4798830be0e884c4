"""From scores to moments: where one starts and ends, which hits are one, how two rankings become one. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.5
"""Where a moment ends, between the median score around it (0) and its best (1); from one demo world, kept for five others."""

SMOOTHING = 5
"""Seconds over which scores are averaged before a moment's bounds are looked for."""

RANK_OFFSET = 60
"""Constant of reciprocal rank fusion (Cormack et al., SIGIR 2009)."""

SPOKEN_AROUND = 4.0
"""Seconds by which a line may be spoken before or after the picture that it belongs to."""

CONFIDENCE = 0.95
"""How sure it must be that a score does not come from the windows that show something else."""


@dataclass(frozen=True)
class Moment:
    """A stretch of a video that answers a query.

    Attributes:
        video_id: the library's name for the video.
        path: the file.
        start, end: seconds.
        score: what the hits are ranked by: the product of the embeddings where only pictures count (`said=0`), BM25 where
            only words count (`said=1`), else the sum of reciprocal ranks.
        spoken: what is said then.
        thumbnail: a JPEG file's bytes; empty if there is none.
        shown: product of the text's embedding with the mean state of the moment's five best seconds.
        said: BM25 of the line that was found; 0 if none was.
    """

    video_id: str
    path: Path
    start: float
    end: float
    score: float
    spoken: str = ""
    thumbnail: bytes = field(default=b"", repr=False)
    shown: float = 0.0
    said: float = 0.0


class Hits(list[Moment]):
    """Moments, best first, and whether the best of them stands out.

    Attributes:
        best: the best window's score in the whole library; NaN if it is empty.
        threshold: what a window must reach to stand out from this library's other windows.
        confident: whether a window does, or words were found.
    """

    def __init__(
        self, moments: Sequence[Moment] = (), best: float = math.nan, threshold: float = math.nan, words: bool = False
    ) -> None:
        super().__init__(moments)
        self.best = best
        self.threshold = threshold
        self.confident = words or best >= threshold


@dataclass(frozen=True)
class Span:
    """A candidate: seconds `start` to `end` of the video with this number, scored by the picture or by the words."""

    video: int
    start: float
    end: float
    score: float


def smooth(scores: NDArray[np.floating], seconds: int = SMOOTHING) -> NDArray[np.float64]:
    """Centred running mean, (S,); at the ends over what there is."""
    kernel = np.ones(min(seconds, len(scores)))
    return np.convolve(scores, kernel, "same") / _overlap(len(scores), len(kernel))


@lru_cache(maxsize=256)
def _overlap(length: int, seconds: int) -> NDArray[np.float64]:
    """How many of the running mean's seconds lie within so many, for each."""
    return np.convolve(np.ones(length), np.ones(seconds), "same")


def find_bounds(scores: NDArray[np.floating], start: int, end: int, level: float = LEVEL) -> tuple[int, int, float]:
    """Where the moment around a window's best second starts and ends.

    The stretch with the largest sum of `score - threshold` that holds the best second, where the threshold lies between
    the median, which is what the video's other seconds score, and the best. A short dip therefore does not end a moment,
    a long one does.

    Args:
        scores: (S,) of each second of the window and some time around it.
        start, end: the window, positions in `scores`.
        level: place of the threshold between the median (0) and the best second (1).

    Returns:
        start and end (exclusive), positions in `scores`, at least one second; and the best second's score, smoothed.
    """
    smoothed = smooth(scores)
    peak = start + int(np.argmax(smoothed[start:end]))
    ordered = np.sort(scores)
    usual = float(
        (ordered[(len(scores) - 1) // 2] + ordered[len(scores) // 2]) / 2
    )  # the median; np.median takes longer
    excess = smoothed - (usual + level * (smoothed[peak] - usual))
    before = np.cumsum(excess[peak::-1])  # sums of stretches that end at the peak
    after = np.cumsum(excess[peak:])
    return peak - int(np.argmax(before)), peak + int(np.argmax(after)) + 1, float(smoothed[peak])


def overlap(a: Span, b: Span) -> float:
    """Intersection over union in time; 0 in different videos."""
    if a.video != b.video:
        return 0.0
    shared = min(a.end, b.end) - max(a.start, b.start)
    return max(0.0, shared) / (max(a.end, b.end) - min(a.start, b.start)) if shared > 0 else 0.0


def merge_overlapping(spans: Sequence[Span]) -> list[Span]:
    """Best first; of spans of one video that overlap only the best stays.

    Windows that overlap mostly find the same best second, and with it the same bounds.
    """
    kept: list[Span] = []
    by_video: dict[int, list[Span]] = {}
    for span in sorted(spans, key=lambda span: -span.score):
        own = by_video.setdefault(span.video, [])
        if all(span.end <= other.start or other.end <= span.start for other in own):
            own.append(span)
            kept.append(span)
    return kept


@dataclass(frozen=True)
class Fused:
    """A span in the joint ranking, and what it scored in each; 0 where it was not found."""

    span: Span
    score: float
    shown: float
    said: float


def fuse(pictures: Sequence[Span], words: Sequence[Span], said: float) -> list[Fused]:
    """Reciprocal rank fusion of what is shown and what is said.

    A moment and a line belong together if they overlap, or nearly: people speak before and after they act. A line
    without a moment stands for itself.

    Args:
        pictures: moments, best first, none overlapping another of its video.
        words: lines, best first.
        said: weight of the words, 0 to 1; at 0 only pictures count, at 1 only lines.

    Returns:
        Best first, without what scores nothing.
    """
    if said == 0:
        return [Fused(span, span.score, span.score, 0.0) for span in pictures]
    if said == 1:
        return [Fused(line, line.score, 0.0, line.score) for line in merge_overlapping(words)]
    lines: dict[int, list[tuple[int, Span]]] = {}
    for rank, line in enumerate(words):
        lines.setdefault(line.video, []).append((rank, line))
    used: set[int] = set()
    fused = []
    for rank, moment in enumerate(pictures):
        near = [
            (place, line)
            for place, line in lines.get(moment.video, [])
            if line.start < moment.end + SPOKEN_AROUND and moment.start < line.end + SPOKEN_AROUND
        ]
        used.update(place for place, _ in near)
        score = (1 - said) / (RANK_OFFSET + rank + 1)
        if near:
            place, line = min(near, key=lambda found: found[0])
            fused.append(Fused(moment, score + said / (RANK_OFFSET + place + 1), moment.score, line.score))
        else:
            fused.append(Fused(moment, score, moment.score, 0.0))
    alone = {line: rank for rank, line in enumerate(words) if rank not in used}
    for line in merge_overlapping(list(alone)):
        fused.append(Fused(line, said / (RANK_OFFSET + alone[line] + 1), 0.0, line.score))
    return sorted(fused, key=lambda one: -one.score)


def threshold(sample: NDArray[np.floating], windows: int, confidence: float = CONFIDENCE) -> float:
    """The score that the best of a library's windows would reach by chance in one query of twenty.

    Scores of windows that show something else are taken as normal; median and median absolute deviation estimate them,
    so that a few right answers do not matter. The best of n such draws stays below the quantile `confidence ** (1 / n)`
    with that probability.

    Args:
        sample: (n,) scores of windows of the library for the query.
        windows: how many windows the library has.
        confidence: probability that windows that show something else all stay below.

    Returns:
        The score; NaN for an empty sample.
    """
    if not len(sample):
        return math.nan
    median = float(np.median(sample))
    spread = 1.4826 * float(np.median(np.abs(sample - median)))
    return median + spread * NormalDist().inv_cdf(confidence ** (1 / max(windows, 1)))
