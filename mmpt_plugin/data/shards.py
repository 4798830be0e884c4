"""Shards: many videos' features, caption times and caption word pieces in a few memory-mapped arrays.

A shard of ours is a folder `<shards>/<name>/`:

    index.json          {"format", "version", "counts", "arrays": {name: {"file", "dtype", "shape", "sha256"}},
                        "source": free description of how features and word pieces were made, "video_ids"}
    features.npy        float16 (seconds of all videos, feature_size), one row a second
    feature_starts.npy  int64 (videos + 1,): video i has rows starts[i]:starts[i + 1]
    caption_times.npy   float32 (captions of all videos, 2): start and end in seconds
    caption_starts.npy  int64 (videos + 1,): video i has captions starts[i]:starts[i + 1]
    tokens.npy          int32 (word pieces of all captions,), without special tokens
    token_starts.npy    int64 (captions + 1,): caption c has word pieces starts[c]:starts[c + 1]

`Shard` is the common interface of these and of MMPT's own files (`mmpt_shards.py`).
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

FORMAT = "mmpt_plugin.shard"
VERSION = 1

OPEN_MAPS = 640
"""Files mapped at a time by one process. Each map holds a file descriptor, of which Linux grants 1,024 by default, and
HowTo100M's shards are 810 files."""

DTYPES = {
    "features": "float16",
    "feature_starts": "int64",
    "caption_times": "float32",
    "caption_starts": "int64",
    "tokens": "int32",
    "token_starts": "int64",
}
"""The arrays of a shard of ours."""


@lru_cache(maxsize=OPEN_MAPS)
def _map(path: str, modified: int) -> mmap.mmap:
    """Maps a file read-only. `modified` is only part of the key: a file written anew is not taken for the old one."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@dataclass(frozen=True)
class MappedArray:
    """A .npy file that each process maps when it first reads it. Pickles as a path; forked processes share the map."""

    path: str
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    modified: int

    @classmethod
    def open(cls, path: Path, dtypes: Sequence[str], dimensions: int) -> MappedArray:
        """Reads a .npy file's header and compares it with the file's size; the data itself is not read.

        Args:
            path: the file.
            dtypes: names of the dtypes that are allowed.
            dimensions: the number of dimensions it must have.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: not a .npy file, of another dtype or shape, or truncated.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path}: missing, though its shard needs it. Copy or make the whole shard again.")
        with path.open("rb") as file:
            try:
                version = np.lib.format.read_magic(file)
                read_header = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }[version]
                shape, fortran_order, dtype = read_header(file)
            except (ValueError, KeyError) as error:
                raise ValueError(f"{path}: not a whole .npy file ({error}). Copy or make the shard again.") from error
            offset = file.tell()
        if dtype not in [np.dtype(allowed) for allowed in dtypes] or len(shape) != dimensions or fortran_order:
            raise ValueError(
                f"{path}: holds {dtype} of shape {shape}{' in Fortran order' if fortran_order else ''}, "
                f"expected {' or '.join(dtypes)} with {dimensions} dimension(s) in C order."
            )
        array = cls(str(path.absolute()), dtype, shape, offset, path.stat().st_mtime_ns)
        found = path.stat().st_size
        if found != offset + array.nbytes:
            raise ValueError(
                f"{path}: truncated or altered: {found:,} bytes, but its header (shape {shape}, {dtype}) asks for "
                f"{offset + array.nbytes:,}. Copy or make the shard again."
            )
        return array

    @property
    def nbytes(self) -> int:
        """Bytes of the data, without the header."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def array(self) -> np.ndarray:
        """The data, mapped read-only."""
        # a plain array over the map: slicing a np.memmap costs several times as much
        return np.ndarray(self.shape, self.dtype, _map(self.path, self.modified), self.offset)

    def read_ahead(self, first: int, last: int) -> None:
        """Asks the system to load `array[first:last]`, which is not empty. Windows cannot be asked."""
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        row = self.dtype.itemsize * math.prod(self.shape[1:])
        begin = (self.offset + first * row) // mmap.PAGESIZE * mmap.PAGESIZE
        _map(self.path, self.modified).madvise(mmap.MADV_WILLNEED, begin, self.offset + last * row - begin)


def union_of_ranges(firsts: np.ndarray, lasts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fewest ranges that cover the same integers, in their order.

    Args:
        firsts: (ranges,) of any order.
        lasts: (ranges,) end of each, exclusive; ranges may overlap or be empty.

    Returns:
        Firsts and lasts of the union.
    """
    order = np.argsort(firsts)
    order = order[(firsts < lasts)[order]]
    starts, reach = firsts[order], np.maximum.accumulate(lasts[order])
    is_new = np.append(True, starts[1:] > reach[:-1])[: len(starts)]
    return starts[is_new], reach[np.append(is_new[1:], True)[: len(starts)]]


