"""JSON and pickles of many videos: HowTo100M's raw_caption.json and HowToCaption's files.

raw_caption.json is one object, {video id: {"start": [seconds], "end": [seconds], "text": [text or NaN or null]}}.
HowToCaption has {video id: [{"start": seconds, "end": seconds, "text": text or [texts]}]}, as JSON or a pickle, or such a
list for each video in JSON lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import ijson

from mmpt_plugin.captions.transcript import Entry, Left, Source, Transcript
from mmpt_plugin.files import UnusableFile

BLOCK_BYTES = 1 << 16

LONGEST_STRING = 1 << 20
"""Bytes. A longer text, or a quotation mark that is missing, ends the reading."""

DEEPEST = 8
"""Brackets within brackets. HowTo100M's file has three."""

STRING = re.compile(rb'("(?:[^"\\]|\\.)*+")', re.DOTALL)
NOT_JSON = re.compile(rb"NaN|-?Infinity")
NOT_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))

ID_NAMES = ("video_id", "video", "id", "vid")
LIST_NAMES = ("description", "captions", "segments")


class _Noting(dict):
    """A dict that notes keys that it is given twice, for JSON objects. It must not raise: ijson's C code would not see it."""

    def __init__(self, doubled: list[Any]) -> None:
        self.doubled = doubled

    def __setitem__(self, key: Any, value: Any) -> None:
        if key in self:
            self.doubled.append(key)
        super().__setitem__(key, value)


def read_object(source: Source) -> Iterator[Entry]:
    """Streams a JSON object of many videos: memory holds one video's captions at a time.

    Python's `NaN` and `Infinity`, which are no JSON, become None.

    Raises:
        ValueError: the file is no JSON object, is cut short, or names a video twice.
    """
    with source.open_utf8() as file:
        for video_id, record in read_raw_captions(file, source.name):
            yield entry(source, video_id, record)


def read_lines(source: Source) -> Iterator[Entry]:
    """JSON lines, an object for each video or for each caption; captions of one video stand together.

    Raises:
        ValueError: a line is no JSON object that names its video.
    """
    captions: list[dict[str, Any]] = []
    current: str | None = None
    seen: set[str] = set()
    with source.open_text() as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line, object_pairs_hook=unique_pairs)
                video_id = next(str(record[name]) for name in ID_NAMES if name in record)
            except (ValueError, TypeError, StopIteration, RecursionError) as error:
                raise UnusableFile(
                    f"{source.name}: line {number} is no JSON object with a video's id ({', '.join(ID_NAMES)}): "
                    f"{type(error).__name__}."
                ) from error
            listed = next((record[name] for name in LIST_NAMES if name in record), None)
            one_caption = listed is None and not isinstance(record.get("text"), list)
            if current is not None and (video_id != current or not one_caption):
                yield entry(source, current, captions)
                current, captions = None, []
            if current is None:
                if video_id in seen:
                    raise UnusableFile(f"{source.name}: line {number}: video {video_id} again. Put its lines together.")
                seen.add(video_id)
            if one_caption:
                current = video_id
                captions.append(record)
            else:
                yield entry(source, video_id, record if listed is None else listed)
    if current is not None:
        yield entry(source, current, captions)


def unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object's members; a name that stands twice is refused."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return members


def read_mapping(source: Source, content: Mapping[Any, Any]) -> Iterator[Entry]:
    """A parsed object, or a pickle's, of many videos."""
    for video_id, record in content.items():
        yield entry(source, str(video_id), record)


def entry(source: Source, video_id: str, record: Any) -> Entry:
    """What a file says of one video, as a transcript; or what is wrong with it."""
    match record:
        case {"start": list(starts), "end": list(ends), "text": list(texts)}:
            if len(starts) == len(ends) == len(texts):
                return Transcript(video_id, starts, ends, [_joined(text) for text in texts])
            problem = f"{len(starts)} starts, {len(ends)} ends and {len(texts)} texts"
        case [*captions] if all(isinstance(caption, Mapping) for caption in captions):
            starts, ends, texts = ([caption.get(name) for caption in captions] for name in ("start", "end", "text"))
            return Transcript(video_id, starts, ends, [_joined(text) for text in texts])
        case _:
            problem = "no lists 'start', 'end' and 'text', and no list of captions with these"
    return Left(video_id, "malformed_videos", f"{source.name}: video {video_id} is malformed: {problem}")


def _joined(text: Any) -> Any:
    return " ".join(map(str, text)) if isinstance(text, list) else text


def read_raw_captions(file: BinaryIO, name: str) -> Iterator[tuple[str, Any]]:
    """Streams a JSON object: member by member.

    Args:
        file: opened in binary mode; its position tells how much has been read.
        name: of the file, for messages.

    Yields:
        A member's name (a video id) and its value, unchecked.

    Raises:
        ValueError: the file is no JSON object, is cut short, or names a member twice.
    """
    seen: set[str] = set()
    doubled: list[Any] = []
    try:
        stream = ijson.from_iter(_null_for_nan(file))
        for video_id, record in ijson.kvitems(stream, "", use_float=True, map_type=lambda: _Noting(doubled)):
            if doubled:
                raise ValueError(f"the name {doubled[0]!r} stands twice in one object")
            if video_id in seen:
                raise ValueError(f"video {video_id} is in the file twice")
            seen.add(video_id)
            yield video_id, record
    except (ijson.JSONError, ValueError, OverflowError, UnicodeError) as error:
        problem = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnusableFile(
            f"{name}: no whole JSON file, after {len(seen)} videos: {problem}. Copy or download it again."
        ) from error
    if not seen:
        raise UnusableFile(
            f"{name}: holds no videos. Expected HowTo100M's raw_caption.json, "
            '{video id: {"start": [...], "end": [...], "text": [...]}}.'
        )


def _null_for_nan(file: BinaryIO) -> Iterator[bytes]:
    """The file's bytes; outside of strings, NaN and infinities become null, as strict JSON has no word for them.

    Raises:
        ValueError: a string is too long, or brackets are nested too deeply: both would take memory without bounds.
    """
    rest = b""  # what follows the last whole string: numbers, or the beginning of a string
    depth = 0
    while block := file.read(BLOCK_BYTES):
        *pieces, rest = STRING.split(rest + block)  # outside, string, outside, string, ...
        if len(rest) > LONGEST_STRING:
            raise ValueError(f"a text or number above {LONGEST_STRING} bytes, or a quotation mark is missing")
        if pieces:  # an empty yield would end the stream
            depth = _depth_after(b"".join(pieces[::2]), depth)
            pieces[::2] = [NOT_JSON.sub(b"null", outside) for outside in pieces[::2]]
            yield b"".join(pieces)
    _depth_after(rest, depth)
    yield NOT_JSON.sub(b"null", rest)


def _depth_after(outside: bytes, depth: int) -> int:
    """How deep the brackets are nested after some bytes that are no strings."""
    for bracket in outside.translate(None, NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEEPEST:
            raise ValueError(f"brackets are nested more than {DEEPEST} deep")
    return depth
