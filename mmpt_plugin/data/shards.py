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
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from mmpt_plugin.data.ragged_arrays import MappedArray, RaggedArray, slices
from mmpt_plugin.data.video_ids import id_problem
from mmpt_plugin.files import UnusableFile, read_json

FORMAT = "mmpt_plugin.shard"
VERSION = 1

DTYPES = {
    "features": "float16",
    "feature_starts": "int64",
    "caption_times": "float32",
    "caption_starts": "int64",
    "tokens": "int32",
    "token_starts": "int64",
}
"""The arrays of a shard of ours."""


class CaptionPieces(ABC):
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
class FlatPieces(CaptionPieces):
    """Our storage: caption c has the word pieces `data[starts[c]:starts[c + 1]]`."""

    data: MappedArray
    starts: MappedArray

    @classmethod
    def counts(cls, stores: Sequence[Self], which: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> np.ndarray:
        edges = slices([store.starts for store in stores], which, firsts, lasts + 1)
        counts = np.concatenate([np.diff(run) for run in edges])
        if counts.min(initial=0) < 0:
            raise _falling_starts(
                [stores[index] for index, run in zip(which, edges) if np.diff(run).min(initial=0) < 0]
            )
        return counts

    @classmethod
    def gather(
        cls, stores: Sequence[Self], which: np.ndarray, firsts: np.ndarray, lasts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        edges = slices([store.starts for store in stores], which, firsts, lasts + 1)
        piece_firsts = np.array([run[0] for run in edges])
        piece_lasts = np.array([run[-1] for run in edges])
        sizes = np.array([store.data.shape[0] for store in stores])[which]
        wrong = (piece_firsts < 0) | (piece_firsts > piece_lasts) | (piece_lasts > sizes)
        if wrong.any():
            raise _falling_starts([stores[index] for index in which[wrong]])
        runs = slices([store.data for store in stores], which, piece_firsts, piece_lasts)
        return np.concatenate(runs), piece_lasts - piece_firsts

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + self.starts.nbytes


def _falling_starts(stores: Sequence[FlatPieces]) -> UnusableFile:
    return UnusableFile(
        f"{stores[0].starts.path}: altered or damaged: its numbers must rise from 0 to {stores[0].data.shape[0]}. Copy or "
        "make the shard again."
    )


@dataclass(frozen=True)
class Shard:
    """Some videos with their features and captions, in one interface for our files and MMPT's."""

    name: str
    video_ids: list[str]
    features: RaggedArray  # item i: (seconds, feature_size) float16 or float32
    caption_times: RaggedArray  # item i: (captions, 2) float32, start and end in seconds
    caption_pieces: CaptionPieces
    source: dict[str, Any]
    checksums: dict[str, str]  # file -> sha256; empty where the format keeps none

    @property
    def nbytes(self) -> int:
        """Bytes of the mapped arrays on disk."""
        return self.features.data.nbytes + self.caption_times.data.nbytes + self.caption_pieces.nbytes

    def piece_counts(self, video: int) -> np.ndarray:
        """Word pieces of each caption of a video, (captions,) int64."""
        run = self._run(video, 0, int(self.caption_times.lengths[video]))
        return self.caption_pieces.counts([self.caption_pieces], *run)

    def pieces(self, video: int, first: int, last: int) -> np.ndarray:
        """Word pieces of a video's captions first:last, end to end, (pieces,) int32."""
        return self.caption_pieces.gather([self.caption_pieces], *self._run(video, first, last))[0]

    def _run(self, video: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        start = self.caption_times.starts[video]
        return np.array([0]), np.array([start + first]), np.array([start + last])

    def verify(self) -> None:
        """Compares every file with its checksum.

        Raises:
            ValueError: a file was altered since it was written.
        """
        for path, expected in self.checksums.items():
            found = file_sha256(Path(path))
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
        index = read_json(index_path)
        kind = (index["format"], index["version"])
        video_ids, described, source = index["video_ids"], index["arrays"], index["source"]
        files = {name: described[name]["file"] for name in DTYPES}
        if any(file != Path(file).name for file in files.values()):
            raise ValueError("a file of it lies elsewhere")
        paths = {name: folder / file for name, file in files.items()}
        checksums = {str(paths[name]): described[name]["sha256"] for name in DTYPES}
        shapes = {name: tuple(described[name]["shape"]) for name in DTYPES}
        check_ids(video_ids)
        if not isinstance(source, dict):
            raise ValueError("its source is no object")
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableFile(
            f"{index_path}: not the index of a shard ({error!r}). Copy or make the shard again."
        ) from error
    if kind != (FORMAT, VERSION):
        raise ValueError(f"{index_path}: format and version are {kind}, this reader knows {(FORMAT, VERSION)}.")

    features = RaggedArray.open(paths["features"], paths["feature_starts"], [DTYPES["features"]], 2)
    caption_times = RaggedArray.open(paths["caption_times"], paths["caption_starts"], [DTYPES["caption_times"]], 2)
    pieces = FlatPieces(*(MappedArray.open(paths[name], [DTYPES[name]], 1) for name in ("tokens", "token_starts")))
    for name, array in (
        ("features", features.data),
        ("caption_times", caption_times.data),
        ("tokens", pieces.data),
        ("token_starts", pieces.starts),
    ):
        if array.shape != shapes[name]:
            raise ValueError(f"{array.path}: shape {array.shape}, but {index_path} says {shapes[name]}.")
    for starts_path, found, other_path, expected in (
        (paths["feature_starts"], len(features), index_path, len(video_ids)),
        (paths["caption_starts"], len(caption_times), paths["feature_starts"], len(features)),
        (paths["token_starts"], pieces.starts.shape[0] - 1, paths["caption_times"], caption_times.data.shape[0]),
    ):
        check_counts(starts_path, found, other_path, expected)
    edges = pieces.starts.array[[0, -1]].tolist() if pieces.starts.shape[0] else []
    if edges != [0, pieces.data.shape[0]]:
        raise _falling_starts([pieces])
    check_times_shape(caption_times)
    return Shard(folder.name, video_ids, features, caption_times, pieces, source, checksums)


def check_ids(video_ids: object) -> None:
    """Raises a ValueError unless these are a list of distinct video ids."""
    if not isinstance(video_ids, list):
        raise ValueError("its video ids are no list")
    problem = next((f"the id {video_id!r} {why}" for video_id in video_ids if (why := id_problem(video_id))), None)
    if problem:
        raise ValueError(problem)
    if len(set(video_ids)) < len(video_ids):
        raise ValueError("a video id stands in it twice")


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


def file_sha256(path: Path) -> str:
    """The checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
