"""Text -> video retrieval: ranks, recall, confidence, and the best, median and worst queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmpt_plugin.evaluation.benchmark import Scores
from mmpt_plugin.report.charts import bars, curves
from mmpt_plugin.report.parts import Detail, Figure, Hit, Part, Pictures, Queries, Query, no_pictures, stretch
from mmpt_plugin.report.shares import share_intervals

HITS = 5
CELLS_AT_ONCE = 50_000_000  # of the score matrix: 200 MB of float32
RANK_BINS = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, 200), (201, 500), (501, 1000))
CONFIDENCE_BINS = 10
CURVE_POINTS = 60


@dataclass(frozen=True)
class Ranked:
    """Per query, arrays of (queries,).

    Attributes:
        rank: place of the right item, ties against us, 1 = best.
        lead: score of the right item less the best other one; negative where another is preferred.
        margin: score of the first item less the second: how sure the model is, right or wrong. 0 with one item.
    """

    rank: np.ndarray
    lead: np.ndarray
    margin: np.ndarray


def rank_queries(similarities: np.ndarray, targets: np.ndarray) -> Ranked:
    """Ranks, leads and margins, some rows at a time.

    Args:
        similarities: (queries, gallery), finite.
        targets: (queries,) the right columns.
    """
    queries, gallery = similarities.shape
    rank, lead, margin = np.ones(queries, np.int64), np.zeros(queries), np.zeros(queries)
    step = max(1, CELLS_AT_ONCE // gallery)
    for first in range(0, queries, step):
        rows = np.asarray(similarities[first : first + step], np.float32)
        place = np.arange(len(rows))
        own = rows[place, targets[first : first + step]]
        part = slice(first, first + len(rows))
        rank[part] = (rows >= own[:, None]).sum(axis=1)
        if gallery > 1:
            two = np.partition(rows, gallery - 2, axis=1)[:, -2:]  # second best, best
            margin[part] = two[:, 1] - two[:, 0]
            best_other = np.where(own >= two[:, 1], two[:, 0], two[:, 1])
            lead[part] = own - best_other
    return Ranked(rank, lead, margin)


def rank_histogram(rank: np.ndarray, gallery: int) -> list[dict]:
    """How many queries have their item at which rank: bins that widen, up to the gallery's size."""
    bins = [pair for pair in RANK_BINS if pair[0] <= gallery]
    bins[-1] = (bins[-1][0], min(bins[-1][1], gallery))
    if gallery > bins[-1][1]:
        bins.append((bins[-1][1] + 1, gallery))
    rows = []
    for low, high in bins:
        count = int(((rank >= low) & (rank <= high)).sum())
        rows.append(
            {"rank": f"{low}" if low == high else f"{low} - {high}", "queries": count, "share": count / len(rank)}
        )
    return rows


def recall_curve(rank: np.ndarray, gallery: int, videos: np.ndarray | None, rng: np.random.Generator) -> list[dict]:
    """Share of queries whose item is among the first k, with its 95% interval, beside chance.

    Args:
        rank: (queries,).
        gallery: items to rank.
        videos: (queries,) the queries' videos, where known.
        rng: for the interval.
    """
    places = np.unique(np.geomspace(1, gallery, CURVE_POINTS).round().astype(int))
    hits = rank[:, None] <= places
    ends = zip(*share_intervals(hits, videos, rng))
    rows: list[dict[str, Any]] = [
        {"first k": int(k), "recall": float(share), "low": float(low), "high": float(high), "what": "model"}
        for k, share, (low, high) in zip(places, hits.mean(axis=0), ends)
    ]
    chance = [row | {"recall": row["first k"] / gallery, "low": None, "high": None, "what": "chance"} for row in rows]
    return rows + chance


def confidence_curve(
    margin: np.ndarray, right: np.ndarray, videos: np.ndarray | None, rng: np.random.Generator
) -> list[dict]:
    """How often the model is right, by how far its first answer is ahead of its second: bins of equally many queries."""
    rows = []
    for part in np.array_split(np.argsort(margin, kind="stable"), min(CONFIDENCE_BINS, len(margin))):
        (low,), (high,) = share_intervals(right[part, None], None if videos is None else videos[part], rng)
        rows.append(
            {
                "margin": float(margin[part].mean()),
                "right": float(right[part].mean()),
                "low": float(low),
                "high": float(high),
                "queries": len(part),
            }
        )
    return rows


def typical_queries(rank: np.ndarray, lead: np.ndarray, wanted: int) -> dict[str, np.ndarray]:
    """The best, median and worst queries: by rank, then by lead. Few queries are all shown once."""
    order = np.lexsort((-lead, rank))
    if len(order) <= 3 * wanted:
        return {"All": order}
    middle = (len(order) - wanted) // 2
    return {
        "best": order[:wanted],
        "median": order[middle : middle + wanted],
        "worst": order[len(order) - wanted :][::-1],
    }


