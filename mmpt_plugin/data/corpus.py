"""A corpus: the videos of a list, wherever their shards keep them, by their position in the list."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from mmpt_plugin.captions.tidying import MOST_SECONDS
from mmpt_plugin.data.caption_table import CaptionTable
from mmpt_plugin.data.captions import vocabulary_sha256
from mmpt_plugin.data.mmpt_shards import META_SUFFIX, read_mmpt_shards
from mmpt_plugin.data.ragged_arrays import MappedArray, read_ahead, slices
from mmpt_plugin.data.shards import Shard, read_shard
from mmpt_plugin.data.windows import whole_seconds
from mmpt_plugin.files import UnusableFile, read_text

logger = logging.getLogger(__name__)

VERIFY = ("auto", "full", "size")
ON_MISSING = ("error", "skip")

AUTO_VERIFY_BYTES = 4 << 30
"""`auto` reads everything up to this size: some ten seconds, once."""

SAMPLED_VIDEOS = 64
"""Videos whose values are looked at where not all are."""

PROGRESS_DELAY = 5
"""Seconds after which a progress bar appears."""


def read_video_list(path: str | Path) -> list[str]:
    """Reads the ids of a split's videos, one a line; blank lines are skipped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the list is empty or names a video twice.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: missing. It must list the split's videos, one id a line.")
    video_ids = [line.strip() for line in read_text(path).split("\n") if line.strip()]
    if not video_ids:
        raise ValueError(f"{path}: the list is empty. It must name the split's videos, one id a line.")
    if len(set(video_ids)) < len(video_ids):
        counts = Counter(video_ids)
        repeated = [video_id for video_id in counts if counts[video_id] > 1]
        raise ValueError(f"{path}: {len(repeated)} video ids are listed more than once, the first is {repeated[0]}.")
    return video_ids


def open_shards(folder: str | Path, verify: str = "auto") -> list[Shard]:
    """Opens all shards in a folder, ours or MMPT's own.

    Args:
        folder: holds either folders with an index.json, or MMPT's files.
        verify: `size` compares files, headers and indexes; `full` also the checksums, where the format has them; `auto`
            is `full` up to 4 GiB of arrays. Sizes are always checked.

    Raises:
        FileNotFoundError: no shard, or one of its files is missing.
        ValueError: shards of both formats, or a file is damaged or altered or does not fit the others.
    """
    if verify not in VERIFY:
        raise ValueError(f"task.verify is {verify!r}: choose one of {', '.join(VERIFY)}.")
    folder = Path(folder)
    indexes = sorted(path for path in folder.glob("*/index.json") if not path.parent.name.startswith("."))
    mmpt_metas = sorted(folder.glob(f"*{META_SUFFIX}"))
    if indexes and mmpt_metas:
        raise ValueError(
            f"{folder}: holds shards ({indexes[0].parent.name}, ...) and MMPT's own files ({mmpt_metas[0].name}, ...). "
            "Keep one kind in a folder."
        )
    if not indexes and not mmpt_metas:
        raise FileNotFoundError(
            f"{folder}: no shards. Expected either folders with an index.json (ShardWriter makes them), or MMPT's "
            f"own files: train{META_SUFFIX}, train_0_data.npy, train_0_starts.npy, "
            "<captions>.train_0.startends_data.npy, ..."
        )
    shards = [read_shard(path.parent) for path in indexes] or read_mmpt_shards(folder)
    if reads_everything(shards, verify):
        for shard in tqdm(shards, desc="verifying shards", unit="shard", delay=PROGRESS_DELAY):
            shard.verify()
        if not any(shard.checksums for shard in shards):
            logger.info(f"{folder}: MMPT's format keeps no checksums; sizes were checked.")
    else:
        logger.info(
            f"{folder}: {_nbytes(shards) / 2**30:.1f} GiB, sizes checked, not the content (task.verify=full does)."
        )
    return shards


def reads_everything(shards: Sequence[Shard], verify: str) -> bool:
    """Whether `verify` asks for the shards' whole content to be read."""
    return verify == "full" or (verify == "auto" and _nbytes(shards) <= AUTO_VERIFY_BYTES)


