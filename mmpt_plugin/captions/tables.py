"""Tables of captions: comma-, tab- or semicolon-separated, `video,start,end,text`, or without `video` for one video."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator

from mmpt_plugin.captions.transcript import Entry, Left, Source, Transcript
from mmpt_plugin.files import UnusableFile
from mmpt_plugin.files.names import without_video_suffix

COLUMNS = {
    "video": ("video", "video_id", "videoid", "vid", "id", "file", "filename", "file_name"),
    "start": ("start", "start_time", "start_seconds", "begin", "from"),
    "end": ("end", "end_time", "end_seconds", "stop", "to"),
    "text": ("text", "caption", "sentence", "transcript", "description", "subtitle"),
}
"""What a column may be called, small and capital letters alike."""

DELIMITERS = (",", "\t", ";", "|")
CLOCK = re.compile(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:[.,]\d*)?)")


def header_columns(line: str) -> tuple[str, dict[str, int]] | None:
    """The delimiter of a header line and where the known columns stand; None if it is no header of captions."""
    for delimiter in DELIMITERS:
        names = [name.strip().lower() for name in next(csv.reader([line], delimiter=delimiter), [])]
        places = {
            column: next(names.index(name) for name in known if name in names)
            for column, known in COLUMNS.items()
            if any(name in names for name in known)
        }
        if {"start", "text"} <= places.keys():
            return delimiter, places
    return None


def parse_time(text: str) -> float | None:
    """Seconds of "12.5", "12,5" or "00:01:02,5"; None where that is no time."""
    match = CLOCK.fullmatch(text.strip())
    if match:
        hours, minutes, seconds = match.groups()
        return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds.replace(",", "."))
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def read_table(source: Source) -> Iterator[Entry]:
    """The captions of each video of a table, in the order in which they first appear; memory holds them all.

    Raises:
        ValueError: columns are missing, or a quotation mark is not closed.
    """
    videos: dict[str, tuple[list[float | None], list[float | None], list[str]]] = {}
    uneven: dict[str, str] = {}
    with source.open_text() as lines:
        header = lines.readline().lstrip("\ufeff")
        found = header_columns(header)
        if found is None or "end" not in found[1]:
            raise UnusableFile(
                f"{source.name}: its first line must name the columns video, start, end, text (video may be left out in "
                f"a file of one video), found {header.strip()[:200]!r}."
            )
        delimiter, places = found
        video_place, start_place, end_place, text_place = (places.get(column) for column in COLUMNS)
        assert start_place is not None and end_place is not None and text_place is not None
        least = max(places.values()) + 1
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            for row in rows:
                if not row:
                    continue
                video_id = source.video_id
                if video_place is not None:
                    video_id = without_video_suffix(row[video_place].strip()) if video_place < len(row) else ""
                if len(row) < least or not video_id:
                    uneven.setdefault(video_id, f"line {rows.line_num + 1} has {len(row)} fields, the header {least}")
                    continue
                starts, ends, texts = videos.setdefault(video_id, ([], [], []))
                starts.append(parse_time(row[start_place]))
                ends.append(parse_time(row[end_place]))
                texts.append(row[text_place])
        except csv.Error as error:
            raise UnusableFile(
                f"{source.name}: line {rows.line_num + 1}: {error}. Is a quotation mark closed?"
            ) from error
    for video_id, problem in uneven.items():
        videos.pop(video_id, None)
        yield Left(video_id, "malformed_videos", f"{source.name}: video {video_id!r} is malformed: {problem}")
    for video_id, columns in videos.items():
        yield Transcript(video_id, *columns)
