"""YouCook2 text -> clip retrieval: which recipe step of the validation videos does a sentence describe?

Data: Zhou et al., "Towards Automatic Learning of Procedures from Web Instructional Videos", AAAI 2018
(arXiv:1703.09788); the list of test clips, youcook_val.pkl, comes with Miech et al., "HowTo100M", ICCV 2019
(arXiv:1906.03327). Protocol: Xu et al., EMNLP 2021 (arXiv:2109.14084), as its code runs it (reference data,
eval_youcook README): the text is the annotation's sentence, the clip its segment, cut to the first 32 seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from mmpt_plugin.evaluation.annotation_files import FilledText, Seconds, checked, expecting, malformed, read_json
from mmpt_plugin.evaluation.benchmark_files import BenchmarkFiles
from mmpt_plugin.evaluation.benchmarks.text_to_video import (
    TextToVideoRetrieval,
    first_window,
)
from mmpt_plugin.files import load_pickle

CLIP_LIST = "youcook_val.pkl"
ANNOTATIONS = "youcookii_annotations_trainval.json"
OFFICIAL_LIST = f'the official {CLIP_LIST}, a pickled list of {{"id": "<video>_<clip number>", "caption": ...}}'
OFFICIAL_ANNOTATIONS = (
    f'the official {ANNOTATIONS}, {{"database": {{<video>: {{"annotations": [{{"segment", "sentence"}}]}}}}}}'
)


@dataclass(frozen=True)
class YouCook2Clip:
    """One test clip: seconds start..end of a video, and the sentence that describes them."""

    video_id: str
    clip: int
    start: int
    end: int
    sentence: str


def read_youcook2(clip_list: Path, annotations: Path) -> list[YouCook2Clip]:
    """Reads the test clips in the order of the clip list.

    Args:
        clip_list: youcook_val.pkl; says which clips are tested. The clip number stands behind the last underscore,
            video ids may contain underscores or begin with "-".
        annotations: youcookii_annotations_trainval.json; says when each clip is and what it shows.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is another one, truncated or holds code; if a listed clip has no annotation; if a segment
            is not 0 <= start <= end in whole seconds or a sentence is empty.
    """
    database = _read_database(annotations)
    with expecting(clip_list, OFFICIAL_LIST):
        listed = load_pickle(clip_list, skip_arrays=True)  # it may carry features
    if not isinstance(listed, list) or not listed:
        raise malformed(clip_list, OFFICIAL_LIST, f"holds {type(listed).__name__}, not a filled list")
    clips = []
    for position, record in enumerate(listed):
        clip_id = record.get("id") if isinstance(record, dict) else None
        video_id, _, number = clip_id.rpartition("_") if isinstance(clip_id, str) else ("", "", "")
        if not video_id or not (number.isascii() and number.isdigit() and len(number) < 6):
            raise malformed(clip_list, OFFICIAL_LIST, f"record {position}: id {clip_id!r} names no clip")
        if video_id not in database or int(number) >= len(database[video_id].annotations):
            raise malformed(
                annotations,
                OFFICIAL_ANNOTATIONS,
                f"clip {number} of video {video_id}, named in the clip list, is not there",
            )
        clips.append(_clip(annotations, database, video_id, int(number)))
    return clips


def read_youcook2_training(annotations: Path) -> list[YouCook2Clip]:
    """Reads all clips of the videos of subset "training", in file order.

    Args:
        annotations: youcookii_annotations_trainval.json.

    Raises:
        FileNotFoundError: if the file is missing.
        UnusableFile: as `read_youcook2`; if a video names no subset, none is of this one, or one of these has no clip.
    """
    database = _read_database(annotations)
    unnamed = [video_id for video_id, video in database.items() if video.subset is None]
    if unnamed:
        raise malformed(annotations, OFFICIAL_ANNOTATIONS, f"{len(unnamed)} videos name no subset, first {unnamed[0]}")
    training = [video_id for video_id, video in database.items() if video.subset == "training"]
    if not training:
        raise malformed(annotations, OFFICIAL_ANNOTATIONS, 'no video of subset "training"')
    without = [video_id for video_id in training if not database[video_id].annotations]
    if without:
        raise malformed(
            annotations, OFFICIAL_ANNOTATIONS, f"{len(without)} training videos have no clips, first {without[0]}"
        )
    return [
        _clip(annotations, database, video_id, number)
        for video_id in training
        for number in range(len(database[video_id].annotations))
    ]


class ClipRecord(msgspec.Struct):
    """One recipe step as the annotations have it."""

    segment: tuple[Seconds, Seconds]
    sentence: FilledText


class VideoRecord(msgspec.Struct):
    """One video as the annotations have it."""

    annotations: list[ClipRecord] = []
    subset: Literal["training", "validation", "testing"] | None = None


def _read_database(annotations: Path) -> dict[str, VideoRecord]:
    content = read_json(annotations, OFFICIAL_ANNOTATIONS)
    if not isinstance(content, dict) or not isinstance(content.get("database"), dict):
        raise malformed(annotations, OFFICIAL_ANNOTATIONS, 'no table "database"')
    return {
        video_id: checked(video, VideoRecord, f"video {video_id}", annotations, OFFICIAL_ANNOTATIONS)
        for video_id, video in content["database"].items()
    }


def _clip(annotations: Path, database: dict[str, VideoRecord], video_id: str, number: int) -> YouCook2Clip:
    record = database[video_id].annotations[number]
    start, end = record.segment
    if not start <= end or not (start.is_integer() and end.is_integer()):
        raise malformed(
            annotations,
            OFFICIAL_ANNOTATIONS,
            f"clip {number} of video {video_id}: segment {record.segment} is not start <= end in whole seconds",
        )
    return YouCook2Clip(video_id, number, int(start), int(end), record.sentence)


class YouCook2(TextToVideoRetrieval):
    """Zero-shot text -> clip retrieval over the clips of youcook_val.pkl.

    A clip that ends after its features is shorter; one that begins after them is an empty video (counted in the log).
    """

    name: ClassVar[str] = "youcook2"
    folder: ClassVar[str] = "youcook2"
    paper: ClassVar[dict] = {"R@1": 0.227, "R@5": 0.504, "R@10": 0.631}
    paper_fine_tuned: ClassVar[dict] = {"R@1": 0.322, "R@5": 0.626, "R@10": 0.750}
    official_items = 3350
    paper_items: ClassVar[int | None] = 3305  # those that the authors had features for

    def _read(self, files: BenchmarkFiles) -> None:
        folder = files.annotations_or("youcook2")
        self.clips = self._with_features(read_youcook2(folder / CLIP_LIST, folder / ANNOTATIONS), files)
        self._set_pairs(
            [clip.sentence for clip in self.clips],
            [first_window(self.features, clip.video_id, clip.start, clip.end) for clip in self.clips],
        )
