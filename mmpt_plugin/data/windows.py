"""Long videos for an encoder that sees a limited time: overlapping windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW_SECONDS = 32  # what the paper's video encoder takes


@dataclass(frozen=True)
class Window:
    """Seconds start..end (exclusive) of one video's feature file; at most as many as the model takes, possibly none."""

    video_id: str
    start: int
    end: int


def whole_seconds(features: NDArray[np.integer], features_per_second: int) -> NDArray[np.int64]:
    """Seconds of videos by their numbers of feature rows; a last one that has not all its rows counts."""
    return -(-np.asarray(features, np.int64) // features_per_second)


def sliding_windows(seconds: int, size: int = WINDOW_SECONDS, stride: int | None = None) -> list[tuple[int, int]]:
    """Windows that cover a video; the first that reaches its end is the last.

    Args:
        seconds: length of the video.
        size: longest window, seconds.
        stride: from one start to the next, seconds; at most `size`, so that no second is left out. Default: half of `size`.

    Returns:
        (start, end) in seconds, end exclusive; an empty list for an empty video.

    Raises:
        ValueError: if the length is negative or the windows would leave gaps.
    """
    stride = max(size // 2, 1) if stride is None else stride
    if seconds < 0 or not 0 < stride <= size:
        raise ValueError(f"windows need seconds >= 0 and 0 < stride <= size, got {seconds=}, {size=}, {stride=}")
    if seconds == 0:
        return []
    last_start = -(-max(seconds - size, 0) // stride) * stride  # the first multiple of the stride that sees the end
    return [(start, min(start + size, seconds)) for start in range(0, last_start + 1, stride)]
