"""What was computed for overlapping windows (data/windows.py), averaged per second."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np

from mmpt_plugin.data.windows import WINDOW_SECONDS, Window, sliding_windows

logger = logging.getLogger(__name__)


def windows_of_videos(seconds: Mapping[str, int], size: int = WINDOW_SECONDS) -> list[Window]:
    """The sliding windows of several videos (id -> length in seconds), video after video."""
    return [Window(video, *span) for video, length in seconds.items() for span in sliding_windows(length, size)]


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
