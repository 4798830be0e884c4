"""CrossTask: find each step of a known, ordered list in an instruction video.

Data and protocol: Zhukov et al., "Cross-task weakly supervised learning from instructional videos", CVPR 2019
(arXiv:1903.08225); annotations in the folder crosstask_release of the data set's download. Zero-shot protocol: Xu et
al., EMNLP 2021 (arXiv:2109.14084), as its code runs it (reference data, eval_crosstask README).
"""

from __future__ import annotations

import csv
import logging
import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from mmpt_plugin.data.feature_folder import FeatureFolder
from mmpt_plugin.evaluation.annotation_files import malformed, read_lines
from mmpt_plugin.evaluation.benchmark import Benchmark, EncodingPlan, Encodings, Evaluation, Scores
from mmpt_plugin.evaluation.benchmark_files import BenchmarkFiles
from mmpt_plugin.evaluation.benchmarks.text_to_video import distinct
from mmpt_plugin.evaluation.bootstrap import VideoSums
from mmpt_plugin.evaluation.metrics import best_monotonic_assignment, original_monotonic_assignment, step_counts
from mmpt_plugin.evaluation.windows import merge_by_video, warn_of_cut_segments, windows_of_videos
from mmpt_plugin.models.similarity import similarity

logger = logging.getLogger(__name__)

TRAINING_VIDEOS = 30  # of each primary task; the rest is the test set
SPLITS = ("official", "original")
Pair = tuple[str, str]  # task id, video id

OFFICIAL_TASKS = (
    "the official tasks_primary.txt or tasks_related.txt of crosstask_release: blocks of five lines (id, title, url, "
    "number of steps, steps separated by commas) with a blank line between"
)
OFFICIAL_VIDEOS = "the official videos.csv or videos_val.csv of crosstask_release: task,video,url without a header"
OFFICIAL_STEPS = "the official annotations/<task>_<video>.csv of crosstask_release: step,start,end without a header"


# --------------------------------------------------------------------------------------------------- annotation files


@dataclass(frozen=True)
class Task:
    """One task of tasks_primary.txt or tasks_related.txt with its steps in order."""

    task_id: str
    title: str
    steps: tuple[str, ...]


@dataclass(frozen=True)
class StepInterval:
    """One annotated occurrence of a step: its number in the task's list (from 1), seconds from the video's start."""

    step: int
    start: float
    end: float


def read_tasks(path: Path) -> list[Task]:
    """Reads tasks_primary.txt or tasks_related.txt; a blank line after the last block may be missing.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a block is cut short or lists more or fewer steps than it says; the message names the task.
    """
    lines = [line.strip() for line in read_lines(path, OFFICIAL_TASKS)]
    tasks, position = [], 0
    while position < len(lines):
        if not lines[position]:
            position += 1
            continue
        block, after = lines[position : position + 5], lines[position + 5 : position + 6]
        if len(block) < 5 or not block[3].isdecimal() or any(after):
            raise malformed(path, OFFICIAL_TASKS, f"line {position + 1}: no whole block begins with {block[0]!r}")
        task_id, title, _, count, listed = block
        steps = tuple(step.strip() for step in listed.split(","))
        if not all(steps):
            raise malformed(path, OFFICIAL_TASKS, f"task {task_id} lists an empty step ({listed})")
        if len(steps) != int(count):
            problem = f"task {task_id} announces {count} steps and lists {len(steps)} ({listed})"
            raise malformed(path, OFFICIAL_TASKS, problem)
        tasks.append(Task(task_id, title, steps))
        position += 5
    if not tasks:
        raise malformed(path, OFFICIAL_TASKS, "no task in it")
    _require_once(path, OFFICIAL_TASKS, "task", [task.task_id for task in tasks])
    return tasks


