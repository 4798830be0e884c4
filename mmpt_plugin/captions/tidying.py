"""Lines as a file has them become clean captions: times in seconds, text without marks, everything left out counted."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from mmpt_plugin.captions.transcript import TimedText, Transcript

UNITS = ("auto", "seconds", "milliseconds")

LONGEST_SECONDS = 600.0
"""A caption that stands longer tells nothing of a moment. It is left out."""

MILLISECONDS_ABOVE = 200.0
"""Captions that stand longer in the median, with fewer than so many words a unit, have times in milliseconds."""

SLOWEST_WORDS = 0.05

MARK = re.compile(r"\[[^\][]*\]|\([^()]*\)|（[^（）]*）|【[^【】]*】|\*[^*]{1,40}\*|[♪♫♬♩#]+[^♪♫♬♩#]*[♪♫♬♩#]+|[♪♫♬♩]")
SPEAKER = re.compile(
    r"^(?:>>+|-|–)\s*|^(?:[A-Z][A-Z0-9.'’ -]{0,30}|(?:SPEAKER|Speaker|speaker)[ _]?\d+|[A-Z][a-z]+(?: [A-Z][a-z]+)?):\s+"
)


@dataclass(frozen=True)
class Tidying:
    """What is changed in captions before use.

    Attributes:
        unit: of the times; `auto` recognises milliseconds.
        shift: seconds added to all times.
        drop_marks: take away what is not speech: [Music], (applause), lines between musical notes.
        drop_speakers: take away names of speakers: "JOHN: ", ">> ".
    """

    unit: str = "auto"
    shift: float = 0.0
    drop_marks: bool = False
    drop_speakers: bool = False

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"the unit of times is {self.unit!r}: choose one of {', '.join(UNITS)}.")
        if not math.isfinite(self.shift):
            raise ValueError(f"the shift is {self.shift}: it must be finite seconds.")


def tidy(transcript: Transcript, options: Tidying = Tidying()) -> tuple[list[TimedText], Counter[str]]:
    """The usable captions of one video, ordered by start, and how many lines were not.

    Args:
        transcript: the lines as a file has them; anything may stand there.
        options: what is changed.

    Returns:
        The captions; their white space is single blanks, every start is >= 0 and no end lies before its start. And the
        number of `lines`, of those left out because they are `not_text`, `empty`, `only_marks`, `before_start` (by a
        shift), `too_long` (ten minutes) or have `bad_times` (no finite numbers), of those kept with `mended_times`
        (negative, or ending before they start), and `milliseconds_videos`, 1 if the times were recognised as such.

    Raises:
        ValueError: the three lists have different lengths, or the times' unit is doubtful.
    """
    lines, counts = clean_lines(transcript.starts, transcript.ends, transcript.texts)
    scale = _scale(lines, options.unit, transcript.video_id)
    if scale != 1 and options.unit == "auto" and lines:
        counts["milliseconds_videos"] += 1
    tidied = []
    for start, end, text in lines:
        start, end = start * scale + options.shift, end * scale + options.shift
        if options.drop_speakers:
            text = _without(SPEAKER, text)
        if options.drop_marks:
            text = _without(MARK, text)
        if not text:
            counts["only_marks"] += 1
        elif end < 0:
            counts["before_start"] += 1
        elif end - start > LONGEST_SECONDS:
            counts["too_long"] += 1
        else:
            tidied.append(TimedText(max(start, 0.0), end, text))
    return sorted(tidied, key=lambda line: line.start), +counts


def clean_lines(
    starts: Sequence[Any], ends: Sequence[Any], texts: Sequence[Any]
) -> tuple[list[TimedText], Counter[str]]:
    """The usable lines in their order, and how many were not; see `tidy` for what is counted.

    Args:
        starts: (lines,) anything; numbers are seconds.
        ends: (lines,) likewise.
        texts: (lines,) text, or NaN, null or a number where nothing was said.

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
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < MOST_SECONDS


MOST_SECONDS = 1e9
"""Times above, infinite ones and NaN are no times."""


def _scale(lines: Sequence[TimedText], unit: str, video_id: str) -> float:
    """What the times are to be multiplied by to be seconds."""
    if unit != "auto" or not lines:
        return 0.001 if unit == "milliseconds" else 1.0
    lengths = [line.end - line.start for line in lines]
    if median(lengths) <= MILLISECONDS_ABOVE:
        return 1.0
    units_of_text = sum(max(line.text.count(" ") + 1, len(line.text) / 6) for line in lines)
    if units_of_text / sum(lengths) >= SLOWEST_WORDS:
        return 1.0
    if all(float(line.start).is_integer() and float(line.end).is_integer() for line in lines):
        return 0.001
    raise ValueError(
        f"video {video_id}: its captions last {median(lengths):.0f} s in the median, with "
        f"{units_of_text / sum(lengths):.3f} words a second. Are the times milliseconds? Set --times to seconds or "
        "milliseconds."
    )


def _without(pattern: re.Pattern[str], text: str) -> str:
    return " ".join(pattern.sub(" ", text).split())