def _nbytes(shards: Sequence[Shard]) -> int:
    return sum(shard.nbytes for shard in shards)


class Clips(NamedTuple):
    """Features and word pieces of clips, both cut to what the model takes."""

    features: np.ndarray  # (sum of video_lengths, feature_size) in the stored dtype, clip after clip
    video_lengths: np.ndarray  # (clips,) int64, rows of features; 0 for an empty span
    pieces: np.ndarray  # (word pieces of all clips,) int32, end to end
    text_lengths: np.ndarray  # (clips,) int64, word pieces


class VideoTextCorpus:
    """Features and captions of a list of videos, by position in the list.

    Memory: for each video its id and 36 bytes of plain numpy arrays (some 110 bytes in all, 120 MB for HowTo100M's 1.1
    million videos), whatever the size of the features. Those stay in the files, which each process maps when it first
    reads them, at most `ragged_arrays.OPEN_MAPS` at a time; their pages belong to the operating system's cache, which all
    processes share and which gives way when memory is short. A forked worker inherits the arrays and open maps, a
    spawned one gets a copy of the arrays and maps anew.

    Attributes:
        video_ids: the videos, N of them, in the list's order, without those left out.
        missing: ids that were left out: in no shard, or without seconds or (enough) captions.
        video_seconds: (N,) int64, seconds; a last one that has not all its rows of features counts.
        caption_counts: (N,) int64.
        feature_size: width of the features.
        source: how features and word pieces were made, as the shards say.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        video_ids: Sequence[str],
        *,
        on_missing: str = "error",
        feature_size: int = 512,
        features_per_second: int = 1,
        min_captions: int = 1,
    ) -> None:
        """Finds the videos in the shards. Arguments and errors as for `open`."""
        if on_missing not in ON_MISSING:
            raise ValueError(f"task.on_missing is {on_missing!r}: choose one of {', '.join(ON_MISSING)}.")
        rows = _rows_of_videos(shards, video_ids)  # (videos of the list,), -1 where no shard has it
        lengths = np.concatenate([shard.features.lengths for shard in shards])  # (videos of all shards,)
        captions = np.concatenate([shard.caption_times.lengths for shard in shards])
        found = rows >= 0
        empty = found & ((lengths[rows] == 0) | (captions[rows] < min_captions))
        if on_missing == "error":
            few = (
                "no captions"
                if min_captions == 1
                else f"fewer than the {min_captions} captions of a bag (task.bag_captions could be smaller)"
            )
            _refuse_missing("are in no shard", video_ids, ~found)
            _refuse_missing(f"have no seconds of features or {few}", video_ids, empty)
        kept = found & ~empty
        self.video_ids = list(compress(video_ids, kept))
        self.missing = list(compress(video_ids, ~kept))
        if self.missing:
            logger.warning(
                f"left out {len(self.missing)} of {len(video_ids)} videos (task.on_missing=skip): {(~found).sum()} in "
                f"no shard, {empty.sum()} without seconds or captions (at least {min_captions}); the first are "
                f"{_first_few(self.missing)}."
            )
        if not self.video_ids:
            raise ValueError(
                f"none of the {len(video_ids)} videos of the list is in a shard: are these the list's shards?"
            )

        rows = rows[kept]
        self._lengths = lengths[rows]
        self.features_per_second = features_per_second
        self.video_seconds = self._lengths
        if features_per_second != 1:
            self.video_seconds = whole_seconds(self._lengths, features_per_second)
        self.caption_counts = captions[rows]
        self._first_row = np.concatenate([shard.features.starts[:-1] for shard in shards])[
            rows
        ]  # row in the shard's file
        self._first_caption = np.concatenate([shard.caption_times.starts[:-1] for shard in shards])[rows]
        self._shard = np.repeat(np.arange(len(shards), dtype=np.int32), [len(shard.video_ids) for shard in shards])[
            rows
        ]

        used = [shards[i] for i in np.unique(self._shard)]
        _check_widths(used, feature_size)
        self.feature_size = feature_size
        self.source = _common_source(used)
        # a corpus keeps the shards' maps, not their ids and starts
        self._vocabulary_size = int(np.iinfo(np.int32).max) + 1  # until `check_vocabulary`
        self._features = [shard.features.data for shard in shards]
        self._times = [shard.caption_times.data for shard in shards]
        self._pieces = [shard.caption_pieces for shard in shards]

    @classmethod
    def open(
        cls,
        shards_folder: str | Path,
        video_ids: Sequence[str],
        *,
        on_missing: str = "error",
        verify: str = "auto",
        feature_size: int = 512,
        features_per_second: int = 1,
        min_captions: int = 1,
    ) -> VideoTextCorpus:
        """Opens the shards of a folder, finds the videos in them and looks for values that are not finite.

        Args:
            shards_folder: see `open_shards`.
            video_ids: the videos to read, see `read_video_list`.
            on_missing: `error`, or `skip` to leave out and count the videos that no shard has or that have no seconds
                or too few captions.
            verify: see `open_shards`. Where that reads everything, all values are also looked at, else a sample's.
            feature_size: the width that the model takes.
            features_per_second: rows of features for a second of video.
            min_captions: how many a video must have; more than 1 where clips take bags of so many.

        Raises:
            FileNotFoundError: no shards, or one of their files is missing.
            ValueError: shards are damaged or do not fit together, videos are missing, the features' width is another or
                values are not finite.
        """
        shards = open_shards(shards_folder, verify)
        corpus = cls(
            shards,
            video_ids,
            on_missing=on_missing,
            feature_size=feature_size,
            features_per_second=features_per_second,
            min_captions=min_captions,
        )
        videos = np.arange(len(corpus))
        if not reads_everything(shards, verify):
            videos = videos[:: -(-len(corpus) // SAMPLED_VIDEOS)]
        corpus.check_finite(videos)
        return corpus

    def __len__(self) -> int:
        return len(self.video_ids)

    def features(self, video: int) -> np.ndarray:
        """All features of a video, (rows, feature_size), a read-only view of its file."""
        first = self._first_row[video]
        return self._features[self._shard[video]].array[first : first + self._lengths[video]]

    def captions(self, video: int) -> tuple[np.ndarray, np.ndarray]:
        """Times of a video's captions, (captions, 2) float32, and their word pieces' counts, (captions,) int64."""
        return self._caption_times(video), self.group_captions(np.array([video])).token_counts

    def text(self, video: int, first: int, last: int) -> np.ndarray:
        """Word pieces of a video's captions first:last, end to end, (pieces,) int32."""
        self._check_spans(np.array([video]), np.array([[0, 0, first, last]]))
        return self._gather_pieces(np.array([video]), np.array([first]), np.array([last]))[0]

    def group_captions(self, videos: np.ndarray) -> CaptionTable:
        """All captions of some videos, and the videos' lengths.

        Args:
            videos: (videos,) positions in the corpus.
        """
        counts, firsts, which = self.caption_counts[videos], self._first_caption[videos], self._shard[videos]
        times = np.concatenate(slices(self._times, which, firsts, firsts + counts))  # (captions, 2)
        usable = (np.abs(times) < MOST_SECONDS).all(axis=1)  # NaN is not
        if not usable.all():
            video = np.repeat(videos, counts)[~usable][0]
            raise self._unusable(video, "caption times", self._times, times[~usable][0])
        starts, ends = np.asarray(times.T, np.float64, order="C")
        token_counts = type(self._pieces[0]).counts(self._pieces, which, firsts, firsts + counts)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return CaptionTable(starts, ends, token_counts, offsets, self.video_seconds[videos])

    def clips(self, videos: np.ndarray, spans: np.ndarray, *, max_seconds: int = 32, max_pieces: int = 61) -> Clips:
        """Features and word pieces of many clips; longer ones are cut to their first seconds and word pieces.

        Args:
            videos: (clips,) positions in the corpus.
            spans: (clips, 4) integers: first second, last second + 1, first caption, last caption + 1.
            max_seconds: seconds kept of a clip's video.
            max_pieces: word pieces kept of a clip's text.

        Raises:
            ValueError: a span lies outside of its video.
        """
        self._check_spans(videos, spans)
        start, end, first_caption, last_caption = spans.T
        rate, lengths = self.features_per_second, self._lengths[videos]
        first = np.minimum(start * rate, lengths)
        last = np.minimum(np.minimum(end, start + max_seconds) * rate, lengths)
        video_lengths = last - first
        shard, first_row = self._shard[videos], self._first_row[videos] + first
        read_ahead(self._features, shard, first_row, first_row + video_lengths)
        rows = slices(self._features, shard, first_row, first_row + video_lengths)
        features = np.concatenate(rows)  # one contiguous copy a clip: faster than any indexing of all rows at once
        return Clips(features, video_lengths, *self.texts(videos, first_caption, last_caption, max_pieces=max_pieces))

    def texts(
        self, videos: np.ndarray, first: np.ndarray, last: np.ndarray, *, max_pieces: int = 61
    ) -> tuple[np.ndarray, np.ndarray]:
        """Word pieces of many runs of captions, each cut to its first ones.

        Args:
            videos: (texts,) positions in the corpus.
            first: (texts,) first caption of each, counted from its video's first and inside of it.
            last: (texts,) last caption + 1.
            max_pieces: word pieces kept of a text.

        Returns:
            The word pieces, int32, end to end, and (texts,) int64 how many each has.
        """
        return _cut_runs(*self._gather_pieces(videos, first, last), max_pieces)

    def check_finite(self, videos: np.ndarray) -> None:
        """Looks for NaN or infinite values in the features and caption times of some videos.

        Args:
            videos: (videos,) positions in the corpus.

        Raises:
            ValueError: a video has such a value.
        """
        for video in tqdm(videos, desc="looking for NaN", unit="video", delay=PROGRESS_DELAY):
            features, times = self.features(video), self._caption_times(video)
            finite = np.isfinite(features).all(axis=1)
            if not finite.all():
                row = int(np.argmin(finite))
                raise self._unusable(video, "features", self._features, f"row {row} of {len(finite)}")
            usable = (np.abs(times) < MOST_SECONDS).all(axis=1)
            if not usable.all():
                raise self._unusable(video, "caption times", self._times, times[~usable][0])

    def _unusable(self, video: int, what: str, maps: Sequence[MappedArray], where: object) -> UnusableFile:
        return UnusableFile(
            f"{maps[self._shard[video]].path}: video {self.video_ids[video]}: {what} are NaN, infinite or out of bounds "
            f"({where}). Make them again."
        )

    def check_vocabulary(self, vocabulary: Mapping[str, int]) -> None:
        """Looks whether the word pieces are of a model's vocabulary.

        Shards that say whose they are must name this one. Of others, the word pieces of a sample of videos must be in it.

        Args:
            vocabulary: word pieces of the model's tokenizer and their ids.

        Raises:
            ValueError: they are of another.
        """
        self._vocabulary_size = len(vocabulary)
        recorded = self.source.get("captions")
        if isinstance(recorded, Mapping) and "vocabulary_sha256" in recorded:
            if recorded["vocabulary_sha256"] != vocabulary_sha256(vocabulary):
                raise ValueError(
                    f"the captions were tokenized with {recorded.get('tokenizer')!r}, whose vocabulary is not model.bert's "
                    f"({len(vocabulary)} word pieces). Prepare the captions with model.bert's tokenizer, or set model.bert "
                    "to the one they were prepared with."
                )
            return
        logger.warning("the shards do not say of which vocabulary their word pieces are: model.bert must have it")
        videos = np.arange(len(self))[:: -(-len(self) // SAMPLED_VIDEOS)]
        pieces, _ = self._gather_pieces(videos, np.zeros_like(videos), self.caption_counts[videos])
        if pieces.max(initial=0) >= len(vocabulary):
            raise ValueError(
                f"the captions have word piece {pieces.max()}, model.bert's vocabulary has {len(vocabulary)}: prepare them "
                "with model.bert's tokenizer, or set model.bert to the one they were prepared with."
            )

    def _caption_times(self, video: int) -> np.ndarray:
        first = self._first_caption[video]
        return self._times[self._shard[video]].array[first : first + self.caption_counts[video]]

    def _gather_pieces(
        self, videos: np.ndarray, first_caption: np.ndarray, last_caption: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        first = self._first_caption[videos]
        pieces, lengths = type(self._pieces[0]).gather(
            self._pieces, self._shard[videos], first + first_caption, first + last_caption
        )
        if len(pieces) and not (pieces.min() >= 0 and pieces.max() < self._vocabulary_size):
            outside = (pieces < 0) | (pieces >= self._vocabulary_size)
            video = np.repeat(videos, lengths)[outside][0]
            raise ValueError(
                f"video {self.video_ids[video]}: word piece {pieces[outside][0]} is none of the vocabulary's "
                f"{self._vocabulary_size}. Its shard is damaged (task.verify=full tells), or of another model.bert."
            )
        return pieces, lengths

    def _check_spans(self, videos: np.ndarray, spans: np.ndarray) -> None:
        """Refuses spans that would read another video's rows."""
        start, end, first, last = spans.T
        inside = (start >= 0) & (start <= end) & (end <= self.video_seconds[videos])
        inside &= (first >= 0) & (first <= last) & (last <= self.caption_counts[videos])
        if not inside.all():
            clip = int(np.argmin(inside))
            video = videos[clip]
            raise ValueError(
                f"clip {clip}: seconds {start[clip]}:{end[clip]} and captions {first[clip]}:{last[clip]} are not in "
                f"video {self.video_ids[video]} of {self.video_seconds[video]} seconds and "
                f"{self.caption_counts[video]} captions."
            )


def _rows_of_videos(shards: Sequence[Shard], video_ids: Sequence[str]) -> np.ndarray:
    """Position of each listed video among the videos of all shards, end to end; -1 where no shard has it."""
    total = sum(len(shard.video_ids) for shard in shards)
    position = dict(zip(chain.from_iterable(shard.video_ids for shard in shards), range(total)))
    if len(position) < total:
        counts = Counter(chain.from_iterable(shard.video_ids for shard in shards))
        for video_id in video_ids:
            if counts[video_id] > 1:
                names = [shard.name for shard in shards if video_id in shard.video_ids]
                raise ValueError(
                    f"video {video_id} is {counts[video_id]} times in shards {', '.join(names)}. Keep it in one place."
                )
    return np.fromiter((position.get(video_id, -1) for video_id in video_ids), np.int64, len(video_ids))


def _refuse_missing(what: str, video_ids: Sequence[str], missing: np.ndarray) -> None:
    if missing.any():
        first_few = _first_few(list(compress(video_ids, missing)))
        raise ValueError(
            f"{missing.sum()} of {len(video_ids)} listed videos {what}: {first_few}. "
            "Make their shards, or set task.on_missing=skip to leave them out and count them."
        )


def _first_few(video_ids: Sequence[str]) -> str:
    return ", ".join(video_ids[:5]) + (", ..." if len(video_ids) > 5 else "")


def _check_widths(shards: Sequence[Shard], feature_size: int) -> None:
    for shard in shards:
        width = shard.features.data.shape[1]
        if width != feature_size:
            raise ValueError(
                f"{shard.features.data.path}: features are {width} wide, model.feature_size is {feature_size}. "
                f"Set model.feature_size={width} if they come from the intended network, or make the features again."
            )


def _common_source(shards: Sequence[Shard]) -> dict[str, Any]:
    """What the shards say of their making; they must agree, as a model cannot tell them apart."""
    first = shards[0]
    for shard in shards[1:]:
        if shard.source != first.source:
            differing = sorted(
                key
                for key in first.source.keys() | shard.source.keys()
                if first.source.get(key) != shard.source.get(key)
            )
            raise ValueError(
                f"shards {first.name} and {shard.name} were made in different ways: "
                + "; ".join(f"{key} is {first.source.get(key)!r} and {shard.source.get(key)!r}" for key in differing)
                + ". Make them all in the same way."
            )
    return first.source


def _cut_runs(values: np.ndarray, lengths: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Keeps the first `limit` values of each run; the runs stand end to end, (runs,) lengths."""
    firsts = np.cumsum(lengths) - lengths
    position = np.arange(len(values)) - np.repeat(firsts, lengths)  # of each value in its run
    return values[position < limit], np.minimum(lengths, limit)
