"""Captions as a speech recogniser writes them, made into captions to train on. Pure functions.

HowTo100M's captions roll: a line repeats the end of the one before it, as subtitles do on the screen. Here repeated words
are found by words (`deduplicate`); what the original does instead, cuts included, is kept for comparison
(`original_deduplicate`, `ORIGINAL_CHARACTERS`, `ORIGINAL_PIECES`).
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, count
from typing import Any, NamedTuple

ORIGINAL_CHARACTERS = 96
"""The original cuts a caption's text here, in the middle of a word, before it makes word pieces."""

ORIGINAL_PIECES = 32
"""The original keeps so many word pieces of a caption."""

Tokenize = Callable[[list[str]], list[list[int]]]
"""Texts -> the word piece ids of each, without special tokens."""


class TimedText(NamedTuple):
    """A caption as text; times in seconds."""

    start: float
    end: float
    text: str


class Caption(NamedTuple):
    """A caption as word pieces; times in seconds."""

    start: float
    end: float
    tokens: list[int]


def clean_lines(
    starts: Sequence[Any], ends: Sequence[Any], texts: Sequence[Any]
) -> tuple[list[TimedText], Counter[str]]:
    """The usable lines of one video, in their order, and how many were not.

    Args:
        starts: (lines,) seconds; anything may stand there, as in the raw file.
        ends: (lines,) seconds.
        texts: (lines,) text, or NaN, null or a number where nothing was said.

    Returns:
        The lines, their white space made single blanks; every start is >= 0 and no end lies before its start. And the
        number of `lines`, of those dropped because they are `not_text`, `empty` or have `bad_times` (not finite
        numbers), and of those kept with `mended_times` (negative, or ending before they start).

    Raises:
        ValueError: the three have different lengths.
    """
    if not len(starts) == len(ends) == len(texts):
        raise ValueError(f"{len(starts)} starts, {len(ends)} ends and {len(texts)} texts")
    lines = []
    counts = Counter(lines=len(texts))
    for start, end, text in zip(starts, ends, texts):
        if not isinstance(text, str):
            counts["not_text"] += 1
        elif not (words := text.split()):
            counts["empty"] += 1
        elif not (_is_time(start) and _is_time(end)):
            counts["bad_times"] += 1
        else:
            mended_start = max(start, 0.0)
            mended_end = max(end, mended_start)
            counts["mended_times"] += (mended_start, mended_end) != (start, end)
            lines.append(TimedText(mended_start, mended_end, " ".join(words)))
    return lines, +counts


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def overlap_length(previous: Sequence[str], following: Sequence[str]) -> int:
    """The largest n such that the last n words of `previous` are the first n of `following`."""
    for first in range(max(0, len(previous) - len(following)), len(previous)):
        if previous[first] == following[0] and previous[first:] == following[: len(previous) - first]:
            return len(previous) - first
    return 0


def deduplicate(lines: Iterable[TimedText]) -> list[TimedText]:
    """Takes away the words with which a caption repeats the end of what was said before.

    The longest overlap of word sequences counts. It is looked for in all that was said so far: that ends with the
    previous caption, and a line of a rolling display may repeat more than that one. Repeated words stay where they were
    said first; no word is cut. A caption that brings no new word only extends the one before it.

    Where captions overlap in time and in words, the shared words take the shared time and the rest starts after it.

    Args:
        lines: captions with filled texts in the file's order, as `clean_lines` gives them.

    Returns:
        Captions with filled texts, ordered by start. Ends never fall either: one that lies after the end of a later
        caption is set to that. No end lies before its start.
    """
    kept: list[TimedText] = []
    said: list[str] = []
    for start, end, text in lines:
        words = text.split()
        repeated = overlap_length(said, words)
        if repeated:
            previous = kept[-1]
            if repeated == len(words):
                kept[-1] = previous._replace(end=max(previous.end, end))
                continue
            if start < previous.end < end:
                start = previous.end
        kept.append(TimedText(start, end, " ".join(words[repeated:])))
        said += words[repeated:]
    return _with_rising_times(sorted(kept, key=lambda caption: caption.start))


