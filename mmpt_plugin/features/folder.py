"""Which files of a folder are videos, and under which ids."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmpt_plugin.features.video import has_video_stream
from mmpt_plugin.files import UnusableFile, is_hidden, require_file
from mmpt_plugin.files.names import VIDEO_SUFFIXES

logger = logging.getLogger(__name__)

LONGEST_NAME = 240  #: bytes of an id: file systems allow 255, and outputs get a suffix


@dataclass
class FoundVideos:
    """The videos of a folder.

    Attributes:
        videos: files by id, sorted by path.
        unusable: what cannot be read or named, by id: its path and the reason. It counts as failed.
    """

    videos: dict[str, Path] = field(default_factory=dict)
    unusable: dict[str, tuple[str, str]] = field(default_factory=dict)


def find_videos(folder: Path, keep_suffix: bool = False) -> FoundVideos:
    """Finds the videos under a folder, in subfolders and linked folders too.

    A file counts as a video if it has one of `VIDEO_SUFFIXES`, or else by its content. Hidden files and folders are
    passed over, such as the `._a.mp4` that macOS puts beside `a.mp4`.

    Args:
        folder: searched with all its subfolders.
        keep_suffix: whether the id is the whole file name ("clip.avi", as DiDeMo's annotations have it) or goes without
            its video suffix.

    Raises:
        FileNotFoundError: if there is no such folder or no video in it.
        ValueError: if it is a file, or if files would have the same id.
    """
    if not folder.is_dir():
        if folder.exists():
            raise ValueError(f"--videos {folder} is a file; a folder of videos is needed")
        raise FileNotFoundError(f"--videos {folder}: no such folder")
    found = FoundVideos()
    clashes = []
    others = 0
    for path, fault in _files(folder):
        known = path.suffix.lower() in VIDEO_SUFFIXES
        if not fault and not known and not has_video_stream(path):
            others += 1
            continue
        video_id = path.stem if known and not keep_suffix else path.name
        fault = fault or name_fault(video_id)
        if fault:
            found.unusable[video_id] = (str(path), fault)
        elif video_id in found.videos:
            clashes.append(f"{found.videos[video_id]} and {path} would both become {video_id}.npy")
        else:
            found.videos[video_id] = path
    if clashes:
        raise ValueError("\n".join([*clashes, "--videos: rename or remove one of each, or try --keep-suffix"]))
    if others:
        logger.warning("%d files in %s are no videos and are passed over", others, folder)
    if not found.videos and not found.unusable:
        raise FileNotFoundError(
            f"--videos {folder}: no video in it (known by content, or by suffix: {' '.join(VIDEO_SUFFIXES)})"
        )
    return found


def name_fault(video_id: str) -> str | None:
    """Why a video cannot have this id, if it cannot: ids are names of files and lines of lists."""
    try:
        size = len(video_id.encode())
    except UnicodeEncodeError:
        return "its name is not UTF-8: rename it"
    if size > LONGEST_NAME:
        return f"its name has {size} bytes, and {LONGEST_NAME} are allowed: rename it"
    if video_id != video_id.strip() or any(unicodedata.category(letter) == "Cc" for letter in video_id):
        return "its name begins or ends with a blank, or holds a line break, tab or control character: rename it"
    return None


def _files(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """All files that may be videos, sorted within each folder, and what is wrong with them, if anything is."""
    faults: list[OSError] = []
    visited: set[str] = set()
    hidden = 0
    for place, folders, names in os.walk(folder, onerror=faults.append, followlinks=True):
        here = os.path.realpath(place)
        if here in visited:  # linked twice, or a link to a folder above
            folders.clear()
            continue
        visited.add(here)
        hidden += sum(map(is_hidden, (*folders, *names)))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(name for name in names if not is_hidden(name)):
            yield Path(place, name), _file_fault(Path(place, name))
    for error in faults:
        yield Path(str(error.filename)), f"the folder cannot be read ({error.strerror})"
    if hidden:
        logger.info("%d hidden files and folders in %s are passed over", hidden, folder)


def _file_fault(path: Path) -> str | None:
    try:
        require_file(path)
    except (OSError, UnusableFile) as error:
        return str(error).removeprefix(f"{path}: ")
    return None