def read_videos(path: Path) -> list[Pair]:
    """Reads videos.csv or videos_val.csv: (task id, video id) in file order.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line has not three fields.
    """
    pairs = []
    for number, fields in enumerate(csv.reader(read_lines(path, OFFICIAL_VIDEOS)), start=1):
        if fields and (len(fields) != 3 or not all(fields[:2])):
            raise malformed(path, OFFICIAL_VIDEOS, f"line {number} is {fields}")
        pairs += [(fields[0].strip(), fields[1].strip())] if fields else []
    if not pairs:
        raise malformed(path, OFFICIAL_VIDEOS, "no video in it")
    _require_once(path, OFFICIAL_VIDEOS, "task and video", pairs)
    return pairs


def _require_once(path: Path, official: str, what: str, items: Sequence[object]) -> None:
    """Refuses an entry that stands in the file twice: it would change the seeded draw of the test set."""
    twice = [item for item, count in Counter(items).items() if count > 1]
    if twice:
        raise malformed(path, official, f"{len(twice)} of its entries stand there twice, first the {what} {twice[0]}")


def read_step_intervals(path: Path, steps: int) -> list[StepInterval]:
    """Reads one video's annotation; an empty file shows no step.

    Args:
        path: annotations/<task>_<video>.csv.
        steps: how many steps the task has.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is malformed, a step is not in 1..steps, or an interval ends before it starts.
    """
    intervals = []
    for number, fields in enumerate(csv.reader(read_lines(path, OFFICIAL_STEPS)), start=1):
        if not fields:
            continue
        try:
            step, (start, end) = int(fields[0]), map(float, fields[1:])
        except ValueError as error:
            raise malformed(path, OFFICIAL_STEPS, f"line {number} is {fields}") from error
        if not 1 <= step <= steps:
            raise malformed(path, OFFICIAL_STEPS, f"line {number}: step {step} of a task with steps 1..{steps}")
        if not 0 <= start <= end < math.inf:
            raise malformed(path, OFFICIAL_STEPS, f"line {number}: {start}..{end}; needed is 0 <= start <= end seconds")
        intervals.append(StepInterval(step, start, end))
    return intervals


# -------------------------------------------------------------------------------------------------------------- split


def held_out_videos(candidates: Iterable[Pair], primary: Collection[str]) -> list[Pair]:
    """The test videos: those that a seeded draw of 30 training videos per primary task leaves over.

    The original's rule: task by task, in order of first appearance, NumPy's legacy generator with seed 0 draws 30
    videos for training. A task with no more than 30 videos has no test video; other tasks take no part.

    Args:
        candidates: (task, video) in the order of videos.csv, without those of videos_val.csv. A change in one of them
            changes the draws of its task and of all tasks after it: the original leaves out videos without features.
        primary: ids of the primary tasks.

    Returns:
        (task, video), grouped by task, in the candidates' order within a task.
    """
    by_task: dict[str, list[str]] = {}
    for task, video in candidates:
        by_task.setdefault(task, []).append(video)
    rng = np.random.RandomState(0)  # the draw is defined by the legacy generator
    test: list[Pair] = []
    for task, videos in by_task.items():
        if task in primary and len(videos) > TRAINING_VIDEOS:
            training = set(rng.choice(len(videos), TRAINING_VIDEOS, replace=False).tolist())
            test += [(task, video) for i, video in enumerate(videos) if i not in training]
    return test


def training_videos(candidates: Collection[Pair], primary: Collection[str]) -> list[Pair]:
    """The videos of primary tasks that `held_out_videos` does not hold out: 30 of every task that has more."""
    test = set(held_out_videos(candidates, primary))
    return [pair for pair in candidates if pair[0] in primary and pair not in test]


@dataclass(frozen=True)
class Release:
    """What the files of crosstask_release say.

    Attributes:
        tasks: all tasks by id.
        primary: ids of the primary ones.
        candidates: the (task, video) that training and test set are drawn from.
        absent: videos of primary tasks that were left out of the draw for want of features.
    """

    tasks: dict[str, Task]
    primary: frozenset[str]
    candidates: list[Pair]
    absent: list[str]