def _with_rising_times(captions: Sequence[TimedText]) -> list[TimedText]:
    """The captions in their order with neither starts nor ends that fall, and no end before its start.

    A start rises to the latest of those before, an end falls to the earliest of those after: one wrong, late end then
    spoils no other caption.
    """
    starts = list(accumulate((caption.start for caption in captions), max))
    ends = list(accumulate((caption.end for caption in reversed(captions)), min))[::-1]
    return [TimedText(start, max(start, end), caption.text) for start, end, caption in zip(starts, ends, captions)]


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
    all_tokens = iter(tokenize([caption.text for captions in videos for caption in captions]))
    counts: Counter[str] = Counter()
    encoded = []
    for captions in videos:
        parts: list[TimedText] = []
        tokens_of_parts: list[list[int]] = []
        for caption in captions:
            split, split_tokens = [caption], [next(all_tokens)]
            if len(split_tokens[0]) > max_pieces:
                sizes = [len(word) for word in tokenize(caption.text.split())]
                split = split_caption(caption, sizes, max_pieces)
                split_tokens = tokenize([part.text for part in split])
                counts["split"] += len(split) > 1
            for part, tokens in zip(split, split_tokens):
                if tokens:
                    parts.append(part)
                    tokens_of_parts.append(tokens)
                else:
                    counts["no_pieces"] += 1
        encoded.append(
            [
                Caption(round(part.start, 3), round(part.end, 3), tokens)
                for part, tokens in zip(_with_rising_times(parts), tokens_of_parts)
            ]
        )
    return encoded, +counts


def vocabulary_sha256(vocabulary: Mapping[str, int]) -> str:
    """A name for a vocabulary, word pieces and their ids, that no other has."""
    return hashlib.sha256(json.dumps(sorted(vocabulary.items())).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------- the original


def original_deduplicate(
    starts: Sequence[float], ends: Sequence[float], texts: Sequence[Any], rng: random.Random
) -> list[TimedText]:
    """The original's rule, for comparison only: it corrupts words and may set an end before its start.

    It joins two captions at the shortest run of characters that ends the one and starts the other, and a coin decides
    which of them loses it: "take potatoes", "salt them" become "alt them" or "take potatoe". Source: README of the
    reference data `shards`, made by running the original.

    Args:
        starts: (lines,) seconds.
        ends: (lines,) seconds.
        texts: (lines,); what is not text is skipped.
        rng: Python's generator, one for all videos in the file's order. `random.Random(seed)` draws what the original
            drew after `random.seed(seed)`.
    """
    kept: list[TimedText] = []
    for start, end, text in zip(starts, ends, texts):
        text = text.replace("\n", " ").strip() if isinstance(text, str) else ""
        if not text:
            continue
        if not kept:
            kept.append(TimedText(start, end, text))
            continue
        previous = kept[-1]
        overlap = next((n for n in range(1, len(text)) if previous.text.endswith(text[:n])), 0)
        if previous.text.endswith(text):
            kept[-1] = previous._replace(end=max(previous.end, end))
        elif text.startswith(previous.text):
            kept[-1] = TimedText(min(previous.start, start), max(previous.end, end), text)
        elif not overlap:
            kept.append(TimedText(start, end, text))
        elif rng.random() > 0.5:
            kept[-1] = previous._replace(end=max(previous.end, start))
            start = kept[-1].end
            if rest := text[overlap:].strip():
                kept.append(TimedText(start, max(end, start), rest))
        else:
            left = previous.text[:-overlap].strip()
            kept[-1:] = [TimedText(previous.start, min(previous.end, start), left)] if left else []
            kept.append(TimedText(start, end, text))
    return kept


def original_encode_captions(videos: Sequence[Sequence[TimedText]], tokenize: Tokenize) -> list[list[Caption]]:
    """Word pieces with the original's cuts: 96 characters before, 32 word pieces after the tokenizer.

    Args:
        videos: captions of each video.
        tokenize: the model's tokenizer.
    """
    all_tokens = iter(tokenize([caption.text[:ORIGINAL_CHARACTERS] for captions in videos for caption in captions]))
    return [
        [Caption(start, end, next(all_tokens)[:ORIGINAL_PIECES]) for start, end, _ in captions] for captions in videos
    ]
