"""Reads MMPT's own pre-training files as they are (`ShardedTensor` there), through the interface of `shards.Shard`.

In one folder, for each split (train, val) and shard number k:

    {split}_meta.pkl                            {k: [video id, ...]}
    {split}_{k}_data.npy                        float16 (seconds, feature_size)
    {prefix}{split}_{k}.startends_data.npy      float32 (captions, 2)
    {prefix}{split}_{k}.caps_ids_data.npy       int32 (captions, 32), padded with -1
    the same names with _starts.npy             int64 (videos + 1,): video i has rows starts[i]:starts[i + 1] of _data

`prefix` is empty or ends with a dot; it names the captions' clean-up and tokenizer, as in
`raw_caption_dedup.bert-base-uncased.`.
Source: README of the reference data `shards`, made by running the original.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from mmpt_plugin.data.ragged_arrays import MappedArray, RaggedArray, slices
from mmpt_plugin.data.shards import CaptionPieces, Shard, check_counts, check_times_shape
from mmpt_plugin.files import load_pickle

META_SUFFIX = "_meta.pkl"


@dataclass(frozen=True)
class PaddedPieces(CaptionPieces):
    """MMPT's storage: caption c has the entries of row c that are not negative."""

    rows: MappedArray  # (captions, width) int32

    @classmethod
    def counts(cls, stores: Sequence[Self], which: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> np.ndarray:
        return (cls._rows(stores, which, firsts, lasts) >= 0).sum(axis=1)

    @classmethod
    def gather(
        cls, stores: Sequence[Self], which: np.ndarray, firsts: np.ndarray, lasts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        rows = cls._rows(stores, which, firsts, lasts)
        real = rows >= 0
        piece_edges = np.concatenate([[0], np.cumsum(real.sum(axis=1))])  # (captions + 1,)
        run_edges = np.concatenate([[0], np.cumsum(lasts - firsts)])  # (runs + 1,)
        return rows[real], np.diff(piece_edges[run_edges])

    @classmethod
    def _rows(cls, stores: Sequence[Self], which: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> np.ndarray:
        return np.concatenate(slices([store.rows for store in stores], which, firsts, lasts))  # (captions, width)

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes


def read_mmpt_shards(folder: Path) -> list[Shard]:
    """Opens all shards of all splits in a folder of MMPT's files. Sizes and counts are checked; there are no checksums.

    Args:
        folder: the folder with {split}_meta.pkl.

    Raises:
        FileNotFoundError: a file that a meta file calls for is missing.
        ValueError: a file is damaged, files do not fit together, or captions lie there in several versions.
    """
    names = sorted(path.name for path in folder.iterdir())
    return [
        _read_shard(folder, f"{split}_{number}", video_ids, prefix)
        for split in (name.removesuffix(META_SUFFIX) for name in names if name.endswith(META_SUFFIX))
        for metas in [_read_meta(folder / f"{split}{META_SUFFIX}")]
        for prefix in [_text_prefix(folder, names, split, metas)]
        for number, video_ids in sorted(metas.items())
    ]


def _read_meta(path: Path) -> dict[int, list[str]]:
    metas = load_pickle(path)
    if not isinstance(metas, dict) or not all(
        isinstance(number, int) and isinstance(ids, list) and all(isinstance(video_id, str) for video_id in ids)
        for number, ids in metas.items()
    ):
        raise ValueError(f"{path}: must hold {{shard number: [video ids]}}, found {metas!r:.200}.")
    return metas


def _text_prefix(folder: Path, names: Iterable[str], split: str, numbers: Iterable[int]) -> str:
    """What stands before `{split}_{number}` in the names of the split's caption files."""
    pattern = re.compile(rf"((?:.*\.)?){re.escape(split)}_(\d+)\.startends_data\.npy")
    wanted = set(numbers)
    matches = (pattern.fullmatch(name) for name in names)
    prefixes = sorted({match[1] for match in matches if match and int(match[2]) in wanted})
    if not prefixes:
        raise FileNotFoundError(
            f"{folder}: {split}{META_SUFFIX} is there, but no caption file *{split}_<number>.startends_data.npy. "
            "Copy the files of the captions into the same folder."
        )
    if len(prefixes) > 1:
        raise ValueError(
            f"{folder}: the captions of split {split} lie there in several versions, {prefixes}. "
            "Keep one of them in the folder that is given as the data."
        )
    return prefixes[0]


def _read_shard(folder: Path, name: str, video_ids: list[str], prefix: str) -> Shard:
    def ragged(stem: str, dtypes: Sequence[str]) -> RaggedArray:
        return RaggedArray.open(folder / f"{stem}_data.npy", folder / f"{stem}_starts.npy", dtypes, 2)

    features = ragged(name, ["float16", "float32"])
    caption_times = ragged(f"{prefix}{name}.startends", ["float32"])
    captions = ragged(f"{prefix}{name}.caps_ids", ["int32"])
    feature_starts, time_starts, caption_starts = (
        folder / f"{stem}_starts.npy" for stem in (name, f"{prefix}{name}.startends", f"{prefix}{name}.caps_ids")
    )
    meta_path = folder / f"{name.rpartition('_')[0]}{META_SUFFIX}"
    check_counts(meta_path, len(video_ids), feature_starts, len(features))
    check_counts(time_starts, len(caption_times), feature_starts, len(features))
    if not np.array_equal(captions.starts, caption_times.starts):
        raise ValueError(f"{caption_starts} and {time_starts} give the videos different numbers of captions.")
    check_times_shape(caption_times)
    source = {"format": "MMPT", "captions": prefix}
    return Shard(name, video_ids, features, caption_times, PaddedPieces(captions.data), source, checksums={})
