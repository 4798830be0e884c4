"""What file names tell: which video a caption file is of, and in which language."""

from __future__ import annotations

import re

from mmpt_plugin.files.names import without_video_suffix

CAPTION_SUFFIXES = (".srt", ".vtt", ".ass", ".ssa", ".ttml", ".dfxp", ".json3", ".json", ".tsv", ".csv", ".xml")
"""Of files with captions of one video; in the order in which one is preferred where a video has several."""

LANGUAGE = re.compile(r"\.([a-z]{2}(?:-[A-Za-z0-9]{2,8})*)$")
ANY_LANGUAGE = re.compile(r"\.([A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*)$")


def hidden(name: str) -> bool:
    """Whether a file is hidden, or macOS's shadow of another: its name, or a folder's of it, begins with a dot."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def split_caption_name(name: str) -> str:
    """The name of a caption file without the suffix of its format, or of its compression."""
    name = name.removesuffix(".gz")
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in CAPTION_SUFFIXES else name


def video_id_of(name: str) -> str:
    """The video of a caption file, by its name alone: `talk.en.vtt` is of `talk`, and so is `talk.mp4.srt`."""
    stem = split_caption_name(name)
    return without_video_suffix(LANGUAGE.sub("", stem))
