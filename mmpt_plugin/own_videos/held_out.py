"""The clips to find in held-out videos: stretches of a transcript with the text that is spoken in them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmpt_plugin.captions import TimedText
from mmpt_plugin.files import write_whole
from mmpt_plugin.own_videos.sources import Lines

LEAST_WORDS = 8  # as the shortest texts of the training
LONGEST_SECONDS = 32.0  # what the model takes


def clips_of(lines: Lines, seconds: int) -> list[TimedText]:
    """Joins a video's lines until they have enough words to be told from others.

    Args:
        lines: ordered by start.
        seconds: of the video; what is said after its end makes no clip.
    """
    clips: list[TimedText] = []
    held: list[TimedText] = []
    for line in lines:
        if line.start >= seconds:
            break
        if held and line.end - held[0].start > LONGEST_SECONDS:
            held = []
        held.append(line)
        text = " ".join(own.text for own in held)
        if len(text.split()) >= LEAST_WORDS:
            end = min(max(own.end for own in held), held[0].start + LONGEST_SECONDS, float(seconds))
            clips.append(TimedText(held[0].start, end, text))
            held = []
    return clips


def write_clips(path: Path, videos: Iterable[str], lines: Mapping[str, Lines], seconds: Mapping[str, int]) -> int:
    """Writes the clips of videos as a table video,start,end,text, as `zeroshot_csv` reads it; returns their number."""
    count = 0
    with write_whole(path, text=True) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("video", "start", "end", "text"))
        for video_id in videos:
            for clip in clips_of(lines[video_id], seconds[video_id]):
                table.writerow((video_id, f"{clip.start:.2f}", f"{clip.end:.2f}", clip.text))
                count += 1
    return count
