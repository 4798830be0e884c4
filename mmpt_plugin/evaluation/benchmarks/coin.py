"""COIN: label every second of an instruction video with an action step, or with background.

Data: Tang et al., "COIN: A Large-scale Dataset for Comprehensive Instructional Video Analysis", CVPR 2019
(arXiv:1903.02874); annotations in COIN.json of the data set's project page. Protocol: Xu et al., EMNLP 2021
(arXiv:2109.14084), as its code runs it (reference data, eval_coin README).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from mmpt_plugin.evaluation.annotation_files import FilledText, Seconds, Whole, checked, malformed, read_json
from mmpt_plugin.evaluation.benchmark import Benchmark, EncodingPlan, Encodings, Evaluation, Scores
from mmpt_plugin.evaluation.benchmark_files import BenchmarkFiles
from mmpt_plugin.evaluation.benchmarks.text_to_video import distinct
from mmpt_plugin.evaluation.bootstrap import VideoSums
from mmpt_plugin.evaluation.metrics import edit_scores, segment_matches
from mmpt_plugin.evaluation.windows import merge_by_video, warn_of_cut_segments, windows_of_videos
from mmpt_plugin.models.similarity import similarity

logger = logging.getLogger(__name__)

BACKGROUND = 0
OFFICIAL_FILE = 'the official COIN.json: {"database": {video: {"subset": text, "annotation": [{id, segment, label}]}}}'


# ---------------------------------------------------------------------------------------------------- annotation file


@dataclass(frozen=True)
class CoinSegment:
    """One annotated action: seconds from the video's start, COIN's id of the step and its text."""

    start: float
    end: float
    label_id: int
    label: str


@dataclass(frozen=True)
class CoinVideo:
    """One video of COIN.json; `subset` is "training" or "testing"."""

    video_id: str
    subset: str
    segments: tuple[CoinSegment, ...]


class SegmentRecord(msgspec.Struct):
    """One annotated action as COIN.json has it."""

    id: Whole | Annotated[str, msgspec.Meta(pattern="^[0-9]{1,9}$")]
    segment: tuple[Seconds, Seconds]
    label: FilledText


class VideoRecord(msgspec.Struct):
    """One video as COIN.json has it."""

    subset: Literal["training", "testing", "validation"]
    annotation: list[SegmentRecord]


def read_coin(path: Path) -> list[CoinVideo]:
    """Reads COIN.json, videos in file order.

    Raises:
        FileNotFoundError: if the file does not exist.
        UnusableFile: if it is no JSON (or cut short), is another file, or a record is malformed; the message names the
            video.
    """
    content = read_json(path, OFFICIAL_FILE)
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise malformed(path, OFFICIAL_FILE, "no table 'database' in it")
    videos = []
    for video_id, raw in database.items():
        record = checked(raw, VideoRecord, f"video {video_id}", path, OFFICIAL_FILE)
        for segment in record.annotation:
            if segment.segment[0] > segment.segment[1]:
                raise malformed(
                    path, OFFICIAL_FILE, f"video {video_id}: segment {segment.segment} ends before it starts"
                )
        segments = tuple(CoinSegment(*own.segment, int(own.id), own.label) for own in record.annotation)
        videos.append(CoinVideo(video_id, record.subset, segments))
    return videos


def label_texts(videos: Iterable[CoinVideo]) -> dict[int, str]:
    """Text of each label id in use, by increasing id; where an id has several texts the last one counts (logged)."""
    texts: dict[int, str] = {}
    for video in videos:
        for segment in video.segments:
            known = texts.setdefault(segment.label_id, segment.label)
            if known != segment.label:
                logger.warning("COIN label %d is %r and %r: using the latter", segment.label_id, known, segment.label)
                texts[segment.label_id] = segment.label
    return dict(sorted(texts.items()))


# --------------------------------------------------------------------------------------------------------- the labels


def paint_targets(segments: Iterable[CoinSegment], seconds: int, class_of: dict[int, int]) -> np.ndarray:
    """Class of every second: (seconds,) int64, 0 = background.

    A segment covers the seconds floor(start) .. ceil(end) - 1 as far as the video has them; later segments overwrite.
    """
    target = np.full(seconds, BACKGROUND, np.int64)
    for segment in segments:
        target[math.floor(segment.start) : math.ceil(segment.end)] = class_of[segment.label_id]
    return target


def background_threshold(label_similarity: np.ndarray) -> float:
    """The original's bar for calling a second an action: the largest product of two different labels' embeddings.

    It compares texts with texts, so it says little about the scale of video-text scores; see
    `calibrated_predictions`. A single label has nothing to compare with: infinity, everything is background.
    """
    different = ~np.eye(len(label_similarity), dtype=bool)
    return float(label_similarity[different].max(initial=-np.inf)) if different.any() else math.inf


def threshold_predictions(logits: np.ndarray, threshold: float) -> np.ndarray:
    """The original's rule: best label + 1 where its logit is above (not at) the threshold, else background.

    Args:
        logits: (frames, labels).
        threshold: see `background_threshold`.

    Returns:
        (frames,) int64 classes.
    """
    return np.where(logits.max(axis=1) > threshold, logits.argmax(axis=1) + 1, BACKGROUND)


def calibrated_predictions(logits: np.ndarray) -> np.ndarray:
    """Background without labels and without a text-text threshold: standardise, then split the frames in two.

    1. Each label's logits are standardised over all frames of the test set. A label's own offset and scale (how close
       its text lies to videos in general) say nothing about where it happens, yet decide the raw maximum.
    2. A frame's confidence is its best standardised logit; the frame's label is the one that reaches it.
    3. Otsu's threshold divides the confidences into the two classes that differ most between and least within; the
       lower class is background.

    Only logits are used, of the test set as a whole (transductive): no annotation, no assumed share of background.

    Args:
        logits: (frames, labels) of all videos.

    Returns:
        (frames,) int64 classes, 0 = background.
    """
    centre = logits.mean(axis=0, dtype=np.float64).astype(logits.dtype)  # float32 sums lose digits over many frames
    spread = logits.std(axis=0)
    standardised = (logits - centre) / np.where(spread > 0, spread, 1)
    return threshold_predictions(standardised, otsu_threshold(standardised.max(axis=1)))


def classifier_predictions(logits: np.ndarray, label_ids: np.ndarray, class_of: Mapping[int, int]) -> np.ndarray:
    """The classifier's best class, as a class of the test set.

    Args:
        logits: (frames, 1 + C), background first.
        label_ids: (C,) the trained labels.
        class_of: test label -> class. Trained labels that are not among them get classes of their own, always wrong.

    Returns:
        (frames,) int64 classes, 0 = background.
    """
    others = len(class_of) + 1 + np.arange(len(label_ids))
    classes = [class_of.get(label, other) for label, other in zip(label_ids.tolist(), others.tolist())]
    return np.array([BACKGROUND, *classes], np.int64)[logits.argmax(axis=1)]


def otsu_threshold(values: np.ndarray) -> float:
    """Threshold that maximises the variance between the values at or below it and those above.

    N. Otsu, "A Threshold Selection Method from Gray-Level Histograms", IEEE Trans. SMC 9(1), 1979; here on the exact
    values instead of a histogram.

    Args:
        values: (n,), n >= 1.

    Returns:
        The largest value of the lower class; of equally good splits the lowest. Without two different values, that
        value: nothing lies above.
    """
    ordered = np.sort(values.astype(np.float64))
    below = np.arange(1, len(ordered))  # sizes of the lower class
    sums = np.cumsum(ordered)
    gap = (sums[-1] - sums[:-1]) / (len(ordered) - below) - sums[:-1] / below  # difference of the two means
    separation = np.where(ordered[1:] > ordered[:-1], below * (len(ordered) - below) * gap**2, -np.inf)
    return float(ordered[separation.argmax()]) if len(separation) else float(ordered[0])


# -------------------------------------------------------------------------------------------------------- the numbers


def segmentation_counts(predicted: Sequence[np.ndarray], target: Sequence[np.ndarray]) -> np.ndarray:
    """What the metrics are sums of, per video, so that resampling videos is a matrix product.

    Args:
        predicted: per video (frames,) classes.
        target: the same.

    Returns:
        (videos, 15) float64: frames right, frames; foreground frames right, foreground frames; edit score, 1; and for
        each overlap of 10, 25, 50%: true positives, predicted segments, true segments.
    """
    pairs = list(zip(predicted, target))
    frames = [[(p == t).sum(), len(t), (p == t)[t != BACKGROUND].sum(), (t != BACKGROUND).sum()] for p, t in pairs]
    edits = edit_scores(predicted, target, background=BACKGROUND)
    matches = segment_matches(predicted, target, background=BACKGROUND)
    return np.column_stack([np.array(frames), edits, np.ones(len(pairs)), matches.reshape(len(pairs), 9)])


def summarize_counts(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics from (..., 15) sums over videos of `segmentation_counts`; NaN where nothing was counted."""
    with np.errstate(invalid="ignore"):
        return {name: above / below for name, (above, below) in count_ratios(counts).items()}


