"""Which files are videos, by their names."""

from __future__ import annotations

VIDEO_SUFFIXES = (
    *(".3g2", ".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv"),
    *(".ts", ".vob", ".webm", ".wmv"),
)


def without_video_suffix(name: str) -> str:
    """A video's file name without the suffix of its format."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in VIDEO_SUFFIXES else name
