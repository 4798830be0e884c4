"""Clusters of similar videos out of neighbour lists: pure functions of arrays and a numpy Generator.

A cluster becomes a batch, so its videos are each other's negatives. It forms around one of n / k random videos: k are
drawn from that video's 2k nearest (retrieval-augmented training, https://arxiv.org/abs/2109.14084), or the k nearest
are taken (the paper's ablation "retrieve k").
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

PICKS = ("random", "nearest")
MEASURED_CLUSTERS = 256  # whose pairwise distances are averaged: 127,000 pairs at k = 32, a mean good to about 1%

Ints = NDArray[np.int64]


def draw_seeds(num_videos: int, cluster_size: int, rng: np.random.Generator) -> Ints:
    """Draws the videos around which clusters form, without replacement: as many as there are whole clusters.

    Args:
        num_videos: n, videos in the index.
        cluster_size: k, videos of a cluster.
        rng: the only source of randomness.

    Returns:
        (n // k,) distinct video indexes.

    Raises:
        ValueError: fewer videos than one cluster holds.
    """
    _check_cluster_size(cluster_size)
    if num_videos < cluster_size:
        raise ValueError(
            f"clusters of {cluster_size} videos need at least as many videos, got {num_videos}; train on more "
            f"videos or make clusters smaller (videos_per_batch)"
        )
    return rng.choice(num_videos, num_videos // cluster_size, replace=False)


def form_clusters(
    neighbours: ArrayLike | Sequence[Sequence[int]],
    cluster_size: int,
    rng: np.random.Generator,
    *,
    pick: str = "random",
) -> list[Ints]:
    """Keeps `cluster_size` videos of each list of neighbours.

    Args:
        neighbours: (queries, at most 2k) video indexes, nearest first and the query itself at the very first; -1 marks
            places that a search left empty. Rows of different lengths are allowed.
        cluster_size: k, videos of a cluster.
        rng: the only source of randomness; not used by "nearest".
        pick: "random" draws k of a list, so that the query itself may be left out as in the original; "nearest" takes
            the first k.

    Returns:
        One array of exactly k distinct video indexes a query.

    Raises:
        ValueError: a list with fewer than k distinct videos, or an unknown `pick`.
    """
    _check_cluster_size(cluster_size)
    if pick not in PICKS:
        raise ValueError(f"pick must be one of {PICKS}, got {pick!r}")
    rows = [np.asarray(row, dtype=np.int64) for row in neighbours]  # type: ignore[union-attr]
    table = np.full((len(rows), max(map(len, rows), default=0)), -1, dtype=np.int64)
    for target, row in zip(table, rows):
        target[: len(row)] = row

    usable = (table >= 0) & ~_repeated_in_row(table)
    counts = usable.sum(axis=1)
    short = np.flatnonzero(counts < cluster_size)
    if len(short):
        raise ValueError(
            f"a cluster needs {cluster_size} distinct neighbours, but {len(short)} of {len(table)} lists have fewer, "
            f"the first is list {short[0]} with {counts[short[0]]}; search for more neighbours or index more videos"
        )
    order = rng.random(table.shape) if pick == "random" else np.broadcast_to(np.arange(table.shape[1]), table.shape)
    kept = np.argsort(np.where(usable, order, np.inf), axis=1)[:, :cluster_size]
    return list(np.take_along_axis(table, kept, axis=1))


def cluster_statistics(
    clusters: Sequence[Ints], vectors: NDArray[np.floating], rng: np.random.Generator
) -> dict[str, float]:
    """Says how near the videos of a cluster are, and how evenly an epoch of clusters covers the videos.

    Args:
        clusters: arrays of k video indexes each, at least one.
        vectors: (n, d), the embeddings that the clusters came from.
        rng: draws the clusters that are measured (at most MEASURED_CLUSTERS) and the random groups beside them.

    Returns:
        within_cluster_distance: mean L2 distance of two videos of a cluster.
        random_distance: the same for groups of k random videos.
        share_of_videos_seen: videos in at least one cluster, of all n.
        mean_repeats, max_repeats: in how many clusters a seen video is.
    """
    table = np.stack(clusters)  # (clusters, k)
    measured = rng.choice(len(table), min(len(table), MEASURED_CLUSTERS), replace=False)
    random_groups = np.stack([rng.choice(len(vectors), table.shape[1], replace=False) for _ in measured])
    repeats = np.bincount(table.ravel(), minlength=len(vectors))
    seen = repeats[repeats > 0]
    return {
        "within_cluster_distance": _mean_pair_distance(table[measured], vectors),
        "random_distance": _mean_pair_distance(random_groups, vectors),
        "share_of_videos_seen": len(seen) / len(vectors),
        "mean_repeats": float(seen.mean()),
        "max_repeats": float(seen.max()),
    }


def _mean_pair_distance(groups: Ints, vectors: NDArray[np.floating]) -> float:
    """Mean L2 distance over all pairs of two videos of one group; groups: (g, k). 0 where a group is a single video."""
    members = vectors[groups].astype(np.float32)  # (g, k, d)
    members -= members.mean(axis=1, keepdims=True)  # distances stay; short vectors keep the products below precise
    products = members @ members.transpose(0, 2, 1)  # (g, k, k)
    squares = np.diagonal(products, axis1=1, axis2=2)  # (g, k)
    first, second = np.triu_indices(groups.shape[1], 1)
    squared = squares[:, first] + squares[:, second] - 2 * products[:, first, second]
    return float(np.sqrt(np.maximum(squared, 0)).mean()) if squared.size else 0.0


def _repeated_in_row(table: Ints) -> NDArray[np.bool_]:
    """True where the same number stands further left in its row."""
    order = np.argsort(table, axis=1, kind="stable")
    ordered = np.take_along_axis(table, order, axis=1)
    repeated = np.zeros(table.shape, dtype=bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return repeated


def _check_cluster_size(cluster_size: int) -> None:
    if cluster_size < 1:
        raise ValueError(f"cluster_size (videos of a cluster) must be 1 or more, got {cluster_size}")
