"""What an evaluation asks of the model, and what a benchmark makes of the answer.

A benchmark is three pure steps around one pass of the encoders:

    plan()  -> EncodingPlan: the distinct texts and the windows of video to encode
    score(encodings) -> arrays saved beside the results (<NAME>_scores.npz)
    evaluate(scores) -> metrics, baselines and the original's own numbers

Nothing in this package but `encoding.py` knows torch or batches.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmpt_plugin.data.feature_folder import FeatureFolder
from mmpt_plugin.data.windows import Window
from mmpt_plugin.evaluation.benchmark_files import Annotation, BenchmarkFiles
from mmpt_plugin.evaluation.bootstrap import VideoSums, intervals

logger = logging.getLogger(__name__)

Scores = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class EncodingPlan:
    """All that the model must compute for a benchmark, each distinct text once.

    Attributes:
        texts: distinct sentences, as written in the annotation file.
        windows: the stretches of video; `Encodings.video` follows their order.
        per_frame: encode to one state per second (coin, crosstask, didemo_moment) instead of one pooled embedding.
        attend_to_cls: False for coin and crosstask, where the original masks the video's [CLS].
        classify_frames: with `per_frame`, logits of the model's frame classifier instead of the states.
        pad_to: with `per_frame`, pad every window to this many seconds and give the states of padded seconds too, as the
            original does for DiDeMo, which averages over them. They attend to the real ones but are attended to by none.
    """

    texts: list[str]
    windows: list[Window]
    per_frame: bool = False
    attend_to_cls: bool = True
    classify_frames: bool = False
    pad_to: int | None = None


@dataclass(frozen=True)
class Encodings:
    """The model's answer to a plan, float32.

    Attributes:
        text: (texts, D) pooled text embeddings.
        video: (windows, D) pooled; or, with `per_frame`, a list of (seconds of the window, D) states, or (seconds of the
            window, classes) where frames are classified. With `pad_to`, every window has that many seconds.
    """

    text: np.ndarray
    video: np.ndarray | list[np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """Numbers of one benchmark; every value is a fraction in [0, 1] unless its name says otherwise.

    Attributes:
        metrics: ours (keys as in docs/data.md).
        baselines: name -> numbers with the same keys as `metrics` (always `chance`).
        original: metrics as the original computes them, where that differs from ours.
        queries: number of queries, videos or frames-bearing videos that the metrics average over.
        sums: what the headline metrics add up from, video by video; gives their intervals (bootstrap.py) and makes two
            checkpoints comparable.
    """

    metrics: dict
    baselines: dict[str, dict]
    original: dict
    queries: int
    sums: VideoSums

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Metric -> (low, high), the bootstrap 95% interval over videos."""
        return intervals(self.sums)


class Benchmark(ABC):
    """One data set with its protocol. A subclass reads the data set's own annotation files in `_read`."""

    name: ClassVar[str]
    folder: ClassVar[str]  # its place in the data folder
    paper: ClassVar[dict]  # the paper's zero-shot numbers, same keys as `Evaluation.metrics`, fractions
    paper_fine_tuned: ClassVar[dict] = {}  # and its fine-tuned ones, where it has such
    official_items: int  # how many items the official test file holds
    paper_items: ClassVar[int | None] = None  # how many the paper's numbers are on, where that is another number
    splits: ClassVar[Sequence[str]] = ("official",)  # the values of task.split that it has

    features: FeatureFolder  # where the windows' rows are read
    found: int  # how many items of the test file have features
    missing: list[str]  # ids without a feature file

    def __init__(self, data: str | Path, **options: Any) -> None:
        """Reads the annotations and looks for the features of their videos.

        Args:
            data: the data folder (docs/data.md).
            options: the other fields of `BenchmarkFiles`: `annotations`, `features`, `on_missing`, `feature_size`,
                `max_seconds`, `split`, `drop_suffix`.

        Raises:
            FileNotFoundError: for files that are missing, unless `on_missing` is "skip" and only features are.
            ValueError: for malformed files, an unknown split, or a test set without an item.
        """
        files = BenchmarkFiles(Path(data), **options)
        files.require_split(self.name, self.splits)
        self._read(files)
        if self.found not in (self.official_items, self.paper_items):
            logger.warning(
                "%s: %d items found, the official test set has %d%s. Numbers on another set are not comparable with "
                "the paper's",
                self.name,
                self.found,
                self.official_items,
                f" and the paper's numbers are on {self.paper_items} of them" if self.paper_items else "",
            )

    def _read(self, files: BenchmarkFiles) -> None:
        """Sets `features`, `found`, `missing`, and what the three steps need. Not called by another constructor."""
        raise NotImplementedError

    def _with_features(self, annotations: Sequence[Annotation], files: BenchmarkFiles) -> list[Annotation]:
        """The annotations of videos with features; sets `features`, `found` and `missing`."""
        self.features = files.open_features(self.folder)
        kept, self.missing = files.with_features(annotations, self.features)
        self.found = len(kept)
        return kept

    def use_frame_classifier(self, label_ids: Sequence[int]) -> None:  # noqa: B027 (most benchmarks label no frames)
        """Called where the model was fine-tuned to classify frames; benchmarks that do not label frames go on as ever.

        Args:
            label_ids: what the classes 1, 2, ... stand for; 0 is background.

        Raises:
            ValueError: if the test set has a label that training never saw.
        """

    def use_cosines(self) -> None:  # noqa: B027 (to most benchmarks it is all the same)
        """Called where the model gives unit vectors, for benchmarks whose rules depend on how they are compared."""

    @abstractmethod
    def plan(self) -> EncodingPlan: ...

    @abstractmethod
    def score(self, encodings: Encodings) -> dict[str, np.ndarray]: ...

    @abstractmethod
    def evaluate(self, scores: Scores) -> Evaluation:
        """Metrics of the arrays that `score` made.

        Raises:
            ValueError: if they do not fit the annotations or are not finite.
        """

    def _check_scores(self, scores: np.ndarray, needed: tuple[int, ...]) -> None:
        """Refuses scores of another shape than the annotations need, and those of a diverged checkpoint."""
        if scores.shape != needed:
            raise ValueError(
                f"{self.name}: scores of shape {scores.shape} do not fit the annotations, which need {needed}"
            )
        if not np.isfinite(scores).all():
            raise ValueError(f"{self.name}: scores hold NaN or infinite values: look for a diverged checkpoint")

    def describe(self) -> dict[str, np.ndarray]:
        """What the scores are about: ids, texts and truths, saved beside them so that a page can show them."""
        return {}
