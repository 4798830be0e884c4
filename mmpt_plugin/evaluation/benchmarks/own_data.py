"""Any data set as a benchmark: a table of video,start,end,text (retrieval) or video,start,end,label (segmentation).

    video,start,end,text                     video,start,end,label
    talk_1,12.5,20,cut the onions            talk_1,12.5,20,cut
    talk_1,00:01:02,00:01:10,stir the soup   talk_1,62,70,stir

Comma, semicolon or tab separated. Times are seconds or hours:minutes:seconds. Without start and end a row is about the whole
video. The protocols, baselines and intervals are those of YouCook2 and of COIN, but that a stretch of video with several
sentences stands once in the gallery, and each of its sentences is a query.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmpt_plugin.captions.tables import parse_time
from mmpt_plugin.data.feature_folder import FeatureFolder
from mmpt_plugin.evaluation.annotation_files import expecting, malformed, read_table
from mmpt_plugin.evaluation.benchmark import Benchmark
from mmpt_plugin.evaluation.benchmark_files import BenchmarkFiles
from mmpt_plugin.evaluation.benchmarks.coin import CoinSegment, CoinVideo, FrameLabelling
from mmpt_plugin.evaluation.benchmarks.official_captions import find_official_captions
from mmpt_plugin.evaluation.benchmarks.text_to_video import (
    TextToVideoRetrieval,
    first_window,
)
from mmpt_plugin.files import read_text

NAME = "csv"
TEST_FILE, TRAINING_FILE = "test.csv", "train.csv"
OFFICIAL_FILE = (
    "a table with the columns video,start,end,text or video,start,end,label and a row for each clip, or the caption file of "
    "ActivityNet, VATEX, LSMDC or MSVD"
)
DELIMITERS = (",", "\t", ";")


@dataclass(frozen=True)
class OwnClip:
    """A row: seconds start..end of a video (None: to its end), and a sentence or a label."""

    video_id: str
    start: float
    end: float | None
    words: str


def read_own_data(path: Path, part: str = "test") -> tuple[str, list[OwnClip]]:
    """Reads a table, or a file of `official_captions`.

    Args:
        path: the file; its content tells what it is.
        part: "test" or "train", as for `find_official_captions`.

    Returns:
        "text" or "label", whichever column the table has; the rows in file order.

    Raises:
        FileNotFoundError: if there is no such file.
        UnusableFile: if a column is missing, both `text` and `label` are there, or a row has no video, no words, or times
            that are no times or end before they start; the message names the line.
    """
    with expecting(path, OFFICIAL_FILE):
        text = read_text(path)
    described = find_official_captions(path, text, part)
    if described is not None:
        return "text", [OwnClip(video, 0.0, None, words) for video, words in described]
    header = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=header.count)
    kinds = [kind for kind in ("text", "label") if kind in [cell.strip() for cell in header.split(delimiter)]]
    if len(kinds) != 1:
        raise malformed(
            path, OFFICIAL_FILE, f"it needs one of the columns text and label, the header is {header[:200]!r}"
        )
    kind = kinds[0]
    clips = []
    for row in read_table(path, OFFICIAL_FILE, delimiter=delimiter, columns=("video", "start", "end", kind)):
        video_id, words = row.cells["video"].strip(), row.cells[kind].strip()
        given = [row.cells[name].strip() for name in ("start", "end")]
        start, end = (parse_time(cell) if cell else None for cell in given)
        if not video_id or not words:
            raise malformed(path, OFFICIAL_FILE, f"line {row.line} has an empty video or {kind}")
        if (given[0] and start is None) or (given[1] and end is None):
            raise malformed(path, OFFICIAL_FILE, f"line {row.line}: {given} are no times, such as 12.5 or 00:01:02")
        if not 0 <= (start or 0) <= (1e7 if end is None else end) <= 1e7:
            raise malformed(path, OFFICIAL_FILE, f"line {row.line}: {given}; needed is 0 <= start <= end seconds")
        clips.append(OwnClip(video_id, start or 0.0, end, words))
    return kind, clips


def own_window_seconds(clip: OwnClip) -> tuple[int, int | None]:
    """The whole seconds that a clip touches."""
    return math.floor(clip.start), None if clip.end is None else math.ceil(clip.end)


def own_labelled_videos(path: Path, clips: Sequence[OwnClip], features: FeatureFolder) -> list[CoinVideo]:
    """Clips with labels as videos with segments; a label's id is a checksum of its words, the same in every table.

    Raises:
        UnusableFile: if two labels have one checksum.
    """
    labels = {label_id(clip.words): clip.words for clip in clips}
    for clip in clips:
        if labels[label_id(clip.words)] != clip.words:
            raise malformed(
                path, OFFICIAL_FILE, f"the labels {labels[label_id(clip.words)]!r} and {clip.words!r} clash: rename one"
            )
    available, videos = set(features.ids()), dict.fromkeys(clip.video_id for clip in clips)
    seconds = {video: features.seconds(video) for video in videos if video in available}
    segments: dict[str, list[CoinSegment]] = {video: [] for video in videos}
    for clip in clips:
        end = clip.end if clip.end is not None else max(float(seconds.get(clip.video_id, 0)), clip.start)
        segments[clip.video_id].append(CoinSegment(clip.start, end, label_id(clip.words), clip.words))
    return [CoinVideo(video, "testing", tuple(own)) for video, own in segments.items()]


def label_id(label: str) -> int:
    """A number for a label that depends on nothing but its words."""
    return zlib.crc32(label.encode()) & 0x7FFFFFFF


class OwnRetrieval(TextToVideoRetrieval):
    """Text -> clip retrieval on a table of one's own; see `own_benchmark`."""

    name: ClassVar[str] = NAME
    folder: ClassVar[str] = NAME
    paper: ClassVar[dict] = {}
    each_stretch_once: ClassVar[bool] = True

    def _read(self, files: BenchmarkFiles) -> None:
        _, clips = read_own_data(files.annotations_or(f"{NAME}/{TEST_FILE}"))
        self.official_items = len(clips)
        found = self._with_features(clips, files)
        self._set_pairs(
            [clip.words for clip in found],
            [first_window(self.features, clip.video_id, *own_window_seconds(clip)) for clip in found],
        )


class OwnSegmentation(FrameLabelling):
    """Labels by the second on a table of one's own; see `own_benchmark`."""

    name: ClassVar[str] = NAME
    folder: ClassVar[str] = NAME
    paper: ClassVar[dict] = {}

    def _read(self, files: BenchmarkFiles) -> None:
        path = files.annotations_or(f"{NAME}/{TEST_FILE}")
        videos = own_labelled_videos(path, read_own_data(path)[1], files.open_features(NAME))
        self.official_items = len(videos)
        self._set_videos(videos, files)


def own_benchmark(data: str | Path, **options: Any) -> Benchmark:
    """The benchmark of a table of one's own, csv/test.csv of the data folder: its columns tell which.

    Args:
        data: the data folder.
        options: as for `Benchmark`.
    """
    kind, _ = read_own_data(BenchmarkFiles(Path(data), **options).annotations_or(f"{NAME}/{TEST_FILE}"))
    return (OwnRetrieval if kind == "text" else OwnSegmentation)(data, **options)
