"""Trains vocabularies on captions: WordPiece as BERT's, or a SentencePiece unigram model as XLM-R's."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from mmpt_plugin.captions import Left, read_captions
from mmpt_plugin.files import read_text, whole_folder

WORDPIECE_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SENTENCEPIECE_SPECIAL = 5
"""Special tokens of XLM-R; SentencePiece's own count has three of them."""

MOST_CHARACTERS = 1000
"""Characters of a WordPiece vocabulary; words with rarer ones are unknown."""

LONGEST_TEXT = 512
"""Positions of the transformer, special tokens included."""


def read_texts(paths: Sequence[Path]) -> Iterator[str]:
    """All texts of caption files, and of text files (`.txt`) with one a line; blank ones are skipped.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is no caption file.
    """
    for path in paths:
        if path.suffix == ".txt":
            yield from (" ".join(line.split()) for line in read_text(path).split("\n") if line.strip())
        else:
            for entry in read_captions(path):
                texts = [] if isinstance(entry, Left) else entry.texts
                yield from (" ".join(text.split()) for text in texts if isinstance(text, str) and text.strip())


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
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=LONGEST_TEXT, trust_remote_code=False)
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
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
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


def train(
    captions: Sequence[Path],
    out: Path,
    *,
    kind: str,
    pieces: int,
    keep_case: bool = False,
    captions_used: int = 2_000_000,
    size: Sequence[int] | None = None,
    seed: int = 1,
) -> int:
    """Makes the folder; returns the number of pieces.

    Args:
        captions: files to learn from.
        out: the folder, which must not exist.
        kind: one of `TRAINERS`.
        pieces: most pieces.
        keep_case: tell capital from small letters.
        captions_used: the first ones.
        size: layers, width and heads of a random transformer to be added.
        seed: of its weights.

    Raises:
        FileNotFoundError, ValueError: captions are missing or hold no text, or the folder exists.
    """
    from transformers import AutoTokenizer

    if out.exists():
        raise ValueError(f"{out} exists: choose another --out, or remove it")
    texts = list(islice(read_texts(captions), captions_used))
    if not texts:
        raise ValueError(f"no text in {', '.join(map(str, captions))}")
    with whole_folder(out) as aside:
        TRAINERS[kind](texts, pieces, keep_case, aside)
        if size:
            write_transformer(aside, size, seed)
    return len(AutoTokenizer.from_pretrained(out))
