"""Long videos through an encoder that sees 32 seconds: overlapping windows, averaged per second."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np

from mmpt_plugin.evaluation.benchmark import Window

logger = logging.getLogger(__name__)

WINDOW_SECONDS = 32  # what the video encoder takes
STRIDE_SECONDS = 16


def sliding_windows(seconds: int, size: int = WINDOW_SECONDS, stride: int = STRIDE_SECONDS) -> list[tuple[int, int]]:
    """Windows that cover a video; the first that reaches its end is the last.

    Args:
        seconds: length of the video, one feature row per second.
        size: longest window, seconds.
        stride: from one start to the next, seconds; at most `size`, so that no second is left out.

    Returns:
        (start, end) in seconds, end exclusive; an empty list for an empty video.

    Raises:
        ValueError: if the length is negative or the windows would leave gaps.
    """
    if seconds < 0 or not 0 < stride <= size:
        raise ValueError(f"windows need seconds >= 0 and 0 < stride <= size, got {seconds=}, {size=}, {stride=}")
    if seconds == 0:
        return []
    last_start = -(-max(seconds - size, 0) // stride) * stride  # the first multiple of the stride that sees the end
    return [(start, min(start + size, seconds)) for start in range(0, last_start + 1, stride)]


def windows_of_videos(seconds: Mapping[str, int]) -> list[Window]:
    """The sliding windows of several videos (id -> length in seconds), video after video."""
    return [Window(video, start, end) for video, length in seconds.items() for start, end in sliding_windows(length)]


def merge_windows(spans: Sequence[tuple[int, int]], values: Sequence[np.ndarray]) -> np.ndarray:
    """Mean, for each second of one video, over the windows that cover it.

    The original averages logits. Logits are frame states times a matrix and a mean commutes with a linear map, so
    states may be averaged instead and multiplied once: equal up to rounding.

    Args:
        spans: (start, end) of at least one window, leaving no second uncovered.
        values: one (end - start, D) array per window: frame states or logits.

    Returns:
        (seconds, D), of the values' type.

    Raises:
        ValueError: if an array has not one row for each second of its window.
    """
    if len(spans) != len(values) or any(len(value) != end - start for (start, end), value in zip(spans, values)):
        raise ValueError(
            f"windows {list(spans)} need one array each, a row per second, got {[v.shape for v in values]}"
        )
    seconds = max(end for _, end in spans)
    total = np.zeros((seconds, values[0].shape[1]), dtype=values[0].dtype)
    covering = np.zeros((seconds, 1), dtype=values[0].dtype)
    for (start, end), value in zip(spans, values):
        total[start:end] += value
        covering[start:end] += 1
    return total / covering


def merge_by_video(windows: Sequence[Window], values: Sequence[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """`merge_windows` for many videos: yields (video id, (seconds, D)) in the windows' order.

    A video without windows (0 seconds) is not among them. Lazy, so that a caller who reduces each video at once never
    holds all of them.
    """
    for video, positions in groupby(range(len(windows)), key=lambda i: windows[i].video_id):
        own = list(positions)
        yield video, merge_windows([(windows[i].start, windows[i].end) for i in own], [values[i] for i in own])


def warn_of_cut_segments(name: str, segments: Iterable[tuple[float, float, int]]) -> None:
    """Logs how many annotated segments the videos' features do not cover; they are cut there, as in the original.

    Args:
        name: the benchmark.
        segments: start, end and the length of the segment's video, all in seconds.
    """
    listed = list(segments)
    cut = sum(math.ceil(end) > seconds for _, end, seconds in listed)
    if cut:
        outside = sum(math.floor(start) >= seconds for start, _, seconds in listed)
        logger.warning(
            "%s: %d of %d annotated segments reach beyond their video's features and are cut there, %d lie beyond "
            "entirely and count nowhere",
            name,
            cut,
            len(listed),
            outside,
        )
