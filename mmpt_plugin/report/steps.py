"""Steps of a task in order (CrossTask): recall of each task, and the path through the scores of some videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmpt_plugin.evaluation.benchmark import Scores
from mmpt_plugin.evaluation.benchmarks.crosstask import step_costs
from mmpt_plugin.evaluation.metrics import best_monotonic_assignment
from mmpt_plugin.report.charts import lying_bars, step_matrix
from mmpt_plugin.report.parts import Detail, Figure, Figures, Part, spread

COLUMNS = 120  # of a score matrix; longer videos are drawn by the highest score of some seconds


def recall_rows(results: Mapping[str, Any], titles: Mapping[str, str]) -> list[dict]:
    """Recall of every task, best first, beside the baselines'."""
    ours = results["metrics"].get("recall_per_task") or {}
    baselines = {name: numbers.get("recall_per_task") or {} for name, numbers in results["baselines"].items()}
    ordered = sorted(((task, value) for task, value in ours.items() if value is not None), key=lambda pair: -pair[1])
    return [
        {"task": titles.get(task, task), "recall": value} | {name: own.get(task) for name, own in baselines.items()}
        for task, value in ordered
    ]


def runs(present: np.ndarray) -> list[tuple[int, int]]:
    """Start and end (exclusive) of each stretch where a (seconds,) 0/1 array is 1."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(present, np.int8), [0]])))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2])]


def matrix(logits: np.ndarray, truth: np.ndarray, steps: list[str]) -> dict[str, Any]:
    """Chart of one video.

    Args:
        logits: (seconds, steps).
        truth: (seconds, steps) 0/1.
        steps: their texts.
    """
    seconds = len(logits)
    width = max(1, -(-seconds // COLUMNS))
    starts = range(0, seconds, width)
    named = [f"{place}. {step}" for place, step in enumerate(steps, start=1)]
    # a step's own level says nothing about when it happens: its scores are compared over the video
    level = (logits - logits.mean(axis=0)) / np.maximum(logits.std(axis=0), 1e-9)
    cells = [
        {"step": named[k], "start": i, "end": min(i + width, seconds), "score": float(level[i : i + width, k].max())}
        for k in range(len(steps))
        for i in starts
    ]
    truths = [{"step": named[k], "start": a, "end": b} for k in range(len(steps)) for a, b in runs(truth[:, k])]
    taken = best_monotonic_assignment(step_costs(logits))
    path = [
        {"step": named[k], "second": int(t) + 0.5, "right": "in a true stretch" if truth[t, k] else "outside"}
        for t, k in np.argwhere(taken)
    ]
    return step_matrix(cells, truths, path)


def section_parts(results: Mapping[str, Any], scores: Scores | None, detail: Detail) -> tuple[list[Part], list[str]]:
    """The parts of CrossTask's section.

    Args:
        results: the JSON file's content.
        scores: as `CrossTask.score` and `CrossTask.describe` give them, or None.
        detail: how many videos to show.

    Returns:
        The parts, and remarks on what could not be shown.

    Raises:
        ValueError: if the arrays do not fit each other.
    """
    titles: dict[str, str] = {}
    if scores is not None and "task_titles" in scores:
        titles = {str(task): str(title) for task, title in zip(scores["tasks"], scores["task_titles"])}
        if len(set(titles.values())) < len(titles):
            titles = {task: f"{title} ({task})" for task, title in titles.items()}
    parts: list[Part] = []
    rows = recall_rows(results, titles)
    if rows:
        ticks = [name for name in rows[0] if name not in ("task", "recall")]
        reading = "Share of the steps shown whose second lies in an annotated stretch; ticks are what needs no model."
        parts.append(Figure("Recall of each task", reading, lying_bars(rows, name="task", value="recall", ticks=ticks)))
    if scores is None:
        return parts, []
    if "truths" not in scores or "step_texts" not in scores:
        return parts, ["The scores do not hold the true steps (an older format): evaluate again for their matrices."]
    lengths, steps = np.asarray(scores["video_lengths"]), np.asarray(scores["video_steps"])
    logits, truths, ids = np.asarray(scores["logits"]), np.asarray(scores["truths"]), scores["video_ids"]
    if (
        logits.shape != truths.shape
        or len(logits) != (lengths * steps).sum()
        or len(scores["step_texts"]) != steps.sum()
    ):
        raise ValueError(
            f"logits {logits.shape}, truths {truths.shape} and {len(lengths)} videos do not fit each other"
        )
    if not np.isfinite(logits).all():
        return parts, ["The scores hold values that are no numbers: no matrix can be drawn."]
    cuts, texts = np.cumsum(lengths * steps)[:-1], np.split(np.asarray(scores["step_texts"]), np.cumsum(steps)[:-1])
    by_video, true_by_video = np.split(logits, cuts), np.split(truths, cuts)
    drawable = np.flatnonzero((lengths > 0) & (steps > 0))
    recall = []
    for video in drawable:
        shape = lengths[video], steps[video]
        taken = best_monotonic_assignment(step_costs(by_video[video].reshape(shape)))
        shown = true_by_video[video].reshape(shape)
        recall.append((taken & shown).sum() / max(1, shown.any(axis=0).sum()))
    order = drawable[np.argsort(-np.array(recall), kind="stable")] if len(drawable) else drawable
    value = dict(zip(drawable.tolist(), recall))
    members = [
        Figure(
            f"{ids[video]}: {titles.get(str(scores['tasks'][video]), scores['tasks'][video])}, recall {value[video]:.0%}",
            "",
            matrix(
                by_video[video].reshape(lengths[video], steps[video]),
                true_by_video[video].reshape(lengths[video], steps[video]),
                [str(step) for step in texts[video]],
            ),
        )
        for video in (int(order[place]) for place in spread(len(order), detail.matrices))
    ]
    if members:
        reading = (
            "From the best to the worst, evenly chosen. Bright is a high score of the step, compared with its other seconds; "
            "frames are the annotated stretches; points are where the steps were put, white within a frame, red outside."
        )
        parts.append(Figures(f"Scores and path of {len(members)} videos", reading, members))
    return parts, []
