#!/usr/bin/env python3
"""Make shards: features and prepared captions in, what pre-training reads out.

Writes OUT/shards/<name>/, OUT/train.txt and OUT/val.txt, OUT/missing_features.txt and OUT/missing_captions.txt (videos
that lack one side) and OUT/statistics.json. A shard appears whole, by a rename; a run that was stopped goes on where it
was, runs side by side keep each other's shards.

Examples:
    python scripts/make_shards.py --features features/ --captions captions.jsonl --out data/howto100m --val 4000
    python scripts/make_shards.py --from-mmpt feat_how2_s3d_shard_small/ --out data/howto100m
    python scripts/make_shards.py --verify --out data/howto100m
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from mmpt_plugin.data.caption_files import PreparedCaptions, load_captions
from mmpt_plugin.data.corpus import VideoTextCorpus, open_shards, read_video_list
from mmpt_plugin.data.mmpt_shards import read_mmpt_shards
from mmpt_plugin.data.shards import Shard, ShardWriter, read_shard
from mmpt_plugin.evaluation.feature_folder import FeatureFolder
from mmpt_plugin.features.manifest import read_settings

logger = logging.getLogger(__name__)

LISTS = {"train": "train.txt", "val": "val.txt"}
VALIDATION_SHARE = 300
"""One video in so many is for validation where nothing is said; the paper keeps 4,000 of 1.2 million."""

HEADER_THREADS = 16
"""Features' headers are read side by side: on a network's file system each takes a round trip."""

PAPER = {"minutes a video": 6.5, "captions a video": 110, "pieces a second": 2.4}
"""HowTo100M's as prepared for the paper (arXiv:2109.14084, section 5.1)."""


Sums = Counter[str]
"""Of a shard or a split: `videos`, `seconds`, `captions`, `pieces`, and `covered_ms` of the time."""


class Video(NamedTuple):
    """A video as `ShardWriter.add` takes it."""

    video_id: str
    features: np.ndarray  # (seconds, feature_size)
    caption_times: np.ndarray  # (captions, 2) seconds
    tokens: Sequence[Sequence[int] | np.ndarray]


@dataclass(frozen=True)
class PlannedShard:
    """A shard to be: what is to be in it, and how to read that."""

    folder: Path
    name: str
    video_ids: Sequence[str]
    source: dict[str, Any]
    feature_size: int
    read: Callable[[], Iterator[Video]]


@dataclass(frozen=True)
class Plan:
    """All shards of all splits, and the videos that cannot be in one."""

    shards: list[PlannedShard]
    splits: dict[str, list[str]]
    missing_features: list[str]
    missing_captions: list[str]


# --------------------------------------------------------------------------------------- from features and captions


def plan_from_captions(options: argparse.Namespace) -> Plan:
    """Pairs features with captions and shares the pairs out.

    Raises:
        FileNotFoundError: features, captions or a list are missing.
        ValueError: a feature file is damaged or of another width, no video has both sides, or no split can be made.
    """
    captions = PreparedCaptions(options.captions)
    settings = read_settings(options.features)
    if settings is None:
        logger.warning("%s has no manifest: the shards cannot say how their features were made", options.features)
    feature_size = settings["feature_size"] if settings else first_width(options.features)
    features = open_features(options.features, feature_size)
    seconds = count_seconds(features)
    empty = {video_id for video_id, rows in seconds.items() if rows == 0}
    if empty:
        logger.warning("%d feature files have no rows and count as missing", len(empty))
    paired = [video_id for video_id in features.ids() if video_id in captions.offsets and video_id not in empty]
    if not paired:
        raise ValueError(
            f"no video has both features in {options.features} ({len(seconds)} files) and captions in "
            f"{options.captions} ({len(captions.offsets)} videos). Do the file names equal the video ids?"
        )
    splits = split_videos(paired, options.val, options.val_list)
    source = {"features": settings, "captions": captions.settings}
    shards = []
    for split, video_ids in splits.items():
        for number, first in enumerate(range(0, len(video_ids), options.videos_per_shard)):
            own = video_ids[first : first + options.videos_per_shard]
            offsets = [captions.offsets[video_id] for video_id in own]
            read = partial(read_pairs, options.features, feature_size, options.captions, own, offsets)
            name = f"{split}_{number:05d}"
            shards.append(PlannedShard(options.out / "shards", name, own, source, feature_size, read))
    return Plan(
        shards,
        splits,
        missing_features=[v for v in captions.offsets if v in empty or v not in seconds],
        missing_captions=[video_id for video_id in seconds if video_id not in captions.offsets],
    )


