"""Makes planned shards with their lists and statistics, and verifies what was made."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmpt_plugin.data.corpus import VideoTextCorpus, open_shards, read_video_list
from mmpt_plugin.data.shard_writer import ShardWriter
from mmpt_plugin.data.shards import Shard, read_shard
from mmpt_plugin.features.manifest import RATE, UNSTATED
from mmpt_plugin.files import clear_left_overs, write_whole
from mmpt_plugin.preparation.shard_plan import LISTS, Plan, PlannedShard
from mmpt_plugin.preparation.workers import run_in_workers

logger = logging.getLogger(__name__)

PAPER = {"minutes a video": 6.5, "captions a video": 110, "pieces a second": 2.4}
"""HowTo100M's as prepared for the paper (arXiv:2109.14084, section 5.1)."""

Sums = Counter[str]
"""Of a shard or a split: `videos`, `seconds`, `captions`, `pieces`, `covered_ms` of the time, captions `beyond` it,
and videos of which most are: `other_length`."""


def make_shard(planned: PlannedShard) -> Sums:
    """Writes a shard unless it is there; returns its statistics.

    Raises:
        ValueError: another shard of that name is there, a video's values are not finite, or most captions lie beyond
            their videos.
    """
    target = planned.folder / planned.name
    if not target.exists():
        try:
            with ShardWriter(
                planned.folder, planned.name, source=planned.source, feature_size=planned.feature_size
            ) as writer:
                captions = beyond = 0
                for video in planned.read():
                    writer.add(*video)
                    captions += len(video.caption_times)
                    beyond += captions_beyond(video.caption_times, seconds_of(len(video.features), planned.source))
                if 2 * beyond > captions:
                    raise ValueError(
                        f"shard {planned.name}: {beyond} of {captions} captions start after their video's features end: "
                        "are times in seconds? prepare_captions.py takes --times milliseconds."
                    )
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
        seconds = seconds_of(len(shard.features[video]), shard.source)
        times = shard.caption_times[video]
        statistics["seconds"] += seconds
        statistics["captions"] += len(times)
        beyond = captions_beyond(times, seconds)
        statistics["beyond"] += beyond
        statistics["other_length"] += 2 * beyond > len(times)
        statistics["pieces"] += int(shard.piece_counts(video).sum())
        statistics["covered_ms"] += round(1000 * covered_seconds(times, seconds))
    return statistics


def seconds_of(rows: int, source: Mapping[str, Any]) -> int:
    """Length of a video by its rows of features, of which the shard's source may state several a second."""
    features = source.get("features")
    return -(-rows // (features.get(RATE, UNSTATED[RATE]) if isinstance(features, Mapping) else 1))


def captions_beyond(times: np.ndarray, seconds: int) -> int:
    """How many captions start after a video's features end; the first second after them is forgiven.

    Args:
        times: (captions, 2) start and end in seconds.
        seconds: the video's length.
    """
    return int((np.asarray(times)[:, 0] >= seconds + 1).sum())


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
        for planned, own in run_in_workers(make_shard, plan.shards, workers, "Finished shards are kept."):
            statistics[planned.split].update(own)
            bar.update(len(planned.video_ids))
    return statistics


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
    with write_whole(path, text=True) as file:
        file.write(text)


def write_list(path: Path, video_ids: Iterable[str]) -> None:
    """Writes ids, one a line."""
    write_text(path, "".join(f"{video_id}\n" for video_id in video_ids))


def make(plan: Plan, out: Path, workers: int) -> dict[str, dict[str, float]]:
    """Makes shards, lists and statistics; returns the statistics.

    Args:
        plan: what to make.
        out: where lists and statistics go.
        workers: processes.
    """
    check_neighbours(plan)
    for folder in (out, plan.shards[0].folder):
        if removed := clear_left_overs(folder):
            logger.warning("%s: removed %d unfinished files or shards of runs that died", folder, len(removed))
    write_list(out / "missing_features.txt", plan.missing_features)
    write_list(out / "missing_captions.txt", plan.missing_captions)
    statistics = make_all(plan, workers)
    summary = summarize(statistics)
    write_text(out / "statistics.json", json.dumps(summary, indent=1) + "\n")
    for split, name in LISTS.items():  # last: who sees a list sees all of its shards
        write_list(out / name, plan.splits[split])
    for split, sums in statistics.items():
        if sums["beyond"]:
            logger.warning(
                "%s: %d of %d captions start after their video's features end, in %d videos most: are they of other videos?",
                *(split, sums["beyond"], sums["captions"], sums["other_length"]),
            )
    return summary


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
            "captions beyond": sums["beyond"],
        }
    return {**summary, "paper": PAPER}


def verify(out: Path, workers: int) -> tuple[list[Shard], list[str]]:
    """Reads all shards again and compares their checksums; compares the lists with the shards.

    Args:
        out: holds shards/, train.txt and val.txt.
        workers: files read at a time.

    Returns:
        The shards; and what is wrong, nothing if all is well.

    Raises:
        FileNotFoundError, ValueError: there are no shards, or they do not open.
    """
    shards = open_shards(out / "shards", "size")

    def check(shard: Shard) -> str | None:
        try:
            shard.verify()
        except ValueError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(workers) as threads:  # hashing leaves the interpreter free
        results = tqdm(threads.map(check, shards), total=len(shards), desc="verifying", unit="shard")
        problems = [problem for problem in results if problem]
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
    return shards, problems
