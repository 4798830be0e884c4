"""Finds caption files in folders, tells which video each is of, and chooses one where a video has several."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from mmpt_plugin.captions.formats import read_captions
from mmpt_plugin.captions.names import (
    ANY_LANGUAGE,
    CAPTION_SUFFIXES,
    LANGUAGE,
    hidden,
    split_caption_name,
)
from mmpt_plugin.captions.transcript import Entry, Left
from mmpt_plugin.files.names import VIDEO_SUFFIXES, without_video_suffix

MANY_VIDEOS_SUFFIXES = (".zip", ".jsonl", ".pickle", ".pkl")
NOT_CAPTIONS = (".info.json", "manifest.json", "package.json")


class CaptionFile(NamedTuple):
    """A caption file to read, and the video that it is of if it is of one."""

    path: Path
    video_id: str
    language: str  # as in the file's name; empty where that names none
    named: bool  # by the user, not found in a folder


@dataclass(frozen=True)
class Collection:
    """Caption files, and those that were found and left out."""

    files: list[CaptionFile]
    left: list[Left] = field(default_factory=list)

    def read(self, encoding: str = "") -> Iterator[Entry]:
        """What the files say of each video. A video that comes again is left out.

        Raises:
            OSError, ValueError: a file that the user named cannot be read; one that was found in a folder is only `Left`.
        """
        yield from self.left
        seen: set[str] = set()
        for file in self.files:
            try:
                for entry in read_captions(file.path, file.video_id, encoding=encoding):
                    if entry.video_id in seen and not isinstance(entry, Left):
                        yield Left(entry.video_id, "repeated_videos", f"{file.path}: video {entry.video_id} again")
                        continue
                    seen.add(entry.video_id)
                    yield entry
            except (OSError, ValueError) as error:
                if file.named:
                    raise
                yield Left(file.video_id, "unreadable_files", str(error))


def collect(
    paths: Iterable[str | Path], *, videos: Sequence[str | Path] | None = None, languages: Sequence[str] = ()
) -> Collection:
    """The caption files of some paths.

    A video's name with the suffix of a caption format is its caption file, with a language between the two or without:
    `talk.vtt`, `talk.en.vtt` and `talk.mp4.srt` are of `talk.mp4`.

    Args:
        paths: files, taken as they are, and folders, in which caption files are looked for.
        videos: files or folders of videos; captions of others are left out. Without it all captions are taken, and the
            videos that lie beside a caption file tell its name from its language.
        languages: those wanted, the most wanted first; "en" takes "en-US" too. A file whose name has no language is
            taken where none of them is there.

    Raises:
        FileNotFoundError: a path is missing, or there is no caption file.
        ValueError: two videos have the same id, but for capitals perhaps; all such are named.
    """
    known = None if videos is None else _stems(_files(videos, VIDEO_SUFFIXES))
    files, left = [], []
    for path, named in _caption_files(paths):
        if not path.is_file():
            left.append(Left(path.name, "unreadable_files", f"{path}: no regular file, or a link to nothing"))
            continue
        beside = known if known is not None else _stems_beside(path.parent)
        match = _match(path.name, beside)
        if match is None and known is not None and not named:
            left.append(Left(path.name, "without_video", f"{path}: no video of that name"))
            continue
        files.append(CaptionFile(path, *(match or _by_name(path.name)), named))
    chosen = []
    files.sort(key=lambda file: (not file.named, file.video_id, str(file.path)))
    for (named, _), own in groupby(files, key=lambda file: (file.named, file.video_id)):
        group = list(own)
        if named:
            chosen += group
            continue
        _refuse_clash({file.path.parent / file.video_id for file in group})
        taken, others = _choose(group, languages)
        chosen += taken
        left += others
    _refuse_case([file.video_id for file in chosen if not file.named])
    if not chosen:
        raise FileNotFoundError(
            f"{', '.join(map(str, paths))}: no caption file to take"
            + (f" ({len(left)} were left out; {left[0].message})." if left else ".")
        )
    return Collection(chosen, left)


def _caption_files(paths: Iterable[str | Path]) -> Iterator[tuple[Path, bool]]:
    """Each file, and whether it was named."""
    for path in map(Path, paths):
        if path.is_dir():
            yield from ((found, False) for found in _files([path], (*CAPTION_SUFFIXES, *MANY_VIDEOS_SUFFIXES)))
        elif path.exists():
            yield path, True
        else:
            raise FileNotFoundError(f"{path}: missing. Give caption files, or folders of them.")


def _files(paths: Iterable[str | Path], suffixes: Iterable[str]) -> list[Path]:
    """Files with one of the suffixes in folders of any depth, and the paths that are no folders. Hidden ones are not."""
    wanted = tuple(suffixes)
    found = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path}: missing.")
        if not path.is_dir():
            found.append(path)
            continue
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if not hidden(name))
            for name in sorted(names):
                plain = name.lower().removesuffix(".gz")
                if plain.endswith(wanted) and not hidden(name) and not plain.endswith(NOT_CAPTIONS):
                    found.append(Path(folder) / name)
    return found


_beside: dict[Path, dict[str, str]] = {}


def _stems_beside(folder: Path) -> dict[str, str]:
    """The videos in a folder; looked up once a run."""
    if folder not in _beside:
        with os.scandir(folder) as entries:
            _beside[folder] = _stems(Path(entry.name) for entry in entries)
    return _beside[folder]


def _stems(paths: Iterable[Path]) -> dict[str, str]:
    """What a video's caption file may begin with -> the video's id."""
    stems: dict[str, str] = {}
    for path in paths:
        if path.suffix.lower() in VIDEO_SUFFIXES and not hidden(path.name):
            stems[path.stem] = stems[path.name] = path.stem
    return stems


def _match(name: str, stems: dict[str, str]) -> tuple[str, str] | None:
    """Video id and language of a caption file, by the videos that there are."""
    stem = split_caption_name(name)
    if stem in stems:
        return stems[stem], ""
    language = ANY_LANGUAGE.search(stem)
    if language and stem[: language.start()] in stems:
        return stems[stem[: language.start()]], language[1]
    return None


def _by_name(name: str) -> tuple[str, str]:
    """Video id and language of a caption file, by its name alone."""
    stem = split_caption_name(name)
    language = LANGUAGE.search(stem)
    return without_video_suffix(stem[: language.start()] if language else stem), language[1] if language else ""


def _refuse_clash(videos: set[Path]) -> None:
    if len(videos) > 1:
        raise ValueError(
            f"{len(videos)} videos of different folders have the same id: {', '.join(map(str, sorted(videos)))}. Prepare "
            "them apart, or rename them."
        )


def _refuse_case(video_ids: Iterable[str]) -> None:
    by_lower: dict[str, set[str]] = {}
    for video_id in video_ids:
        by_lower.setdefault(video_id.casefold(), set()).add(video_id)
    clashes = [" and ".join(sorted(own)) for own in by_lower.values() if len(own) > 1]
    if clashes:
        raise ValueError(
            f"{len(clashes)} video ids differ by capital letters alone: {'; '.join(clashes)}. Their features could "
            "overwrite each other: rename them."
        )


def _choose(group: Sequence[CaptionFile], languages: Sequence[str]) -> tuple[list[CaptionFile], list[Left]]:
    """The one file that is taken of a video's, and why the others are not."""
    video_id = group[0].video_id
    names = ", ".join(file.path.name for file in group)

    def rank(file: CaptionFile) -> tuple[int, int, str, int]:
        tag = file.language.replace("_", "-").lower()
        wanted = [
            i
            for i, language in enumerate(languages)
            if tag == language.lower() or tag.startswith(f"{language.lower()}-")
        ]
        suffix = Path(file.path.name.lower().removesuffix(".gz")).suffix
        place = CAPTION_SUFFIXES.index(suffix) if suffix in CAPTION_SUFFIXES else len(CAPTION_SUFFIXES)
        return (wanted[0] if wanted else len(languages) + (tag != ""), len(tag), tag, place)

    best, *others = sorted(group, key=rank)
    if languages and rank(best)[0] > len(languages):
        message = f"video {video_id}: none of its files {names} is in a wanted language ({', '.join(languages)})"
        return [], [Left(video_id, "other_languages", message)]
    if not languages and best.language and any(file.language != best.language for file in others):
        message = f"video {video_id}: has files in several languages, {names}: choose one with --language"
        return [], [Left(video_id, "other_languages", message)]
    message = f"video {video_id}: {best.path.name} is taken of {names}"
    return [best], [Left(video_id, "second_files", message) for _ in others]
