"""Arrays in .npy files, mapped into memory when they are first read; ragged ones, and reading ahead of many slices."""

from __future__ import annotations

import math
import mmap
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmpt_plugin.files import UnusableFile, read_array_header

OPEN_MAPS = 640
"""Files mapped at a time by one process. Each map holds a file descriptor, of which Linux grants 1,024 by default, and
HowTo100M's shards are 810 files."""


LOOK_SECONDS = 0.02
"""A file in use is looked at so often, at most; each look takes some microseconds."""

_looked_at: dict[str, float] = {}  # path -> when


class Version(NamedTuple):
    """What tells a file from one that took its place."""

    bytes: int
    modified: int  # nanoseconds

    @classmethod
    def of(cls, path: str | Path) -> Version:
        """The file that lies there now."""
        status = os.stat(path)
        return cls(status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=OPEN_MAPS)
def _map(path: str, version: Version) -> mmap.mmap:
    """Maps a file read-only."""
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if (status.st_size, status.st_mtime_ns) != version:
            raise _changed(path)
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _changed(path: str, problem: str = "was altered or replaced") -> UnusableFile:
    return UnusableFile(
        f"{path}: {problem} since this run opened it. Leave shards alone while they are read; start the run again, from its "
        "last checkpoint."
    )


@dataclass(frozen=True)
class MappedArray:
    """A .npy file that each process maps when it first reads it. Pickles as a path; forked processes share the map."""

    path: str
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    version: Version

    @classmethod
    def open(cls, path: Path, dtypes: Sequence[str], dimensions: int) -> MappedArray:
        """Reads a .npy file's header and compares it with the file's size; the data itself is not read.

        Args:
            path: the file.
            dtypes: names of the dtypes that are allowed.
            dimensions: the number of dimensions it must have.

        Raises:
            FileNotFoundError: there is no such file.
            UnusableFile: not a .npy file, of another dtype or shape, truncated or followed by other bytes.
        """
        try:
            header = read_array_header(path, dtypes=dtypes, dimensions=dimensions)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error}, though its shard needs it. Copy or make the whole shard again."
            ) from error
        except UnusableFile as error:
            raise UnusableFile(f"{error}. Copy or make the shard again.") from error
        return cls(str(path.absolute()), header.dtype, header.shape, header.offset, Version.of(path))

    @property
    def nbytes(self) -> int:
        """Bytes of the data, without the header."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def array(self) -> np.ndarray:
        """The data, mapped read-only.

        Raises:
            UnusableFile: the file was altered, replaced or removed since it was opened.
        """
        # a plain array over the map: slicing a np.memmap costs several times as much
        return np.ndarray(self.shape, self.dtype, self._map(), self.offset)

    def read_ahead(self, first: int, last: int) -> None:
        """Asks the system to load `array[first:last]`, which is not empty. Windows cannot be asked."""
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        row = self.dtype.itemsize * math.prod(self.shape[1:])
        begin = (self.offset + first * row) // mmap.PAGESIZE * mmap.PAGESIZE
        self._map().madvise(mmap.MADV_WILLNEED, begin, self.offset + last * row - begin)

    def _map(self) -> mmap.mmap:
        """The map. Reading beyond the end of a file that was cut would end the process without a word, so it is looked at."""
        now = time.monotonic()
        if now - _looked_at.get(self.path, -LOOK_SECONDS) >= LOOK_SECONDS:
            _look(self.path, self.version)
            _looked_at[self.path] = now
        return _map(self.path, self.version)


def _look(path: str, version: Version) -> None:
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise _changed(path, "was removed") from error
    if (status.st_size, status.st_mtime_ns) != version:
        raise _changed(path)


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