def read_release(release: Path, features: FeatureFolder | None = None, split: str = "official") -> Release:
    """Reads tasks and videos.

    Args:
        release: the folder crosstask_release.
        features: needed where `split` is "original".
        split: "official": all annotated videos are candidates; "original": those with features.

    Raises:
        FileNotFoundError, ValueError: as `read_tasks` and `read_videos`.
    """
    primary = read_tasks(release / "tasks_primary.txt")
    every = [*primary, *read_tasks(release / "tasks_related.txt")]
    tasks = {task.task_id: task for task in every}
    _require_once(release / "tasks_related.txt", OFFICIAL_TASKS, "task", [task.task_id for task in every])
    primary_ids = frozenset(task.task_id for task in primary)
    candidates, unannotated = _annotated_candidates(release, tasks)
    absent: list[str] = []
    lost = [f"{task}_{video}.csv" for task, video in unannotated if task in primary_ids]
    if lost:
        logger.warning(
            "CrossTask: %d videos of primary tasks have no file in %s, first %s; they take no part in the seeded draw of the "
            "test set, which comes out differently if files are missing that were there",
            len(lost),
            release / "annotations",
            lost[0],
        )
    if split == "original":
        assert features is not None
        available = set(features.ids())
        absent = [video for task, video in candidates if task in primary_ids and video not in available]
        if absent:
            logger.warning(
                "CrossTask: %d annotated videos have no features in %s; with task.split=original that changes the draw "
                "of the test set",
                len(absent),
                features.path,
            )
        candidates = [(task, video) for task, video in candidates if video in available]
    return Release(tasks, primary_ids, candidates, absent)


# ------------------------------------------------------------------------------------------------ truth and baselines


def paint_steps(intervals: Iterable[StepInterval], seconds: int, steps: int) -> np.ndarray:
    """Where each step is annotated: (seconds, steps) uint8, 1 in floor(start) .. ceil(end) - 1, cut at the end."""
    truth = np.zeros((seconds, steps), np.uint8)
    for interval in intervals:
        truth[math.floor(interval.start) : math.ceil(interval.end), interval.step - 1] = 1
    return truth