def count_ratios(counts: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Numerator and denominator of each metric, from (..., 15) counts of videos or their sums."""
    ratios = {
        "frame_accuracy": (counts[..., 0], counts[..., 1]),
        "foreground_accuracy": (counts[..., 2], counts[..., 3]),
        "edit": (counts[..., 4], counts[..., 5]),
    }
    for column, overlap in zip((6, 9, 12), (10, 25, 50)):
        ratios[f"F1@{overlap}"] = (2 * counts[..., column], counts[..., column + 1] + counts[..., column + 2])
    return ratios


class FrameLabelling(Benchmark):
    """Each second of a video gets one of some labels, or background. Subclasses call `_set_videos`.

    Metrics: `frame_accuracy` over all frames, `foreground_accuracy` over frames whose true label is not background,
    segmental `edit` and `F1@10/25/50`. `calibrated` holds the same with `calibrated_predictions`. Label ids become classes
    in the order of ids, and a video of 0 seconds, without a frame to label, counts nowhere.

    Of a model that gives unit vectors, the calibrated rule's metrics are the headline too. The original's threshold compares
    texts with texts, whose cosines lie far above those of a text with a video (Liang et al. 2022, "Mind the Gap",
    arXiv:2203.02053), so that nothing would ever pass it; `original` keeps that rule's frame accuracy.

    After fine-tuning the frame classifier labels the frames, background included: its best class, with logits averaged
    over windows; label texts and threshold have no part in it, and there is no `calibrated`.
    """

    def _set_videos(self, videos: Sequence[CoinVideo], files: BenchmarkFiles) -> None:
        """The test videos; labels count even of those without features, as in the original."""
        texts = label_texts(videos)
        self.videos = self._with_features(videos, files)
        self.labels = list(texts.values())
        self.class_of = {label_id: position for position, label_id in enumerate(texts, start=1)}
        self.classifier_ids: tuple[int, ...] = ()
        self.cosines = False
        self.seconds = {video.video_id: self.features.seconds(video.video_id) for video in self.videos}
        warn_of_cut_segments(
            self.name, ((s.start, s.end, self.seconds[video.video_id]) for video in self.videos for s in video.segments)
        )

    def use_cosines(self) -> None:
        """Decide what is background by the calibrated rule."""
        self.cosines = True

    def use_frame_classifier(self, label_ids: Sequence[int]) -> None:
        """Label frames by the classifier instead of the labels' texts."""
        unseen = sorted(set(self.class_of) - set(label_ids))
        if unseen:
            raise ValueError(
                f"{self.name}: {len(unseen)} labels of the test videos were in no training video of this checkpoint, first "
                f"{unseen[0]} ({self.labels[self.class_of[unseen[0]] - 1]!r}); its frame classifier knows "
                f"{len(label_ids)} labels. Evaluate on the data that it was fine-tuned on, or fine-tune again"
            )
        self.classifier_ids = tuple(label_ids)

    def plan(self) -> EncodingPlan:
        """Sliding windows of every video; the labels' texts, unless frames are classified."""
        return EncodingPlan(
            texts=[] if self.classifier_ids else distinct(self.labels)[0],
            windows=windows_of_videos(self.seconds, self.features.max_seconds),
            per_frame=True,
            attend_to_cls=False,
            classify_frames=bool(self.classifier_ids),
        )

    def score(self, encodings: Encodings) -> dict[str, np.ndarray]:
        """Similarities of frame states, averaged over windows, with label embeddings.

        Args:
            encodings: text (distinct labels, D), video a list of (seconds of the window, D), in the plan's order.

        Returns:
            `video_ids` (V,) and `video_lengths` (V,) in seconds; `logits` (sum of lengths, L) float32, video after
            video; `label_similarity` (L, L); `background_threshold` (); `cosines` (), true, where they are such. Or, where
            frames are classified, `logits` (sum of lengths, 1 + C) of background and C trained labels, and `label_ids` (C,).
        """
        if self.classifier_ids:
            merged = merge_by_video(windows_of_videos(self.seconds, self.features.max_seconds), list(encodings.video))
            none = np.zeros((0, 1 + len(self.classifier_ids)), np.float32)
            return {
                "video_ids": np.array(list(self.seconds)),
                "video_lengths": np.array(list(self.seconds.values())),
                "logits": np.concatenate([none, *(logits for _, logits in merged)]),
                "label_ids": np.array(self.classifier_ids),
            }
        labels = encodings.text[distinct(self.labels)[1]]  # (L, D)
        merged = merge_by_video(windows_of_videos(self.seconds, self.features.max_seconds), list(encodings.video))
        label_similarity = similarity(labels, labels)
        return {
            "video_ids": np.array(list(self.seconds)),
            "video_lengths": np.array(list(self.seconds.values())),
            "logits": np.concatenate(
                [np.zeros((0, len(labels)), np.float32), *(similarity(s, labels) for _, s in merged)]
            ),
            "label_similarity": label_similarity,
            "background_threshold": np.array(background_threshold(label_similarity)),
            **({"cosines": np.array(True)} if self.cosines else {}),
        }

    def describe(self) -> dict[str, np.ndarray]:
        """`labels` and `class_label_ids` (L,) of the classes 1, 2, ...; `targets` (seconds,) classes, as `logits`' rows."""
        targets = [paint_targets(v.segments, self.seconds[v.video_id], self.class_of) for v in self.videos]
        return {
            "labels": np.array(self.labels),
            "class_label_ids": np.array(list(self.class_of)),
            "targets": np.concatenate([np.zeros(0, np.int64), *targets]),
        }

    def evaluate(self, scores: Scores) -> Evaluation:
        """Metrics from `video_lengths`, `logits` and either `background_threshold` or `label_ids`.

        Baselines: `all_background`; `chance` draws each frame's class uniformly from the background and the L labels
        (accuracies 1/(L+1) exactly, segmental scores from one seeded draw). Neither needs a rule for the background,
        so both stand under `calibrated` too.
        """
        logits, lengths = scores["logits"], scores["video_lengths"]
        columns = 1 + len(scores["label_ids"]) if "label_ids" in scores else len(self.labels)
        self._check_scores(lengths, (len(self.videos),))
        self._check_scores(logits, (int(lengths.sum()), columns))
        if not len(logits):
            raise ValueError(f"{self.name}: no test video has a second of features, so that nothing can be scored")
        filled = lengths > 0
        cuts = np.cumsum(lengths[filled])[:-1]
        targets = [paint_targets(v.segments, t, self.class_of) for v, t in zip(self.videos, lengths) if t]

        def count(predicted: np.ndarray) -> np.ndarray:
            return segmentation_counts(np.split(predicted, cuts), targets)

        def metrics_of(counts: np.ndarray) -> dict[str, float]:
            return {name: float(value) for name, value in summarize_counts(counts.sum(axis=0)).items()}

        if "label_ids" in scores:
            originals = count(classifier_predictions(logits, scores["label_ids"], self.class_of))
            rules = {"": originals}
        else:
            threshold, calibrated = float(scores["background_threshold"]), count(calibrated_predictions(logits))
            originals = count(threshold_predictions(logits, threshold))
            rules = {"": calibrated if "cosines" in scores else originals, "calibrated/": calibrated}
        frames, wrong = len(logits), len(logits) - originals[:, 0].sum()
        rng = np.random.default_rng(0)
        classes = len(self.labels) + 1
        chance = metrics_of(count(rng.integers(classes, size=frames)))
        chance |= {"frame_accuracy": 1 / classes, "foreground_accuracy": 1 / classes}
        all_background = metrics_of(count(np.full(frames, BACKGROUND)))
        metrics: dict = metrics_of(rules[""])
        baselines: dict = {"all_background": all_background, "chance": chance}
        if "calibrated/" in rules:
            metrics["calibrated"] = metrics_of(rules["calibrated/"])
            baselines = {name: {**numbers, "calibrated": numbers} for name, numbers in baselines.items()}
        return Evaluation(
            metrics=metrics,
            baselines=baselines,
            original={"frame_accuracy": float(1 - wrong / frames)},  # the same share, rounded as there
            queries=len(targets),
            sums=VideoSums.of(
                [video.video_id for video, seconds in zip(self.videos, lengths) if seconds],
                {
                    prefix + name: pair
                    for prefix, counts in rules.items()
                    for name, pair in count_ratios(counts).items()
                },
            ),
        )


class Coin(FrameLabelling):
    """Frame-wise action segmentation on COIN's testing subset.

    `frame_accuracy` is the paper's number; predicting background everywhere scores 58.9% on the official set, hence
    `baselines.all_background` and the other metrics. The original has no other number; it crashes on videos of 0 or 1
    second and on label ids with gaps, where ours goes on.
    """

    name: ClassVar[str] = "coin"
    folder: ClassVar[str] = "coin"
    paper: ClassVar[dict] = {"frame_accuracy": 0.589}
    paper_fine_tuned: ClassVar[dict] = {"frame_accuracy": 0.687}
    official_items = 2797

    def _read(self, files: BenchmarkFiles) -> None:
        path = files.annotations_or("coin/COIN.json")
        testing = [video for video in read_coin(path) if video.subset == "testing"]
        if not label_texts(testing):
            raise malformed(path, OFFICIAL_FILE, "no annotated video in subset 'testing'")
        self._set_videos(testing, files)
