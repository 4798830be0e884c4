#!/usr/bin/env python3
"""Train a vocabulary on captions, where none can be downloaded or another language is spoken.

Writes a Hugging Face tokenizer folder, which scripts/prepare_captions.py takes as --bert: WordPiece as BERT's, or a
SentencePiece unigram model as XLM-R's. With --size the folder also gets a transformer with random weights, BERT or XLM-R,
and serves as model.bert.

Example:
    python scripts/train_tokenizer.py raw_caption.json --kind sentencepiece --pieces 32000 --out data/bert --size 12 768 12
    python scripts/prepare_captions.py raw_caption.json --bert data/bert --out data/howto100m/captions.jsonl
"""

from __future__ import annotations

import argparse
import io
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from mmpt_plugin.data.caption_files import read_raw_captions

WORDPIECE_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SENTENCEPIECE_SPECIAL = 5
"""Special tokens of XLM-R; SentencePiece's own count has three of them."""

MOST_CHARACTERS = 1000
"""Characters of a WordPiece vocabulary; words with rarer ones are unknown."""

LONGEST_TEXT = 512
"""Positions of the transformer, special tokens included."""


def read_texts(paths: Sequence[Path]) -> Iterator[str]:
    """All texts of raw_caption.json files (`.json`) and of text files with one a line; blank ones are skipped.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a `.json` file is not one of raw captions.
    """
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: missing. Give a raw_caption.json, or text files with one caption a line.")
        if path.suffix == ".json":
            with path.open("rb") as file:
                for _, record in read_raw_captions(file):
                    texts = record.get("text") if isinstance(record, dict) else None
                    for text in texts if isinstance(texts, list) else []:
                        if isinstance(text, str) and text.strip():
                            yield " ".join(text.split())
        else:
            with path.open(encoding="utf-8") as lines:
                yield from (" ".join(line.split()) for line in lines if line.strip())


def train_wordpiece(texts: list[str], pieces: int, keep_case: bool, folder: Path) -> None:
    """A vocabulary like BERT's, special tokens and characters first."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizer

    trainer = BertWordPieceTokenizer(lowercase=not keep_case)
    counts = Counter(char for text in texts for char in trainer.normalizer.normalize_str(text) if not char.isspace())
    alphabet = sorted(sorted(counts, key=lambda char: (-counts[char], char))[:MOST_CHARACTERS])
    inner = [f"##{char}" for char in alphabet]
    trainer.train_from_iterator(
        texts,
        vocab_size=pieces,
        initial_alphabet=alphabet,
        limit_alphabet=MOST_CHARACTERS,
        special_tokens=[*WORDPIECE_SPECIAL, *inner],  # else a hash table's order numbers `inner`, and so decides ties
        show_progress=False,
    )
    trainer.save_model(str(folder))
    tokenizer = BertTokenizer(
        vocab=str(folder / "vocab.txt"), do_lower_case=not keep_case, model_max_length=LONGEST_TEXT
    )
    tokenizer.save_pretrained(folder)


def train_sentencepiece(texts: list[str], pieces: int, keep_case: bool, folder: Path) -> None:
    """A unigram model over unsplit text, for languages with and without blanks between words; laid out like XLM-R's.

    Kudo 2018, https://arxiv.org/abs/1804.10959.
    """
    from sentencepiece import SentencePieceTrainer
    from transformers import AutoTokenizer, XLMRobertaConfig

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="unigram",
        vocab_size=pieces - SENTENCEPIECE_SPECIAL + 3,
        hard_vocab_limit=False,  # few captions give fewer pieces
        normalization_rule_name="nmt_nfkc" if keep_case else "nmt_nfkc_cf",
        minloglevel=1,
    )
    (folder / "sentencepiece.bpe.model").write_bytes(model.getvalue())  # XLM-R's name for it
    XLMRobertaConfig().save_pretrained(folder)  # tells transformers whose layout it is
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=LONGEST_TEXT)
    (folder / "config.json").unlink()
    tokenizer.save_pretrained(folder)


TRAINERS = {"wordpiece": train_wordpiece, "sentencepiece": train_sentencepiece}


def write_transformer(folder: Path, size: Sequence[int], seed: int) -> None:
    """A transformer with random weights for the folder's tokenizer.

    Raises:
        ValueError: the width is not divisible by the heads.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer, BertConfig, XLMRobertaConfig

    layers, width, heads = size
    if width % heads:
        raise ValueError(f"--size: a width of {width} is not divisible by {heads} heads")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    is_wordpiece = (folder / "vocab.txt").is_file()
    positions = LONGEST_TEXT if is_wordpiece else LONGEST_TEXT + tokenizer.pad_token_id + 1  # XLM-R's follow padding's
    config = (BertConfig if is_wordpiece else XLMRobertaConfig)(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=positions,
        type_vocab_size=2 if is_wordpiece else 1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(seed)
    AutoModel.from_config(config, add_pooling_layer=False).save_pretrained(folder)


def train(options: argparse.Namespace) -> int:
    """Makes the folder; returns the number of pieces.

    Raises:
        FileNotFoundError, ValueError: captions are missing or hold no text, or the folder exists.
    """
    from transformers import AutoTokenizer

    if options.out.exists():
        raise ValueError(f"{options.out} exists: choose another --out, or remove it")
    texts = list(islice(read_texts(options.captions), options.captions_used))
    if not texts:
        raise ValueError(f"no text in {', '.join(map(str, options.captions))}")
    aside = options.out.absolute().with_name(f".{options.out.name}.{uuid.uuid4().hex}.partial")
    aside.mkdir(parents=True)
    try:
        TRAINERS[options.kind](texts, options.pieces, options.keep_case, aside)
        if options.size:
            write_transformer(aside, options.size, options.seed)
        aside.rename(options.out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return len(AutoTokenizer.from_pretrained(options.out))


def parse(arguments: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "captions", type=Path, nargs="+", metavar="FILE", help="raw_caption.json, or text files with one caption a line"
    )
    parser.add_argument("--kind", choices=TRAINERS, required=True)
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
    return parser, parser.parse_args(arguments)


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line, trains, prints what came out."""
    parser, options = parse(arguments)
    try:
        pieces = train(options)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: SentencePiece's own refusals
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(f"{options.out}: {pieces} pieces")


if __name__ == "__main__":
    main()
