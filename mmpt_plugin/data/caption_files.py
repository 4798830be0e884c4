"""Files of prepared captions, which shards are made of.

Such a file holds JSON lines:

    {"format": "mmpt_plugin.captions", "version": 1, "settings": {tokenizer, rule, ...}, "counts": {"videos": n, ...}}
    {"id": video id, "start": [seconds], "end": [seconds], "tokens": [[word piece ids of a caption], ...]}
    ... one line a video; each has at least one caption

It is made of parts, which are such files themselves.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mmpt_plugin.captions.tidying import MOST_SECONDS
from mmpt_plugin.data.captions import Caption
from mmpt_plugin.data.video_ids import id_problem
from mmpt_plugin.files import UnusableFile, parse_json, require_file, write_whole

FORMAT = "mmpt_plugin.captions"
VERSION = 1

COPY_BYTES = 1 << 24

STRING = re.compile(rb'("(?:[^"\\]|\\.)*+")', re.DOTALL)


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
        totals["pieces"] += sum(len(caption.pieces) for caption in captions)
        if captions:
            start, end, pieces = zip(*captions)
            lines.append(_line({"id": video_id, "start": start, "end": end, "tokens": pieces}))
    with write_whole(path) as file:
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
    with write_whole(path) as file:
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
        UnusableFile: it is another file, or one of another version.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing. scripts/prepare_captions.py makes it.")
    with require_file(path).open("rb") as file:
        line = file.readline(COPY_BYTES)
    try:
        header = parse_json(line.decode(), path)
        kind = (header["format"], header["version"])
        content = {"settings": dict(header["settings"]), "counts": dict(header["counts"])}
        if not all(type(number) is int and number >= 0 for number in content["counts"].values()):
            raise ValueError("a count is no whole number")
    except (ValueError, KeyError, TypeError) as error:
        raise UnusableFile(
            f"{path}: no file of prepared captions ({type(error).__name__} in its first line). "
            "scripts/prepare_captions.py makes it."
        ) from error
    if kind != (FORMAT, VERSION):
        raise UnusableFile(f"{path}: format and version are {kind}, this reader knows {(FORMAT, VERSION)}.")
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
                video_id = _line_id(self.path, line)
                if video_id in self.offsets:
                    raise UnusableFile(f"{self.path}: video {video_id} is in the file twice. Make it again.")
                self.offsets[video_id] = offset
                offset += len(line)
        expected = self.counts.get("videos", 0)
        if len(self.offsets) != expected:
            raise UnusableFile(
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

    Raises:
        UnusableFile: a line is no video's captions, times are no seconds, or word pieces are not of the vocabulary.
    """
    settings = read_header(path)["settings"]
    with path.open("rb") as file:
        for offset in offsets:
            file.seek(offset)
            line = file.readline()
            name = f"{path}, video {_line_id(path, line)}"
            try:
                video = parse_json(line.decode(), name)
            except UnicodeDecodeError as error:
                raise UnusableFile(f"{name}: {error}. Copy or make the file again.") from error
            problem = _problem_of(video, settings)
            if problem:
                raise UnusableFile(f"{name}: {problem}. Copy or make the file again.")
            yield np.array([video["start"], video["end"]], np.float64).T, video["tokens"]


def _problem_of(video: Any, settings: Mapping[str, Any]) -> str | None:
    """What is wrong with a video's line; None if nothing is."""
    match video:
        case {"start": list(starts), "end": list(ends), "tokens": list(tokens)}:
            pass
        case _:
            return "no lists 'start', 'end' and 'tokens'"
    if not len(starts) == len(ends) == len(tokens) > 0:
        return f"{len(starts)} starts, {len(ends)} ends and the word pieces of {len(tokens)} captions"
    if not all(type(time) in (int, float) and abs(time) < MOST_SECONDS for time in chain(starts, ends)):
        return "a time is no number of seconds"
    if "seed" not in settings and any(
        later < earlier for earlier, later in pairwise(starts)
    ):  # the original's may fall
        return "captions are not in the order of their starts"
    if not all(isinstance(pieces, list) for pieces in tokens) or not all(type(p) is int for p in chain(*tokens)):
        return "a caption's word pieces are no list of whole numbers"
    vocabulary_size = settings.get("vocabulary_size")
    largest, smallest = max(chain(*tokens), default=0), min(chain(*tokens), default=0)
    if smallest < 0 or (isinstance(vocabulary_size, int) and largest >= vocabulary_size):
        return f"word pieces {smallest} to {largest}, but the tokenizer has {vocabulary_size}"
    return None


def _line_id(path: Path, line: bytes) -> str:
    """The video id with which a line begins; the rest is not parsed."""
    match = STRING.match(line, len(b'{"id":'))
    if not match or not line.startswith(b'{"id":') or not line.endswith(b"}\n"):
        raise UnusableFile(f"{path}: a line is no video's captions: {line[:80]!r}. Copy or make the file again.")
    try:
        video_id = json.loads(match[1])
    except ValueError as error:
        raise UnusableFile(
            f"{path}: the video id {match[1][:80]!r} cannot be read ({error}). Make it again."
        ) from error
    if problem := id_problem(video_id):
        raise UnusableFile(f"{path}: the video id {video_id!r} {problem}. Make the file again.")
    return video_id