def section_parts(
    scores: Scores, detail: Detail, pictures: Pictures = no_pictures, seed: int = 0
) -> tuple[list[Part], list[str]]:
    """The parts of a retrieval benchmark's section.

    Args:
        scores: `similarities` (queries, gallery); `targets` (queries,) unless item i belongs to query i; `texts`
            (queries,), `video_ids` and `spans` of the gallery where known.
        detail: how many queries to show.
        pictures: small pictures of videos.
        seed: of the intervals.

    Returns:
        The parts, and remarks on what could not be shown.

    Raises:
        ValueError: if the arrays do not fit each other.
    """
    similarities, said = scores["similarities"], []
    queries, gallery = _matrix_shape(similarities)
    targets = np.asarray(scores["targets"]) if "targets" in scores else np.arange(queries)
    if targets.shape != (queries,) or (queries and not 0 <= targets.min() <= targets.max() < gallery):
        raise ValueError(f"{len(targets)} right items for similarities of {queries} queries and {gallery} items")
    finite = _finite_rows(similarities)
    if not finite.all():
        said.append(
            f"{(~finite).sum():,} of {queries:,} queries have scores that are no numbers; they are left out below."
        )
    kept = np.flatnonzero(finite)
    if not len(kept):
        return [], [*said, "No query is left to show."]
    names = gallery_names(scores, gallery)
    if names is None:
        said.append(
            "The scores name no videos (an older format): items are shown by their number. Evaluate again for names."
        )
    whole = len(kept) == queries
    ranked = rank_queries(similarities if whole else similarities[kept], targets[kept])
    rng = np.random.default_rng(seed)
    ids = scores.get("gallery_ids", scores.get("video_ids"))
    videos = None if ids is None else np.asarray(ids)[targets[kept]]
    parts: list[Part] = [
        Figure(
            "Ranks",
            f"How many of the {len(kept):,} queries have the right one of {gallery:,} items at which rank.",
            bars(rank_histogram(ranked.rank, gallery), x="rank", y="queries"),
        ),
        Figure(
            "Recall over k",
            "Share of queries whose item is among the first k; the band is the 95% interval.",
            curves(
                recall_curve(ranked.rank, gallery, videos, rng),
                x="first k",
                y="recall",
                series="what",
                percent=True,
                log_x=gallery > 1,
            ),
        ),
        Figure(
            "Confidence",
            "The margin is the first item's score less the second's. Each point is a tenth of the queries. A model that knows "
            "when it is right rises from left to right.",
            curves(
                confidence_curve(ranked.margin, ranked.rank == 1, videos, rng),
                x="margin",
                y="right",
                percent=True,
                points=True,
            ),
        ),
    ]
    texts = scores.get("texts")
    for kind, members in typical_queries(ranked.rank, ranked.lead, detail.examples).items():
        if not len(members):
            continue
        shown = [
            _query(int(kept[i]), int(ranked.rank[i]), similarities, targets, texts, names, pictures) for i in members
        ]
        title = "All queries" if kind == "All" else f"The {len(members)} {kind} queries"
        reading = (
            f"Each with its {min(HITS, gallery)} first items; the right one is green, and added where it comes later. In "
            "italics: the sentence that belongs to the item found."
        )
        parts.append(Queries(title, reading, shown, folded=kind == "median"))
    return parts, said


@dataclass(frozen=True)
class Item:
    """What an item of the gallery is called, when it is, and where to take its picture."""

    name: str
    when: str
    video_id: str
    second: float


def gallery_names(scores: Scores, gallery: int) -> list[Item] | None:
    """The items by the scores' own ids; None if there are none, as in older files.

    Raises:
        ValueError: if there are ids, but not one an item.
    """
    ids = scores.get("gallery_ids", scores.get("video_ids"))
    if ids is None:
        return None
    spans = scores.get("gallery_spans", scores.get("spans"))
    if len(ids) != gallery or (spans is not None and len(spans) != gallery):
        raise ValueError(f"{len(ids)} video ids for a gallery of {gallery} items")
    if spans is None:
        return [Item(str(video_id), "", str(video_id), 0.0) for video_id in ids]
    return [
        Item(str(video_id), stretch(start, end), str(video_id), (float(start) + float(end)) / 2)
        for video_id, (start, end) in zip(ids, spans)
    ]


def _query(
    query: int,
    rank: int,
    similarities: np.ndarray,
    targets: np.ndarray,
    texts: Sequence | np.ndarray | None,
    names: list[Item] | None,
    pictures: Pictures,
) -> Query:
    row, right = similarities[query], int(targets[query])
    # pessimistic, as the rank: of equal scores, the right item stands last
    order = np.lexsort((np.arange(len(row)) == right, -np.asarray(row, np.float64)))[:HITS]
    places = [*enumerate(order.tolist(), start=1)]
    if right not in order:
        places.append((rank, right))
    hits = []
    for place, item in places:
        named = names[item] if names else Item(f"item {item}", "", "", 0.0)
        seen = pictures(named.video_id, named.second) if named.video_id else None
        about = str(texts[item]) if texts is not None and len(texts) == len(row) and item != right else ""
        hits.append(Hit(named.name, f"{place}.", f"{row[item]:.2f}", item == right, named.when, about, seen))
    text = str(texts[query]) if texts is not None else f"query {query}"
    return Query(text, f"rank {rank:,}", hits)


def _matrix_shape(similarities: np.ndarray) -> tuple[int, int]:
    if similarities.ndim != 2 or not similarities.size:
        raise ValueError(f"similarities of shape {similarities.shape}: needed is a row a query and a column an item")
    return similarities.shape[0], similarities.shape[1]


def _finite_rows(matrix: np.ndarray) -> np.ndarray:
    step = max(1, CELLS_AT_ONCE // matrix.shape[1])
    return np.concatenate([np.isfinite(matrix[i : i + step]).all(axis=1) for i in range(0, len(matrix), step)])
