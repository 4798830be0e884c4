"""Three clusters of an epoch in words: the tightest, a usual one and the loosest, with captions typical of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MEASURED = 256  # clusters among which the three are sought
FEWEST_PIECES = 3  # of a caption: fewer say too little
Pieces = NDArray[np.integer]  # word pieces of a caption


def three_clusters(
    clusters: NDArray[np.int64], vectors: NDArray[np.floating], rng: np.random.Generator
) -> list[tuple[str, int, float]]:
    """The tightest, the median and the loosest of (at most MEASURED) clusters.

    Args:
        clusters: (clusters, k) videos.
        vectors: (videos, D) embeddings.
        rng: draws the clusters that are measured.

    Returns:
        Kind, row of `clusters`, and mean distance of its videos from their mean; fewer than three if there are no more.
    """
    measured = np.sort(rng.choice(len(clusters), min(len(clusters), MEASURED), replace=False))
    spreads = np.empty(len(measured))
    for place, row in enumerate(measured):
        members = np.asarray(vectors[clusters[row]], np.float32)
        spreads[place] = np.linalg.norm(members - members.mean(axis=0), axis=1).mean()
    order = np.argsort(spreads, kind="stable")
    chosen = {"tightest": order[0], "median": order[len(order) // 2], "loosest": order[-1]}
    found: dict[int, tuple[str, int, float]] = {}
    for kind, place in chosen.items():
        found.setdefault(int(place), (kind, int(measured[place]), float(spreads[place])))
    return list(found.values())


def typical_captions(
    videos: Sequence[Sequence[Pieces]], elsewhere: Sequence[Sequence[Pieces]], wanted: int = 4
) -> list[tuple[int, int]]:
    """Captions whose words many videos of the cluster use and few others do, at most one a video.

    A word piece counts by the share of the cluster's videos that use it, less the share of the other videos; a caption by the
    mean over its distinct pieces.

    Args:
        videos: the captions of each video of the cluster.
        elsewhere: the same of some other videos.
        wanted: how many captions.

    Returns:
        (video, caption) places in `videos`, most typical first.
    """
    inside, outside = _shares(videos), _shares(elsewhere)
    best: dict[tuple[int, ...], tuple[float, int, int]] = {}  # a text that several videos share stands once
    for video, captions in enumerate(videos):
        scored = []
        for caption, pieces in enumerate(captions):
            text = tuple(np.asarray(pieces).tolist())
            if len(distinct := set(text)) >= FEWEST_PIECES:
                score = sum(inside.get(piece, 0) - outside.get(piece, 0) for piece in distinct) / len(distinct)
                scored.append((score, -caption, text))
        if scored:
            score, place, text = max(scored)
            best.setdefault(text, (-score, video, -place))
    return [(video, caption) for _, video, caption in sorted(best.values())[:wanted]]


def _shares(videos: Sequence[Sequence[Pieces]]) -> dict[int, float]:
    """Share of the videos that use each word piece."""
    counts: Counter[int] = Counter()
    for captions in videos:
        counts.update({piece for pieces in captions for piece in np.asarray(pieces).tolist()})
    return {piece: count / len(videos) for piece, count in counts.items()}
