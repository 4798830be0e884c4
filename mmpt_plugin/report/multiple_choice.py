"""Multiple choice: is a place preferred, how sure is the model, and where was it nearly right?"""

from __future__ import annotations

import numpy as np

from mmpt_plugin.evaluation.benchmark import Scores
from mmpt_plugin.report.charts import bars, curves
from mmpt_plugin.report.parts import Detail, Figure, Hit, Part, Pictures, Queries, Query, no_pictures
from mmpt_plugin.report.retrieval import confidence_curve
from mmpt_plugin.report.shares import share_intervals


def accuracy_by_place(
    right: np.ndarray, answers: np.ndarray, options: int, videos: np.ndarray | None, rng: np.random.Generator
) -> list[dict]:
    """How often the model is right where the answer stands at each place, with the 95% interval.

    Args:
        right: (questions,) bool.
        answers: (questions,) places, from 0.
        options: places.
        videos: (questions,) the questions' videos, where known.
        rng: for the interval.
    """
    rows = []
    for place in range(options):
        own = np.flatnonzero(answers == place)
        if not len(own):
            continue
        (low,), (high,) = share_intervals(right[own, None], None if videos is None else videos[own], rng)
        share = {"accuracy": float(right[own].mean()), "low": float(low), "high": float(high)}
        rows.append({"place": f"{place + 1}", **share, "questions": len(own)})
    return rows


def shares_by_place(guesses: np.ndarray, answers: np.ndarray, options: int) -> list[dict]:
    """How often each place is chosen, beside how often it is right."""
    return [
        {"place": f"{place + 1}", "share": float((values == place).mean()), "what": what}
        for place in range(options)
        for what, values in (("chosen", guesses), ("right", answers))
    ]


def section_parts(
    scores: Scores, detail: Detail, pictures: Pictures = no_pictures, seed: int = 0
) -> tuple[list[Part], list[str]]:
    """The parts of a multiple choice benchmark's section.

    Args:
        scores: `scores` (questions, options); `answers` (questions,), `options` (questions, options) places in `texts`,
            `video_ids` (questions,), as far as known.
        detail: how many questions to show.
        pictures: small pictures of videos.
        seed: of the intervals.

    Returns:
        The parts, and remarks on what could not be shown.

    Raises:
        ValueError: if the arrays do not fit each other.
    """
    values, said = np.asarray(scores["scores"]), []
    if "answers" not in scores or "options" not in scores:
        return [], ["The scores do not say which answers are right (an older format): evaluate again for pictures."]
    answers, index = np.asarray(scores["answers"]), np.asarray(scores["options"])
    if index.size == values.size:  # saved as one row
        index = index.reshape(values.shape)
    if values.ndim != 2 or values.shape != index.shape or answers.shape != values.shape[:1] or not values.size:
        raise ValueError(
            f"scores {values.shape}, options {index.shape} and answers {answers.shape} do not fit each other"
        )
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        said.append(
            f"{(~finite).sum():,} of {len(values):,} questions have scores that are no numbers; they are left out below."
        )
    kept = np.flatnonzero(finite)
    if not len(kept):
        return [], [*said, "No question is left to show."]
    values, answers, index = values[kept], answers[kept], index[kept]
    same = index == index[np.arange(len(index)), answers][:, None]  # the right sentence may be offered twice
    lead = np.where(same, values, -np.inf).max(axis=1) - np.where(same, -np.inf, values).max(axis=1)
    right, rng = lead > 0, np.random.default_rng(seed)
    videos = np.asarray(scores["video_ids"])[kept] if "video_ids" in scores else None
    ordered = np.sort(values, axis=1)
    margin = ordered[:, -1] - ordered[:, -2] if values.shape[1] > 1 else np.zeros(len(values))
    options = values.shape[1]
    parts: list[Part] = [
        Figure(
            "Accuracy by the answer's place",
            "If the bars differ by more than their intervals, the model or the file prefers a place.",
            bars(
                accuracy_by_place(right, answers, options, videos, rng),
                x="place",
                y="accuracy",
                percent=True,
                line=float(right.mean()),
                line_name="all questions",
            ),
        ),
        Figure(
            "Places chosen",
            "How often each place has the highest score, beside how often it is right.",
            bars(
                shares_by_place(values.argmax(axis=1), answers, options),
                x="place",
                y="share",
                percent=True,
                series="what",
            ),
        ),
        Figure(
            "Confidence",
            "The margin is the best sentence's score less the second's. Each point is a tenth of the questions.",
            curves(confidence_curve(margin, right, videos, rng), x="margin", y="right", percent=True, points=True),
        ),
    ]
    wrong = np.flatnonzero(~right)
    closest = wrong[np.argsort(-lead[wrong], kind="stable")][: detail.examples]
    furthest = wrong[np.argsort(lead[wrong], kind="stable")][: min(detail.examples, len(wrong) - len(closest))]
    for title, members in (("The closest misses", closest), ("The furthest misses", furthest)):
        if len(members):
            shown = [
                _question(kept[i], values[i], same[i], index[i], float(lead[i]), scores, pictures) for i in members
            ]
            reading = "Sentences from best to worst score; the right one is green."
            parts.append(Queries(title, reading, shown, folded=title != "The closest misses"))
    return parts, said


def _question(
    question: int,
    values: np.ndarray,
    right: np.ndarray,
    index: np.ndarray,
    lead: float,
    scores: Scores,
    pictures: Pictures,
) -> Query:
    texts, ids = scores.get("texts"), scores.get("video_ids")
    name = str(ids[question]) if ids is not None else f"question {question}"
    seen = pictures(name, 16.0) if ids is not None else None
    hits = [
        Hit(
            str(texts[index[place]]) if texts is not None else f"sentence {place + 1}",
            f"{order}.",
            f"{values[place]:.2f}",
            bool(right[place]),
            picture=seen if order == 1 else None,
        )
        for order, place in enumerate(np.argsort(-values, kind="stable").tolist(), start=1)
    ]
    return Query(name, f"missed by {-lead:.2f}", hits)
