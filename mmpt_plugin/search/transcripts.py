"""Which file says what is spoken in a video, and its lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmpt_plugin.captions import read_transcript
from mmpt_plugin.search.store import Line

SUFFIXES = (".ass", ".json", ".json3", ".srt", ".ssa", ".tsv", ".ttml", ".vtt")


class Transcripts:
    """Finds a video's transcript: by its path or id in a mapping, by its name in a folder, or beside the video.

    Args:
        source: a folder, {video id or path: file}, or None for files beside the videos.
    """

    def __init__(self, source: str | Path | Mapping[str, str | Path] | None) -> None:
        self.named = {str(key): Path(file) for key, file in source.items()} if isinstance(source, Mapping) else {}
        self.folder: dict[str, Path] | None = None
        if isinstance(source, (str, Path)):
            if not Path(source).is_dir():
                raise FileNotFoundError(f"--transcripts {source}: no such folder")
            self.folder = by_name(Path(source))
        self._beside: dict[Path, dict[str, Path]] = {}

    def of(self, video_id: str, path: Path) -> Path | None:
        """The video's transcript; None if there is none."""
        for key in (video_id, str(path)):
            if key in self.named:
                return self.named[key]
        if self.named:
            return None
        if self.folder is not None:
            return self.folder.get(path.stem)
        if path.parent not in self._beside:
            self._beside[path.parent] = by_name(path.parent, deep=False)
        return self._beside[path.parent].get(path.stem)


def by_name(folder: Path, deep: bool = True) -> dict[str, Path]:
    """Transcripts in a folder by the name of their video; `a.vtt` comes before `a.en.vtt`."""
    files = [
        path for path in sorted(folder.rglob("*") if deep else folder.iterdir()) if path.suffix.lower() in SUFFIXES
    ]
    return {path.stem.rpartition(".")[0]: path for path in files} | {path.stem: path for path in files}


def read_lines(path: Path) -> list[Line]:
    """The spoken lines of a transcript.

    Raises:
        ValueError, OSError: if it cannot be read.
    """
    return [Line(*caption) for caption in read_transcript(path)]
