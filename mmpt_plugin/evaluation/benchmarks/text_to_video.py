"""What the text -> video retrieval benchmarks share: pairs of a sentence and a stretch of video, ranked over all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import ClassVar, TypeVar

import numpy as np

from mmpt_plugin.data.feature_folder import FeatureFolder
from mmpt_plugin.data.windows import Window
from mmpt_plugin.evaluation.benchmark import Benchmark, EncodingPlan, Encodings, Evaluation, Scores
from mmpt_plugin.evaluation.bootstrap import VideoSums
from mmpt_plugin.evaluation.metrics import (
    chance_retrieval_metrics,
    original_retrieval_metrics,
    ranks,
    summarize_ranks,
)
from mmpt_plugin.models.similarity import similarity

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=Hashable)


def distinct(items: Iterable[T]) -> tuple[list[T], np.ndarray]:
    """The distinct items in order of first appearance, and for each item its position among them, (n,) int64."""
    position: dict[T, int] = {}
    index = [position.setdefault(item, len(position)) for item in items]
    return list(position), np.array(index, np.int64)


def first_window(features: FeatureFolder, video_id: str, start: int = 0, end: int | None = None) -> Window:
    """The first seconds of start..end that the model takes, as far as the video's features reach; empty if they end before."""
    seconds = features.seconds(video_id)
    start = min(start, seconds)
    return Window(video_id, start, min(seconds if end is None else end, seconds, start + features.max_seconds))


