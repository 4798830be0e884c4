"""Tells the format of a caption file by its content, and reads it."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmpt_plugin.captions import many_videos, subtitles, tables
from mmpt_plugin.captions.names import hidden, video_id_of
from mmpt_plugin.captions.recognisers import read_recogniser
from mmpt_plugin.captions.tidying import Tidying, tidy
from mmpt_plugin.captions.transcript import Entry, Left, Source, TimedText, Transcript, decode
from mmpt_plugin.files import UnusableFile, load_pickle, parse_json, require_file

HEAD_BYTES = 1 << 16
LARGEST_MEMBER = 1 << 30
"""Bytes of an archive's member, unpacked."""

PICKLE = re.compile(rb"\x80[\x02-\x05]")
SRT_TIMES = re.compile(r"\d{1,2}:\d{1,2}:\d{1,2}[.,]\d{1,3}\s*-->")
ONE_VIDEO_NAMES = ("events", "segments", "word_segments", "transcription", "chunks")
KNOWN = (
    "SRT, WebVTT, ASS, TTML; JSON of Whisper, faster-whisper, WhisperX, whisper.cpp and YouTube (json3); HowTo100M's "
    "raw_caption.json, HowToCaption; CSV or TSV with the columns video,start,end,text; each also as .gz, several as .zip"
)

SUBTITLES: dict[str, Callable[[Source], Transcript]] = {
    "WebVTT": subtitles.read_webvtt,
    "SubRip": subtitles.read_srt,
    "SubStation Alpha": subtitles.read_ass,
    "TTML": subtitles.read_ttml,
}


def read_transcript(path: str | Path, *, encoding: str = "", tidying: Tidying = Tidying()) -> list[TimedText]:  # noqa: B008
    """The captions of one video, clean and ordered by start: for whoever has a video and its subtitles.

    Args:
        path: subtitles or a recogniser's JSON, of any format that `read_captions` knows.
        encoding: of the text; told by the content where empty.
        tidying: what is changed in the captions.

    Returns:
        (start, end, text) of each caption, seconds; none where nothing is said.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of no known format, is damaged, or holds captions of several videos.
    """
    entries = list(read_captions(path, encoding=encoding))
    if len(entries) != 1:
        raise UnusableFile(f"{path}: holds captions of {len(entries)} videos; a file of one video is needed.")
    (entry,) = entries
    if isinstance(entry, Left):
        raise ValueError(entry.message)
    try:
        return tidy(entry, tidying)[0]
    except ValueError as error:
        raise UnusableFile(f"{path}: {error}") from error


def read_captions(path: str | Path, video_id: str = "", *, encoding: str = "") -> Iterator[Entry]:
    """What a caption file says of each of its videos. The file's content tells its format.

    Args:
        path: the file.
        video_id: of the video, if the file is of one; from the file's name where empty.
        encoding: of the text; told by the content where empty.

    Yields:
        A `Transcript`, unchecked lines of one video; or `Left`, where what the file says of a video cannot be used.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of no known format, is damaged or empty.
    """
    path = require_file(path)
    source = Source(path, video_id or video_id_of(path.name), encoding=encoding)
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    yield from read_archive(source) if zipped else read_source(source)


def read_archive(source: Source) -> Iterator[Entry]:
    """The members of a zip archive, as HowTo100M's official one has a CSV for each video. A member's failure is its own."""
    try:
        with zipfile.ZipFile(source.path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir() and not hidden(member.filename)]
    except zipfile.BadZipFile as error:
        raise UnusableFile(f"{source.name}: no whole zip archive ({error}). Copy or download it again.") from error
    if not members:
        raise UnusableFile(f"{source.name}: the archive holds no files.")
    for member in members:
        video_id = video_id_of(Path(member.filename).name)
        own = replace(source, member=member.filename, video_id=video_id)
        try:
            if member.file_size > LARGEST_MEMBER:
                raise UnusableFile(f"{own.name}: above {LARGEST_MEMBER >> 30} GiB. Unpack the archive first.")
            yield from read_source(own)
        except ValueError as error:
            yield Left(video_id, "unreadable_files", str(error))