def first_width(folder: Path) -> int:
    """Width of the features in a folder that does not state it: that of its first file.

    Raises:
        FileNotFoundError: there is no feature file.
        ValueError: it is no array.
    """
    path = next(folder.glob("*.npy"), None)
    if path is None:
        raise FileNotFoundError(f"{folder}: no <video id>.npy in it. scripts/extract_features.py makes them.")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False).shape[-1]
    except (ValueError, EOFError, IndexError) as error:
        raise ValueError(f"{path} is no array of features ({error}): extract this video again") from error


@cache
def open_features(folder: Path, feature_size: int) -> FeatureFolder:
    """A folder of features; listed once a process, or once before the processes are forked."""
    return FeatureFolder(folder, feature_size)


def count_seconds(features: FeatureFolder) -> dict[str, int]:
    """Rows of every feature file, from its header.

    Raises:
        ValueError: names all the files that are damaged or of another width or dtype.
    """
    video_ids = features.ids()

    def read_header(video_id: str) -> int | ValueError:
        try:
            return features.seconds(video_id)
        except ValueError as error:
            return error

    with ThreadPoolExecutor(HEADER_THREADS) as threads:
        rows = list(tqdm(threads.map(read_header, video_ids), total=len(video_ids), desc="headers", unit="file"))
    errors = [str(result) for result in rows if isinstance(result, ValueError)]
    if errors:
        raise ValueError("\n".join([f"{len(errors)} feature files cannot be used:", *errors]))
    return {video_id: count for video_id, count in zip(video_ids, rows) if isinstance(count, int)}


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
    features_path: Path, feature_size: int, captions_path: Path, video_ids: Sequence[str], offsets: Sequence[int]
) -> Iterator[Video]:
    """Reads videos' features and captions.

    Args:
        features_path: folder of features.
        feature_size: their width.
        captions_path: file of prepared captions.
        video_ids: what to read.
        offsets: where the videos' captions are in that file.
    """
    features = open_features(features_path, feature_size)
    for video_id, (times, tokens) in zip(video_ids, load_captions(captions_path, offsets)):
        yield Video(video_id, features.load(video_id), times, tokens)


# --------------------------------------------------------------------------------------------- from the original's


def plan_from_mmpt(options: argparse.Namespace) -> Plan:
    """Takes over the original's shards, one for one; videos without seconds or captions are left out.

    Raises:
        FileNotFoundError: there are no such shards, or a file is missing.
        ValueError: a file is damaged, there is a split other than train and val, or one of these has no video.
    """
    folder = options.from_mmpt
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder. It must hold train_meta.pkl and the files that it names.")
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
            plan.shards.append(PlannedShard(options.out / "shards", name, video_ids, shard.source, width, read))
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
        counts = shard.token_counts(i)
        tokens = np.split(shard.tokens(i, 0, len(counts)), np.cumsum(counts)[:-1])
        yield Video(shard.video_ids[i], shard.features[i], shard.caption_times[i], tokens)


# ---------------------------------------------------------------------------------------------------------- writing


def make_shard(planned: PlannedShard) -> Sums:
    """Writes a shard unless it is there; returns its statistics.

    Raises:
        ValueError: another shard of that name is there, or a video's values are not finite.
    """
    target = planned.folder / planned.name
    if not target.exists():
        try:
            with ShardWriter(
                planned.folder, planned.name, source=planned.source, feature_size=planned.feature_size
            ) as writer:
                for video in planned.read():
                    writer.add(*video)
        except OSError:
            if not target.exists():  # else a run beside this one was faster
                raise
    shard = read_shard(target)
    if shard.video_ids != list(planned.video_ids) or shard.source != planned.source:
        raise ValueError(
            f"{target} was made from other videos, or from features or captions made in another way. Choose another "
            "--out, or remove this one's shards."
        )
    return shard_statistics(shard)


