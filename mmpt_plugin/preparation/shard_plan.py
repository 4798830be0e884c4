"""Which videos go into which shard, and how each is read: from features and captions, or from MMPT's own shards."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from mmpt_plugin.data.caption_files import PreparedCaptions, load_captions
from mmpt_plugin.data.corpus import read_video_list
from mmpt_plugin.data.feature_folder import FeatureFolder, names_by_id
from mmpt_plugin.data.mmpt_shards import read_mmpt_shards
from mmpt_plugin.data.shards import Shard
from mmpt_plugin.data.video_ids import id_problem
from mmpt_plugin.features.manifest import read_settings, stated
from mmpt_plugin.files import open_array
from mmpt_plugin.files.names import without_video_suffix

logger = logging.getLogger(__name__)

LISTS = {"train": "train.txt", "val": "val.txt"}

VALIDATION_SHARE = 300
"""One video in so many is for validation where nothing is said; the paper keeps 4,000 of 1.2 million."""

HEADER_THREADS = 16
"""Features' headers are read side by side: on a network's file system each takes a round trip."""


class Video(NamedTuple):
    """A video as `ShardWriter.add` takes it."""

    video_id: str
    features: np.ndarray  # (seconds, feature_size)
    caption_times: np.ndarray  # (captions, 2) seconds
    pieces: Sequence[Sequence[int] | np.ndarray]


@dataclass(frozen=True)
class PlannedShard:
    """A shard to be: what is to be in it, and how to read that."""

    folder: Path
    name: str
    video_ids: Sequence[str]
    source: dict[str, Any]
    feature_size: int
    read: Callable[[], Iterator[Video]]

    @property
    def split(self) -> str:
        """The list that the shard's videos are in."""
        return self.name.rpartition("_")[0]


@dataclass(frozen=True)
class Plan:
    """All shards of all splits, and the videos that cannot be in one."""

    shards: list[PlannedShard]
    splits: dict[str, list[str]]
    missing_features: list[str]
    missing_captions: list[str]


# --------------------------------------------------------------------------------------- from features and captions


def plan_from_captions(
    features_folder: Path,
    captions_file: Path,
    out: Path,
    *,
    val: int | None = None,
    val_list: Path | None = None,
    videos_per_shard: int = 4096,
    drop_suffix: bool = False,
) -> Plan:
    """Pairs features with captions and shares the pairs out.

    Args:
        features_folder: `<video id>.npy`, one file a video.
        captions_file: prepared captions.
        out: the shards go to its folder `shards`.
        val: videos for validation, see `split_videos`.
        val_list: a file that names them instead.
        videos_per_shard: most videos of a shard.
        drop_suffix: feature files are named `<video id>.mp4.npy`; the video's suffix is no part of its id.

    Raises:
        FileNotFoundError: features, captions or a list are missing.
        ValueError: a feature file is damaged or of another width, ids clash, no video has both sides, or no split can
            be made.
    """
    open_features.cache_clear()  # the folder may have grown since
    captions = PreparedCaptions(captions_file)
    settings = read_settings(features_folder)
    if settings is None:
        logger.warning("%s has no manifest: the shards cannot say how their features were made", features_folder)
    feature_size = settings["feature_size"] if settings else first_width(features_folder)
    features = open_features(features_folder, feature_size)
    seconds = count_seconds(features)
    names = names_of_videos(seconds, drop_suffix, features_folder)
    empty = {video_id for video_id, name in names.items() if seconds[name] == 0}
    if empty:
        logger.warning("%d feature files have no rows and count as missing", len(empty))
    paired = [video_id for video_id in names if video_id in captions.offsets and video_id not in empty]
    if not paired:
        suffixed = any(without_video_suffix(name) in captions.offsets for name in names.values())
        remedy = (
            "The file names have the videos' suffixes: set --drop-suffix."
            if suffixed and not drop_suffix
            else "Do the file names equal the video ids?"
        )
        raise ValueError(
            f"no video has both features in {features_folder} ({len(seconds)} files) and captions in "
            f"{captions_file} ({len(captions.offsets)} videos). {remedy}"
        )
    splits = split_videos(paired, val, val_list)
    source = {"features": settings and stated(settings), "captions": captions.settings}
    shards = []
    for split, video_ids in splits.items():
        for number, first in enumerate(range(0, len(video_ids), videos_per_shard)):
            own = video_ids[first : first + videos_per_shard]
            offsets = [captions.offsets[video_id] for video_id in own]
            files = [names[video_id] for video_id in own]
            read = partial(read_pairs, features_folder, feature_size, captions_file, own, files, offsets)
            shards.append(PlannedShard(out / "shards", f"{split}_{number:05d}", own, source, feature_size, read))
    return Plan(
        shards,
        splits,
        missing_features=[v for v in captions.offsets if v in empty or v not in names],
        missing_captions=[video_id for video_id in names if video_id not in captions.offsets],
    )