def step_costs(logits: np.ndarray) -> np.ndarray:
    """-log softmax over the steps of the task, per frame; no background class. (T, K) -> (T, K)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1, keepdims=True)) - shifted


def uniform_assignment(seconds: int, steps: int) -> np.ndarray:
    """The steps spread evenly: step k (from 0) of K in second floor((k + 1/2) T / K). (T, K) uint8."""
    assignment = np.zeros((seconds, steps), np.uint8)
    if seconds:
        step = np.arange(steps)
        assignment[(2 * step + 1) * seconds // (2 * steps), step] = 1
    return assignment


def chance_assignment(seconds: int, steps: int) -> np.ndarray:
    """Probability that each step takes each second, if all assignments in order were equally likely.

    Those that `best_monotonic_assignment` chooses from: K increasing seconds out of T, so that second t (from 0) goes
    to step k (from 0) with probability C(t, k) C(T-1-t, K-1-k) / C(T, K); for T < K, T of the K steps likewise.
    (Random *scores* are not quite this: their cheapest assignment keeps away from the crowded ends of the video.)

    Returns:
        (T, K) float64.
    """
    if seconds < steps:
        return chance_assignment(steps, seconds).T
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, seconds + 1)))])

    def log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
        possible = (k >= 0) & (k <= n)
        n, k = np.where(possible, n, 0), np.where(possible, k, 0)
        return np.where(possible, log_factorial[n] - log_factorial[k] - log_factorial[n - k], -np.inf)

    t, k = np.arange(seconds)[:, None], np.arange(steps)
    all_ways = log_choose(np.array(seconds), np.array(steps))
    return np.exp(log_choose(t, k) + log_choose(seconds - 1 - t, steps - 1 - k) - all_ways)


def summarize_recall(counts: np.ndarray, tasks: Sequence[str]) -> dict:
    """Recall of each task and their unweighted mean.

    Args:
        counts: (videos, 2): steps hit and steps present; hits may be expected values.
        tasks: (videos,) task ids.

    Returns:
        `recall`, NaN if no task shows a step, and `recall_per_task`. A task without a true step has no recall (the
        original divides by zero): it is in neither.
    """
    task_of = np.asarray(tasks)
    sums = {task: counts[task_of == task].sum(axis=0) for task in dict.fromkeys(tasks)}
    per_task = {task: float(hits / present) for task, (hits, present) in sums.items() if present}
    return {"recall": float(np.mean(list(per_task.values()))) if per_task else math.nan, "recall_per_task": per_task}


class CrossTask(Benchmark):
    """Step localisation on CrossTask's test videos.

    The steps of a video's task are given in order; each is put into one second by `best_monotonic_assignment`. Metrics:
    `recall_per_task`, the share of the steps shown whose second lies in an annotated interval, and `recall`, its mean
    over tasks. `original` holds the same with the original's dynamic program, which predicts no step in a video of at
    most as many seconds as steps.

    `split` "official" draws the test set from the annotation files alone; "original" as the original does, from the videos
    that have features. There a video without features takes no part in the draw, whatever `on_missing`; it is in `missing`.
    """

    name: ClassVar[str] = "crosstask"
    folder: ClassVar[str] = "crosstask"
    paper: ClassVar[dict] = {"recall": 0.339}
    paper_fine_tuned: ClassVar[dict] = {"recall": 0.473}
    official_items = 1850  # 2,750 annotated, less 360 for validation and 18 x 30 for training
    paper_items: ClassVar[int | None] = 1690  # those that the authors had features for
    splits: ClassVar[Sequence[str]] = SPLITS

    def _read(self, files: BenchmarkFiles) -> None:
        release = files.annotations_or("crosstask/crosstask_release")
        self.features = files.open_features(self.folder)
        content = read_release(release, self.features, files.split)
        tasks, test = content.tasks, held_out_videos(content.candidates, content.primary)
        if not test:
            raise ValueError(
                f"{release}: no test video. A primary task needs more than {TRAINING_VIDEOS} videos in videos.csv and "
                f"not in videos_val.csv that have annotations/<task>_<video>.csv; {len(content.candidates)} videos do"
            )
        present, missing = self.features.require((video for _, video in test), files.on_missing)
        self.missing = distinct(content.absent)[0] if files.split == "original" else missing
        self.seconds = {video: self.features.seconds(video) for video in present}
        self.videos = [(tasks[task], video) for task, video in test if video in self.seconds]
        self.found = len(self.videos)
        self.intervals = [
            read_step_intervals(release / "annotations" / f"{task.task_id}_{video}.csv", len(task.steps))
            for task, video in self.videos
        ]
        warn_of_cut_segments(
            self.name,
            ((i.start, i.end, self.seconds[v]) for (_, v), own in zip(self.videos, self.intervals) for i in own),
        )

    def plan(self) -> EncodingPlan:
        """Sliding windows of every distinct video; every distinct step of the tasks they show."""
        return EncodingPlan(
            texts=distinct(step for task, _ in self.videos for step in task.steps)[0],
            windows=windows_of_videos(self.seconds, self.features.max_seconds),
            per_frame=True,
            attend_to_cls=False,
        )

    def score(self, encodings: Encodings) -> dict[str, np.ndarray]:
        """Similarities of frame states, averaged over windows, with the embeddings of the task's steps.

        Args:
            encodings: text (distinct steps, D), video a list of (seconds of the window, D), in the plan's order.

        Returns:
            `tasks`, `video_ids`, `video_lengths` (T, in seconds) and `video_steps` (K), each (V,); `logits` (sum of
            T x K,) float32: video after video, each (T, K) row by row.
        """
        plan = self.plan()
        embedding = dict(zip(plan.texts, encodings.text))
        states = dict(merge_by_video(plan.windows, list(encodings.video)))
        logits = [
            similarity(states[video], np.stack([embedding[step] for step in task.steps])).ravel()
            for task, video in self.videos
            if self.seconds[video]
        ]
        return {
            "tasks": np.array([task.task_id for task, _ in self.videos]),
            "video_ids": np.array([video for _, video in self.videos]),
            "video_lengths": np.array([self.seconds[video] for _, video in self.videos]),
            "video_steps": np.array([len(task.steps) for task, _ in self.videos]),
            "logits": np.concatenate([np.zeros(0, np.float32), *logits]),
        }

    def describe(self) -> dict[str, np.ndarray]:
        """`task_titles` (V,), `step_texts` (sum of K,) and `truths` (sum of T x K,), video after video as `logits`."""
        truths = [
            paint_steps(intervals, self.seconds[video], len(task.steps)).ravel()
            for (task, video), intervals in zip(self.videos, self.intervals)
        ]
        return {
            "task_titles": np.array([task.title for task, _ in self.videos]),
            "step_texts": np.array([step for task, _ in self.videos for step in task.steps]),
            "truths": np.concatenate([np.zeros(0, np.uint8), *truths]),
        }

    def evaluate(self, scores: Scores) -> Evaluation:
        """Recall from `video_lengths` and `logits`.

        Baselines: `uniform_spread` (see `uniform_assignment`) and `chance`, the expected recall of an assignment drawn
        uniformly from those in order (see `chance_assignment`).
        """
        lengths, tasks = scores["video_lengths"], [task.task_id for task, _ in self.videos]
        shapes = [(int(seconds), len(task.steps)) for seconds, (task, _) in zip(lengths, self.videos)]
        sizes = [seconds * steps for seconds, steps in shapes]
        self._check_scores(lengths, (len(self.videos),))
        self._check_scores(scores["logits"], (sum(sizes),))
        logits = np.split(scores["logits"], np.cumsum(sizes)[:-1])
        costs = [step_costs(values.reshape(shape)) for values, shape in zip(logits, shapes)]
        truths = [paint_steps(intervals, *shape) for intervals, shape in zip(self.intervals, shapes)]
        ours = [best_monotonic_assignment(cost) for cost in costs]
        original = [
            original_monotonic_assignment(cost) if seconds <= steps else assignment  # else the two agree
            for assignment, cost, (seconds, steps) in zip(ours, costs, shapes)
        ]
        counts = step_counts(ours, truths)
        spread = step_counts([uniform_assignment(*shape) for shape in shapes], truths)
        expected_hits = [(chance_assignment(*shape) * truth).sum() for shape, truth in zip(shapes, truths)]
        metrics = summarize_recall(counts, tasks)
        if len(metrics["recall_per_task"]) < len(set(tasks)):
            undefined = ", ".join(sorted(set(tasks) - set(metrics["recall_per_task"])))
            logger.warning("CrossTask: no test video of tasks %s shows a step; left out of the mean recall", undefined)
        return Evaluation(
            metrics=metrics,
            baselines={
                "uniform_spread": summarize_recall(spread, tasks),
                "chance": summarize_recall(np.column_stack([expected_hits, counts[:, 1]]), tasks),
            },
            original=summarize_recall(step_counts(original, truths), tasks),
            queries=len(self.videos),
            sums=VideoSums.of(
                [video for _, video in self.videos], {"recall": (counts[:, 0], counts[:, 1])}, groups=tasks
            ),
        )


def _annotated_candidates(release: Path, tasks: Collection[str]) -> tuple[list[Pair], list[Pair]]:
    """(task, video) of videos.csv with a known task, less those of videos_val.csv: with an annotation file, and without."""
    videos = read_videos(release / "videos.csv")
    validation = set(read_videos(release / "videos_val.csv"))
    files = {file.name for file in (release / "annotations").glob("*.csv")}
    unknown = sorted({task for task, _ in videos} - set(tasks))
    if unknown:
        logger.warning("CrossTask: videos of tasks %s, in neither list of tasks, are left out", ", ".join(unknown))
    known = [(task, video) for task, video in videos if task in tasks and (task, video) not in validation]
    annotated = [f"{task}_{video}.csv" in files for task, video in known]
    return [pair for pair, has in zip(known, annotated) if has], [
        pair for pair, has in zip(known, annotated) if not has
    ]
