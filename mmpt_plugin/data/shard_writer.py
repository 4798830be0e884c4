"""Writing shards of our format (`shards.py`): aside, and renamed when all is written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mmpt_plugin.captions.tidying import MOST_SECONDS
from mmpt_plugin.data.shards import DTYPES, FORMAT, VERSION, file_sha256
from mmpt_plugin.data.video_ids import id_problem
from mmpt_plugin.files.writing import aside_path


class _NpyAppender:
    """Writes a .npy file row by row, its number of rows being known only at the end."""

    def __init__(self, path: Path, dtype: DTypeLike, row_shape: tuple[int, ...] = ()) -> None:
        self.dtype = np.dtype(dtype)
        self.row_shape = row_shape
        self.rows = 0
        self._file: BinaryIO = path.open("wb")
        self._data_start = self._write_header()

    def _write_header(self) -> int:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, *self.row_shape)}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()

    def append(self, rows: np.ndarray) -> None:
        """Appends rows of shape (n, *row_shape)."""
        self._file.write(np.ascontiguousarray(rows, self.dtype).data)
        self.rows += len(rows)

    def finish(self) -> None:
        """Writes the final number of rows into the header, for which numpy leaves room, and closes the file."""
        self._file.seek(0)
        assert self._write_header() == self._data_start
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()

    def close(self) -> None:
        self._file.close()


class ShardWriter:
    """Writes one shard, video by video, to a hidden folder beside its place and renames that when all is written.

    Memory holds one video at a time, with the ids and lengths of those before. Use as a context manager; an exception
    inside removes what was written.

        with ShardWriter(shards, "train_00000", source={"tokenizer": "bert-base-uncased"}) as writer:
            writer.add("dQw4w9WgXcQ", features, caption_times, pieces)
    """

    def __init__(
        self, folder: str | Path, name: str, *, source: dict[str, Any] | None = None, feature_size: int = 512
    ) -> None:
        """Creates the hidden folder.

        Args:
            folder: folder of all shards; made if there is none.
            name: the shard's name, a plain folder name.
            source: how features and word pieces were made (network, fps, tokenizer, ...), the same for all shards of a
                corpus; JSON values.
            feature_size: width of the features.

        Raises:
            FileExistsError: the shard exists.
            ValueError: the name is no plain folder name.
        """
        if not name or name != Path(name).name or name.startswith("."):
            raise ValueError(f"shard name {name!r} must be a plain folder name that does not start with a dot.")
        self.target = Path(folder) / name
        if self.target.exists():
            raise FileExistsError(f"{self.target}: exists. Remove it first, or choose another shard name or folder.")
        self.source = json.loads(json.dumps(source or {}))  # what JSON cannot hold fails here, not at the end
        captions = self.source.get("captions")
        size = captions.get("vocabulary_size") if isinstance(captions, dict) else None
        self._vocabulary_size = size if isinstance(size, int) else 2**31
        self.feature_size = feature_size
        self._ids: dict[str, None] = {}  # keeps the order and finds duplicates
        self._starts: dict[str, list[int]] = {"feature_starts": [0], "caption_starts": [0]}
        self._partial = aside_path(self.target)
        self._partial.mkdir(parents=True)
        row_shapes = {"features": (feature_size,), "caption_times": (2,)}
        self._files = {
            array: _NpyAppender(self._partial / f"{array}.npy", dtype, row_shapes.get(array, ()))
            for array, dtype in DTYPES.items()
        }
        self._files["token_starts"].append(np.zeros(1, np.int64))

    def add(self, video_id: str, features: ArrayLike, caption_times: ArrayLike, pieces: Sequence[ArrayLike]) -> None:
        """Appends a video.

        Args:
            video_id: its id, once a shard.
            features: (seconds, feature_size), finite also as float16.
            caption_times: (captions, 2), finite, start and end in seconds.
            pieces: for each caption its word piece ids, (pieces,) integers from 0 to 2^31 - 1, no special tokens.

        Raises:
            ValueError: an argument is not as described; the shard is then still as before this call.
        """
        problem = "is a duplicate" if video_id in self._ids else id_problem(video_id)
        if problem:
            raise ValueError(f"video id {video_id!r} {problem}: ids must be distinct lines of text.")
        feature_rows = np.asarray(features)
        if feature_rows.ndim != 2 or feature_rows.shape[1] != self.feature_size:
            raise ValueError(
                f"video {video_id}: features of shape {feature_rows.shape}, expected (seconds, {self.feature_size}). "
                "Set feature_size to the width of the network that made them."
            )
        feature_rows = _as_finite(feature_rows, np.float16, f"video {video_id}: features")
        times = np.asarray(caption_times).reshape(-1, 2) if np.size(caption_times) == 0 else np.asarray(caption_times)
        if times.ndim != 2 or times.shape[1] != 2:
            raise ValueError(f"video {video_id}: caption times of shape {times.shape}, expected (captions, 2).")
        times = _as_finite(times, np.float32, f"video {video_id}: caption times")
        if np.abs(times).max(initial=0) >= MOST_SECONDS:
            raise ValueError(
                f"video {video_id}: caption times reach {np.abs(times).max():.3g} s, which are no seconds."
            )
        if len(times) != len(pieces):
            raise ValueError(
                f"video {video_id}: {len(times)} caption times, but word pieces of {len(pieces)} captions."
            )
        stored = [
            _as_pieces(caption, f"video {video_id}: word pieces of caption {i}") for i, caption in enumerate(pieces)
        ]
        largest = max((int(caption.max()) for caption in stored if len(caption)), default=0)
        if largest >= self._vocabulary_size:
            raise ValueError(
                f"video {video_id}: word piece {largest}, but its captions' vocabulary has {self._vocabulary_size}."
            )
        ends = self._files["tokens"].rows + np.cumsum([len(caption) for caption in stored], dtype=np.int64)

        self._ids[video_id] = None
        self._files["features"].append(feature_rows)
        self._files["caption_times"].append(times)
        self._files["tokens"].append(np.concatenate([np.zeros(0, np.int32), *stored]))
        self._files["token_starts"].append(ends)
        self._starts["feature_starts"].append(self._files["features"].rows)
        self._starts["caption_starts"].append(self._files["caption_times"].rows)

    def close(self) -> None:
        """Writes the index and moves the shard to its place.

        Raises:
            ValueError: no video was added.
        """
        if not self._ids:
            raise ValueError(f"{self.target}: no video was added, and a shard must have at least one.")
        for array, starts in self._starts.items():
            self._files[array].append(np.array(starts))
        for file in self._files.values():
            file.finish()
        index = {
            "format": FORMAT,
            "version": VERSION,
            "source": self.source,
            "counts": {
                "videos": len(self._ids),
                "seconds": self._files["features"].rows,
                "captions": self._files["caption_times"].rows,
                "tokens": self._files["tokens"].rows,
            },
            "arrays": {
                array: {
                    "file": f"{array}.npy",
                    "dtype": file.dtype.name,
                    "shape": [file.rows, *file.row_shape],
                    "sha256": file_sha256(self._partial / f"{array}.npy"),
                }
                for array, file in self._files.items()
            },
            "video_ids": list(self._ids),
        }
        (self._partial / "index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
        self._partial.rename(self.target)

    def discard(self) -> None:
        """Removes what was written, first: on a full disk closing fails, as it writes what is left."""
        shutil.rmtree(self._partial, ignore_errors=True)
        for file in self._files.values():
            with suppress(OSError):
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.discard()  # nothing is left to remove after a whole close


def _as_finite(values: np.ndarray, dtype: DTypeLike, what: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # an overflow is reported below
        converted = values.astype(dtype)
    if not np.isfinite(converted).all():
        row = int(np.flatnonzero(~np.isfinite(converted).all(axis=1))[0])
        raise ValueError(
            f"{what} must be finite as {np.dtype(dtype).name}, row {row} is not (NaN, infinite or too large)."
        )
    return converted


def _as_pieces(values: ArrayLike, what: str) -> np.ndarray:
    pieces = np.asarray(values)
    if pieces.size == 0:
        return np.zeros(0, np.int32)
    if pieces.ndim != 1 or pieces.dtype.kind not in "iu" or pieces.min() < 0 or pieces.max() > np.iinfo(np.int32).max:
        raise ValueError(f"{what} must be a list of token ids from 0 to 2^31 - 1, got {pieces!r:.200}.")
    return pieces.astype(np.int32)
