"""Files of captions: HowTo100M's raw_caption.json, read as a stream, and the prepared captions that shards are made of.

raw_caption.json is one object, {video id: {"start": [seconds], "end": [seconds], "text": [text or NaN or null]}}.

A file of prepared captions holds JSON lines:

    {"format": "mmpt_plugin.captions", "version": 1, "settings": {tokenizer, rule, ...}, "counts": {"videos": n, ...}}
    {"id": video id, "start": [seconds], "end": [seconds], "tokens": [[word piece ids of a caption], ...]}
    ... one line a video; each has at least one caption

It is made of parts, which are such files themselves.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import ijson
import numpy as np

from mmpt_plugin.data.captions import Caption

FORMAT = "mmpt_plugin.captions"
VERSION = 1

BLOCK_BYTES = 1 << 16
COPY_BYTES = 1 << 24

STRING = re.compile(rb'("(?:[^"\\]|\\.)*+")', re.DOTALL)
NOT_JSON = re.compile(rb"NaN|-?Infinity")


# ------------------------------------------------------------------------------------------------------- raw captions


def read_raw_captions(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    """Streams raw_caption.json: memory holds one video's captions at a time.

    Python's `NaN` and `Infinity`, which are no JSON, become None.

    Args:
        file: the file, opened in binary mode; its position tells how much has been read.

    Yields:
        A video id and what the file says of it, unchecked.

    Raises:
        ValueError: the file is no JSON object, is cut short, or names a video twice.
    """
    seen: set[str] = set()
    try:
        for video_id, record in ijson.kvitems(ijson.from_iter(_null_for_nan(file)), "", use_float=True):
            if video_id in seen:
                raise ValueError(f"{file.name}: video {video_id} is in the file twice.")
            seen.add(video_id)
            yield video_id, record
    except ijson.JSONError as error:
        problem = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{file.name}: no whole JSON file, after {len(seen)} videos: {problem}. Download it again."
        ) from error
    if not seen:
        raise ValueError(
            f"{file.name}: holds no videos. Expected HowTo100M's raw_caption.json, "
            '{video id: {"start": [...], "end": [...], "text": [...]}}.'
        )


def _null_for_nan(file: BinaryIO) -> Iterator[bytes]:
    """The file's bytes; outside of strings, NaN and infinities become null, as strict JSON has no word for them."""
    rest = b""  # what follows the last whole string: numbers, or the beginning of a string
    while block := file.read(BLOCK_BYTES):
        *pieces, rest = STRING.split(rest + block)  # outside, string, outside, string, ...
        if pieces:  # an empty yield would end the stream
            pieces[::2] = [NOT_JSON.sub(b"null", outside) for outside in pieces[::2]]
            yield b"".join(pieces)
    yield NOT_JSON.sub(b"null", rest)


# -------------------------------------------------------------------------------------------------- prepared captions


