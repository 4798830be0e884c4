"""A folder of per-second video features, `<video id>.npy`, read without copying what is not asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mmpt_plugin.data.windows import whole_seconds
from mmpt_plugin.files import UnusableFile, is_hidden, open_array
from mmpt_plugin.files.names import without_video_suffix

logger = logging.getLogger(__name__)

ALLOWED_DTYPES = (np.dtype(np.float16), np.dtype(np.float32))
LISTED = 5


class FeatureFolder:
    """Features of videos, one `.npy` file each: (rows, feature_size), float16 or float32, some rows a second.

    The file name is the video id plus `.npy`, whatever the id contains ("-a_b", "clip.avi"). Files are memory-mapped
    and checked when they are opened, rows when they are loaded.

    Args:
        path: the folder.
        feature_size: expected width of a row.
        max_seconds: longest window that the model takes, for whoever cuts the videos into windows.
        features_per_second: rows of a second; a last second may have fewer.
        drop_suffix: files are named `<video id>.mp4.npy` (or .webm, .mkv, ...); the video's suffix is no part of its id.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if several files are of one video; all are named.
    """

    def __init__(
        self,
        path: str | Path,
        feature_size: int = 512,
        max_seconds: int = 32,
        drop_suffix: bool = False,
        features_per_second: int = 1,
    ) -> None:
        self.path = Path(path)
        self.feature_size = feature_size
        self.max_seconds = max_seconds
        self.features_per_second = features_per_second
        if not self.path.is_dir():
            raise FileNotFoundError(
                f"feature folder {self.path} does not exist: extract the features there or set task.features"
            )
        names = sorted(file.name.removesuffix(".npy") for file in self.path.glob("*.npy") if not is_hidden(file))
        self._names = names_by_id(names, drop_suffix, self.path)

    def ids(self) -> list[str]:
        """Ids of all videos with a feature file, sorted."""
        return sorted(self._names)

    def require(self, video_ids: Iterable[str], on_missing: str = "error") -> tuple[list[str], list[str]]:
        """Splits the distinct ids, in their order, into those with and those without a feature file.

        Args:
            video_ids: wanted ids; repetitions count once.
            on_missing: "error" refuses any missing file, "skip" logs a warning and leaves it to the caller to report
                the second list.

        Returns:
            Ids present and ids missing.

        Raises:
            FileNotFoundError: if files are missing and `on_missing` is "error", or if all are missing.
            ValueError: for another value of `on_missing`.
        """
        if on_missing not in ("error", "skip"):
            raise ValueError(f"task.on_missing is {on_missing!r}; allowed: 'error', 'skip'")
        wanted = list(dict.fromkeys(video_ids))
        present = [video_id for video_id in wanted if video_id in self._names]
        missing = [video_id for video_id in wanted if video_id not in self._names]
        if missing:
            some = ", ".join(missing[:LISTED]) + (", ..." if len(missing) > LISTED else "")
            message = f"{len(missing)} of {len(wanted)} videos have no <video id>.npy in {self.path}: {some}"
            suffixed = {without_video_suffix(name) for name in self._names}
            if not suffixed.isdisjoint(missing):
                message += ". Some are there under names with the video's suffix: set task.drop_suffix=true"
            if not present:
                raise FileNotFoundError(f"{message}. Nothing is left: is task.features the right folder?")
            if on_missing == "error":
                raise FileNotFoundError(
                    f"{message}. Extract them, or set task.on_missing=skip to leave them out (counted in the results)"
                )
            logger.warning("%s; left out (task.on_missing=skip)", message)
        return present, missing

    def seconds(self, video_id: str) -> int:
        """Length of a video, from the file's header.

        Raises:
            FileNotFoundError, ValueError: as `load`.
        """
        return int(whole_seconds(np.array(len(self._open(video_id))), self.features_per_second))

    def load(self, video_id: str, start: int = 0, end: int | None = None) -> np.ndarray:
        """The rows of seconds start..end (exclusive) of a video, as far as it has them.

        Args:
            video_id: one of `ids`.
            start: first second.
            end: second after the last; default: to the end of the video.

        Returns:
            (rows, feature_size) as stored; no rows if the stretch lies beyond the video's end.

        Raises:
            FileNotFoundError: if the video has no file.
            ValueError: for a file that is no `.npy` array, is truncated, or has another rank, width or dtype; for NaN
                or infinite values in the rows; for a negative start or an end before the start.
        """
        if start < 0 or (end is not None and end < start):
            raise ValueError(f"rows {start}..{end} of video {video_id}: 0 <= start <= end is needed")
        start, end = start * self.features_per_second, None if end is None else end * self.features_per_second
        rows = np.array(self._open(video_id)[start:end])
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"{self._file(video_id)}: NaN or infinite values in {len(rows) - finite.sum()} of rows {start}.."
                f"{start + len(rows)}, first in row {start + finite.argmin()}: extract this video again"
            )
        return rows

    def _file(self, video_id: str) -> Path:
        return self.path / f"{self._names.get(video_id, video_id)}.npy"

    def _open(self, video_id: str) -> np.ndarray:
        file = self._file(video_id)
        try:
            array = open_array(file)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"video {video_id} has no feature file {file}") from error
        except UnusableFile as error:
            raise UnusableFile(f"{error}. Extract this video again") from error
        if array.dtype not in ALLOWED_DTYPES:
            raise ValueError(f"{file} holds {array.dtype}; features must be float16 or float32")
        if array.ndim != 2 or array.shape[1] != self.feature_size:
            raise ValueError(
                f"{file} has shape {array.shape}; features must be (seconds, {self.feature_size}), one row a second: "
                "the width is model.feature_size of the model they are for"
            )
        return array


def names_by_id(names: Iterable[str], drop_suffix: bool, folder: Path) -> dict[str, str]:
    """Video id -> name of its feature file without `.npy`.

    Args:
        names: of all the files.
        drop_suffix: as for `FeatureFolder`.
        folder: for the message.

    Raises:
        ValueError: if several files are of one video; all are named.
    """
    files: dict[str, list[str]] = {}
    for name in names:
        files.setdefault(without_video_suffix(name) if drop_suffix else name, []).append(name)
    clashes = [", ".join(own) for own in files.values() if len(own) > 1]
    if clashes:
        raise ValueError(
            f"{folder}: {len(clashes)} video ids have several feature files: {'; '.join(clashes)}. Keep one of each."
        )
    return {video_id: own[0] for video_id, own in files.items()}