def first_width(folder: Path) -> int:
    """Width of the features in a folder that does not state it: that of its first file.

    Raises:
        FileNotFoundError: there is no feature file.
        UnusableFile: it is no array of features.
    """
    path = next((path for path in folder.glob("*.npy") if not path.name.startswith(".")), None)
    if path is None:
        raise FileNotFoundError(f"{folder}: no <video id>.npy in it. scripts/extract_features.py makes them.")
    return open_array(path, dtypes=["float16", "float32"], dimensions=2).shape[1]


@cache
def open_features(folder: Path, feature_size: int) -> FeatureFolder:
    """A folder of features; listed once a process, or once before the processes are forked."""
    return FeatureFolder(folder, feature_size)


def count_seconds(features: FeatureFolder) -> dict[str, int]:
    """Rows of every feature file, from its header.

    Raises:
        ValueError: names all the files that are damaged or of another width or dtype.
    """
    names = features.ids()

    def read_header(name: str) -> int | ValueError:
        try:
            return features.seconds(name)
        except ValueError as error:
            return error

    with ThreadPoolExecutor(HEADER_THREADS) as threads:
        rows = list(tqdm(threads.map(read_header, names), total=len(names), desc="headers", unit="file"))
    errors = [str(result) for result in rows if isinstance(result, ValueError)]
    if errors:
        raise ValueError("\n".join([f"{len(errors)} feature files cannot be used:", *errors]))
    return {name: count for name, count in zip(names, rows) if isinstance(count, int)}


def names_of_videos(names: Iterable[str], drop_suffix: bool, folder: Path) -> dict[str, str]:
    """Video id -> name of its feature file, without `.npy`; names that no id can have are left out, with a warning.

    Raises:
        ValueError: several files are of one video; all are named.
    """
    usable = names_by_id(names, drop_suffix, folder)
    for video_id, name in list(usable.items()):
        if problem := id_problem(video_id):
            logger.warning("%s: %r is left out, as such an id %s", folder, f"{name}.npy", problem)
            del usable[video_id]
    return usable


