"""Judgements of one's own: kept in the library, exported, and used to measure the search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmpt_plugin.evaluation.bootstrap import VideoSums, intervals
from mmpt_plugin.search.moments import Span, overlap

if TYPE_CHECKING:
    from mmpt_plugin.search.library import VideoLibrary

NEEDED = 0.5
"""Intersection over union from which a hit is the moment that was judged."""


def evaluate(library: VideoLibrary, ks: tuple[int, ...] = (1, 5, 10), **search: Any) -> dict[str, Any]:
    """Recall@k at IoU 0.5: the share of queries of which one of the first k hits is a moment judged right.

    Args:
        library: with labels.
        ks: numbers of hits.
        search: arguments of `VideoLibrary.search`, such as `said`.

    Returns:
        How many queries and labels there are, how many hits were judged wrong, `metrics` (`R@k`) and their 95% intervals
        over queries.

    Raises:
        ValueError: if no query has a moment judged right.
    """
    labels = library.store.labels()
    numbers = {video.id: video.number for video in library.store.videos()}
    known = [label for label in labels if label["video_id"] in numbers]
    right: dict[str, list[Span]] = {}
    wrong: dict[str, list[Span]] = {}
    for label in known:
        span = Span(numbers[label["video_id"]], label["start"], label["end"], 0.0)
        (right if label["right"] else wrong).setdefault(label["query"], []).append(span)
    if not right:
        raise ValueError(f"the library {library.folder} has no moment that was judged right: label some hits first")
    ranks, false = [], 0
    for query, truths in right.items():
        hits = [
            Span(numbers[hit.video_id], hit.start, hit.end, hit.score)
            for hit in library.search(query, max(ks), **search)
        ]
        found = [rank for rank, hit in enumerate(hits, 1) if any(overlap(hit, truth) >= NEEDED for truth in truths)]
        ranks.append(found[0] if found else np.inf)
    for query, falsehoods in wrong.items():
        for hit in library.search(query, max(ks), **search):
            span = Span(numbers[hit.video_id], hit.start, hit.end, hit.score)
            false += any(overlap(span, falsehood) >= NEEDED for falsehood in falsehoods)
    reached = np.array(ranks)
    sums = VideoSums.of(list(right), {f"R@{k}": (reached <= k, 1) for k in ks})  # each query is drawn on its own
    return {
        "queries": len(right),
        "labels": len(labels),
        "labels of videos that are gone": len(labels) - len(known),
        "wrong moments found": false,
        "IoU": NEEDED,
        "metrics": sums.metrics(),
        "intervals": intervals(sums),
    }
