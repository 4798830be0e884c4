"""What the text -> video retrieval benchmarks share: pairs of a sentence and a stretch of video, ranked over all."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from mmpt_plugin.evaluation.benchmark import Benchmark, EncodingPlan, Encodings, Evaluation, Scores, Window
from mmpt_plugin.evaluation.bootstrap import percentile_interval, resample
from mmpt_plugin.evaluation.feature_folder import FeatureFolder
from mmpt_plugin.evaluation.metrics import (
    chance_retrieval_metrics,
    original_retrieval_metrics,
    ranks,
    summarize_ranks,
)

logger = logging.getLogger(__name__)

CLIP_SECONDS = 32  # what the video encoder takes
T = TypeVar("T", bound=Hashable)


def distinct(items: Iterable[T]) -> tuple[list[T], np.ndarray]:
    """The distinct items in order of first appearance, and for each item its position among them, (n,) int64."""
    position: dict[T, int] = {}
    index = [position.setdefault(item, len(position)) for item in items]
    return list(position), np.array(index, np.int64)


def first_window(features: FeatureFolder, video_id: str, start: int = 0, end: int | None = None) -> Window:
    """The first 32 seconds of start..end, as far as the video's features reach; empty if they end before."""
    seconds = features.seconds(video_id)
    start = min(start, seconds)
    return Window(video_id, start, min(seconds if end is None else end, seconds, start + CLIP_SECONDS))


def require_official_split(name: str, split: str) -> None:
    """Refuses `task.split` where a benchmark has one test set only.

    Raises:
        ValueError: unless `split` is "official".
    """
    if split != "official":
        raise ValueError(f"task.split is {split!r}, but {name} has one test set only; allowed: 'official'")


def warn_if_incomplete(name: str, found: int, expected: int) -> None:
    """Says aloud that numbers on another number of items do not compare with published ones."""
    if found != expected:
        logger.warning(
            "%s: %d items found, the official test set has %d. Numbers on another set are not comparable with the "
            "paper's",
            name,
            found,
            expected,
        )


class TextToVideoRetrieval(Benchmark):
    """Sentence i should find stretch of video i among all of them. Subclasses call `_set_pairs`.

    `metrics` have one rank a query, pessimistic under ties. Identical sentences or stretches are encoded and compared
    once, so that their scores are exactly equal and ties do not hang on rounding. `original` holds the numbers by the
    original's rule, which counts a tied query several times.
    """

    sentences: Sequence[str]
    windows: Sequence[Window]

    def _set_pairs(self, sentences: Sequence[str], windows: Sequence[Window]) -> None:
        self.sentences, self.windows = sentences, windows
        repeated = len(sentences) - len(set(zip(sentences, windows, strict=True)))
        if repeated:
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

    def score(self, encodings: Encodings) -> dict[str, np.ndarray]:
        """Dot products of the pooled embeddings: `similarities` (queries, videos) float32, right ones on the diagonal.

        Args:
            encodings: text (distinct sentences, D), video (distinct stretches, D), in the plan's order.
        """
        text_index, video_index = distinct(self.sentences)[1], distinct(self.windows)[1]
        similarities = encodings.text @ np.asarray(encodings.video).T
        return {"similarities": similarities[text_index][:, video_index]}

    def describe(self) -> dict[str, np.ndarray]:
        """`texts`, `video_ids` (queries,) and `spans` (queries, 2), the seconds of the video that were encoded."""
        return {
            "texts": np.array(self.sentences),
            "video_ids": np.array([window.video_id for window in self.windows]),
            "spans": np.array([(window.start, window.end) for window in self.windows]),
        }

    def evaluate(self, scores: Scores) -> Evaluation:
        """Metrics from `similarities` (queries, queries) alone.

        Raises:
            ValueError: if the matrix does not fit the annotations or holds NaN.
        """
        similarities = scores["similarities"]
        queries = len(self.sentences)
        if similarities.shape != (queries, queries):
            raise ValueError(
                f"{self.name}: similarities of shape {similarities.shape} do not fit the annotations' {queries} pairs"
            )
        query_ranks = ranks(similarities)
        resampled = summarize_ranks(query_ranks[resample(queries, np.random.default_rng(0))])
        return Evaluation(
            metrics={name: float(value) for name, value in summarize_ranks(query_ranks).items()},
            baselines={"chance": chance_retrieval_metrics(queries)},
            original=original_retrieval_metrics(similarities),
            queries=queries,
            intervals={name: percentile_interval(values) for name, values in resampled.items()},
        )