@contextmanager
def _written_aside(path: Path) -> Iterator[BinaryIO]:
    """Opens a hidden file beside `path` and renames it to that when all went well."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _header(settings: Mapping[str, Any], counts: Mapping[str, int]) -> bytes:
    return _line({"format": FORMAT, "version": VERSION, "settings": settings, "counts": dict(sorted(counts.items()))})


def write_captions(
    path: Path,
    videos: Iterable[tuple[str, Sequence[Caption]]],
    *,
    settings: Mapping[str, Any],
    counts: Mapping[str, int],
) -> None:
    """Writes a file (or part of one) of prepared captions aside and renames it.

    Args:
        path: the file; replaced if it exists.
        videos: video ids and their captions; those without captions are left out.
        settings: how the captions were made; JSON values.
        counts: what was counted while they were made. `videos`, `captions`, `pieces` and `videos_without_captions` are
            added.
    """
    lines = []
    totals = Counter(counts)
    for video_id, captions in videos:
        totals["videos" if captions else "videos_without_captions"] += 1
        totals["captions"] += len(captions)
        totals["pieces"] += sum(len(caption.tokens) for caption in captions)
        if captions:
            start, end, tokens = zip(*captions)
            lines.append(_line({"id": video_id, "start": start, "end": end, "tokens": tokens}))
    with _written_aside(path) as file:
        file.write(_header(settings, totals))
        file.writelines(lines)


def merge_captions(parts: Sequence[Path], path: Path) -> dict[str, int]:
    """Joins parts, made with the same settings, into one file; written aside and renamed.

    Args:
        parts: at least one.
        path: the file; replaced if it exists.

    Returns:
        The counts of all parts together.

    Raises:
        ValueError: a part is no file of prepared captions, or has other settings than the first.
    """
    totals: Counter[str] = Counter()
    settings: dict[str, Any] = {}
    for part in parts:
        header = read_header(part)
        settings = settings or header["settings"]
        if header["settings"] != settings:
            raise ValueError(f"{part}: made with {header['settings']}, {parts[0]} with {settings}.")
        totals.update(header["counts"])
    with _written_aside(path) as file:
        file.write(_header(settings, totals))
        for part in parts:
            with part.open("rb") as lines:
                lines.readline()
                while block := lines.read(COPY_BYTES):
                    file.write(block)
    return dict(totals)


def read_header(path: Path) -> dict[str, Any]:
    """Settings and counts of a file of prepared captions: {"settings": {...}, "counts": {...}}.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another file, or one of another version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing. scripts/prepare_captions.py makes it from raw_caption.json.")
    with path.open("rb") as file:
        line = file.readline(COPY_BYTES)
    try:
        header = json.loads(line)
        kind = (header["format"], header["version"])
        content = {"settings": dict(header["settings"]), "counts": dict(header["counts"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: no file of prepared captions ({type(error).__name__} in its first line). "
            "scripts/prepare_captions.py makes it from raw_caption.json."
        ) from error
    if kind != (FORMAT, VERSION):
        raise ValueError(f"{path}: format and version are {kind}, this reader knows {(FORMAT, VERSION)}.")
    return content


class PreparedCaptions:
    """A file of prepared captions with the place of each video's line in it.

    Attributes:
        path: the file.
        settings: how the captions were made.
        counts: what was counted while they were made.
        offsets: {video id: position of its line}, in the file's order.
    """

    def __init__(self, path: str | Path) -> None:
        """Reads the file once for its video ids.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is another file, is cut short, or names a video twice.
        """
        self.path = Path(path)
        header = read_header(self.path)
        self.settings, self.counts = header["settings"], header["counts"]
        self.offsets: dict[str, int] = {}
        with self.path.open("rb") as file:
            offset = len(file.readline())
            for line in file:
                self.offsets[_line_id(self.path, line)] = offset
                offset += len(line)
        expected = self.counts.get("videos", 0)
        if len(self.offsets) != expected:
            raise ValueError(
                f"{self.path}: {len(self.offsets)} videos, its first line says {expected}: cut short or altered. "
                "Copy or make it again."
            )


def load_captions(path: Path, offsets: Sequence[int]) -> Iterator[tuple[np.ndarray, list[list[int]]]]:
    """Reads videos of a file of prepared captions.

    Args:
        path: the file.
        offsets: positions of the videos' lines, see `PreparedCaptions.offsets`.

    Yields:
        A video's caption times, (captions, 2) float64 seconds, and word pieces of each caption.
    """
    with path.open("rb") as file:
        for offset in offsets:
            file.seek(offset)
            video = json.loads(file.readline())
            yield np.array([video["start"], video["end"]], np.float64).T, video["tokens"]


def _line_id(path: Path, line: bytes) -> str:
    """The video id with which a line begins; the rest is not parsed."""
    match = STRING.match(line, len(b'{"id":'))
    if not match or not line.startswith(b'{"id":') or not line.endswith(b"}\n"):
        raise ValueError(f"{path}: a line is no video's captions: {line[:80]!r}. Copy or make the file again.")
    return json.loads(match[1])
