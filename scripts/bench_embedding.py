#!/usr/bin/env python3
"""Seconds in which the retrieval hook embeds every video's clips, once an epoch, at several numbers of videos.

Reading the clips and the forward passes, of BERT-base's size with random weights, 16 clips a video, on made-up shards with
HowTo100M's statistics. Repeats of the sizes take turns. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from functools import partial
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as bench_step.py: must be set before torch is loaded

import numpy as np
import torch
from bench_data import open_dataset, write_corpus
from bench_step import PRECISIONS, Machine, build_model, seconds
from hardware import hardware
from tqdm import tqdm

from mmpt_plugin.retrieval.refresh import embed_videos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--clips-per-video", type=int, default=16)
    parser.add_argument("--precision", choices=sorted(PRECISIONS), default="fp32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    args = parser.parse_args()
    machine = hardware(args.device)
    torch.set_num_threads(args.threads)
    model = build_model(Machine(args.device, args.threads, args.layers, args.width).config, args.device)
    times: dict[int, list[float]] = {size: [] for size in args.videos}
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder), max(args.videos), np.random.default_rng(0))
        dataset = open_dataset(Path(folder), "size", args.clips_per_video, 0)
        with torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.precision == "bf16"):
            embed = partial(embed_videos, model, dataset, 1)
            embed(videos=np.arange(min(args.videos)))  # warm-up
            for _ in tqdm(range(args.repeats), unit="repeat", disable=None):
                for size in args.videos:
                    times[size].append(seconds(partial(embed, videos=np.arange(size))))
    medians = {size: statistics.median(values) for size, values in times.items()}
    report = {
        "machine": machine,
        "threads": args.threads,
        "precision": args.precision,
        "layers": args.layers,
        "width": args.width,
        "clips_per_video": args.clips_per_video,
        "seconds": {size: [round(value, 3) for value in values] for size, values in times.items()},
        "seconds_per_video": {size: round(value / size, 4) for size, value in medians.items()},
        "pairs_per_second": {size: round(size * args.clips_per_video / value, 2) for size, value in medians.items()},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
