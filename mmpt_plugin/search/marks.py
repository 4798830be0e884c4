"""Hits as people, programs, players and editors read them: times, tables, JSON, CSV, WebVTT, EDL."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from mmpt_plugin.files import write_whole
from mmpt_plugin.search.moments import Hits, Moment

EDL_FPS = 25
LONGEST_SPOKEN = 60  # characters of the spoken line in a table


def clock(seconds: float) -> str:
    """1:23, or 1:02:03."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def period(moment: Moment) -> str:
    """1:23-1:41."""
    return f"{clock(moment.start)}-{clock(moment.end)}"


def table(hits: Sequence[Moment]) -> str:
    """A table for people."""
    rows = [[moment.path.name, period(moment), f"{moment.score:.4g}", shortened(moment.spoken)] for moment in hits]
    return tabulate(rows, headers=["video", "when", "score", "what is said"], disable_numparse=True)


def shortened(text: str) -> str:
    """The beginning of a text, without control characters."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return plain if len(plain) <= LONGEST_SPOKEN else f"{plain[: LONGEST_SPOKEN - 1]}…"


def as_dict(moment: Moment, picture: bool = True) -> dict[str, Any]:
    """JSON types only; the picture as a data URI."""
    content: dict[str, Any] = {
        "video_id": moment.video_id,
        "path": str(moment.path),
        "start": moment.start,
        "end": moment.end,
        "score": moment.score,
        "shown": moment.shown,
        "said": moment.said,
        "spoken": moment.spoken,
    }
    if picture:
        encoded = base64.b64encode(moment.thumbnail).decode()
        content["thumbnail"] = f"data:image/jpeg;base64,{encoded}" if encoded else None
    return content


def as_json(text: str, hits: Hits) -> str:
    """A query and its hits."""
    number = {
        name: None if value != value else value for name, value in (("best", hits.best), ("threshold", hits.threshold))
    }
    content = {"query": text, **number, "confident": hits.confident, "hits": [as_dict(moment) for moment in hits]}
    return json.dumps(content, ensure_ascii=False, indent=1)


def as_csv(hits: Iterable[Moment]) -> str:
    """One line a hit, without pictures."""
    file = io.StringIO()
    columns = ("video_id", "path", "start", "end", "score", "shown", "said", "spoken")
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(as_dict(moment, picture=False) for moment in hits)
    return file.getvalue()


def write_vtt(folder: Path, text: str, hits: Sequence[Moment]) -> list[Path]:
    """Chapters for players: a WebVTT file for each video, <name>.vtt."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for video_id in dict.fromkeys(moment.video_id for moment in hits):
        own = sorted((moment for moment in hits if moment.video_id == video_id), key=lambda moment: moment.start)
        cues = [f"{_stamp(moment.start)} --> {_stamp(moment.end)}\n{_cue(moment.spoken or text)}\n" for moment in own]
        path = folder / f"{safe_name(video_id)}.vtt"
        with write_whole(path, text=True) as file:
            file.write("WEBVTT\n\n" + "\n".join(cues))
        written.append(path)
    return written


def write_edl(path: Path, text: str, hits: Sequence[Moment]) -> None:
    """A cut list for editors (CMX 3600, 25 frames a second): the hits one after the other."""
    lines = [f"TITLE: {' '.join(text.split())[:70]}", "FCM: NON-DROP FRAME", ""]
    position = 0.0
    for number, moment in enumerate(hits, start=1):
        end = position + moment.end - moment.start
        stamps = " ".join(_timecode(second) for second in (moment.start, moment.end, position, end))
        lines += [f"{number:03}  AX       V     C        {stamps}"]
        lines += [f"* FROM CLIP NAME: {' '.join(moment.path.name.split())}"]
        if moment.spoken:
            lines += [f"* COMMENT: {' '.join(moment.spoken.split())}"]
        position = end
    with write_whole(path, text=True) as file:
        file.write("\n".join(lines) + "\n")


def safe_name(name: str) -> str:
    """A file name without anything that a shell or a file system could take amiss."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:80] or "video"


def _stamp(seconds: float) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}.{milliseconds:03}"


def _cue(text: str) -> str:
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("-->", "→").replace(">", "&gt;")


def _timecode(seconds: float) -> str:
    frames = round(seconds * EDL_FPS)
    whole, frame = divmod(frames, EDL_FPS)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}:{frame:02}"
