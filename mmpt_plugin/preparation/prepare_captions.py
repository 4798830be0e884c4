"""Prepare captions: captions of any format in, word pieces to train on out.

Takes files and folders. The content tells the format: SRT, WebVTT (YouTube's rolling too), ASS, TTML, the JSON of
Whisper, faster-whisper, WhisperX and YouTube (json3), HowTo100M's raw_caption.json or zip, HowToCaption, CSV and TSV
(video,start,end,text). A file is of the video with its name: talk.en.vtt is of talk.mp4.

Takes away the words that rolling captions repeat, tokenizes with the model's tokenizer and splits long captions at word
boundaries. A run that was stopped goes on where it was. One that is complete is not repeated.

Examples:
    mmpt-captions raw_caption.json --bert bert-base-uncased --out data/howto100m/captions.jsonl
    mmpt-captions videos/ --language en --drop-marks --bert bert-base-uncased --out captions.jsonl
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from mmpt_plugin.data.workers import available_cores
from mmpt_plugin.extras import naming_extras
from mmpt_plugin.preparation.workers import positive


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path, nargs="+", metavar="PATH", help="caption files, or folders of them")
    parser.add_argument("--bert", required=True, help="folder or hub name of the model's tokenizer, as model.bert")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="prepared captions, JSON lines")
    parser.add_argument("--overwrite", action="store_true", help="replace a file made with other settings")

    which = parser.add_argument_group("which captions")
    which.add_argument(
        "--videos",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="videos, or folders of them: captions of others are left out",
    )
    which.add_argument(
        "--language", nargs="+", default=[], metavar="TAG", help="languages wanted, the best first: en takes en-US too"
    )
    which.add_argument(
        "--encoding", default="", metavar="NAME", help="of text that is not UTF-8 or UTF-16: cp1252, ..."
    )

    tidying = parser.add_argument_group("what is changed in them")
    tidying.add_argument("--shift", type=float, default=0.0, metavar="SECONDS", help="added to all times")
    tidying.add_argument(
        "--times", choices=["auto", "seconds", "milliseconds"], default="auto", help="auto recognises milliseconds"
    )
    tidying.add_argument("--drop-marks", action="store_true", help="take away [Music], (applause) and sung lines")
    tidying.add_argument("--drop-speakers", action="store_true", help="take away speakers' names: 'JOHN: '")
    tidying.add_argument(
        "--max-pieces", type=positive, default=32, metavar="N", help="captions above are split (default: %(default)s)"
    )
    tidying.add_argument(
        "--compat",
        action="store_true",
        help="the original's rule instead: overlaps by characters, decided by coin, captions cut",
    )
    tidying.add_argument("--seed", type=int, default=0, help="of the coin of --compat (default: %(default)s)")

    how = parser.add_argument_group("how it is run")
    how.add_argument(
        "--workers", type=positive, default=available_cores(), metavar="N", help="processes (default: %(default)s)"
    )
    how.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster; 'local' starts one of --workers here")
    how.add_argument(
        "--videos-per-part", type=positive, default=256, metavar="N", help="what a worker does at a time (%(default)s)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prepares captions, prints what was counted; returns the exit code."""
    parser = make_parser()
    options = parser.parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a core a worker
    began = time.monotonic()
    try:
        with naming_extras("prepare", parser.prog):
            from mmpt_plugin.captions import Tidying  # --help does not wait for them
            from mmpt_plugin.preparation.caption_run import Settings, prepare
        tidying = Tidying(options.times, options.shift, options.drop_marks, options.drop_speakers)
        settings = Settings(
            options.bert, options.max_pieces, options.compat, options.seed, tidying, options.videos_per_part
        )
        counts = prepare(
            options.captions,
            options.out,
            settings,
            videos=options.videos,
            languages=options.language,
            encoding=options.encoding,
            workers=options.workers,
            ray=options.ray,
            overwrite=options.overwrite,
        )
    except (OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    for name, number in counts.items():
        print(f"{name:>24} {number:>14,}")
    print(f"{options.out}, {time.monotonic() - began:.0f} s")
    return 0
