#!/usr/bin/env python3
"""Clips per CPU-second of the pre-training data path, against a naive loader; prints JSON.

    bench_data.py                      on 256 made-up videos with HowTo100M's statistics, written to a temporary folder
    bench_data.py --data DIR           on shards of your own, MMPT's format or ours

Ours draws and packs all clips of 32 videos x 16 at once from memory-mapped shards. The naive loader does what is usual
and what the original does: six files opened a video, a Python loop over its clips, everything padded to the longest
allowed. Both end in a batch ready for the model. Repeats of the two take turns. Before these, a few groups are read with
the system's cache emptied of the shards (`from_disk`; null where they lie in memory anyway).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from hardware import hardware
from tqdm import tqdm

from mmpt_plugin.data.clips import sample_overlapped_clips
from mmpt_plugin.data.corpus import VideoTextCorpus, open_shards
from mmpt_plugin.data.groups import RandomGroups
from mmpt_plugin.data.pairs import SpecialTokens
from mmpt_plugin.data.pretraining_dataset import ClipSettings, PretrainingDataset
from mmpt_plugin.data.shard_writer import ShardWriter

CLS, SEP, PAD = 101, 102, 0
MAX_SECONDS, MAX_TOKENS = 32, 64


def write_corpus(folder: Path, videos: int, rng: np.random.Generator) -> None:
    """Random shards: videos of about 390 s with 110 captions of 2 to 15 word pieces, fp16 features of 512."""
    for first in tqdm(range(0, videos, 256), unit="shard", disable=None):
        with ShardWriter(folder, f"train_{first // 256:05}", source={"network": "random"}) as writer:
            for video in range(first, min(first + 256, videos)):
                seconds = int(np.clip(rng.lognormal(5.8, 0.5), 30, 1500))
                starts = np.sort(rng.uniform(0, seconds, max(1, int(seconds / 3.5))))
                times = np.stack([starts, np.minimum(starts + rng.uniform(1, 5, len(starts)), seconds + 3)], axis=1)
                tokens = [rng.integers(1000, 30000, length) for length in rng.integers(2, 16, len(starts))]
                writer.add(f"video{video:06}", rng.standard_normal((seconds, 512), np.float32), times, tokens)


def write_naive_files(folder: Path, corpus: VideoTextCorpus) -> None:
    """The corpus as the naive loader wants it: six arrays a video."""
    for video in range(len(corpus)):
        times, token_counts = corpus.captions(video)
        arrays = {
            "features": corpus.features(video),
            "starts": times[:, 0],
            "ends": times[:, 1],
            "counts": token_counts,
            "tokens": corpus.text(video, 0, len(times)),
            "offsets": np.concatenate([[0], np.cumsum(token_counts)]),
        }
        for name, values in arrays.items():
            np.save(folder / f"{video}.{name}.npy", values)


def naive_groups(folder: Path, groups: list[np.ndarray], clips_per_video: int, rng: np.random.Generator) -> list[dict]:
    """A batch of each group, file by file and clip by clip."""
    return [naive_group(folder, videos, clips_per_video, rng) for videos in groups]


def naive_group(folder: Path, videos: np.ndarray, clips_per_video: int, rng: np.random.Generator) -> dict:
    """A batch of one group."""
    pairs = []
    for video in videos:
        names = ("features", "starts", "ends", "counts", "tokens", "offsets")
        arrays = {name: np.load(folder / f"{video}.{name}.npy", mmap_mode="r") for name in names}
        captions = (arrays["starts"], arrays["ends"], arrays["counts"], len(arrays["features"]))
        for _ in range(clips_per_video):
            video_start, video_end, first, stop = sample_overlapped_clips(*captions, 1, rng)[0].tolist()
            video_features = torch.zeros(MAX_SECONDS, arrays["features"].shape[1])
            rows = torch.from_numpy(np.array(arrays["features"][video_start:video_end][:MAX_SECONDS], np.float32))
            video_features[: len(rows)] = rows
            tokens = arrays["tokens"][arrays["offsets"][first] : arrays["offsets"][stop]][: MAX_TOKENS - 3]
            text_ids = torch.full((MAX_TOKENS,), PAD)
            text_ids[: len(tokens) + 2] = torch.tensor([CLS, *tokens.tolist(), SEP])
            pairs.append(
                {
                    "video_features": video_features,
                    "video_mask": torch.arange(MAX_SECONDS) < len(rows),
                    "text_ids": text_ids,
                    "text_mask": torch.arange(MAX_TOKENS) < len(tokens) + 2,
                }
            )
    return {name: torch.stack([pair[name] for pair in pairs]) for name in pairs[0]}


def read_from_disk(shards: Path, groups: int, videos_per_batch: int, clips_per_video: int, seed: int) -> dict | None:
    """Groups of files that are not in the system's cache: clips a second of wall time, and what was read for them.

    To be called before anything else has mapped the files, whose pages could not be dropped then.
    """
    for path in shards.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    dataset = open_dataset(shards, "size", clips_per_video, seed)
    drawn = list(RandomGroups(len(dataset.corpus), videos_per_batch, seed).groups(1))[:groups]
    dataset.set_groups(1, drawn)
    before, started = disk_bytes(), time.perf_counter()
    feature_bytes = sum(group["net_input"]["video_features"].nbytes for group in dataset)
    elapsed, read = time.perf_counter() - started, disk_bytes() - before
    if not read:
        return None
    return {
        "clips_per_second": round(len(drawn) * videos_per_batch * clips_per_video / elapsed),
        "MiB_read": round(read / 2**20),
        "MiB_of_features": round(feature_bytes / 2**20),
    }


def disk_bytes() -> int:
    """Read from disks by this process so far."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["read_bytes"])


