"""Captions that roll: a line repeats the end of what was said before, as subtitles do on the screen. Pure functions.

Repeated words are found by words (`deduplicate`). What the original does instead is kept for comparison
(`original_deduplicate`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from mmpt_plugin.captions.transcript import TimedText

TOUCHING_SECONDS = 1.0
"""Lines further apart than this show different things: the later one repeats nothing."""

UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)
"""Letters of languages that put no blanks between words."""

UNIT = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
"""What is compared: words, and single characters where words have no blanks between them."""


def overlap_length(previous: Sequence[str], following: Sequence[str]) -> int:
    """The largest n such that the last n words of `previous` are the first n of `following`."""
    for first in range(max(0, len(previous) - len(following)), len(previous)):
        if previous[first] == following[0] and previous[first:] == following[: len(previous) - first]:
            return len(previous) - first
    return 0


def deduplicate(lines: Iterable[TimedText]) -> list[TimedText]:
    """Takes away the words with which a caption repeats the end of what was said just before.

    The longest overlap of word sequences counts. It is looked for in all that was said without a pause of a second: that
    ends with the previous caption, and a line of a rolling display may repeat more than that one. A single word counts
    only where the two captions overlap in time, for "stir" may be said twice. In languages without blanks between words,
    characters are compared; four must be equal, or two in captions that overlap in time. Repeated words stay where they
    were said first; no word is cut. A caption that brings no new word only extends the one before it.

    Where captions overlap in time and in words, the shared words take the shared time and the rest starts after it.

    Args:
        lines: captions with filled texts, ordered by start, as `tidy` gives them.

    Returns:
        Captions with filled texts, ordered by start. Ends never fall either: one that lies after the end of a later
        caption is set to that. No end lies before its start.
    """
    kept: list[TimedText] = []
    said: list[str] = []  # without a pause
    said_until = -TOUCHING_SECONDS
    for start, end, text in lines:
        units = list(UNIT.finditer(text))
        words = [unit[0] for unit in units]
        if start - said_until > TOUCHING_SECONDS:
            said = []
        repeated = overlap_length(said, words)
        if repeated < _least_overlap(words[:repeated], start < said_until):
            repeated = 0
        said_until = max(said_until, end)
        if repeated:
            previous = kept[-1]
            if repeated == len(words):
                kept[-1] = previous._replace(end=max(previous.end, end))
                continue
            if start < previous.end < end:
                start = previous.end
        kept.append(TimedText(start, end, text[units[repeated].start() :] if repeated else text))
        said += words[repeated:]
    return with_rising_times(sorted(kept, key=lambda caption: caption.start))


def _least_overlap(words: Sequence[str], at_once: bool) -> int:
    """How many words or characters must be equal to be a repetition; `at_once` where the captions overlap in time."""
    characters = all(len(word) == 1 and UNIT.fullmatch(word) and word > "\u0e00" for word in words)
    return (2 if at_once else 4) if words and characters else (1 if at_once else 2)


def with_rising_times(captions: Sequence[TimedText]) -> list[TimedText]:
    """The captions in their order with neither starts nor ends that fall, and no end before its start.

    A start rises to the latest of those before, an end falls to the earliest of those after: one wrong, late end then
    spoils no other caption.
    """
    starts = list(accumulate((caption.start for caption in captions), max))
    ends = list(accumulate((caption.end for caption in reversed(captions)), min))[::-1]
    return [TimedText(start, max(start, end), caption.text) for start, end, caption in zip(starts, ends, captions)]


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
