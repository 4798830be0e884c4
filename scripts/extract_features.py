#!/usr/bin/env python
"""Videos to features: <out>/<video id>.npy, float16 (seconds, size), one L2-normalised row a second.

    python scripts/extract_features.py --videos videos/ --out features/ --checkpoint s3d_howto100m.pth

Can be broken off and started again (what is done is skipped), and started several times at once on one folder, on one
machine or on several that share it. <out>/manifest.json states the settings, <out>/videos.jsonl has one line for each
output, <out>/failures.tsv lists the videos that gave none, with the reason; they are tried again by the next run.

Exit code: 0 all videos have features, 1 some failed, 2 nothing was started because of a wrong argument or file,
3 none failed, but other runs on the same folder were still at work.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages for activations: must be set before torch is loaded

from mmpt_plugin.features.extract import InProcesses, Job, OnRay, Runner, find_videos, in_this_process, run
from mmpt_plugin.features.networks import PRECISIONS, NetworkConfig

logger = logging.getLogger("extract_features")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, metavar="DIR", help="videos, in subfolders too")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of features, created if needed")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights of s3d: s3d_howto100m.pth")
    parser.add_argument("--network", default="s3d", help="s3d (default), or hf:FOLDER for a transformers vision model")
    parser.add_argument(
        "--precision", choices=sorted(PRECISIONS), default="fp32", help="arithmetic of the network (default fp32)"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile s3d first: about a minute at the first start, then some 7%% faster; needs a C++ compiler",
    )
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1...")
    parser.add_argument(
        "--batch-seconds", type=int, metavar="N", help="seconds in one batch (cuda: 32, cpu: 2, with bf16 4)"
    )
    parser.add_argument("--fps", type=int, default=30, help="frames per second the network sees (default 30)")
    parser.add_argument("--frame-size", type=int, default=224, metavar="PIXELS", help="side of a frame (default 224)")
    parser.add_argument(
        "--keep-suffix", action="store_true", help="a.avi becomes a.avi.npy, not a.npy (DiDeMo's ids have the suffix)"
    )
    workers = parser.add_mutually_exclusive_group()
    workers.add_argument("--workers", type=int, metavar="N", help="worker processes (default: none, all in this one)")
    workers.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster; 'local' starts one here")
    parser.add_argument(
        "--ray-workers", type=int, metavar="N", help="workers of --ray local (default: one for each core)"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of the network in each worker (default: cores / workers)"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs the script and returns its exit code."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr, force=True
    )
    args = parse_arguments(arguments)
    cores = len(os.sched_getaffinity(0))
    runner: Runner = in_this_process
    workers = 1
    if args.workers:
        workers = args.workers
        runner = InProcesses(workers)
    elif args.ray:
        workers = args.ray_workers or cores
        runner = OnRay(args.ray, workers)
    on_gpu = args.device.startswith("cuda")
    # Absolute paths: workers may have another working directory.
    name, _, folder = args.network.partition(":")
    network = f"{name}:{Path(folder).resolve()}" if Path(folder).is_dir() and folder else args.network
    checkpoint = args.checkpoint and args.checkpoint.resolve()
    job = Job(
        out=args.out.resolve(),
        network=NetworkConfig(network, checkpoint, args.precision, args.compile, args.device),
        fps=args.fps,
        frame_size=args.frame_size,
        batch_seconds=args.batch_seconds or (32 if on_gpu else 4 if args.precision == "bf16" else 2),
        torch_threads=args.threads or max(1, cores // workers),
        decode_threads=0 if on_gpu else 1,  # beside a network on the same cores, more would only get in its way
    )
    try:
        videos = find_videos(args.videos.resolve(), args.keep_suffix)
        summary = run(job, videos, runner)
    except (ValueError, FileNotFoundError) as error:
        logger.error("%s", error)
        return 2
    print(
        f"{len(videos)} videos: {summary.done_before} done before, {summary.extracted} extracted now "
        f"({summary.seconds} s of video), {len(summary.failures)} failed, {len(summary.warnings)} with warnings, "
        f"{len(summary.held_by_others)} held by other runs, {len(summary.not_reached)} not reached"
    )
    if summary.failures:
        print(f"see {args.out / 'failures.tsv'} for the reasons")
    if summary.not_reached:
        print("all workers died before the end: see the log, then start again")
    if summary.failures or summary.not_reached:
        return 1
    return 3 if summary.held_by_others else 0


if __name__ == "__main__":
    sys.exit(main())
