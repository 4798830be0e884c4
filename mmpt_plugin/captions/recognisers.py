"""One video's JSON: Whisper, faster-whisper, WhisperX, whisper.cpp, transformers' pipeline, and YouTube's json3."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from mmpt_plugin.captions.transcript import Source, Transcript

WORDS_OF_A_LINE = 12
"""Words of a caption where a file has words only."""

PAUSE_SECONDS = 1.0
"""A longer pause between two words begins a new caption."""

LONGEST_LINE = 10.0
"""Seconds. A longer segment is cut at its words, where these have times: Whisper's last up to half a minute."""


def read_recogniser(source: Source, content: Any) -> Transcript | None:
    """The captions of one video's parsed JSON; None if its layout is none of those known."""
    match content:
        case {"events": list(events)}:
            return _json3(source, events)
        case {"segments": list(segments)} if segments or "word_segments" not in content:
            return _from_segments(source, segments)
        case {"word_segments": list(words)}:
            return _from_segments(source, _lines_of_words(words))
        case {"transcription": list(segments)}:  # whisper.cpp, in milliseconds
            offsets = [segment.get("offsets", {}) for segment in _objects(segments)]
            starts, ends = ([_scaled(offset.get(name)) for offset in offsets] for name in ("from", "to"))
            return Transcript(source.video_id, starts, ends, [segment.get("text") for segment in _objects(segments)])
        case {"chunks": list(chunks)}:
            times = [chunk.get("timestamp") or [None, None] for chunk in _objects(chunks)]
            texts = [chunk.get("text") for chunk in _objects(chunks)]
            return Transcript(source.video_id, [time[0] for time in times], [time[-1] for time in times], texts)
        case [{"start": _, "text": _}, *_]:
            return _from_segments(source, content)
    return None


def _objects(items: Iterable[Any]) -> list[Mapping[str, Any]]:
    return [item for item in items if isinstance(item, Mapping)]


def _scaled(milliseconds: Any) -> Any:
    return milliseconds / 1000 if isinstance(milliseconds, (int, float)) else milliseconds


def _from_segments(source: Source, segments: Sequence[Any]) -> Transcript:
    """Segments with start, end and text; a start or end that is missing is its words' first or last."""
    own = [line for segment in _objects(segments) for line in _short_lines(segment)]

    def time(segment: Mapping[str, Any], name: str) -> Any:
        if segment.get(name) is not None:
            return segment[name]
        if name == "end" and isinstance(segment.get("duration"), (int, float)) and "start" in segment:
            return segment["start"] + segment["duration"]
        times = [word[name] for word in _objects(segment.get("words") or []) if name in word]
        return (times[0] if name == "start" else times[-1]) if times else None

    starts, ends = ([time(segment, name) for segment in own] for name in ("start", "end"))
    return Transcript(source.video_id, starts, ends, [segment.get("text") for segment in own])


def _short_lines(segment: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The segment; or, where it is long and the first of its words has a time, lines of its words."""
    words = _objects(segment.get("words") or [])
    times = [
        segment.get("start"),
        segment.get("end"),
        *(word.get(name, 0) for word in words for name in ("start", "end")),
    ]
    if not words or "start" not in words[0] or not all(isinstance(time, (int, float)) for time in times):
        return [segment]
    return list(_lines_of_words(words)) if segment["end"] - segment["start"] > LONGEST_LINE else [segment]


def _lines_of_words(words: Sequence[Any]) -> list[dict[str, Any]]:
    """Captions of words; a word without times (a number, often) has those of the one before."""
    lines: list[dict[str, Any]] = []
    for word in _objects(words):
        text = str(word.get("word", word.get("text", ""))).strip()
        last = lines[-1] if lines else None
        start = word.get("start", last["end"] if last else 0.0)
        end = word.get("end", start)
        pause = last and isinstance(start, (int, float)) and start - last["end"] > PAUSE_SECONDS
        if last is None or pause or last["words"] >= WORDS_OF_A_LINE:
            lines.append({"start": start, "end": end, "text": text, "words": 1})
        else:
            last.update(end=end, text=f"{last['text']} {text}", words=last["words"] + 1)
    return [{name: line[name] for name in ("start", "end", "text")} for line in lines]


def _json3(source: Source, events: Sequence[Any]) -> Transcript:
    """YouTube's events. A line stands on the screen while the next is spoken: its own end is where that begins."""
    lines = []
    for event in _objects(events):
        text = "".join(str(segment.get("utf8", "")) for segment in _objects(event.get("segs") or []))
        if text.strip() and not event.get("aAppend"):
            start = _scaled(event.get("tStartMs"))
            length = _scaled(event.get("dDurationMs", 0))
            numbers = isinstance(start, (int, float)) and isinstance(length, (int, float))
            lines.append((start, start + length if numbers else None, text))
    ends = [
        min(end, following[0])
        if isinstance(end, float) and isinstance(following[0], float) and following[0] > start
        else end
        for (start, end, _), following in pairwise([*lines, (None, None, "")])
    ]
    return Transcript(source.video_id, [line[0] for line in lines], ends, [line[2] for line in lines])
