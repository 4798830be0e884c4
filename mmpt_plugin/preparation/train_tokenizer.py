"""Train a vocabulary on captions, where none can be downloaded or another language is spoken.

Writes a Hugging Face tokenizer folder, which prepare_captions.py takes as --bert: WordPiece as BERT's, or a
SentencePiece unigram model as XLM-R's. With --size the folder also gets a transformer with random weights, BERT or XLM-R,
and serves as model.bert.

Example:
    mmpt-tokenizer raw_caption.json --kind sentencepiece --pieces 32000 --out data/bert --size 12 768 12
    mmpt-captions raw_caption.json --bert data/bert --out data/howto100m/captions.jsonl
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmpt_plugin.preparation.workers import positive


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "captions", type=Path, nargs="+", metavar="FILE", help="caption files, or text files (.txt) with one a line"
    )
    parser.add_argument("--kind", choices=["wordpiece", "sentencepiece"], required=True)
    parser.add_argument(
        "--pieces", type=positive, default=30522, metavar="N", help="most pieces (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="made by this script")
    parser.add_argument("--keep-case", action="store_true", help="tell capital from small letters")
    parser.add_argument(
        "--captions-used", type=positive, default=2_000_000, metavar="N", help="the first N captions (%(default)s)"
    )
    parser.add_argument(
        "--size", type=positive, nargs=3, metavar=("LAYERS", "WIDTH", "HEADS"), help="also write a random transformer"
    )
    parser.add_argument("--seed", type=int, default=1, help="of its weights (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, prints what came out; returns the exit code."""
    parser = make_parser()
    options = vars(parser.parse_args(argv))
    from mmpt_plugin.preparation.vocabulary import train  # --help does not wait for it

    try:
        pieces = train(options.pop("captions"), options["out"], **{k: v for k, v in options.items() if k != "out"})
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: SentencePiece's own refusals
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(f"{options['out']}: {pieces} pieces")
    return 0
