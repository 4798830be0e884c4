"""Make shards: features and prepared captions in, what pre-training reads out.

Writes OUT/shards/<name>/, OUT/train.txt and OUT/val.txt, OUT/missing_features.txt and OUT/missing_captions.txt (videos
that lack one side) and OUT/statistics.json. A shard appears whole, by a rename. A run that was stopped goes on where it
was. Runs side by side keep each other's shards.

Examples:
    mmpt-shards --features features/ --captions captions.jsonl --out data/howto100m --val 4000
    mmpt-shards --from-mmpt feat_how2_s3d_shard_small/ --out data/howto100m
    mmpt-shards --verify --out data/howto100m
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmpt_plugin.data.workers import available_cores
from mmpt_plugin.preparation.workers import positive


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="howto100m/ of the data folder")
    parser.add_argument("--features", type=Path, metavar="DIR", help="folder of <video id>.npy")
    parser.add_argument("--captions", type=Path, metavar="FILE", help="what prepare_captions.py made")
    parser.add_argument(
        "--drop-suffix", action="store_true", help="features are named <video id>.mp4.npy (or .webm, .mkv, ...)"
    )
    validation = parser.add_mutually_exclusive_group()
    validation.add_argument("--val", type=positive, metavar="N", help="videos for validation (default: one in 300)")
    validation.add_argument("--val-list", type=Path, metavar="FILE", help="their ids instead, one a line")
    parser.add_argument(
        "--videos-per-shard", type=positive, default=4096, metavar="N", help="default: %(default)s, as the original's"
    )
    parser.add_argument(
        "--workers", type=positive, default=available_cores(), metavar="N", help="processes (default: %(default)s)"
    )
    parser.add_argument("--from-mmpt", type=Path, metavar="DIR", help="convert the original's shards instead")
    parser.add_argument("--verify", action="store_true", help="read what is there and compare all checksums")
    return parser


def print_summary(summary: Mapping[str, Mapping[str, float]]) -> None:
    """The statistics as a table."""
    print(f"{'':18}" + "".join(f"{column:>12}" for column in summary))
    for row in summary["train"]:
        cells = (summary[column].get(row, "") for column in summary)
        print(f"{row:18}" + "".join(f"{cell:>12}" for cell in cells))


def main(argv: Sequence[str] | None = None) -> int:
    """Makes or verifies shards; returns the exit code."""
    parser = make_parser()
    options = parser.parse_args(argv)
    if not options.verify and not options.from_mmpt and not (options.features and options.captions):
        parser.error("--features and --captions are needed (or --from-mmpt, or --verify)")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    from mmpt_plugin.preparation import shard_plan, shard_run  # --help does not wait for them

    try:
        if options.verify:
            shards, problems = shard_run.verify(options.out, options.workers)
            size = sum(shard.nbytes for shard in shards) / 2**30
            print(f"{len(shards)} shards, {size:.2f} GiB, {len(problems)} problems")
            if problems:
                parser.exit(1, "\n".join([f"{parser.prog}: damaged:", *problems]) + "\n")
            return 0
        options.out.mkdir(parents=True, exist_ok=True)
        if options.from_mmpt:
            plan = shard_plan.plan_from_mmpt(options.from_mmpt, options.out)
        else:
            plan = shard_plan.plan_from_captions(
                options.features,
                options.captions,
                options.out,
                val=options.val,
                val_list=options.val_list,
                videos_per_shard=options.videos_per_shard,
                drop_suffix=options.drop_suffix,
            )
        print(
            f"{len(plan.missing_features)} videos lack features, {len(plan.missing_captions)} captions: see "
            f"{options.out}"
        )
        print_summary(shard_run.make(plan, options.out, options.workers))
    except (OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    return 0