def read_ahead(arrays: Sequence[MappedArray], which: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> None:
    """Asks the system to load `arrays[which[i]][firsts[i]:lasts[i]]` for all i, at once, before they are needed.

    A page that is touched without having been asked for is waited for, one after the other, and the system then guesses
    what to read around it: of ranges here and there that is ten times too much (docs/performance.md).
    """
    stride = lasts.max(initial=0) + 1
    origin = which.astype(np.int64) * stride  # as if the arrays lay end to end
    begins, ends = union_of_ranges(origin + firsts, origin + lasts)
    for index, begin, end in zip((begins // stride).tolist(), (begins % stride).tolist(), (ends % stride).tolist()):
        arrays[index].read_ahead(begin, end)


def slices(arrays: Sequence[MappedArray], which: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> list[np.ndarray]:
    """Views `arrays[which[i]][firsts[i]:lasts[i]]`; each array's map is looked up once."""
    which_list = which.tolist()
    maps = {index: arrays[index].array for index in set(which_list)}
    return [maps[index][first:last] for index, first, last in zip(which_list, firsts.tolist(), lasts.tolist())]


@dataclass(frozen=True)
class RaggedArray:
    """Arrays of different lengths, end to end in one file: item i is `data[starts[i]:starts[i + 1]]`."""

    data: MappedArray
    starts: np.ndarray  # (items + 1,) int64

    @classmethod
    def open(cls, data_path: Path, starts_path: Path, dtypes: Sequence[str], dimensions: int) -> RaggedArray:
        """Opens the two files of a ragged array.

        Args:
            data_path: .npy file of all items' rows.
            starts_path: .npy file, int64 (items + 1,), from 0 to the number of rows.
            dtypes: names of the dtypes that the data may have.
            dimensions: number of dimensions of the data.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is not as described, or the two do not fit together.
        """
        data = MappedArray.open(data_path, dtypes, dimensions)
        MappedArray.open(starts_path, ["int64"], 1)
        starts = np.load(starts_path, allow_pickle=False)
        if len(starts) == 0 or starts[0] != 0 or starts[-1] != data.shape[0] or np.any(np.diff(starts) < 0):
            raise ValueError(
                f"{starts_path}: must rise from 0 to {data.shape[0]}, the rows of {data_path.name}, "
                f"but goes from {starts[:1]} to {starts[-1:]}, or falls. The two files belong to different shards?"
            )
        return cls(data, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, item: int) -> np.ndarray:
        """Item `item`, a read-only view of the file."""
        if not 0 <= item < len(self):
            raise IndexError(f"item {item} of a ragged array of {len(self)}")
        return self.data.array[self.starts[item] : self.starts[item + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Rows of each item, (items,) int64."""
        return np.diff(self.starts)


class CaptionTokens(ABC):
    """The word pieces of the captions of one shard.

    The methods read many runs of captions from many shards at once: run i is the captions firsts[i]:lasts[i], counted
    from the beginning of the shard, of stores[which[i]]. `which`, `firsts` and `lasts` are int arrays of shape (runs,).
    """

    @classmethod
    @abstractmethod
    def counts(cls, stores: Sequence[Self], which: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> np.ndarray:
        """Word pieces of each caption of the runs, end to end: (captions of all runs,) int64."""

    @classmethod
    @abstractmethod
    def gather(
        cls, stores: Sequence[Self], which: np.ndarray, firsts: np.ndarray, lasts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The runs' word pieces, end to end (pieces of all runs,) int32, and how many each run has, (runs,) int64."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes on disk."""


@dataclass(frozen=True)
class FlatTokens(CaptionTokens):
    """Our storage: caption c has the word pieces `data[starts[c]:starts[c + 1]]`."""

    data: MappedArray
    starts: MappedArray

    @classmethod
    def counts(cls, stores: Sequence[Self], which: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> np.ndarray:
        edges = slices([store.starts for store in stores], which, firsts, lasts + 1)
        return np.concatenate([np.diff(run) for run in edges])

    @classmethod
    def gather(
        cls, stores: Sequence[Self], which: np.ndarray, firsts: np.ndarray, lasts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        edges = slices([store.starts for store in stores], which, firsts, lasts + 1)
        token_firsts = np.array([run[0] for run in edges])
        token_lasts = np.array([run[-1] for run in edges])
        runs = slices([store.data for store in stores], which, token_firsts, token_lasts)
        return np.concatenate(runs), token_lasts - token_firsts

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + self.starts.nbytes


@dataclass(frozen=True)
class Shard:
    """Some videos with their features and captions, in one interface for our files and MMPT's."""

    name: str
    video_ids: list[str]
    features: RaggedArray  # item i: (seconds, feature_size) float16 or float32
    caption_times: RaggedArray  # item i: (captions, 2) float32, start and end in seconds
    caption_tokens: CaptionTokens
    source: dict[str, Any]
    checksums: dict[str, str]  # file -> sha256; empty where the format keeps none

    @property
    def nbytes(self) -> int:
        """Bytes of the mapped arrays on disk."""
        return self.features.data.nbytes + self.caption_times.data.nbytes + self.caption_tokens.nbytes

    def token_counts(self, video: int) -> np.ndarray:
        """Word pieces of each caption of a video, (captions,) int64."""
        run = self._run(video, 0, int(self.caption_times.lengths[video]))
        return self.caption_tokens.counts([self.caption_tokens], *run)

    def tokens(self, video: int, first: int, last: int) -> np.ndarray:
        """Word pieces of a video's captions first:last, end to end, (pieces,) int32."""
        return self.caption_tokens.gather([self.caption_tokens], *self._run(video, first, last))[0]

    def _run(self, video: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        start = self.caption_times.starts[video]
        return np.array([0]), np.array([start + first]), np.array([start + last])

    def verify(self) -> None:
        """Compares every file with its checksum.

        Raises:
            ValueError: a file was altered since it was written.
        """
        for path, expected in self.checksums.items():
            found = _sha256(Path(path))
            if found != expected:
                raise ValueError(
                    f"{path}: altered or damaged: sha256 {found[:16]}..., its index.json says {expected[:16]}... . "
                    "Copy or make the shard again."
                )


def read_shard(folder: Path) -> Shard:
    """Opens a shard of our format. Sizes, shapes and counts are checked; checksums are compared by `Shard.verify`.

    Args:
        folder: the shard's folder, with index.json.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the index is damaged or of another format, or a file does not fit it.
    """
    index_path = folder / "index.json"
    try:
        index = json.loads(index_path.read_text(encoding="utf-8"))
        kind = (index["format"], index["version"])
        video_ids, described, source = index["video_ids"], index["arrays"], index["source"]
        paths = {name: folder / described[name]["file"] for name in DTYPES}
        checksums = {str(paths[name]): described[name]["sha256"] for name in DTYPES}
        shapes = {name: tuple(described[name]["shape"]) for name in DTYPES}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{index_path}: not the index of a shard ({error!r}). Copy or make the shard again."
        ) from error
    if kind != (FORMAT, VERSION):
        raise ValueError(f"{index_path}: format and version are {kind}, this reader knows {(FORMAT, VERSION)}.")

    features = RaggedArray.open(paths["features"], paths["feature_starts"], [DTYPES["features"]], 2)
    caption_times = RaggedArray.open(paths["caption_times"], paths["caption_starts"], [DTYPES["caption_times"]], 2)
    tokens = FlatTokens(*(MappedArray.open(paths[name], [DTYPES[name]], 1) for name in ("tokens", "token_starts")))
    for name, array in (
        ("features", features.data),
        ("caption_times", caption_times.data),
        ("tokens", tokens.data),
        ("token_starts", tokens.starts),
    ):
        if array.shape != shapes[name]:
            raise ValueError(f"{array.path}: shape {array.shape}, but {index_path} says {shapes[name]}.")
    for starts_path, found, other_path, expected in (
        (paths["feature_starts"], len(features), index_path, len(video_ids)),
        (paths["caption_starts"], len(caption_times), paths["feature_starts"], len(features)),
        (paths["token_starts"], tokens.starts.shape[0] - 1, paths["caption_times"], caption_times.data.shape[0]),
    ):
        check_counts(starts_path, found, other_path, expected)
    check_times_shape(caption_times)
    return Shard(folder.name, video_ids, features, caption_times, tokens, source, checksums)


def check_counts(path: Path, found: int, other_path: Path, expected: int) -> None:
    """Raises a ValueError that names both files if they count differently many videos (or captions)."""
    if found != expected:
        raise ValueError(
            f"{path} counts {found} items, but {other_path} counts {expected}: they are not of the same shard. "
            "Copy or make the shard again."
        )


def check_times_shape(caption_times: RaggedArray) -> None:
    """Raises a ValueError unless the times have two columns, start and end."""
    if caption_times.data.shape[1] != 2:
        raise ValueError(f"{caption_times.data.path}: shape {caption_times.data.shape}, expected (captions, 2).")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        self.close()

    def close(self) -> None:
        self._file.close()


class ShardWriter:
    """Writes one shard, video by video, to a hidden folder beside its place and renames that when all is written.

    Memory holds one video at a time, with the ids and lengths of those before. Use as a context manager; an exception
    inside removes what was written.

        with ShardWriter(shards, "train_00000", source={"tokenizer": "bert-base-uncased"}) as writer:
            writer.add("dQw4w9WgXcQ", features, caption_times, tokens)
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
        self.feature_size = feature_size
        self._ids: dict[str, None] = {}  # keeps the order and finds duplicates
        self._starts: dict[str, list[int]] = {"feature_starts": [0], "caption_starts": [0]}
        self._partial = Path(folder) / f".{name}.{uuid.uuid4().hex}.partial"
        self._partial.mkdir(parents=True)
        row_shapes = {"features": (feature_size,), "caption_times": (2,)}
        self._files = {
            array: _NpyAppender(self._partial / f"{array}.npy", dtype, row_shapes.get(array, ()))
            for array, dtype in DTYPES.items()
        }
        self._files["token_starts"].append(np.zeros(1, np.int64))

    def add(self, video_id: str, features: ArrayLike, caption_times: ArrayLike, tokens: Sequence[ArrayLike]) -> None:
        """Appends a video.

        Args:
            video_id: its id, once a shard.
            features: (seconds, feature_size), finite also as float16.
            caption_times: (captions, 2), finite, start and end in seconds.
            tokens: for each caption its word piece ids, (pieces,) integers from 0 to 2^31 - 1, no special tokens.

        Raises:
            ValueError: an argument is not as described; the shard is then still as before this call.
        """
        if not video_id or video_id in self._ids:
            raise ValueError(f"video id {video_id!r} is {'a duplicate' if video_id else 'empty'}: ids must be unique.")
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
        if len(times) != len(tokens):
            raise ValueError(
                f"video {video_id}: {len(times)} caption times, but word pieces of {len(tokens)} captions."
            )
        pieces = [
            _as_tokens(caption, f"video {video_id}: word pieces of caption {i}") for i, caption in enumerate(tokens)
        ]
        ends = self._files["tokens"].rows + np.cumsum([len(caption) for caption in pieces], dtype=np.int64)

        self._ids[video_id] = None
        self._files["features"].append(feature_rows)
        self._files["caption_times"].append(times)
        self._files["tokens"].append(np.concatenate([np.zeros(0, np.int32), *pieces]))
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
                    "sha256": _sha256(self._partial / f"{array}.npy"),
                }
                for array, file in self._files.items()
            },
            "video_ids": list(self._ids),
        }
        (self._partial / "index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
        self._partial.rename(self.target)

    def discard(self) -> None:
        """Removes what was written."""
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._partial, ignore_errors=True)

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


def _as_tokens(values: ArrayLike, what: str) -> np.ndarray:
    tokens = np.asarray(values)
    if tokens.size == 0:
        return np.zeros(0, np.int32)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or tokens.min() < 0 or tokens.max() > np.iinfo(np.int32).max:
        raise ValueError(f"{what} must be a list of token ids from 0 to 2^31 - 1, got {tokens!r:.200}.")
    return tokens.astype(np.int32)
