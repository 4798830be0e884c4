"""What each benchmark gives to train on, from its official files; the counterpart of evaluation/benchmarks/.

Retrieval trains on stretches of video with sentences, COIN and CrossTask on whole videos with a label for every second.
The files are read by the benchmark's own readers. What a test asks about is never trained on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmpt_plugin.data.feature_folder import FeatureFolder
from mmpt_plugin.data.windows import Window, sliding_windows
from mmpt_plugin.evaluation.annotation_files import malformed
from mmpt_plugin.evaluation.benchmark_files import BenchmarkFiles
from mmpt_plugin.evaluation.benchmarks import coin, crosstask, msrvtt, msrvtt_qa, own_data, youcook2
from mmpt_plugin.evaluation.benchmarks.text_to_video import first_window

logger = logging.getLogger(__name__)

COIN_STRIDES = 4  # from one training window to the next, in a window's length: 8 of 32 seconds, as in the original
CROSSTASK_STRIDES = 2


@dataclass(frozen=True)
class CaptionedClip:
    """A stretch of video and the sentences that describe it, of which one is drawn each time."""

    window: Window
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class LabelledVideo:
    """A video with a label for every second.

    Attributes:
        windows: cover it, in order; all its seconds are in some window.
        labels: (seconds,) int64 classes, 0 = background; or, where there are steps, (seconds, steps) uint8, 1 = shown.
        steps: texts that the labels' columns stand for.
    """

    windows: tuple[Window, ...]
    labels: np.ndarray
    steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingSet:
    """A benchmark's training split: either clips or videos.

    Attributes:
        features: where the windows' rows are read.
        missing: videos without features that were left out.
        clips, videos: what batches are made of.
        label_ids: what the classes 1, 2, ... stand for, where seconds are classified.
    """

    features: FeatureFolder
    missing: list[str]
    clips: list[CaptionedClip] = field(default_factory=list)
    videos: list[LabelledVideo] = field(default_factory=list)
    label_ids: tuple[int, ...] = ()


def youcook2_training(files: BenchmarkFiles) -> TrainingSet:
    """All annotated clips of subset "training", each with its sentence."""
    files.require_split("youcook2")
    listed = youcook2.read_youcook2_training(files.annotations_or("youcook2") / youcook2.ANNOTATIONS)
    features = files.open_features("youcook2")
    present, missing = files.with_features(listed, features)
    clips = [
        CaptionedClip(first_window(features, clip.video_id, clip.start, clip.end), (clip.sentence,)) for clip in present
    ]
    return TrainingSet(features, missing, _clips_with_seconds("youcook2", clips))


def msrvtt_training(files: BenchmarkFiles) -> TrainingSet:
    """All videos that MSRVTT_JSFUSION_test.csv does not ask for: the 9,000 of "training 9k"."""
    queries = msrvtt.read_msrvtt(files.annotations_or("msrvtt") / msrvtt.TEST_FILE)
    return _msrvtt_without(files, "msrvtt", {query.video_id for query in queries})


def msrvtt_qa_training(files: BenchmarkFiles) -> TrainingSet:
    """All videos that MSR_MC_test.csv does not ask about: 7,010, for its questions are on all test videos."""
    questions = msrvtt_qa.read_msrvtt_qa(files.annotations_or("msrvtt") / msrvtt_qa.TEST_FILE)
    return _msrvtt_without(files, "msrvtt_qa", {question.video_id for question in questions})


def _msrvtt_without(files: BenchmarkFiles, name: str, tested: set[str]) -> TrainingSet:
    files.require_split(name)
    path = files.annotations_or("msrvtt") / msrvtt.CAPTIONS_FILE
    captions = {video: own for video, own in msrvtt.read_msrvtt_captions(path).items() if video not in tested}
    if not captions:
        raise malformed(
            path, msrvtt.OFFICIAL_CAPTIONS, f"all its videos are test videos of {name}: none is left to train"
        )
    features = files.open_features("msrvtt")
    present, missing = features.require(captions, files.on_missing)
    clips = [CaptionedClip(first_window(features, video), captions[video]) for video in present]
    return TrainingSet(features, missing, _clips_with_seconds(name, clips))


def coin_training(files: BenchmarkFiles) -> TrainingSet:
    """All videos of subset "training"; the classes are the labels that occur in them, by increasing id."""
    files.require_split("coin")
    path = files.annotations_or("coin/COIN.json")
    training = [video for video in coin.read_coin(path) if video.subset == "training"]
    if not coin.label_texts(training):
        raise malformed(path, coin.OFFICIAL_FILE, "no annotated video in subset 'training'")
    return _labelled("coin", training, files.open_features("coin"), files)


def _labelled(
    name: str, training: Sequence[coin.CoinVideo], features: FeatureFolder, files: BenchmarkFiles
) -> TrainingSet:
    present, missing = files.with_features(training, features)
    label_ids = tuple(coin.label_texts(training))
    class_of = {label_id: position for position, label_id in enumerate(label_ids, start=1)}
    filled = _videos_with_seconds(name, (video.video_id for video in present), features)
    videos = [
        LabelledVideo(
            _windows(features, video.video_id, COIN_STRIDES),
            coin.paint_targets(video.segments, features.seconds(video.video_id), class_of),
        )
        for video in present
        if video.video_id in filled
    ]
    return TrainingSet(features, missing, videos=videos, label_ids=label_ids)


def crosstask_training(files: BenchmarkFiles) -> TrainingSet:
    """The videos of primary tasks that the test set does not hold: 30 of each task with more."""
    files.require_split("crosstask", crosstask.SPLITS)
    release = files.annotations_or("crosstask/crosstask_release")
    features = files.open_features("crosstask")
    content = crosstask.read_release(release, features, files.split)
    training = crosstask.training_videos(content.candidates, content.primary)
    if not training:
        raise ValueError(f"{release}: no training video: no video of a primary task in videos.csv is annotated")
    present, missing = features.require((video for _, video in training), files.on_missing)
    filled = _videos_with_seconds("crosstask", present, features)
    videos = []
    for task_id, video in training:
        steps = content.tasks[task_id].steps
        if video in filled:
            intervals = crosstask.read_step_intervals(release / "annotations" / f"{task_id}_{video}.csv", len(steps))
            labels = crosstask.paint_steps(intervals, features.seconds(video), len(steps))
            videos.append(LabelledVideo(_windows(features, video, CROSSTASK_STRIDES), labels, steps))
    return TrainingSet(features, content.absent or missing, videos=videos)


def own_training(files: BenchmarkFiles) -> TrainingSet:
    """The rows of csv/train.csv (or of `annotations`): clips with sentences, or videos with labels by the second."""
    files.require_split(own_data.NAME)
    path = files.annotations_or(f"{own_data.NAME}/{own_data.TRAINING_FILE}")
    kind, listed = own_data.read_own_data(path, "train")
    features = files.open_features(own_data.NAME)
    if kind == "label":
        videos = own_data.own_labelled_videos(path, listed, features)
        return _labelled(own_data.NAME, videos, features, files)
    present, missing = files.with_features(listed, features)
    sentences: dict[Window, list[str]] = {}
    for clip in present:
        window = first_window(features, clip.video_id, *own_data.own_window_seconds(clip))
        sentences.setdefault(window, []).append(clip.words)
    clips = [CaptionedClip(window, tuple(own)) for window, own in sentences.items()]
    return TrainingSet(features, missing, _clips_with_seconds(own_data.NAME, clips))


def _clips_with_seconds(name: str, clips: Sequence[CaptionedClip]) -> list[CaptionedClip]:
    windows = [clip.window for clip in clips]
    empty = [window.end == window.start for window in windows]
    _count_empty(name, "clips", [window.video_id for window in windows], empty)
    return [clip for clip, is_empty in zip(clips, empty) if not is_empty]


def _videos_with_seconds(name: str, videos: Iterable[str], features: FeatureFolder) -> set[str]:
    listed = list(videos)
    empty = [features.seconds(video) == 0 for video in listed]
    _count_empty(name, "videos", listed, empty)
    return {video for video, is_empty in zip(listed, empty) if not is_empty}


def _count_empty(name: str, kind: str, videos: Sequence[str], empty: Sequence[bool]) -> None:
    """Says aloud how many clips or videos have no second of features and are left out (the original trains on such clips).

    Args:
        name: the benchmark.
        kind: "clips" or "videos".
        videos: the video of each.
        empty: whether it is.

    Raises:
        ValueError: if all are.
    """
    if not any(empty):
        return
    some = dict.fromkeys(video for video, is_empty in zip(videos, empty) if is_empty)
    message = (
        f"{name}: {sum(empty)} of {len(videos)} training {kind} have no second of features, as of "
        f"{', '.join([*some][:5])}"
    )
    if all(empty):
        raise ValueError(f"{message}: nothing is left to train on; do these features belong to these videos?")
    logger.warning("%s; left out", message)


def _windows(features: FeatureFolder, video: str, strides: int) -> tuple[Window, ...]:
    size = features.max_seconds
    return tuple(
        Window(video, *span) for span in sliding_windows(features.seconds(video), size, max(size // strides, 1))
    )


TRAINING_SETS: dict[str, Callable[[BenchmarkFiles], TrainingSet]] = {
    "youcook2": youcook2_training,
    "msrvtt": msrvtt_training,
    "msrvtt_qa": msrvtt_qa_training,
    "coin": coin_training,
    "crosstask": crosstask_training,
    own_data.NAME: own_training,
}
"""By the benchmarks' names on the command line."""