def shard_statistics(shard: Shard) -> Sums:
    """Sums over a shard's videos."""
    statistics: Sums = Counter(videos=len(shard.video_ids))
    for video in range(len(shard.video_ids)):
        seconds = len(shard.features[video])
        statistics["seconds"] += seconds
        statistics["captions"] += len(shard.caption_times[video])
        statistics["pieces"] += int(shard.token_counts(video).sum())
        statistics["covered_ms"] += round(1000 * covered_seconds(shard.caption_times[video], seconds))
    return statistics


def covered_seconds(times: np.ndarray, seconds: int) -> float:
    """How much of a video's length lies within at least one caption.

    Args:
        times: (captions, 2) start and end in seconds, in any order.
        seconds: the video's length.
    """
    starts, ends = np.clip(times[np.argsort(times[:, 0], kind="stable")], 0, seconds).T.astype(np.float64)
    reached = np.maximum.accumulate(np.concatenate([[0], ends]))  # (captions + 1,): how far the captions before go
    return float(np.maximum(ends - np.maximum(starts, reached[:-1]), 0).sum())


def make_all(plan: Plan, workers: int) -> dict[str, Sums]:
    """Writes all planned shards, in this process or in several; returns the splits' statistics.

    Raises:
        ValueError: see `make_shard`; or a worker process died.
    """
    statistics: dict[str, Sums] = {split: Counter() for split in plan.splits}
    with tqdm(total=sum(len(shard.video_ids) for shard in plan.shards), desc="shards", unit="video") as bar:
        for planned, own in run_all(plan.shards, workers):
            statistics[planned.name.rpartition("_")[0]].update(own)
            bar.update(len(planned.video_ids))
    return statistics


