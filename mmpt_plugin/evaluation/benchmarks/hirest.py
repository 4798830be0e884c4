"""HiREST: find the moment of an instruction video that a query asks for, and the steps in it.

Data and protocol of the moments: Zala et al., "Hierarchical Video-Moment Retrieval and Step-Captioning", CVPR 2023
(arXiv:2303.16406); all_data_test.json of its repository HiREST, whose README says what the fields mean. A predicted moment
is right if its intersection over union with the annotated one reaches 0.5, or 0.7. The steps' localisation is not HiREST's
own: it is CrossTask's (Zhukov et al., CVPR 2019), with the annotated headings in order as the steps.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np

from mmpt_plugin.evaluation.annotation_files import FilledText, Seconds, checked, malformed, read_json
from mmpt_plugin.evaluation.benchmark import Benchmark, EncodingPlan, Encodings, Evaluation, Scores
from mmpt_plugin.evaluation.benchmark_files import BenchmarkFiles
from mmpt_plugin.evaluation.benchmarks.crosstask import chance_assignment, step_costs, uniform_assignment
from mmpt_plugin.evaluation.benchmarks.text_to_video import distinct
from mmpt_plugin.evaluation.bootstrap import VideoSums
from mmpt_plugin.evaluation.metrics import best_monotonic_assignment, step_counts
from mmpt_plugin.evaluation.windows import merge_by_video, windows_of_videos
from mmpt_plugin.models.similarity import similarity

logger = logging.getLogger(__name__)

TEST_FILE = "all_data_test.json"
OFFICIAL_FILE = (
    f'the official {TEST_FILE} of HiREST: {{query: {{video file: {{"relevant", "clip", "v_duration", "bounds", '
    '"steps": [{"index", "heading", "absolute_bounds"}]}}}'
)
OVERLAPS = (0.5, 0.7)
Span = tuple[float, float]


@dataclass(frozen=True)
class Step:
    """A step of a moment: its heading and its seconds."""

    heading: str
    bounds: Span


@dataclass(frozen=True)
class HirestQuery:
    """A query, a video that answers it, the moment that does (None: the whole video), and its steps in order."""

    query: str
    video_id: str
    moment: Span | None
    steps: tuple[Step, ...]


class StepRecord(msgspec.Struct):
    """A step as the file has it."""

    heading: FilledText
    absolute_bounds: tuple[Seconds, Seconds]
    index: int = 0


class VideoRecord(msgspec.Struct):
    """What the file says of a query and a video."""

    relevant: bool
    clip: bool
    bounds: tuple[Seconds, Seconds]
    steps: list[StepRecord] = []


def read_hirest(path: Path) -> list[HirestQuery]:
    """Reads a split, the pairs of a query and a relevant video in file order.

    A video is called by its file's name without ".mp4", as feature extraction calls it.

    Raises:
        FileNotFoundError: if there is no such file.
        UnusableFile: if it is no JSON, is another file, or a record is malformed; the message names query and video.
    """
    content = read_json(path, OFFICIAL_FILE)
    if not isinstance(content, dict) or not content:
        raise malformed(path, OFFICIAL_FILE, f"holds {type(content).__name__}, not a filled table of queries")
    pairs = []
    for query, videos in content.items():
        if not isinstance(videos, dict) or not query.strip():
            raise malformed(path, OFFICIAL_FILE, f"query {query!r} has no table of videos, or no words")
        for file, raw in videos.items():
            where = f"query {query!r}, video {file}"
            record = checked(raw, VideoRecord, where, path, OFFICIAL_FILE)
            spans = [record.bounds, *(step.absolute_bounds for step in record.steps)]
            if backwards := [span for span in spans if span[0] > span[1]]:
                raise malformed(path, OFFICIAL_FILE, f"{where}: {backwards[0]} ends before it starts")
            if not record.relevant:
                continue
            steps = sorted(record.steps, key=lambda step: step.index)
            pairs.append(
                HirestQuery(
                    query,
                    file.removesuffix(".mp4"),
                    record.bounds if record.clip else None,
                    tuple(Step(step.heading, step.absolute_bounds) for step in steps),
                )
            )
    return pairs


def best_moment(scores: np.ndarray) -> tuple[int, int]:
    """The run of seconds whose scores lie above the video's mean by most in all: start and end (exclusive).

    Args:
        scores: (seconds,) of one query and one video.

    Returns:
        The first of equally good runs; (0, 0) for a video of 0 seconds.
    """
    if len(scores) == 0:
        return 0, 0
    total = np.concatenate([[0.0], np.cumsum(scores - scores.mean(dtype=np.float64))])
    lowest = np.minimum.accumulate(total)[:-1]  # before each second
    end = int((total[1:] - lowest).argmax()) + 1
    start = int(total[:end].argmin())
    return start, end


def overlap(first: np.ndarray | Span, second: Span) -> np.ndarray:
    """Intersection over union of (..., 2) spans with one span; 0 where both are empty."""
    spans = np.asarray(first, np.float64)
    shared = np.maximum(np.minimum(spans[..., 1], second[1]) - np.maximum(spans[..., 0], second[0]), 0)
    together = spans[..., 1] - spans[..., 0] + second[1] - second[0] - shared
    return np.divide(shared, together, out=np.zeros_like(together), where=together > 0)


def chance_overlaps(seconds: int, moment: Span) -> np.ndarray:
    """Expected hits at each of `OVERLAPS` and expected overlap of a run of whole seconds drawn from all: (3,)."""
    starts, ends = np.triu_indices(seconds + 1, 1)
    if not len(starts):
        return np.zeros(len(OVERLAPS) + 1)
    found = overlap(np.stack([starts, ends], axis=1), moment)
    return np.array([*((found >= least).mean() for least in OVERLAPS), found.mean()])


class Hirest(Benchmark):
    """Moment retrieval in a known video, and localisation of its steps, on HiREST's test split.

    `R@0.5`, `R@0.7` and `mIoU` are of the moments of queries that a part of the video answers. The model predicts the run of
    seconds that resembles the query most (`best_moment`). `step_recall` puts each heading, in order, into one second and
    counts those within their annotated bounds, over all steps. A video's features have its file's name without ".mp4".
    """

    name: ClassVar[str] = "hirest"
    folder: ClassVar[str] = "hirest"
    paper: ClassVar[dict] = {}

    def _read(self, files: BenchmarkFiles) -> None:
        path = files.annotations_or(f"hirest/{TEST_FILE}")
        asked = [pair for pair in read_hirest(path) if pair.moment is not None]
        if not asked:
            raise malformed(path, OFFICIAL_FILE, "no relevant video with a moment (clip: true)")
        self.official_items = len(asked)
        self.queries = self._with_features(asked, files)
        self.seconds = {pair.video_id: self.features.seconds(pair.video_id) for pair in self.queries}

    def plan(self) -> EncodingPlan:
        """Sliding windows of every distinct video; every distinct query and heading."""
        headings = (step.heading for pair in self.queries for step in pair.steps)
        return EncodingPlan(
            texts=distinct([*(pair.query for pair in self.queries), *headings])[0],
            windows=windows_of_videos(self.seconds, self.features.max_seconds),
            per_frame=True,
            attend_to_cls=False,
        )

    def score(self, encodings: Encodings) -> dict[str, np.ndarray]:
        """Similarities of frame states, averaged over windows, with the query and the headings of each pair.

        Returns:
            `video_lengths` and `video_steps` (pairs,); `logits` (sum of T x (1 + K),) float32: pair after pair, each
            (T, 1 + K) row by row, the query first.
        """
        plan = self.plan()
        embedding = dict(zip(plan.texts, encodings.text))
        states = dict(merge_by_video(plan.windows, list(encodings.video)))
        logits = [np.zeros(0, np.float32)]
        for pair in self.queries:
            if self.seconds[pair.video_id]:
                texts = np.stack([embedding[words] for words in (pair.query, *(step.heading for step in pair.steps))])
                logits.append(similarity(states[pair.video_id], texts).ravel())
        return {
            "video_lengths": np.array([self.seconds[pair.video_id] for pair in self.queries]),
            "video_steps": np.array([len(pair.steps) for pair in self.queries]),
            "logits": np.concatenate(logits),
        }

    def describe(self) -> dict[str, np.ndarray]:
        """`texts` and `video_ids` (pairs,), `spans` (pairs, 2) the annotated moments, `headings` of all steps."""
        return {
            "texts": np.array([pair.query for pair in self.queries]),
            "video_ids": np.array([pair.video_id for pair in self.queries]),
            "spans": np.array([pair.moment for pair in self.queries]),
            "headings": np.array([step.heading for pair in self.queries for step in pair.steps], str),
        }

    def evaluate(self, scores: Scores) -> Evaluation:
        """Metrics from `video_lengths` and `logits`.

        Baselines: `whole_video` answers each query with all of its video; `uniform_spread` spreads the steps evenly;
        `chance` is the expectation of a run of seconds, and of an assignment in order, drawn uniformly from all.
        """
        shapes = [(int(seconds), 1 + len(pair.steps)) for seconds, pair in zip(scores["video_lengths"], self.queries)]
        sizes = [rows * columns for rows, columns in shapes]
        self._check_scores(scores["video_lengths"], (len(self.queries),))
        self._check_scores(scores["logits"], (sum(sizes),))
        logits = [v.reshape(s) for v, s in zip(np.split(scores["logits"], np.cumsum(sizes)[:-1]), shapes)]
        moments = [pair.moment for pair in self.queries if pair.moment is not None]
        ours = np.array([overlap(best_moment(own[:, 0]), moment) for own, moment in zip(logits, moments)])
        whole = np.array([overlap((0, seconds), moment) for (seconds, _), moment in zip(shapes, moments)])
        random = np.array([chance_overlaps(seconds, moment) for (seconds, _), moment in zip(shapes, moments)]).mean(
            axis=0
        )
        truths = [paint_bounds(pair.steps, seconds) for pair, (seconds, _) in zip(self.queries, shapes)]
        steps = step_counts([locate_steps(own[:, 1:]) for own in logits], truths)
        spread = step_counts([uniform_assignment(*truth.shape) for truth in truths], truths)
        expected = sum(float((chance_assignment(*truth.shape) * truth).sum()) for truth in truths)

        def recall(hits: float) -> float:
            present = float(steps[:, 1].sum())
            return float(hits / present) if present else math.nan

        return Evaluation(
            metrics={**summarize_overlaps(ours), "step_recall": recall(steps[:, 0].sum())},
            baselines={
                "whole_video": summarize_overlaps(whole),
                "uniform_spread": {"step_recall": recall(spread[:, 0].sum())},
                "chance": {
                    **dict(zip((*(f"R@{least}" for least in OVERLAPS), "mIoU"), random.tolist())),
                    "step_recall": recall(expected),
                },
            },
            original={},
            queries=len(self.queries),
            sums=VideoSums.of(
                [pair.video_id for pair in self.queries],
                {
                    **{f"R@{least}": (ours >= least, 1) for least in OVERLAPS},
                    "mIoU": (ours, 1),
                    "step_recall": (steps[:, 0], steps[:, 1]),
                },
            ),
        )


def locate_steps(logits: np.ndarray) -> np.ndarray:
    """The second of each step, in order: (T, K) logits -> (T, K) uint8."""
    return best_monotonic_assignment(step_costs(logits)) if logits.shape[1] else np.zeros(logits.shape, np.uint8)


def summarize_overlaps(overlaps: np.ndarray) -> dict[str, float]:
    """Share of (queries,) overlaps that reach each of `OVERLAPS`, and their mean."""
    return {**{f"R@{least}": float((overlaps >= least).mean()) for least in OVERLAPS}, "mIoU": float(overlaps.mean())}


def paint_bounds(steps: tuple[Step, ...], seconds: int) -> np.ndarray:
    """Where each step is annotated: (seconds, steps) uint8."""
    truth = np.zeros((seconds, len(steps)), np.uint8)
    for column, step in enumerate(steps):
        truth[math.floor(step.bounds[0]) : math.ceil(step.bounds[1]), column] = 1
    return truth
