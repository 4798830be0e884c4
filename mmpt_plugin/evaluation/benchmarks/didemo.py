"""DiDeMo: find the moment of a video that a sentence describes; or, a video from all of its sentences.

Data and protocol of the moments: Hendricks et al., "Localizing Moments in Video with Natural Language", ICCV 2017
(arXiv:1708.01641); test_data.json and train_data.json of its repository LocalizingMoments. Zero-shot: Xu et al., EMNLP
2021 (arXiv:2109.14084), as its code runs it (reference data, eval_didemo README): the paper lists these numbers as
retrieval, but each query looks at the one video it belongs to.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, product
from math import comb, perm
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from mmpt_plugin.evaluation.annotation_files import FilledText, checked, malformed, read_json
from mmpt_plugin.evaluation.benchmark import Benchmark, EncodingPlan, Encodings, Evaluation, Scores
from mmpt_plugin.evaluation.benchmark_files import BenchmarkFiles
from mmpt_plugin.evaluation.benchmarks.text_to_video import (
    TextToVideoRetrieval,
    distinct,
    first_window,
)
from mmpt_plugin.evaluation.bootstrap import VideoSums
from mmpt_plugin.evaluation.metrics import Segment, moment_scores, segment_iou
from mmpt_plugin.models.similarity import similarity

logger = logging.getLogger(__name__)

CHUNKS = 6
CHUNK_SECONDS = 5
Chunk = Annotated[int, msgspec.Meta(ge=0, lt=CHUNKS)]
SEGMENTS: tuple[Segment, ...] = (*((c, c) for c in range(CHUNKS)), *combinations(range(CHUNKS), 2))  # 21, inclusive
OFFICIAL_FILE = (
    "the official test_data.json (or train_data.json) of LocalizingMoments: a list of records with 'video' (its file "
    "extension included), 'description' and 'times', [first, last] chunks of 5 seconds from 0 to 5"
)


@dataclass(frozen=True)
class DidemoQuery:
    """One sentence, its video and the moments its annotators chose: (first chunk, last chunk), both inclusive."""

    video_id: str
    description: str
    moments: tuple[Segment, ...]


class QueryRecord(msgspec.Struct):
    """One query as the official files have it."""

    video: FilledText
    description: FilledText
    times: Annotated[list[tuple[Chunk, Chunk]], msgspec.Meta(min_length=1)]


def read_didemo(path: Path) -> list[DidemoQuery]:
    """Reads test_data.json or train_data.json, queries in file order.

    Raises:
        FileNotFoundError: if there is no such file.
        UnusableFile: if it is no JSON (or cut short), is another file, or a record is malformed; the message names the
            record.
    """
    records = read_json(path, OFFICIAL_FILE)
    if not isinstance(records, list) or not records:
        raise malformed(path, OFFICIAL_FILE, f"holds {type(records).__name__}, not a filled list")
    queries = []
    for position, raw in enumerate(records):
        record = checked(raw, QueryRecord, f"record {position}", path, OFFICIAL_FILE)
        for first, last in record.times:
            if first > last:
                raise malformed(
                    path, OFFICIAL_FILE, f"record {position}: moment [{first}, {last}] ends before it starts"
                )
        queries.append(DidemoQuery(record.video, record.description, tuple(record.times)))
    return queries


def valid_segments(seconds: int) -> np.ndarray:
    """Which of the 21 segments have at least one second of a video: (21,) bool."""
    return np.array([first * CHUNK_SECONDS < seconds for first, _ in SEGMENTS])


def rank_segments(scores: np.ndarray, valid: np.ndarray, moments: Sequence[Segment]) -> list[Segment]:
    """The valid segments from best to worst.

    Of equal scores, those that more annotators chose stand behind (pessimistic): a constant score earns nothing. The
    original leaves the order of ties to an unstable sort.

    Args:
        scores: (21,) in the order of `SEGMENTS`.
        valid: (21,) bool.
        moments: what the annotators chose.
    """
    chosen = Counter(moments)
    votes = np.array([chosen[segment] for segment in SEGMENTS])
    return [SEGMENTS[i] for i in np.lexsort((votes, -scores)) if valid[i]]


def moment_frequencies(queries: Sequence[DidemoQuery]) -> np.ndarray:
    """How often annotators chose each of the 21 segments: (21,) int64."""
    votes = Counter(moment for query in queries for moment in query.moments)
    return np.array([votes[segment] for segment in SEGMENTS])


# ------------------------------------------------------------------------------------------------------------- chance


def chance_moment_metrics(moments: Sequence[Sequence[Segment]], valid: np.ndarray) -> dict[str, float]:
    """Exact expectation of the metrics when each query's valid segments are ranked in random order.

    Args:
        moments: per query, what the annotators chose.
        valid: (queries, 21) bool.
    """
    totals = np.zeros(3)
    for chosen, allowed in zip(moments, valid):
        segments = [segment for segment, ok in zip(SEGMENTS, allowed) if ok]
        if not segments:
            continue
        votes = tuple(sorted(Counter(moment for moment in chosen if moment in segments).values()))
        ious = [sorted((segment_iou(s, moment) for moment in chosen), reverse=True)[:3] for s in segments]
        totals += [*chance_of_mean_rank(len(segments), votes), np.mean([np.mean(best) for best in ious])]
    recall_1, recall_5, iou = (totals / len(moments)).tolist()
    return {"R@1": recall_1, "R@5": recall_5, "mIoU": iou}


def chance_of_mean_rank(segments: int, votes: Sequence[int]) -> tuple[float, float]:
    """Probability that the best three annotations have a mean rank of at most 1, and of at most 5, in a random order.

    Only the first three of the d chosen segments can matter, and of their annotations only three. They stand at ranks
    r1 < r2 < r3, the other d - 3 behind, in C(n - r3, d - 3) of the C(n, d) ways to place them; each order of numbers of
    annotations is as likely as its draw without replacement.

    Args:
        segments: n, how many are ranked.
        votes: annotations of each chosen segment, d <= n numbers.

    Returns:
        The two probabilities; 0 and 0 if no chosen segment is ranked.
    """
    return _chance_of_mean_rank(segments, tuple(sorted(min(count, 3) for count in votes)))


@cache
def _chance_of_mean_rank(segments: int, votes: tuple[int, ...]) -> tuple[float, float]:
    if not votes:
        return 0.0, 0.0
    first = min(len(votes), 3)
    ranks = np.array(list(combinations(range(1, segments + 1), first)))  # (ways, first)
    behind = np.array([comb(segments - last, len(votes) - first) for last in ranks[:, -1]], np.float64)
    within = np.zeros(2)
    for order in product(sorted(set(votes)), repeat=first):
        taken, left = 1, Counter(votes)
        for count in order:
            taken *= left[count]
            left[count] -= 1
        best = np.repeat(ranks, order, axis=1)[:, :3].mean(axis=1)
        within += [taken * (behind * (best <= limit)).sum() for limit in (1, 5)]
    at_1, at_5 = within / (perm(len(votes), first) * comb(segments, len(votes)))
    return float(at_1), float(at_5)


# --------------------------------------------------------------------------------------------------------- benchmarks


class DidemoMoment(Benchmark):
    """Moment localisation: 21 segments of one known video ranked for a sentence; `R@1`, `R@5`, `mIoU`.

    The rule for several annotators is `moment_metrics`'. A segment's state is the mean over its seconds of the first
    30, padded ones included where the video is shorter, as in the original; a segment without any second of the video
    is not ranked. A query with no annotation left in the ranking is a miss (so with a video of 0 seconds, on which the
    original crashes). The original's numbers are these metrics. train_data.json, for a baseline, is looked for beside the
    annotations; features are named with the file extension that the annotations give a video.
    """

    name: ClassVar[str] = "didemo_moment"
    folder: ClassVar[str] = "didemo"
    paper: ClassVar[dict] = {"R@1": 0.166, "R@5": 0.469}
    official_items = 4021

    def _read(self, files: BenchmarkFiles) -> None:
        path = files.annotations_or("didemo/test_data.json")
        self.queries = self._with_features(read_didemo(path), files)
        self._windows, self._video_index = distinct(
            first_window(self.features, query.video_id) for query in self.queries
        )
        self._texts, self._text_index = distinct(query.description for query in self.queries)
        training = path.with_name("train_data.json")
        self.prior = moment_frequencies(read_didemo(training)) if training.is_file() else None
        if self.prior is None:
            logger.warning("%s: no %s, so no baseline moment_prior", self.name, training)

    def plan(self) -> EncodingPlan:
        """The first seconds of each distinct video, as many as the model takes; each distinct sentence.

        Raises:
            ValueError: if the model does not see all moments.
        """
        if self.features.max_seconds < CHUNKS * CHUNK_SECONDS:
            raise ValueError(
                f"model.max_video_seconds is {self.features.max_seconds}, but the moments of {self.name} end after "
                f"{CHUNKS * CHUNK_SECONDS} seconds: evaluate a model that sees these, or another benchmark"
            )
        return EncodingPlan(texts=self._texts, windows=self._windows, per_frame=True, pad_to=self.features.max_seconds)

    def score(self, encodings: Encodings) -> dict[str, np.ndarray]:
        """Similarities of sentences and segments.

        Args:
            encodings: text (distinct sentences, D), video (distinct videos, 32, D) or a list, in the plan's order.

        Returns:
            `scores` (queries, 21) float32, for all segments in the order of `SEGMENTS`, and `seconds` (queries,) of
            the video, which tell the valid ones.
        """
        averaging = np.zeros((self.features.max_seconds, len(SEGMENTS)), np.float32)
        for column, (first, last) in enumerate(SEGMENTS):
            averaging[first * CHUNK_SECONDS : (last + 1) * CHUNK_SECONDS, column] = (
                1 / (last - first + 1) / CHUNK_SECONDS
            )
        products = [
            similarity(encodings.video[video], encodings.text[text])
            for video, text in zip(self._video_index, self._text_index)
        ]  # (queries, 32): a product with each second, then the means
        seconds = np.array([self._windows[video].end for video in self._video_index])
        return {"scores": np.stack(products) @ averaging, "seconds": seconds}

    def describe(self) -> dict[str, np.ndarray]:
        """`texts`, `video_ids` (queries,); `moments` (queries, annotators, 2), -1 after the last; `prior` (21,) if known."""
        moments = np.full((len(self.queries), max(len(query.moments) for query in self.queries), 2), -1)
        for row, query in zip(moments, self.queries):
            row[: len(query.moments)] = query.moments
        described = {
            "texts": np.array([query.description for query in self.queries]),
            "video_ids": np.array([query.video_id for query in self.queries]),
            "moments": moments,
        }
        return described if self.prior is None else described | {"prior": self.prior}

    def evaluate(self, scores: Scores) -> Evaluation:
        """Metrics from `scores` (queries, 21) and `seconds` (queries,).

        Baselines: `moment_prior` ranks all segments by their frequency among the annotations of train_data.json, if
        that file lies beside the test file, whatever the video's length (features are not looked at); `chance` is the
        exact expectation of a random order of the valid segments.
        """
        values, seconds = scores["scores"], scores["seconds"]
        self._check_scores(values, (len(self.queries), len(SEGMENTS)))
        self._check_scores(seconds, (len(self.queries),))
        moments = [query.moments for query in self.queries]
        valid = np.stack([valid_segments(length) for length in seconds])
        ranks, ious = self._localize(values, valid)
        unranked = int(np.isnan(ranks).sum())
        if unranked:
            logger.warning("%s: %d queries have no annotated moment within their video: misses", self.name, unranked)
        baselines = {}
        if self.prior is not None:
            everywhere = np.ones_like(valid)
            by_prior = self._localize(np.broadcast_to(self.prior, values.shape), everywhere)
            baselines["moment_prior"] = {name: float(v) for name, v in _summarize(*by_prior).items()}
        baselines["chance"] = chance_moment_metrics(moments, valid)
        return Evaluation(
            metrics={name: float(value) for name, value in _summarize(ranks, ious).items()},
            baselines=baselines,
            original={},
            queries=len(self.queries),
            sums=VideoSums.of(
                [query.video_id for query in self.queries],
                {"R@1": (ranks <= 1, 1), "R@5": (ranks <= 5, 1), "mIoU": (ious, 1)},
            ),
        )

    def _localize(self, scores: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moments = [query.moments for query in self.queries]
        return moment_scores([rank_segments(*row) for row in zip(scores, valid, moments)], moments)


class DidemoRetrieval(TextToVideoRetrieval):
    """Video-paragraph retrieval: all sentences of a video, joined in file order, should find it among all videos.

    Not in the original. The usual protocol on DiDeMo, e.g. Liu et al., "Use What You Have", BMVC 2019
    (arXiv:1907.13487). The gallery is the 1,037 videos that test_data.json names; papers with this
    protocol mostly use the 1,004 of them whose names end in a usual extension. The model reads the
    first 61 word pieces and the first 32 seconds.
    """

    name: ClassVar[str] = "didemo_retrieval"
    folder: ClassVar[str] = "didemo"
    paper: ClassVar[dict] = {}
    official_items = 1037

    def _read(self, files: BenchmarkFiles) -> None:
        queries = self._with_features(read_didemo(files.annotations_or("didemo/test_data.json")), files)
        paragraphs: dict[str, list[str]] = {}
        for query in queries:
            paragraphs.setdefault(query.video_id, []).append(query.description)
        self.found = len(paragraphs)
        self._set_pairs(
            [" ".join(sentences) for sentences in paragraphs.values()],
            [first_window(self.features, video_id) for video_id in paragraphs],
        )

    def evaluate(self, scores: Scores) -> Evaluation:
        """As every text -> video retrieval; the original has no such benchmark, so `original` is empty."""
        return replace(super().evaluate(scores), original={})


def _summarize(mean_ranks: np.ndarray, mean_ious: np.ndarray) -> dict[str, np.ndarray]:
    """`moment_metrics` over the last axis of (..., queries) per-query values, for resamples."""
    recalls = {f"R@{k}": (mean_ranks <= k).mean(axis=-1) for k in (1, 5)}  # NaN: no annotation left, a miss
    return {**recalls, "mIoU": mean_ious.mean(axis=-1)}