def run_all(shards: Sequence[PlannedShard], workers: int) -> Iterator[tuple[PlannedShard, Sums]]:
    """`make_shard` of each, as they are finished. Workers are forked, so that they share what was read before."""
    if workers == 1:
        for planned in shards:
            yield planned, make_shard(planned)
        return
    with ProcessPoolExecutor(workers, get_context("fork")) as pool:
        futures: dict[Future[Sums], PlannedShard] = {pool.submit(make_shard, shard): shard for shard in shards}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise ValueError(
                "a worker process died (killed, or out of memory). Finished shards are kept: run the same command again."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # after an error, what has not begun is not begun


def check_neighbours(plan: Plan) -> None:
    """Refuses to add shards to those of another plan.

    Raises:
        ValueError: there are shards that are not planned.
    """
    folder = plan.shards[0].folder
    planned = {shard.name for shard in plan.shards}
    found = sorted(path.parent.name for path in folder.glob("*/index.json") if not path.parent.name.startswith("."))
    strangers = [name for name in found if name not in planned]
    if strangers:
        raise ValueError(
            f"{folder} holds {len(strangers)} shards that this run would not make ({strangers[0]}, ...), from another "
            "--videos-per-shard or other videos. Choose another --out, or remove them."
        )


def write_text(path: Path, text: str) -> None:
    """Writes aside, then renames."""
    partial_path = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    partial_path.write_text(text, encoding="utf-8")
    partial_path.replace(path)


def write_list(path: Path, video_ids: Iterable[str]) -> None:
    """Writes ids, one a line."""
    write_text(path, "".join(f"{video_id}\n" for video_id in video_ids))


# ------------------------------------------------------------------------------------------------------ the results


def summarize(statistics: Mapping[str, Sums]) -> dict[str, dict[str, float]]:
    """The statistics of each split in the paper's terms, with the paper's own.

    `coverage` is the share of the videos' time that lies within a caption.
    """
    summary: dict[str, dict[str, float]] = {}
    for split, sums in statistics.items():
        videos, seconds = max(sums["videos"], 1), max(sums["seconds"], 1)
        summary[split] = {
            "videos": sums["videos"],
            "minutes a video": round(sums["seconds"] / videos / 60, 2),
            "captions a video": round(sums["captions"] / videos, 1),
            "pieces a second": round(sums["pieces"] / seconds, 2),
            "coverage": round(sums["covered_ms"] / 1000 / seconds, 3),
        }
    return {**summary, "paper": PAPER}


def print_summary(summary: Mapping[str, Mapping[str, float]]) -> None:
    """The summary as a table."""
    print(f"{'':18}" + "".join(f"{column:>12}" for column in summary))
    for row in summary["train"]:
        cells = (summary[column].get(row, "") for column in summary)
        print(f"{row:18}" + "".join(f"{cell:>12}" for cell in cells))


def make(options: argparse.Namespace) -> None:
    """Makes shards, lists and statistics."""
    plan = plan_from_mmpt(options) if options.from_mmpt else plan_from_captions(options)
    check_neighbours(plan)
    write_list(options.out / "missing_features.txt", plan.missing_features)
    write_list(options.out / "missing_captions.txt", plan.missing_captions)
    print(
        f"{len(plan.missing_features)} videos lack features, {len(plan.missing_captions)} captions: see {options.out}"
    )
    summary = summarize(make_all(plan, options.workers))
    write_text(options.out / "statistics.json", json.dumps(summary, indent=1) + "\n")
    for split, name in LISTS.items():  # last: who sees a list sees all of its shards
        write_list(options.out / name, plan.splits[split])
    print_summary(summary)
    left_over = sorted((options.out / "shards").glob(".*.partial"))
    if left_over:
        logger.warning("%d unfinished shards of stopped runs, %s: remove them", len(left_over), left_over[0])


def verify(out: Path, workers: int) -> list[str]:
    """Reads all shards again and compares their checksums; compares the lists with the shards.

    Args:
        out: holds shards/, train.txt and val.txt.
        workers: files read at a time.

    Returns:
        What is wrong, nothing if all is well.

    Raises:
        FileNotFoundError, ValueError: there are no shards, or they do not open.
    """
    shards = open_shards(out / "shards", "size")
    problems = []

    def check(shard: Shard) -> str | None:
        try:
            shard.verify()
        except ValueError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(workers) as threads:  # hashing leaves the interpreter free
        results = tqdm(threads.map(check, shards), total=len(shards), desc="verifying", unit="shard")
        problems += [problem for problem in results if problem]
    listed: dict[str, str] = {}
    for name in LISTS.values():
        try:
            video_ids = read_video_list(out / name)
            VideoTextCorpus(shards, video_ids, feature_size=shards[0].features.data.shape[1])
        except (FileNotFoundError, ValueError) as error:
            problems.append(f"{out / name}: {error}")
            continue
        shared = [video_id for video_id in video_ids if video_id in listed]
        if shared:
            problems.append(f"{out}: {len(shared)} videos are in two lists, the first is {shared[0]}")
        listed |= dict.fromkeys(video_ids, name)
    if not any(shard.checksums for shard in shards):
        logger.warning("%s: MMPT's format keeps no checksums; sizes and counts were checked", out / "shards")
    print(f"{len(shards)} shards, {sum(shard.nbytes for shard in shards) / 2**30:.2f} GiB, {len(problems)} problems")
    return problems


def parse(arguments: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="howto100m/ of the data folder")
    parser.add_argument("--features", type=Path, metavar="DIR", help="folder of <video id>.npy")
    parser.add_argument("--captions", type=Path, metavar="FILE", help="what prepare_captions.py made")
    validation = parser.add_mutually_exclusive_group()
    validation.add_argument(
        "--val", type=int, metavar="N", help=f"videos for validation (default: one in {VALIDATION_SHARE})"
    )
    validation.add_argument("--val-list", type=Path, metavar="FILE", help="their ids instead, one a line")
    parser.add_argument(
        "--videos-per-shard", type=int, default=4096, metavar="N", help="default: %(default)s, as the original's"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="default: %(default)s")
    parser.add_argument("--from-mmpt", type=Path, metavar="DIR", help="convert the original's shards instead")
    parser.add_argument("--verify", action="store_true", help="read what is there and compare all checksums")
    options = parser.parse_args(arguments)
    if not options.verify and not options.from_mmpt and not (options.features and options.captions):
        parser.error("--features and --captions are needed (or --from-mmpt, or --verify)")
    for name in ("val", "videos_per_shard", "workers"):
        number = getattr(options, name)
        if number is not None and number < 1:
            parser.error(f"--{name.replace('_', '-')} is {number}, must be at least 1")
    return parser, options


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line and makes or verifies shards."""
    parser, options = parse(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        if options.verify:
            if problems := verify(options.out, options.workers):
                parser.exit(1, "\n".join([f"{parser.prog}: damaged:", *problems]) + "\n")
        else:
            options.out.mkdir(parents=True, exist_ok=True)
            make(options)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
