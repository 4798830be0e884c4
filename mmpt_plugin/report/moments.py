"""Moments of a known video (DiDeMo): where annotators, model and prior place them, and how well they overlap."""

from __future__ import annotations

import numpy as np

from mmpt_plugin.evaluation.benchmark import Scores
from mmpt_plugin.evaluation.benchmarks.didemo import CHUNK_SECONDS, CHUNKS, SEGMENTS, valid_segments
from mmpt_plugin.evaluation.metrics import segment_iou
from mmpt_plugin.report.charts import bars, heat
from mmpt_plugin.report.parts import Detail, Figure, Figures, Hit, Part, Pictures, Queries, Query, no_pictures, stretch

BEST_ANNOTATIONS = 3  # as the metrics: the mean over the three that fit best


def overlap_table() -> np.ndarray:
    """(21, 21) intersection over union of all pairs of segments."""
    return np.array([[segment_iou(first, second) for second in SEGMENTS] for first in SEGMENTS])


def segment_places(moments: np.ndarray) -> np.ndarray:
    """Place in `SEGMENTS` of (..., 2) moments; -1 where there is none."""
    place = np.full((CHUNKS + 1, CHUNKS + 1), -1)
    for index, (first, last) in enumerate(SEGMENTS):
        place[first, last] = index
    return place[moments[..., 0], moments[..., 1]]  # -1 reads the last row, which holds -1


def guesses(values: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """The best valid segment of each query, as a place in `SEGMENTS`; -1 for a video without any second."""
    valid = np.stack([valid_segments(length) for length in range(int(seconds.max(initial=0)) + 1)])[seconds]
    best = np.where(valid, values, -np.inf).argmax(axis=1)
    return np.where(valid.any(axis=1), best, -1)


def mean_overlaps(guess: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Mean overlap of each guess with the three annotations that fit it best, (queries,).

    Args:
        guess: (queries,) places of segments, -1 for none.
        places: (queries, annotators), -1 after the last.
    """
    overlap = np.where(places >= 0, overlap_table()[guess[:, None], places], np.nan)
    best = -np.sort(-overlap, axis=1)[:, :BEST_ANNOTATIONS]  # NaN stands last
    known = ~np.isnan(best)
    mean = np.where(known, best, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.where(guess >= 0, mean, 0.0)


def moment_rows(weights: np.ndarray) -> list[dict]:
    """(21,) weights as cells of the 6 x 6 picture, in shares."""
    total = max(float(weights.sum()), 1e-12)
    share = {segment: float(weight) / total for segment, weight in zip(SEGMENTS, weights)}
    return [
        {"first": _chunk(first), "last": _chunk(last), "share": share.get((first, last))}
        for last in range(CHUNKS)
        for first in range(CHUNKS)
    ]


def section_parts(scores: Scores, detail: Detail, pictures: Pictures = no_pictures) -> tuple[list[Part], list[str]]:
    """The parts of the moments' section.

    Args:
        scores: as `DidemoMoment.score` and `DidemoMoment.describe` give them.
        detail: how many queries to show.
        pictures: small pictures of videos.

    Returns:
        The parts, and remarks on what could not be shown.

    Raises:
        ValueError: if the arrays do not fit each other.
    """
    values, seconds, said = np.asarray(scores["scores"]), np.asarray(scores["seconds"]), []
    if "moments" not in scores:
        return [], ["The scores do not hold the annotated moments (an older format): evaluate again for pictures."]
    moments = np.asarray(scores["moments"])
    if values.ndim != 2 or values.shape[1] != len(SEGMENTS) or not len(values) == len(seconds) == len(moments) > 0:
        raise ValueError(
            f"scores {values.shape}, seconds {seconds.shape} and moments {moments.shape} do not fit each other"
        )
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        said.append(
            f"{(~finite).sum():,} of {len(values):,} queries have scores that are no numbers; they are left out below."
        )
    kept = np.flatnonzero(finite)
    if not len(kept):
        return [], [*said, "No query is left to show."]
    values, seconds, places = values[kept], seconds[kept], segment_places(moments[kept])
    guess = guesses(values, seconds)
    votes = np.bincount(places[places >= 0], minlength=len(SEGMENTS))
    guessed = np.bincount(guess[guess >= 0], minlength=len(SEGMENTS))
    pictured = [("What annotators chose", votes), ("What the model puts first", guessed)]
    if "prior" in scores:
        pictured.append(("Prior: annotators of the training videos", np.asarray(scores["prior"])))
    else:
        said.append("train_data.json was not there: the prior cannot be shown.")
    overlap = mean_overlaps(guess, places)
    counts, edges = np.histogram(overlap, bins=10, range=(0, 1))
    bins = [
        {"overlap": f"{low:.0%} - {high:.0%}", "queries": int(n), "share": int(n) / len(overlap)}
        for n, low, high in zip(counts, edges, edges[1:])
    ]
    parts: list[Part] = [
        Figures(
            "Moments",
            "A cell is a moment: from its first chunk of five seconds (across) to its last (down). If the model's picture is "
            "more like the prior than like the annotators', it guesses the usual moment.",
            [Figure(title, "", heat(moment_rows(w), x="first", y="last", value="share")) for title, w in pictured],
        ),
        Figure(
            "Overlap",
            "Intersection over union of the first guess with the three annotations that fit best.",
            bars(bins, x="overlap", y="queries"),
        ),
    ]
    order = np.argsort(-overlap, kind="stable")
    few = len(order) <= 2 * detail.examples
    kinds = (
        {"All queries": order}
        if few
        else {
            f"The {detail.examples} best queries": order[: detail.examples],
            f"The {detail.examples} worst queries": order[len(order) - detail.examples :][::-1],
        }
    )
    for title, members in kinds.items():
        if len(members):
            shown = [
                _query(int(kept[i]), int(guess[i]), places[i], values[i], float(overlap[i]), scores, pictures)
                for i in members
            ]
            reading = "The model's first guess, then what annotators chose."
            parts.append(Queries(title, reading, shown, folded=title.endswith("best queries")))
    return parts, said


def _query(
    query: int, guess: int, places: np.ndarray, values: np.ndarray, overlap: float, scores: Scores, pictures: Pictures
) -> Query:
    texts, ids = scores.get("texts"), scores.get("video_ids")
    name = str(ids[query]) if ids is not None else f"query {query}"
    chosen = [int(place) for place in places if place >= 0]
    hits = []
    for place in dict.fromkeys([guess, *chosen]):
        if place < 0:
            continue
        first, last = SEGMENTS[place]
        start, end = first * CHUNK_SECONDS, (last + 1) * CHUNK_SECONDS
        who = ["model"] * (place == guess) + ([f"{chosen.count(place)} annotators"] if place in chosen else [])
        seen = pictures(name, (start + end) / 2) if ids is not None else None
        hits.append(Hit(stretch(start, end), " and ".join(who), f"{values[place]:.2f}", place in chosen, picture=seen))
    text = f"{texts[query]} ({name})" if texts is not None else name
    return Query(text, f"overlap {overlap:.0%}", hits)


def _chunk(chunk: int) -> str:
    return stretch(chunk * CHUNK_SECONDS, (chunk + 1) * CHUNK_SECONDS)
