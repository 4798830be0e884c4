"""MSR-VTT multiple choice: which of five sentences describes the video?

Data: MSR_MC_test.csv of Yu et al., "A Joint Sequence Fusion Model for Video Question Answering and Retrieval", ECCV
2018 (arXiv:1808.02559), on the videos of MSR-VTT (Xu et al., CVPR 2016). Protocol: Xu et al., EMNLP 2021
(arXiv:2109.14084), as its code runs it (reference data, eval_msrvtt_qa README).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from mmpt_plugin.evaluation.annotation_files import malformed, read_table
from mmpt_plugin.evaluation.benchmark import Benchmark, EncodingPlan, Encodings, Evaluation, Scores
from mmpt_plugin.evaluation.benchmark_files import BenchmarkFiles
from mmpt_plugin.evaluation.benchmarks.text_to_video import (
    distinct,
    first_window,
)
from mmpt_plugin.evaluation.bootstrap import VideoSums
from mmpt_plugin.models.similarity import similarity_to_own

TEST_FILE = "MSR_MC_test.csv"
OPTIONS = ("a1", "a2", "a3", "a4", "a5")
OFFICIAL_FILE = f"the official {TEST_FILE}, tab separated, header: (row number) key vid_key a1..a5 answer"


@dataclass(frozen=True)
class MultipleChoiceQuestion:
    """A video, five sentences, and which of them (0..4) was written for it."""

    video_id: str
    options: tuple[str, ...]
    answer: int


def read_msrvtt_qa(path: Path) -> list[MultipleChoiceQuestion]:
    """Reads the questions in file order; options are text, whatever they say ("NA", "null").

    The file calls a video "msr123"; its feature file is "video123". `answer` counts from 0.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is another file, has another delimiter, a broken row, an empty id or option, or an answer that
            is no number from 0 to 4.
    """
    questions = []
    for row in read_table(path, OFFICIAL_FILE, delimiter="\t", columns=("vid_key", *OPTIONS, "answer")):
        options = tuple(row.cells[option] for option in OPTIONS)
        video_id, answer = row.cells["vid_key"].replace("msr", "video"), row.cells["answer"].strip()
        if not video_id.strip() or not all(option.strip() for option in options):
            raise malformed(path, OFFICIAL_FILE, f"line {row.line} has an empty vid_key or option")
        if answer not in ("0", "1", "2", "3", "4"):
            raise malformed(path, OFFICIAL_FILE, f"line {row.line}: answer {answer!r} is none of 0..4 (counted from 0)")
        questions.append(MultipleChoiceQuestion(video_id, options, int(answer)))
    return questions


class MsrvttQa(Benchmark):
    """Zero-shot multiple choice on MSR-VTT: the option most similar to the video's first 32 seconds is chosen.

    `accuracy` counts a question if an option with the right one's text scores above every other text: ties with a wrong
    text count as wrong, so a constant model gets nothing. `original` counts as the original does: the first of the best
    options must be the answer, even where the right sentence is offered twice.
    """

    name: ClassVar[str] = "msrvtt_qa"
    folder: ClassVar[str] = "msrvtt"
    paper: ClassVar[dict] = {"accuracy": 0.739}
    paper_fine_tuned: ClassVar[dict] = {"accuracy": 0.921}
    official_items = 2990

    def _read(self, files: BenchmarkFiles) -> None:
        questions = read_msrvtt_qa(files.annotations_or(f"msrvtt/{TEST_FILE}"))
        self.questions = self._with_features(questions, files)
        self._windows, self._video_index = distinct(first_window(self.features, q.video_id) for q in self.questions)
        self._texts, text_index = distinct(option for question in self.questions for option in question.options)
        self._text_index = text_index.reshape(len(self.questions), len(OPTIONS))
        self._answers = np.array([question.answer for question in self.questions])

    def plan(self) -> EncodingPlan:
        """Each distinct option and each distinct video once."""
        return EncodingPlan(texts=self._texts, windows=self._windows)

    def score(self, encodings: Encodings) -> dict[str, np.ndarray]:
        """Dot products of each video with its five options: `scores` (questions, 5) float32.

        Args:
            encodings: text (distinct options, D), video (distinct videos, D), in the plan's order.
        """
        videos = np.asarray(encodings.video)[self._video_index]  # (N, D)
        # row by row, not one big product: a text offered twice gets bit-equal scores, wherever it stands
        return {"scores": similarity_to_own(videos, encodings.text[self._text_index])}

    def describe(self) -> dict[str, np.ndarray]:
        """`texts` (distinct,), `options` (questions * 5,) places in `texts`, `answers` and `video_ids` (questions,)."""
        return {
            "texts": np.array(self._texts),
            "options": self._text_index.ravel(),
            "answers": self._answers,
            "video_ids": np.array([question.video_id for question in self.questions]),
        }

    def evaluate(self, scores: Scores) -> Evaluation:
        """Accuracy from `scores` (questions, 5) alone."""
        similarities = scores["scores"]
        self._check_scores(similarities, self._text_index.shape)
        rows = np.arange(len(self._answers))
        right = self._text_index == self._text_index[rows, self._answers][:, None]  # (N, 5)
        best_right = np.where(right, similarities, -np.inf).max(axis=1)
        best_wrong = np.where(right, -np.inf, similarities).max(axis=1)
        correct = best_right > best_wrong
        return Evaluation(
            metrics={"accuracy": float(correct.mean())},
            baselines={"chance": {"accuracy": float(right.mean())}},
            original={"accuracy": float((similarities.argmax(axis=1) == self._answers).mean())},
            queries=len(correct),
            sums=VideoSums.of([question.video_id for question in self.questions], {"accuracy": (correct, 1)}),
        )
