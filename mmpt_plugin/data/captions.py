"""Captions of text made into captions of word pieces, to train on. Pure functions.

What the original does instead, cuts included, is kept for comparison (`original_encode_captions`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, count
from typing import NamedTuple

from mmpt_plugin.captions.deduplication import with_rising_times
from mmpt_plugin.captions.transcript import TimedText

ORIGINAL_CHARACTERS = 96
"""The original cuts a caption's text here, in the middle of a word, before it makes word pieces."""

ORIGINAL_PIECES = 32
"""The original keeps so many word pieces of a caption."""

Tokenize = Callable[[list[str]], list[list[int]]]
"""Texts -> the word piece ids of each, without special tokens."""


class Caption(NamedTuple):
    """A caption as word pieces; times in seconds."""

    start: float
    end: float
    pieces: list[int]


def split_evenly(sizes: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """Splits a sequence of words into few runs of about equal size, none above the limit.

    Args:
        sizes: word pieces of each word.
        limit: word pieces that a run may have. A single word above it is a run of its own.

    Returns:
        (first, last + 1) word of each run.
    """
    total = sum(sizes)
    middles = [end - size / 2 for end, size in zip(accumulate(sizes), sizes)]
    for runs in count(max(1, -(-total // limit))):  # ends at `total` runs at the latest: each word is alone there
        run_of_word = [min(int(middle * runs / max(total, 1)), runs - 1) for middle in middles]
        edges = [i for i in range(1, len(sizes)) if run_of_word[i] != run_of_word[i - 1]]
        spans = list(zip([0, *edges], [*edges, len(sizes)]))
        if all(last - first == 1 or sum(sizes[first:last]) <= limit for first, last in spans):
            return spans
    raise AssertionError("unreachable")


def split_caption(caption: TimedText, sizes: Sequence[int], limit: int) -> list[TimedText]:
    """Splits a caption at word boundaries and its time in proportion to the word pieces.

    Args:
        caption: the caption.
        sizes: word pieces of each of its words.
        limit: see `split_evenly`.
    """
    words = caption.text.split()
    reached = [0, *accumulate(sizes)]

    def time_at(word: int) -> float:
        share = reached[word] / reached[-1]
        return caption.start * (1 - share) + caption.end * share  # exactly the ends at 0 and 1

    return [
        TimedText(time_at(first), time_at(last), " ".join(words[first:last]))
        for first, last in split_evenly(sizes, limit)
    ]


def encode_captions(
    videos: Sequence[Sequence[TimedText]], tokenize: Tokenize, max_pieces: int
) -> tuple[list[list[Caption]], Counter[str]]:
    """Makes word pieces of captions; splits those that have too many, drops those that have none.

    Args:
        videos: captions of each video; all are tokenized in one call.
        tokenize: the model's tokenizer.
        max_pieces: word pieces above which a caption is split at word boundaries; a single word above it stays whole.

    Returns:
        Captions of each video, times rounded to milliseconds, neither starts nor ends falling; and how many were split
        (`split`) or had no word pieces (`no_pieces`).
    """
    all_pieces = iter(tokenize([caption.text for captions in videos for caption in captions]))
    counts: Counter[str] = Counter()
    encoded = []
    for captions in videos:
        parts: list[TimedText] = []
        pieces_of_parts: list[list[int]] = []
        for caption in captions:
            split, split_pieces = [caption], [next(all_pieces)]
            if len(split_pieces[0]) > max_pieces:
                sizes = [len(word) for word in tokenize(caption.text.split())]
                split = split_caption(caption, sizes, max_pieces)
                split_pieces = tokenize([part.text for part in split])
                counts["split"] += len(split) > 1
            for part, pieces in zip(split, split_pieces):
                if pieces:
                    parts.append(part)
                    pieces_of_parts.append(pieces)
                else:
                    counts["no_pieces"] += 1
        encoded.append(
            [
                Caption(round(part.start, 3), round(part.end, 3), pieces)
                for part, pieces in zip(with_rising_times(parts), pieces_of_parts)
            ]
        )
    return encoded, +counts


def vocabulary_sha256(vocabulary: Mapping[str, int]) -> str:
    """A name for a vocabulary, word pieces and their ids, that no other has."""
    return hashlib.sha256(json.dumps(sorted(vocabulary.items())).encode()).hexdigest()


def original_encode_captions(videos: Sequence[Sequence[TimedText]], tokenize: Tokenize) -> list[list[Caption]]:
    """Word pieces with the original's cuts: 96 characters before, 32 word pieces after the tokenizer.

    Args:
        videos: captions of each video.
        tokenize: the model's tokenizer.
    """
    all_pieces = iter(tokenize([caption.text[:ORIGINAL_CHARACTERS] for captions in videos for caption in captions]))
    return [
        [Caption(start, end, next(all_pieces)[:ORIGINAL_PIECES]) for start, end, _ in captions] for captions in videos
    ]
