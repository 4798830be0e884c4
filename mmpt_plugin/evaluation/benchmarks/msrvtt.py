"""MSR-VTT text -> video retrieval on the 1k-A split: which of 1,000 videos does a sentence describe?

Data: Xu et al., "MSR-VTT: A Large Video Description Dataset for Bridging Video and Language", CVPR 2016; the split,
MSRVTT_JSFUSION_test.csv, is that of Yu et al., "A Joint Sequence Fusion Model", ECCV 2018 (arXiv:1808.02559).
Protocol: Xu et al., EMNLP 2021 (arXiv:2109.14084), as its code runs it (reference data, eval_msrvtt README): the
video is its first 32 seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec

from mmpt_plugin.evaluation.annotation_files import FilledText, checked, malformed, read_json, read_table
from mmpt_plugin.evaluation.benchmark_files import BenchmarkFiles
from mmpt_plugin.evaluation.benchmarks.text_to_video import (
    TextToVideoRetrieval,
    first_window,
)

TEST_FILE = "MSRVTT_JSFUSION_test.csv"
CAPTIONS_FILE = "MSRVTT_data.json"
OFFICIAL_FILE = f"the official {TEST_FILE}, comma separated, header key,vid_key,video_id,sentence"
OFFICIAL_CAPTIONS = (
    f'the official {CAPTIONS_FILE} of all 10,000 videos, {{"videos": [{{"video_id", ...}}], '
    '"sentences": [{"video_id", "caption", ...}]}'
)


@dataclass(frozen=True)
class MsrvttQuery:
    """One sentence and the video it was written for."""

    video_id: str
    sentence: str


def read_msrvtt(path: Path) -> list[MsrvttQuery]:
    """Reads the test pairs in file order; cells are text, whatever they say ("NA", "null").

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is another file, has another delimiter, a broken row, or an empty id or sentence.
    """
    queries = []
    for row in read_table(path, OFFICIAL_FILE, delimiter=",", columns=("video_id", "sentence")):
        video_id, sentence = row.cells["video_id"], row.cells["sentence"]
        if not video_id.strip() or not sentence.strip():
            raise malformed(path, OFFICIAL_FILE, f"line {row.line} has an empty video_id or sentence")
        queries.append(MsrvttQuery(video_id, sentence))
    return queries


class VideoRecord(msgspec.Struct):
    """A video as MSRVTT_data.json has it."""

    video_id: FilledText


class SentenceRecord(msgspec.Struct):
    """A caption as MSRVTT_data.json has it."""

    video_id: FilledText
    caption: FilledText


class CaptionsRecord(msgspec.Struct):
    """The parts of MSRVTT_data.json that are used."""

    videos: Annotated[list[VideoRecord], msgspec.Meta(min_length=1)]
    sentences: Annotated[list[SentenceRecord], msgspec.Meta(min_length=1)]


def read_msrvtt_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """Reads the captions (20 in the official file) of every video, in file order.

    Args:
        path: MSRVTT_data.json, the training, validation and test videos in one file.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is another file, a video has no caption, or a caption is empty or of an unknown video.
    """
    record = checked(read_json(path, OFFICIAL_CAPTIONS), CaptionsRecord, "the file", path, OFFICIAL_CAPTIONS)
    captions: dict[str, list[str]] = {video.video_id: [] for video in record.videos}
    if len(captions) < len(record.videos):
        raise malformed(path, OFFICIAL_CAPTIONS, f"{len(record.videos) - len(captions)} videos are listed twice")
    for sentence in record.sentences:
        if sentence.video_id not in captions:
            raise malformed(
                path, OFFICIAL_CAPTIONS, f"a sentence of {sentence.video_id!r}, which is not among the videos"
            )
        captions[sentence.video_id].append(sentence.caption)
    without = [video_id for video_id, own in captions.items() if not own]
    if without:
        raise malformed(path, OFFICIAL_CAPTIONS, f"{len(without)} videos have no caption, first {without[0]}")
    return {video_id: tuple(own) for video_id, own in captions.items()}


class Msrvtt(TextToVideoRetrieval):
    """Zero-shot text -> video retrieval on MSR-VTT 1k-A."""

    name: ClassVar[str] = "msrvtt"
    folder: ClassVar[str] = "msrvtt"
    paper: ClassVar[dict] = {"R@1": 0.104, "R@5": 0.222, "R@10": 0.300}
    paper_fine_tuned: ClassVar[dict] = {"R@1": 0.309, "R@5": 0.554, "R@10": 0.668}
    official_items = 1000

    def _read(self, files: BenchmarkFiles) -> None:
        queries = read_msrvtt(files.annotations_or(f"msrvtt/{TEST_FILE}"))
        self.queries = self._with_features(queries, files)
        self._set_pairs(
            [query.sentence for query in self.queries],
            [first_window(self.features, query.video_id) for query in self.queries],
        )
