"""A label for every second (COIN): timelines, confusion, and accuracy beside that of background everywhere."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mmpt_plugin.evaluation.benchmark import Scores
from mmpt_plugin.evaluation.benchmarks.coin import (
    BACKGROUND,
    calibrated_predictions,
    classifier_predictions,
    threshold_predictions,
)
from mmpt_plugin.evaluation.metrics import label_segments
from mmpt_plugin.report.charts import bars, heat, points, timelines
from mmpt_plugin.report.parts import Detail, Figure, Part, clock, spread

LABELS = 12  # in the confusion matrix, beside background and the rest
COLUMNS = 240  # of a timeline; longer videos are drawn by majority
CLOUD = 1500  # videos in the cloud of points


def predictions(scores: Scores) -> dict[str, np.ndarray]:
    """Classes of all seconds by each rule: the threshold's (or the classifier's), and the calibrated one."""
    logits = scores["logits"]
    if "label_ids" in scores:
        class_of = {int(label): place for place, label in enumerate(scores["class_label_ids"], start=1)}
        return {"prediction": classifier_predictions(logits, scores["label_ids"], class_of)}
    if "cosines" in scores:  # there is no other rule
        return {"prediction": calibrated_predictions(logits)}
    return {
        "prediction": threshold_predictions(logits, float(scores["background_threshold"])),
        "calibrated": calibrated_predictions(logits),
    }


def timeline_rows(video: str, rows: Mapping[str, np.ndarray], labels: np.ndarray) -> list[dict]:
    """Stretches of one label, background left blank.

    Args:
        video: its id.
        rows: name ("truth", "prediction", ...) -> (seconds,) classes.
        labels: (L,) texts of the classes 1, 2, ...; a class beyond them is "a label of training only".
    """
    drawn = []
    for name, classes in rows.items():
        step = -(-len(classes) // COLUMNS)
        for label, start, end in zip(*label_segments(majority(classes, step), background=BACKGROUND)):
            text = str(labels[label - 1]) if label <= len(labels) else "a label of training only"
            when = {"start": int(start) * step, "end": min(int(end) * step, len(classes))}
            drawn.append({"video": video, "row": name, "label": text, **when, "colour": int(label) % 20})
    return drawn


def majority(classes: np.ndarray, step: int) -> np.ndarray:
    """The most frequent class of every `step` seconds."""
    if step <= 1:
        return classes
    return np.array([np.bincount(classes[i : i + step]).argmax() for i in range(0, len(classes), step)])


def confusion_rows(target: np.ndarray, predicted: np.ndarray, labels: np.ndarray, wanted: int = LABELS) -> list[dict]:
    """What the seconds of each frequent label are taken for, as shares of the label's seconds."""
    counts = np.bincount(target[target != BACKGROUND], minlength=len(labels) + 1)
    frequent = [label for label in np.argsort(-counts, kind="stable")[:wanted].tolist() if counts[label]]
    shown = [BACKGROUND, *sorted(frequent)]
    names = ["background", *(str(labels[label - 1]) for label in sorted(frequent))]
    names = [f"{name} ({place})" if names.count(name) > 1 else name for place, name in zip(shown, names)]
    rows = []
    for true, true_name in zip(shown, names):
        own = predicted[target == true]
        if not len(own):
            continue
        shares = [float((own == label).mean()) for label in shown]
        for name, share in zip([*names, "another label"], [*shares, max(0.0, 1 - sum(shares))]):
            rows.append({"true label": true_name, "taken for": name, "share": share})
    return rows


def section_parts(scores: Scores, detail: Detail) -> tuple[list[Part], list[str]]:
    """The parts of COIN's section.

    Args:
        scores: as `Coin.score` and `Coin.describe` give them.
        detail: how many videos to show.

    Returns:
        The parts, and remarks on what could not be shown.

    Raises:
        ValueError: if the arrays do not fit each other.
    """
    logits, lengths = np.asarray(scores["logits"]), np.asarray(scores["video_lengths"])
    if "targets" not in scores or "labels" not in scores:
        return [], ["The scores do not hold the true labels (an older format): evaluate again for pictures."]
    target, labels = np.asarray(scores["targets"]), np.asarray(scores["labels"])
    ids = np.asarray(scores["video_ids"])
    if logits.ndim != 2 or len(logits) != lengths.sum() or target.shape != (len(logits),) or len(ids) != len(lengths):
        raise ValueError(
            f"logits {logits.shape}, {lengths.sum()} seconds and {len(target)} labels do not fit each other"
        )
    if not len(logits) or not np.isfinite(logits).all():
        return [], ["The scores are empty or hold values that are no numbers: nothing can be drawn."]
    rules = predictions(scores)
    cuts = np.cumsum(lengths)[:-1]
    truth = np.split(target, cuts)
    split = {name: np.split(classes, cuts) for name, classes in rules.items()}
    filled = np.flatnonzero(lengths > 0)
    accuracy = {name: np.array([(split[name][v] == truth[v]).mean() for v in filled]) for name in rules}
    background = np.array([(truth[v] == BACKGROUND).mean() for v in filled])
    parts: list[Part] = [
        Figure(
            "Frame accuracy against background everywhere",
            "The line is what labelling every second as background scores. A bar below it has learnt nothing that this "
            "number can show.",
            bars(
                [
                    {"rule": name, "frame accuracy": float((classes == target).mean())}
                    for name, classes in rules.items()
                ],
                x="rule",
                y="frame accuracy",
                percent=True,
                line=float((target == BACKGROUND).mean()),
                line_name="all background",
            ),
        ),
    ]
    best = "calibrated" if "calibrated" in rules else "prediction"
    cloud = [
        {
            "video": str(ids[filled[i]]),
            "share of background": float(background[i]),
            "frame accuracy": float(accuracy[best][i]),
        }
        for i in spread(len(filled), CLOUD)
    ]
    reading = "A point is a video. On the line it scores what background everywhere would; above it, more."
    parts.append(
        Figure(
            f"By video ({best})",
            reading,
            points(cloud, x="share of background", y="frame accuracy", diagonal="background everywhere"),
        )
    )
    order = filled[np.argsort(-accuracy[best], kind="stable")]
    shown = [order[place] for place in spread(len(order), detail.timelines)]
    rows = [
        row
        for video in shown
        for row in timeline_rows(
            str(ids[video]), {"truth": truth[video]} | {name: split[name][video] for name in rules}, labels
        )
    ]
    if rows:
        below = ", ".join(["truth", *rules])
        parts.append(
            Figure(
                f"Timelines of {len(shown)} videos",
                f"From the best to the worst video, evenly chosen. In each, from above: {below}. Blank is background; a "
                f"colour is a label (point at it). Videos longer than {clock(COLUMNS)} are drawn by the most frequent "
                "label of every few seconds.",
                timelines(rows),
            )
        )
    for name, classes in rules.items():
        title = f"Confusion of the most frequent labels ({name})"
        reading = "Each row is a true label; its cells say what its seconds were taken for."
        chart = heat(confusion_rows(target, classes, labels), x="taken for", y="true label", value="share", height=340)
        parts.append(Figure(title, reading, chart))
    return parts, []
