"""Metrics as pure functions of small numpy arrays; no model, no files, no randomness.

Every value is a fraction in [0, 1], except ranks, which start at 1. A metric that has nothing to average over is NaN.
Functions named `original_*` reproduce what the original VideoCLIP code computes where it departs from the definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

Segment = tuple[int, int]
Ties = Literal["pessimistic", "optimistic"]

# ---------------------------------------------------------------------------------------------------------- retrieval


def ranks(similarities: ArrayLike, targets: ArrayLike | None = None, *, ties: Ties = "pessimistic") -> np.ndarray:
    """Position of each query's own item when its gallery is sorted from most to least similar.

    Args:
        similarities: (queries, gallery) scores, larger = more similar.
        targets: (queries,) column of the right item; default: query i belongs to item i.
        ties: where the right item stands among items with exactly its score: behind all of them ("pessimistic"; the
            only rule that a constant model cannot profit from) or before ("optimistic").

    Returns:
        (queries,) int64, one rank per query, 1 = best.

    Raises:
        ValueError: for NaN scores, shapes that do not pair up, targets outside the gallery or an unknown tie rule.
    """
    scores = _checked_similarities(similarities)
    queries, gallery = scores.shape
    if targets is None and queries != gallery:
        raise ValueError(
            f"similarities of {queries} queries and {gallery} items are not square: pass targets, "
            "the column of each query's right item"
        )
    columns = np.arange(queries) if targets is None else np.asarray(targets)
    if columns.shape != (queries,) or not np.issubdtype(columns.dtype, np.integer):
        raise ValueError(f"targets must be {queries} integers, one a query; got {columns.dtype} of {columns.shape}")
    if ((columns < 0) | (columns >= gallery)).any():
        raise ValueError(f"targets must lie in 0..{gallery - 1}; got {columns.min()}..{columns.max()}")
    own = scores[np.arange(queries), columns][:, None]
    if ties == "pessimistic":
        return (scores >= own).sum(axis=1)
    if ties == "optimistic":
        return (scores > own).sum(axis=1) + 1
    raise ValueError(f"ties is {ties!r}; allowed: 'pessimistic', 'optimistic'")


def summarize_ranks(query_ranks: np.ndarray) -> dict[str, np.ndarray]:
    """R@1, R@5, R@10 and the median rank over the last axis of (..., queries) ranks that start at 1."""
    recalls = {f"R@{k}": (query_ranks <= k).mean(axis=-1) for k in (1, 5, 10)}
    return {**recalls, "median_rank": np.median(query_ranks, axis=-1)}


def retrieval_metrics(
    similarities: ArrayLike, targets: ArrayLike | None = None, *, ties: Ties = "pessimistic"
) -> dict[str, float]:
    """Recall at 1, 5, 10 and median rank, from exactly one rank a query.

    Args:
        similarities: (queries, gallery) scores, larger = more similar.
        targets: (queries,) column of the right item; default: the diagonal.
        ties: see `ranks`.

    Returns:
        `R@1`, `R@5`, `R@10` as fractions and `median_rank` (1 = best).

    Raises:
        ValueError: as `ranks`.
    """
    return _floats(summarize_ranks(ranks(similarities, targets, ties=ties)))


def original_retrieval_metrics(similarities: ArrayLike) -> dict[str, float]:
    """Recall and median rank by the original's tie-counting rule (reference data, eval_youcook README).

    The original sorts each row and takes every position whose value equals the diagonal's: a diagonal value that
    occurs n times in its row contributes n ranks r, r+1, ..., and every denominator grows with them.

    Args:
        similarities: (queries, queries); item i is right for query i.

    Raises:
        ValueError: if the matrix is not square or holds NaN.
    """
    scores = _checked_similarities(similarities)
    if scores.shape[0] != scores.shape[1]:
        raise ValueError(f"the original's rule needs as many queries as items, got similarities {scores.shape}")
    positions = np.nonzero(-np.sort(-scores, axis=1) == np.diag(scores)[:, None])[1]
    return _floats(summarize_ranks(positions + 1))


def chance_retrieval_metrics(gallery: int) -> dict[str, float]:
    """Expected metrics of a random order of `gallery` items: a uniform rank has R@k = k/N and median (N+1)/2."""
    recalls = {f"R@{k}": min(k / gallery, 1.0) for k in (1, 5, 10)}
    return {**recalls, "median_rank": (gallery + 1) / 2}


def _checked_similarities(similarities: ArrayLike) -> np.ndarray:
    scores = np.asarray(similarities)
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"similarities must be a filled (queries, gallery) matrix, got shape {scores.shape}")
    invalid = np.isnan(scores).any(axis=1)
    if invalid.any():
        raise ValueError(
            f"similarities hold NaN in {invalid.sum()} of {len(scores)} rows, first in row {invalid.argmax()}: "
            "ranks are undefined; look for a diverged checkpoint or non-finite features"
        )
    return scores


def _floats(metrics: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


# ------------------------------------------------------------------------------------------------ action segmentation


def frame_accuracy(predicted: Sequence, target: Sequence, *, ignore: int | None = None) -> float:
    """Share of frames labelled rightly, over the frames of all videos together (COIN's measure).

    Args:
        predicted: label ids of one video (frames,), or a list of such arrays, one a video.
        target: the same shapes.
        ignore: leave out frames whose *target* is this label; the background id turns the measure into the
            foreground accuracy.

    Returns:
        A fraction; NaN if no frame counts.

    Raises:
        ValueError: if predictions and targets differ in length.
    """
    pairs = _paired_videos(predicted, target)
    guess = np.concatenate([guess for guess, _ in pairs])
    truth = np.concatenate([truth for _, truth in pairs])
    counted = np.ones(len(truth), bool) if ignore is None else truth != ignore
    return float((guess == truth)[counted].mean()) if counted.any() else float("nan")


def label_segments(labels: ArrayLike, *, background: int | None = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maximal runs of one label, background runs left out.

    Args:
        labels: (frames,) label ids.
        background: the label that separates segments; None keeps every run.

    Returns:
        Label, first frame and end (exclusive) of each run, three (segments,) int arrays in order of time.
    """
    frames = np.asarray(labels)
    if len(frames) == 0:
        empty = np.zeros(0, np.int64)
        return empty, empty, empty
    starts = np.concatenate([[0], np.flatnonzero(frames[1:] != frames[:-1]) + 1])
    ends = np.append(starts[1:], len(frames))
    kept = np.ones(len(starts), bool) if background is None else frames[starts] != background
    return frames[starts][kept], starts[kept], ends[kept]


def edit_scores(predicted: Sequence, target: Sequence, *, background: int | None = 0) -> np.ndarray:
    """Segmental edit score of each video, (videos,) in [0, 1]; see `edit_score`."""
    scores = []
    for guess, truth in _paired_videos(predicted, target):
        ours, theirs = (label_segments(labels, background=background)[0] for labels in (guess, truth))
        longest = max(len(ours), len(theirs))
        scores.append(1.0 - _levenshtein(ours, theirs) / longest if longest else 1.0)
    return np.array(scores)


def edit_score(predicted: Sequence, target: Sequence, *, background: int | None = 0) -> float:
    """Segmental edit score: 1 - Levenshtein distance of the segment labels / length of the longer list.

    The measure of the action-segmentation field (Lea et al., CVPR 2017, arXiv:1611.05267; evaluated as in MS-TCN,
    arXiv:1903.01945): durations do not count, background segments are left out, videos count equally. Two videos
    without any segment agree (1).

    Args:
        predicted: label ids of one video (frames,), or a list of such arrays.
        target: the same shapes.
        background: label left out; None counts every run.

    Raises:
        ValueError: if predictions and targets differ in length.
    """
    return float(edit_scores(predicted, target, background=background).mean())


def segment_matches(
    predicted: Sequence,
    target: Sequence,
    overlaps: Sequence[float] = (0.10, 0.25, 0.50),
    *,
    background: int | None = 0,
) -> np.ndarray:
    """Counts behind `segmental_f1`.

    Returns:
        (videos, overlaps, 3) int64: true positives, predicted segments, true segments.

    Raises:
        ValueError: if predictions and targets differ in length, or an overlap is outside (0, 1].
    """
    if not all(0 < overlap <= 1 for overlap in overlaps):
        raise ValueError(f"overlaps must lie in (0, 1], got {tuple(overlaps)}")
    pairs = _paired_videos(predicted, target)
    counts = np.zeros((len(pairs), len(overlaps), 3), np.int64)
    for video, (guess, truth) in enumerate(pairs):
        label, start, end = (part[:, None] for part in label_segments(guess, background=background))
        true_label, true_start, true_end = label_segments(truth, background=background)
        counts[video, :, 1:] = len(label), len(true_label)
        if len(label) == 0 or len(true_label) == 0:
            continue
        shared = np.maximum(np.minimum(end, true_end) - np.maximum(start, true_start), 0)
        together = (end - start) + (true_end - true_start) - shared
        iou = np.where(label == true_label, shared / together, 0.0)  # (predicted, true)
        best, best_iou = iou.argmax(axis=1), iou.max(axis=1)
        # a prediction may only claim its best segment, and a segment only once: the rest are false positives
        counts[video, :, 0] = [len(np.unique(best[best_iou >= overlap])) for overlap in overlaps]
    return counts


def segmental_f1(
    predicted: Sequence,
    target: Sequence,
    overlaps: Sequence[float] = (0.10, 0.25, 0.50),
    *,
    background: int | None = 0,
) -> dict[str, float]:
    """Segmental F1 at overlap thresholds (Lea et al., CVPR 2017, arXiv:1611.05267; evaluated as in MS-TCN).

    A predicted segment is right if its intersection over union with the best segment of its label reaches the
    threshold and no other prediction claimed that segment. Counts are summed over videos, background is left out.

    Args:
        predicted: label ids of one video (frames,), or a list of such arrays.
        target: the same shapes.
        overlaps: thresholds in (0, 1].
        background: label left out; None counts every run.

    Returns:
        `F1@10`, `F1@25`, ... (thresholds in percent); NaN if there is no segment on either side.

    Raises:
        ValueError: as `segment_matches`.
    """
    counts = segment_matches(predicted, target, overlaps, background=background).sum(axis=0)
    return {
        f"F1@{round(100 * overlap)}": float(2 * hits / (guesses + truths)) if guesses + truths else float("nan")
        for overlap, (hits, guesses, truths) in zip(overlaps, counts, strict=True)
    }


def _paired_videos(predicted: Sequence, target: Sequence) -> list[tuple[np.ndarray, np.ndarray]]:
    guesses, truths = _as_videos(predicted), _as_videos(target)
    if len(guesses) != len(truths) or not truths:
        raise ValueError(f"predictions for {len(guesses)} videos, targets for {len(truths)}: they must pair up")
    for video, (guess, truth) in enumerate(zip(guesses, truths)):
        if guess.shape != truth.shape:
            raise ValueError(f"video {video}: predictions {guess.shape} and targets {truth.shape} must be alike")
    return list(zip(guesses, truths))


def _as_videos(labels: Sequence) -> list[np.ndarray]:
    """Reads one label sequence as a list of one video."""
    one_video = labels.ndim == 1 if isinstance(labels, np.ndarray) else len(labels) > 0 and np.ndim(labels[0]) == 0
    if one_video:
        return [np.asarray(labels)]
    return [np.asarray(video) for video in labels]


def _levenshtein(first: np.ndarray, second: np.ndarray) -> int:
    offsets = np.arange(len(second) + 1)
    row = offsets  # distances of an empty beginning of `first` to each beginning of `second`
    for deletions, label in enumerate(first, start=1):
        replaced_or_deleted = np.minimum(row[:-1] + (second != label), row[1:] + 1)
        row = np.append(deletions, replaced_or_deleted)
        row = np.minimum.accumulate(row - offsets) + offsets  # any number of insertions on the way right
    return int(row[-1])


# -------------------------------------------------------------------------------------------------- step localisation


def best_monotonic_assignment(cost: ArrayLike) -> np.ndarray:
    """Gives each step one frame, in order, at the least total cost; background frames are free.

    The inference of Zhukov et al. (CVPR 2019, arXiv:1903.08225). Equally good assignments resolve as there: the last
    step goes to the last frame if that costs no more, and every other step as early as it can.

    Args:
        cost: (T frames, K steps), finite, any sign.

    Returns:
        (T, K) uint8, 1 where the step takes the frame: K ones for T >= K (the diagonal for T == K). With fewer frames
        than steps each frame takes one step: the cheapest T of the K steps in their order.

    Raises:
        ValueError: if `cost` is not a finite matrix.
    """
    cost = _checked_cost(cost)
    frames, steps = cost.shape
    if frames < steps:
        return np.ascontiguousarray(best_monotonic_assignment(cost.T).T)
    # least[k]: first k steps within the frames seen so far; taken[t, k]: does step k end that optimum at frame t?
    least = np.full(steps + 1, np.inf)
    least[0] = 0.0
    taken = np.zeros((frames, steps + 1), bool)
    for t in range(frames):
        with_frame = least[:-1] + cost[t]
        last = t == frames - 1
        taken[t, 1:] = with_frame < least[1:]
        if last and steps:
            taken[t, steps] = with_frame[-1] <= least[-1]
        least[1:] = np.minimum(least[1:], with_frame)
    assignment = np.zeros((frames, steps), np.uint8)
    step = steps
    for t in reversed(range(frames)):
        if taken[t, step]:
            step -= 1
            assignment[t, step] = 1
    return assignment


def original_monotonic_assignment(cost: ArrayLike) -> np.ndarray:
    """`best_monotonic_assignment` with the final-state bug of the original (reference data, eval_crosstask README).

    The original may end in a background state that it cannot reach: no step is predicted at all when there are fewer
    frames than steps, nor when there are as many and the last step has a positive cost in the last frame.

    Args:
        cost: (T frames, K steps), finite.

    Returns:
        (T, K) uint8.

    Raises:
        ValueError: if `cost` is not a finite matrix.
    """
    cost = _checked_cost(cost)
    frames, steps = cost.shape
    if frames < steps or (frames == steps and frames and cost[-1, -1] > 0):
        return np.zeros((frames, steps), np.uint8)
    return best_monotonic_assignment(cost)


def step_recall(assignments: Sequence, truths: Sequence) -> float:
    """CrossTask's recall of one task: share of the steps present whose assigned frame lies in a true interval.

    Args:
        assignments: one (T, K) 0/1 array a video, at most one frame a step (a single video's array is accepted).
        truths: (T, K) 0/1 arrays, 1 in the frames where the step is annotated.

    Returns:
        Steps hit / steps present, both summed over the videos; NaN if no video shows any step. Predictions for steps
        that a video does not show count neither way.

    Raises:
        ValueError: if the shapes differ or a step is assigned to several frames.
    """
    hits, present = step_counts(assignments, truths).sum(axis=0)
    return float(hits / present) if present else float("nan")


def step_counts(assignments: Sequence, truths: Sequence) -> np.ndarray:
    """Counts behind `step_recall`: (videos, 2) int64, steps hit and steps present."""
    if isinstance(assignments, np.ndarray) and assignments.ndim == 2:
        assignments, truths = [assignments], [truths]
    if len(assignments) != len(truths):
        raise ValueError(f"assignments for {len(assignments)} videos, truths for {len(truths)}: they must pair up")
    counts = np.zeros((len(truths), 2), np.int64)
    for video, (assignment, truth) in enumerate(zip(assignments, truths)):
        chosen, present = np.asarray(assignment, bool), np.asarray(truth, bool)
        if chosen.shape != present.shape:
            raise ValueError(f"video {video}: assignment {chosen.shape} and truth {present.shape} must be alike")
        if (chosen.sum(axis=0) > 1).any():
            raise ValueError(f"video {video}: a step is assigned to several frames; recall is defined for one")
        counts[video] = (chosen & present).sum(), present.any(axis=0).sum()
    return counts


def _checked_cost(cost: ArrayLike) -> np.ndarray:
    array = np.asarray(cost, np.float64)
    if array.ndim != 2 or not np.isfinite(array).all():
        raise ValueError(f"cost must be a finite (frames, steps) matrix, got shape {array.shape} or non-finite values")
    return array


# ------------------------------------------------------------------------------------------------ moment localisation


def segment_iou(first: Segment, second: Segment) -> float:
    """Intersection over union of two moments given as (first chunk, last chunk), both inclusive."""
    shared = min(first[1], second[1]) - max(first[0], second[0]) + 1
    hull = max(first[1], second[1]) - min(first[0], second[0]) + 1
    return max(shared, 0) / hull


def moment_scores(
    rankings: Sequence[Sequence[Segment]], annotations: Sequence[Sequence[Segment]]
) -> tuple[np.ndarray, np.ndarray]:
    """Per query, what DiDeMo's rule averages (see `moment_metrics`).

    Returns:
        Mean rank of the best three annotations, (queries,), NaN if none of them is in the ranking; and mean IoU of the
        top segment with its best three annotations, (queries,), 0 for an empty ranking.

    Raises:
        ValueError: if the lists differ in length or a query has no annotation.
    """
    if len(rankings) != len(annotations):
        raise ValueError(f"rankings for {len(rankings)} queries, annotations for {len(annotations)}: they must pair up")
    mean_ranks, mean_ious = np.full(len(rankings), np.nan), np.zeros(len(rankings))
    for query, (ranking, times) in enumerate(zip(rankings, annotations, strict=True)):
        if len(times) == 0:
            raise ValueError(f"query {query} has no annotated moment")
        position = {(int(start), int(end)): rank for rank, (start, end) in enumerate(ranking, start=1)}
        moments = [(int(start), int(end)) for start, end in times]
        found = sorted(position[moment] for moment in moments if moment in position)
        if found:
            mean_ranks[query] = np.mean(found[:3])
        if len(ranking):
            top = next(iter(position))
            mean_ious[query] = np.mean(sorted((segment_iou(top, moment) for moment in moments), reverse=True)[:3])
    return mean_ranks, mean_ious


def moment_metrics(rankings: Sequence[Sequence[Segment]], annotations: Sequence[Sequence[Segment]]) -> dict[str, float]:
    """DiDeMo's moment localisation measures (Hendricks et al., ICCV 2017, arXiv:1708.01641; LocalizingMoments).

    A query counts for R@k if the mean rank of its best three annotations is at most k: for R@1 three annotators must
    agree with the top segment. Annotations missing from the ranking (beyond a short video's end) have no rank; a query
    with none left is a miss.

    Args:
        rankings: per query, segments (first chunk, last chunk; inclusive) from best to worst.
        annotations: per query, the annotators' segments, at least one.

    Returns:
        `R@1`, `R@5`, `mIoU`.

    Raises:
        ValueError: as `moment_scores`, or if there is no query.
    """
    mean_ranks, mean_ious = moment_scores(rankings, annotations)
    if len(mean_ranks) == 0:
        raise ValueError("no query to average over")
    return {
        "R@1": float((mean_ranks <= 1).mean()),
        "R@5": float((mean_ranks <= 5).mean()),
        "mIoU": float(mean_ious.mean()),
    }
