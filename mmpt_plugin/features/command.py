"""Videos to features: OUT/<video id>.npy, float16 (seconds, size), one L2-normalised row a second.

    mmpt-extract --videos videos/ --out features/ --checkpoint s3d_howto100m.pth

Can be broken off and started again (what is done is skipped), and started several times at once on one folder, on one
machine or on several that share it. OUT/manifest.json states the settings, OUT/videos.jsonl has one line for each
output, OUT/failures.tsv lists the videos that gave none, with the reason; they are tried again by the next run.

Exit code: 0 all videos have features, 1 some failed, 2 the run could not start or go on because of a wrong argument, a
wrong file or the folder of features (full, without locks), 3 none failed, but other runs on the same folder were still
at work.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mmpt_plugin.extras import naming_extras

if TYPE_CHECKING:
    from mmpt_plugin.features.extract import Summary

logger = logging.getLogger("extract_features")

LARGEST_BATCH = 8 << 30  #: bytes of a batch of frames in float32


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--videos", type=Path, required=True, metavar="DIR", help="videos, in subfolders and linked folders too"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of features, created if needed")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights of s3d: s3d_howto100m.pth")
    parser.add_argument(
        "--network", default="s3d", help="s3d (default), s3d:FILE, or hf:FOLDER for a transformers image model"
    )
    parser.add_argument(
        "--precision", choices=("bf16", "fp16", "fp32"), default="fp32", help="arithmetic of the network (default fp32)"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile s3d first: about a minute at the first start, then some 7%% faster; needs a C++ compiler",
    )
    parser.add_argument(
        "--device",
        default="cpu",
        help="cpu (default), cuda, cuda:1..., or auto: cuda where this machine has a GPU. "
        "With cuda, several workers share out the GPUs",
    )
    parser.add_argument(
        "--batch-seconds",
        type=whole_number(1, 1024),
        metavar="N",
        help="seconds of video in one batch (default: 32 on a GPU; on a CPU 2, with bf16 4)",
    )
    parser.add_argument(
        "--fps",
        type=whole_number(1, 240),
        default=30,
        metavar="N",
        help="frames per second the network sees (default 30)",
    )
    parser.add_argument(
        "--features-per-second",
        type=whole_number(1, 64),
        default=1,
        metavar="N",
        help="rows for each second, of as many frames each; model.features_per_second of the models to come (default 1)",
    )
    parser.add_argument(
        "--frame-size", type=whole_number(16, 2048), default=224, metavar="PIXELS", help="side of a frame (default 224)"
    )
    parser.add_argument(
        "--keep-suffix", action="store_true", help="a.avi becomes a.avi.npy, not a.npy (DiDeMo's ids have the suffix)"
    )
    workers = parser.add_mutually_exclusive_group()
    workers.add_argument(
        "--workers", type=whole_number(1, 512), metavar="N", help="worker processes (default: none, all in this one)"
    )
    workers.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster; 'local' starts one here")
    parser.add_argument(
        "--ray-workers",
        type=whole_number(1, 512),
        metavar="N",
        help="workers of --ray local (default: one for each core)",
    )
    parser.add_argument(
        "--threads",
        type=whole_number(1, 1024),
        metavar="N",
        help="of the network in each worker (default: cores that this process may use / workers)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    args = parse_arguments(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr, force=True
    )
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages for activations: read when torch is loaded
    try:
        with naming_extras("prepare", "mmpt-extract"):
            count, summary = _extract(args)
    except OSError as error:
        # A single video's errors never come here: what is left is a file that was named, or the folder of features.
        if isinstance(error, FileNotFoundError) and error.errno is None:
            logger.error("%s", error)
        else:
            where = f" ({error.filename})" if error.filename else ""
            logger.error("--out %s: %s%s", args.out, error.strerror or error, where)
        return 2
    except ValueError as error:
        logger.error("%s", error)
        return 2
    print(
        f"{count} videos: {summary.done_before} done before, {summary.extracted} extracted now "
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


def _extract(args: argparse.Namespace) -> tuple[int, Summary]:
    """Number of videos, and what became of them."""
    # Imported here, so that --help need not wait for torch.
    from mmpt_plugin.data.workers import available_cores
    from mmpt_plugin.features.extract import Job, Runner, run
    from mmpt_plugin.features.folder import find_videos
    from mmpt_plugin.features.networks import NetworkConfig
    from mmpt_plugin.features.runners import InProcesses, OnRay, in_this_process

    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out {args.out} is a file; a folder is needed, and is created where there is none")
    device = checked_device(args.device, args.ray)
    cores = available_cores()
    runner: Runner = in_this_process
    workers = 1
    if args.workers:
        workers = args.workers
        runner = InProcesses(workers)
    elif args.ray:
        workers = args.ray_workers or cores
        runner = OnRay(args.ray, workers)
    on_gpu = device.startswith("cuda")
    batch_seconds = args.batch_seconds or (32 if on_gpu else 4 if args.precision == "bf16" else 2)
    batch_bytes = batch_seconds * args.fps * args.frame_size**2 * 3 * 4
    if batch_bytes > LARGEST_BATCH:
        raise ValueError(
            f"--batch-seconds {batch_seconds}, --fps {args.fps} and --frame-size {args.frame_size} make batches of "
            f"{batch_bytes / 2**30:.0f} GiB of frames; at most {LARGEST_BATCH >> 30} GiB are allowed: lower one of them"
        )
    if args.fps % args.features_per_second:
        raise ValueError(
            f"--features-per-second {args.features_per_second} cannot share --fps {args.fps} evenly: set --fps to a multiple"
        )
    # Absolute paths: workers may have another working directory.
    name, _, place = args.network.partition(":")
    network = f"{name}:{Path(place).resolve()}" if place and Path(place).exists() else args.network
    checkpoint = args.checkpoint and args.checkpoint.resolve()
    job = Job(
        out=args.out.resolve(),
        network=NetworkConfig(network, checkpoint, args.precision, args.compile, device),
        fps=args.fps,
        frame_size=args.frame_size,
        features_per_second=args.features_per_second,
        batch_seconds=batch_seconds,
        torch_threads=args.threads or max(1, cores // workers),
        decode_threads=0 if on_gpu else 1,  # beside a network on the same cores, more would only get in its way
    )
    found = find_videos(args.videos.resolve(), args.keep_suffix)
    return len(found.videos) + len(found.unusable), run(job, found.videos, runner, found.unusable)


def checked_device(device: str, ray_address: str | None = None) -> str:
    """The device that `--device` means.

    Raises:
        ValueError: if it is unknown or is not there. What the nodes of a Ray cluster elsewhere have is not known here.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if gpus else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not (kind == "cuda" and number.isdecimal())):
        raise ValueError(f"--device {device}: unknown; allowed: cpu, cuda, cuda:0, cuda:1..., auto")
    if number and ray_address:
        raise ValueError(f"--device {device}: Ray picks the GPU of each task itself; give --device cuda")
    if kind == "cuda" and ray_address in (None, "local") and int(number or 0) >= gpus:
        raise ValueError(f"--device {device}: torch sees {gpus} GPUs on this machine; use cpu or auto")
    return device


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """A type of arguments: whole numbers within bounds."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = lowest - 1
        if not lowest <= number <= highest:
            raise argparse.ArgumentTypeError(f"{text}: a whole number from {lowest} to {highest} is needed")
        return number

    return parse


if __name__ == "__main__":
    sys.exit(main())