def open_dataset(shards: Path, verify: str, clips_per_video: int, seed: int) -> PretrainingDataset:
    """The training videos of a folder of shards."""
    opened = [shard for shard in open_shards(shards, verify) if "train" in shard.name]
    corpus = VideoTextCorpus(opened, [video_id for shard in opened for video_id in shard.video_ids])
    return PretrainingDataset(corpus, ClipSettings(clips_per_video=clips_per_video), SpecialTokens(CLS, SEP), seed)


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of shards; default: made up")
    parser.add_argument("--videos", type=int, default=256, help="made-up videos")
    parser.add_argument("--videos-per-batch", type=int, default=32)
    parser.add_argument("--clips-per-video", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--groups-from-disk", type=int, default=8, help="read with an empty cache, before all else")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    machine = hardware()
    torch.set_num_threads(1)
    clips_per_group = args.videos_per_batch * args.clips_per_video
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        shards, naive = args.data or Path(temporary) / "shards", Path(temporary) / "naive"
        naive.mkdir()
        if args.data is None:
            write_corpus(shards, args.videos, rng)
        from_disk = read_from_disk(
            shards, args.groups_from_disk, args.videos_per_batch, args.clips_per_video, args.seed
        )
        dataset = open_dataset(shards, "auto", args.clips_per_video, args.seed)
        corpus = dataset.corpus
        write_naive_files(naive, corpus)
        groups = RandomGroups(len(corpus), args.videos_per_batch, args.seed)
        times: dict[str, list[float]] = {"ours": [], "naive": []}
        for repeat in tqdm(range(args.repeats + 1), unit="repeat", disable=None):
            drawn = list(groups.groups(repeat + 1))
            dataset.set_groups(repeat + 1, drawn)
            spent = {
                "ours": cpu_seconds(lambda: [dataset.collater([group]) for group in dataset]),
                "naive": cpu_seconds(partial(naive_groups, naive, drawn, args.clips_per_video, rng)),
            }
            for name, seconds in spent.items():
                if repeat:  # the first is warm-up
                    times[name].append(clips_per_group * len(drawn) / seconds)
    rates = {
        name: {"median": round(statistics.median(v)), "min": round(min(v)), "max": round(max(v))}
        for name, v in times.items()
    }
    report = {
        "clips_per_cpu_second": rates,
        "ours_over_naive": round(rates["ours"]["median"] / rates["naive"]["median"], 1),
        "from_disk": from_disk,
        "videos": len(corpus),
        "clips_per_batch": clips_per_group,
        "repeats": args.repeats,
        "peak_resident_MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "machine": machine,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