def read_source(source: Source) -> Iterator[Entry]:
    """A file of captions that is no archive."""
    head = source.head(HEAD_BYTES)
    if not head.strip():
        raise UnusableFile(f"{source.name}: is empty.")
    if PICKLE.match(head):
        content = load_pickle(source.path)
        if not isinstance(content, dict):
            raise UnusableFile(f"{source.name}: a pickle of captions must hold a dict by video id.")
        yield from many_videos.read_mapping(source, content)
        return
    start = _decoded_head(head, source)
    kind = next((kind for kind, matches in KINDS.items() if matches(start)), None)
    if kind in SUBTITLES:
        transcript = SUBTITLES[kind](source)
        if not transcript.texts:
            raise UnusableFile(f"{source.name}: {kind}, but without any caption.")
        yield transcript
    elif kind == "table":
        yield from tables.read_table(source)
    elif kind == "JSON":
        yield from _read_json(source, start)
    elif kind is None and ("," in start.split("\n", 1)[0] or source.path.suffix.lower() in (".csv", ".tsv")):
        yield from tables.read_table(source)  # which says what its first line lacks
    else:
        page = "a web page, perhaps saved in place of the file. " if kind == "web page" else ""
        raise UnusableFile(f"{source.name}: {page}Not a caption file of a known format. Known are: {KNOWN}.")


def _decoded_head(head: bytes, source: Source) -> str:
    """The beginning as text; a letter cut in two at its end is left out."""
    try:
        return decode(head, source.name, source.encoding).lstrip("\ufeff").lstrip()
    except ValueError:
        if len(head) < HEAD_BYTES:
            raise
        return decode(
            head[: head.rindex(b"\n") + 1] if b"\n" in head else head[:-4], source.name, source.encoding
        ).lstrip()


KINDS: dict[str, Callable[[str], bool]] = {
    "WebVTT": lambda text: text.startswith("WEBVTT"),
    "SubStation Alpha": lambda text: text.startswith("[Script Info]") or "\nDialogue:" in text,
    "web page": lambda text: text[:200].lower().startswith(("<!doctype html", "<html")),
    "TTML": lambda text: text.startswith("<") and bool(re.search(r"<(?:\w+:)?tt[\s>]", text)),
    "JSON": lambda text: text.startswith(("{", "[")),
    "table": lambda text: tables.header_columns(text.split("\n", 1)[0]) is not None,
    "SubRip": lambda text: bool(SRT_TIMES.search(text)),
}
"""Formats and how their beginning is known, in the order in which they are tried."""


def _read_json(source: Source, start: str) -> Iterator[Entry]:
    """JSON of one video or of many, lines or a whole."""
    if start.startswith("{") and _is_of_lines(start):
        yield from many_videos.read_lines(source)
        return
    if start.startswith("[") or re.search(rf'"(?:{"|".join(ONE_VIDEO_NAMES)})"\s*:\s*\[', start):
        content = _parsed(source)
        transcript = read_recogniser(source, content)
        if transcript is None:
            raise UnusableFile(f"{source.name}: JSON of no known layout. Known are: {KNOWN}.")
        named = content.get("video_id") if isinstance(content, dict) else None  # as our own transcripts have it
        yield transcript._replace(video_id=named) if isinstance(named, str) else transcript
        return
    if re.match(r'\{\s*"(?:text|language|systeminfo|wireMagic)"\s*:\s*["{0-9]', start):  # a very long text first
        transcript = read_recogniser(source, _parsed(source))
        if transcript is not None:
            yield transcript
            return
    yield from many_videos.read_object(source)


def _is_of_lines(start: str) -> bool:
    """Whether a file that begins with an object has one a line, of which each names its video."""
    first, _, rest = start.partition("\n")
    try:
        names = json.loads(first)
    except (ValueError, RecursionError):
        return False
    if rest.lstrip().startswith("{"):
        return True
    return any(isinstance(names.get(name), str) for name in many_videos.ID_NAMES)


def _parsed(source: Source) -> Any:
    return parse_json(source.read_text(), source.name, null_for_nan=True)  # Whisper's log-probabilities may be NaN