def split_videos(video_ids: Sequence[str], val: int | None, val_list: Path | None) -> dict[str, list[str]]:
    """Shares videos out to `train` and `val`.

    Args:
        video_ids: all of them.
        val: how many are for validation. They are those whose ids have the smallest SHA-256, so that the choice hardly
            changes when videos are added.
        val_list: a file that names them instead; those without both sides are passed over.

    Raises:
        FileNotFoundError: there is no such list.
        ValueError: one of the splits would be empty.
    """
    if val_list:
        listed = read_video_list(val_list)
        chosen = set(listed) & set(video_ids)
        if len(chosen) < len(listed):
            logger.warning("%s: %d of %d videos lack a side", val_list, len(listed) - len(chosen), len(listed))
    else:
        count = max(1, len(video_ids) // VALIDATION_SHARE) if val is None else val
        by_hash = sorted(video_ids, key=lambda video_id: hashlib.sha256(video_id.encode()).digest())
        chosen = set(by_hash[:count])
    splits = {
        "train": [video_id for video_id in video_ids if video_id not in chosen],
        "val": [video_id for video_id in video_ids if video_id in chosen],
    }
    empty = [split for split, own in splits.items() if not own]
    if empty:
        raise ValueError(
            f"nothing is left for {empty[0]}: {len(chosen)} of {len(video_ids)} videos with both sides are for "
            "validation. Change --val or --val-list, or add videos."
        )
    return splits


def read_pairs(
    features_folder: Path,
    feature_size: int,
    captions_file: Path,
    video_ids: Sequence[str],
    names: Sequence[str],
    offsets: Sequence[int],
) -> Iterator[Video]:
    """Reads videos' features and captions.

    Args:
        features_folder: folder of features.
        feature_size: their width.
        captions_file: file of prepared captions.
        video_ids: what to read.
        names: of the videos' feature files, without `.npy`.
        offsets: where the videos' captions are in the captions' file.
    """
    features = open_features(features_folder, feature_size)
    for video_id, name, (times, pieces) in zip(video_ids, names, load_captions(captions_file, offsets)):
        yield Video(video_id, features.load(name), times, pieces)


# --------------------------------------------------------------------------------------------- from the original's


def plan_from_mmpt(folder: Path, out: Path) -> Plan:
    """Takes over the original's shards, one for one; videos without seconds or captions are left out.

    Raises:
        FileNotFoundError: there are no such shards, or a file is missing.
        ValueError: a file is damaged, there is a split other than train and val, or one of these has no video.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder. It must hold train_meta.pkl and the files that it names.")
    open_mmpt.cache_clear()
    originals = open_mmpt(folder)
    if not originals:
        raise FileNotFoundError(f"{folder}: no train_meta.pkl or val_meta.pkl in it.")
    plan = Plan([], {split: [] for split in LISTS}, [], [])
    for position, shard in enumerate(originals):
        split, _, number = shard.name.rpartition("_")
        if split not in LISTS:
            raise ValueError(f"{folder}: split {split!r}; known are {', '.join(LISTS)}.")
        seconds, captions = shard.features.lengths, shard.caption_times.lengths
        kept = [i for i in range(len(shard.video_ids)) if seconds[i] and captions[i]]
        plan.missing_features.extend(shard.video_ids[i] for i in np.flatnonzero(seconds == 0))
        plan.missing_captions.extend(shard.video_ids[i] for i in np.flatnonzero(captions == 0))
        video_ids = [shard.video_ids[i] for i in kept]
        plan.splits[split].extend(video_ids)
        if kept:
            name, width = f"{split}_{int(number):05d}", shard.features.data.shape[1]
            read = partial(read_mmpt_videos, folder, position, kept)
            plan.shards.append(PlannedShard(out / "shards", name, video_ids, shard.source, width, read))
    for split, video_ids in plan.splits.items():
        if not video_ids:
            raise ValueError(f"{folder}: split {split} has no video with features and captions.")
    return plan


@cache
def open_mmpt(folder: Path) -> list[Shard]:
    """The original's shards; opened once a process, or once before the processes are forked."""
    return read_mmpt_shards(folder)


def read_mmpt_videos(folder: Path, position: int, videos: Sequence[int]) -> Iterator[Video]:
    """Reads videos of one of the original's shards.

    Args:
        folder: of the shards.
        position: of the shard among them.
        videos: which of its videos.
    """
    shard = open_mmpt(folder)[position]
    for i in videos:
        counts = shard.piece_counts(i)
        pieces = np.split(shard.pieces(i, 0, len(counts)), np.cumsum(counts)[:-1])
        yield Video(shard.video_ids[i], shard.features[i], shard.caption_times[i], pieces)
