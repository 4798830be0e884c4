"""SubRip, SubStation Alpha and TTML subtitles, by pysubs2; WebVTT by a reader of our own.

pysubs2 takes WebVTT's comments, styles and cue names for text of the cue before, and knows no rolling captions.
"""

from __future__ import annotations

import html
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pysubs2

from mmpt_plugin.captions.transcript import Source, TimedText, Transcript
from mmpt_plugin.files import UnusableFile

TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<\d[\d:.]*>")
WEBVTT_TIMES = re.compile(
    r"(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{1,3})[ \t]+-->[ \t]+(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{1,3})"
)
TOUCHING_SECONDS = 1.0
OLD_TTML = re.compile(r"http://www\.w3\.org/20\d\d/\d\d/ttaf1")
TTML_TICKS = re.compile(r'"(\d+)t"')
TTML_TICK_RATE = re.compile(r'tickRate="(\d+)"')


def read_srt(source: Source) -> Transcript:
    """SubRip."""
    return _by_pysubs2(source, source.read_text(), "srt", keep_html_tags=True)


def read_ass(source: Source) -> Transcript:
    """SubStation Alpha, also the advanced; comments and drawings are no captions."""
    text = source.read_text()
    return _by_pysubs2(source, text, "ass" if "[V4+" in text or "[V4 " not in text else "ssa")


def read_ttml(source: Source) -> Transcript:
    """TTML, also of the older namespaces, with lengths for ends, and times in ticks.

    Raises:
        ValueError: also for times in frames.
    """
    text = OLD_TTML.sub("http://www.w3.org/ns/ttml", source.read_text()).replace(" dur=", " duration=")
    rate = TTML_TICK_RATE.search(text)
    ticks = max(int(rate[1]), 1) if rate else 1
    text = TTML_TICKS.sub(lambda match: f'"{int(match[1]) / ticks:.3f}s"', text)
    return _by_pysubs2(source, re.sub(r"^\s*<\?xml[^>]*\?>", "", text), "ttml")


def _by_pysubs2(source: Source, text: str, kind: str, **options: bool) -> Transcript:
    try:
        with warnings.catch_warnings(), _without_debugging():
            warnings.simplefilter("ignore")  # of styles
            subtitles = pysubs2.SSAFile.from_string(text, format_=kind, **options)
        events = [event for event in subtitles if not event.is_comment and not event.is_drawing]
        return Transcript(
            source.video_id,
            [event.start / 1000 for event in events],
            [event.end / 1000 for event in events],
            [plain_text(event.plaintext) for event in events],
        )
    except Exception as error:  # its parsers raise whatever their libraries do
        raise UnusableFile(f"{source.name}: no whole {kind} file ({type(error).__name__}: {error}).") from error


@contextmanager
def _without_debugging() -> Iterator[None]:
    """Keeps pysubs2 from logging every section of a file to the root logger."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.DEBUG))
    try:
        yield
    finally:
        logging.disable(before)


def plain_text(text: str) -> str:
    """Text without tags and character entities."""
    if "<" in text:
        text = TAG.sub("", text)
    return html.unescape(text) if "&" in text else text


def read_webvtt(source: Source) -> Transcript:
    """WebVTT, also YouTube's rolling captions, in which a cue repeats the lines of the one before.

    A line is taken once, with the times of the cue that brings it; these are the times at which it is spoken.
    """
    cues = [
        cue for block in source.read_text().split("\n\n") if (cue := _cue([line for line in block.split("\n") if line]))
    ]
    rolling = any("<c>" in line or re.search(r"<\d\d:", line) for _, _, lines in cues for line in lines)
    captions = _unrolled(cues) if rolling else [TimedText(start, end, " ".join(lines)) for start, end, lines in cues]
    captions = [TimedText(start, end, plain_text(text)) for start, end, text in captions]
    return Transcript(source.video_id, *(list(column) for column in zip(*captions))) if captions else _nothing(source)


def _nothing(source: Source) -> Transcript:
    return Transcript(source.video_id, [], [], [])


def _cue(block: Sequence[str]) -> tuple[float, float, list[str]] | None:
    """Start, end and lines of a block; None for comments, styles and the header."""
    for number, line in enumerate(block[:2]):  # a cue may have a name, in a line of its own
        if match := WEBVTT_TIMES.match(line.strip()):
            start, end = (_seconds(*match.groups()[first : first + 4]) for first in (0, 4))
            return start, end, list(block[number + 1 :])
    return None


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    return 3600 * int(hours or 0) + 60 * int(minutes) + float(f"{seconds}.{fraction}")


def _unrolled(cues: Sequence[tuple[float, float, list[str]]]) -> list[TimedText]:
    """Each line once: those that a cue's beginning shares with the end of the one before are repeats."""
    captions = []
    shown: list[str] = []
    shown_until = 0.0
    for start, end, lines in cues:
        texts = [text for line in lines if (text := " ".join(TAG.sub("", line).split()))]
        before = shown if start - shown_until <= TOUCHING_SECONDS else []
        repeated = next(
            n for n in range(min(len(before), len(texts)), -1, -1) if before[len(before) - n :] == texts[:n]
        )
        captions += [TimedText(start, end, text) for text in texts[repeated:]]
        shown, shown_until = texts or shown, end
    return captions