class TextToVideoRetrieval(Benchmark):
    """Sentence i should find stretch of video i among all of them. Subclasses call `_set_pairs`.

    `metrics` have one rank a query, pessimistic under ties. Identical sentences or stretches are encoded and compared
    once, so that their scores are exactly equal and ties do not hang on rounding. `original` holds the numbers by the
    original's rule, which counts a tied query several times.
    """

    each_stretch_once: ClassVar[bool] = False
    """Whether a stretch that several sentences describe stands once in the gallery, or once for each of them, as in the
    original, where the copies tie."""

    sentences: Sequence[str]
    windows: Sequence[Window]

    def _set_pairs(self, sentences: Sequence[str], windows: Sequence[Window]) -> None:
        self.sentences, self.windows = sentences, windows
        repeated = len(sentences) - len(set(zip(sentences, windows, strict=True)))
        if repeated and not self.each_stretch_once:
            logger.warning(
                "%s: %d queries repeat the sentence and the stretch of video of another; they tie with it and rank "
                "behind it",
                self.name,
                repeated,
            )
        empty = [window.video_id for window in windows if window.start == window.end]
        if empty:
            logger.warning(
                "%s: %d stretches hold no second of features and are encoded as empty videos, first: %s",
                self.name,
                len(empty),
                ", ".join(empty[:5]),
            )

    def plan(self) -> EncodingPlan:
        """Each distinct sentence and each distinct stretch of video once."""
        return EncodingPlan(texts=distinct(self.sentences)[0], windows=distinct(self.windows)[0])

    def _columns(self) -> np.ndarray:
        """Column of each query's right item, (queries,)."""
        return distinct(self.windows)[1] if self.each_stretch_once else np.arange(len(self.windows))

    def score(self, encodings: Encodings) -> dict[str, np.ndarray]:
        """What the pooled embeddings' similarities are: `similarities` (queries, gallery) float32.

        The right ones are on the diagonal, or, where `each_stretch_once`, in the columns `targets` of `describe`.

        Args:
            encodings: text (distinct sentences, D), video (distinct stretches, D), in the plan's order.
        """
        text_index, video_index = distinct(self.sentences)[1], distinct(self.windows)[1]
        similarities = similarity(encodings.text, np.asarray(encodings.video))
        of_queries = similarities[text_index]
        return {"similarities": of_queries if self.each_stretch_once else of_queries[:, video_index]}

    def describe(self) -> dict[str, np.ndarray]:
        """`texts`, `video_ids` (queries,) and `spans` (queries, 2), the seconds of the video that were encoded.

        Where `each_stretch_once`, `gallery_ids`, `gallery_spans` and `targets` (queries,) besides.
        """
        gallery = {}
        if self.each_stretch_once:
            stretches, targets = distinct(self.windows)
            gallery = {
                "gallery_ids": np.array([window.video_id for window in stretches]),
                "gallery_spans": np.array([(window.start, window.end) for window in stretches]),
                "targets": targets,
            }
        return gallery | {
            "texts": np.array(self.sentences),
            "video_ids": np.array([window.video_id for window in self.windows]),
            "spans": np.array([(window.start, window.end) for window in self.windows]),
        }

    def evaluate(self, scores: Scores) -> Evaluation:
        """Metrics from `similarities` (queries, queries) alone; those of the other direction are `video_to_text`.

        There each distinct stretch of video looks for its sentence among all distinct sentences; where it has several,
        the best of them counts. What resembles it as much as its own sentence ranks before it.
        """
        similarities = scores["similarities"]
        queries, columns = len(self.sentences), self._columns()
        gallery = int(columns.max()) + 1
        self._check_scores(similarities, (queries, gallery))
        text_index, video_index = distinct(self.sentences)[1], distinct(self.windows)[1]
        forward, backward = (
            ranks(similarities, columns),
            ranks_of_videos(similarities, text_index, video_index, columns),
        )
        stretches = [self.windows[first].video_id for first in np.unique(video_index, return_index=True)[1]]
        none = np.zeros(len(stretches)), np.zeros(queries)
        sums = VideoSums.of(
            [*(window.video_id for window in self.windows), *stretches],
            {
                **{
                    name: (np.append(of_rank(forward), none[0]), np.append(np.ones(queries), none[0]))
                    for name, of_rank in RANK_MEANS.items()
                },
                **{
                    f"video_to_text/{name}": (np.append(none[1], of_rank(backward)), np.append(none[1], none[0] + 1))
                    for name, of_rank in RANK_MEANS.items()
                },
            },
            ranks=forward,
        )
        chance = chance_retrieval_metrics(gallery) | {"mean_rank": (gallery + 1) / 2}
        chance_backward = chance_retrieval_metrics(text_index.max() + 1) | {"mean_rank": (text_index.max() + 2) / 2}
        return Evaluation(
            metrics={
                **_floats(summarize_ranks(forward)),
                "mean_rank": float(forward.mean()),
                "video_to_text": _floats(summarize_ranks(backward)) | {"mean_rank": float(backward.mean())},
            },
            baselines={"chance": {**chance, "video_to_text": chance_backward}},
            original=original_retrieval_metrics(similarities)
            if queries == gallery
            else {},  # it knows no other gallery
            queries=queries,
            sums=sums,
        )


RANK_MEANS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "R@1": lambda ranked: ranked <= 1,
    "R@5": lambda ranked: ranked <= 5,
    "R@10": lambda ranked: ranked <= 10,
    "mean_rank": lambda ranked: ranked,
}
"""Metrics that are means over queries, from their ranks."""


def ranks_of_videos(
    similarities: np.ndarray, text_index: np.ndarray, video_index: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Rank of the best own sentence of each distinct stretch of video, behind others that score as much.

    Args:
        similarities: (pairs, gallery), sentence by stretch.
        text_index, video_index: (pairs,) which distinct sentence and which distinct stretch each pair has.
        columns: (pairs,) where in the gallery its stretch is.

    Returns:
        (distinct stretches,) int64, 1 = best.
    """
    first_text, first_video = (np.unique(index, return_index=True)[1] for index in (text_index, video_index))
    scores = similarities[np.ix_(first_text, columns[first_video])]  # (distinct sentences, distinct stretches)
    own = np.zeros(scores.shape, bool)
    own[text_index, video_index] = True
    best = np.where(own, scores, -np.inf).max(axis=0)
    return ((scores >= best) & ~own).sum(axis=0) + 1


def _floats(metrics: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
