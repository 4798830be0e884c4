"""Exact search among the windows' embeddings, in memory.

A scan of 8-bit codes (FAISS, in two threads) proposes candidates, whose products are then computed in full. No code is
further than `error` from its vector, so no proposed score is off by more than `error` times the query's length (Cauchy and
Schwarz). Where the last candidate's score plus that bound stays below the last hit's, no other window can be a hit; where
it does not, more candidates are taken. So the result is exact, at half the memory traffic of a plain product.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmpt_plugin.models.similarity import similarity

THREADS = 2
CANDIDATES = 256
SAMPLE = 4096  # rows that stand for all where a distribution is wanted
MOST_DEAD = 1024  # removed rows that a scan may still meet; with more the codes are made anew
MOST_SEGMENTS = 16
LARGEST_CODE = 255
NEIGHBOURS = 5
NEIGHBOUR_BLOCK = 1024
BLOCK = 1024  # rows turned into float32 at a time

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]
Ints = NDArray[np.int64]


@dataclass
class Segment:
    """Codes of the rows from `first` on: a row is about `low + step * code`, each (width,).

    FAISS scans codes of one range for all dimensions in half the time that codes of their own ranges take. So the ranges
    are taken out before coding, and the query is multiplied by `step`.
    """

    first: int
    codes: Any  # faiss.IndexScalarQuantizer
    low: Floats
    step: Floats


@dataclass
class VectorIndex:
    """Vectors of windows, each with its window: (video number, start, end).

    Attributes:
        width: of a vector.
        rows: (room, width) float16; the first `count` are filled.
        windows: (room, 3) int64; the video's number is -1 where the row was removed.
    """

    width: int
    count: int = 0
    rows: Halves = field(init=False)
    windows: Ints = field(init=False)
    error: float = 0.0  #: largest distance of a vector from its code
    _dead: int = 0
    _asked: bool = False
    _videos: set[int] = field(default_factory=set)
    _segments: list[Segment] = field(default_factory=list)
    _coded: int = 0
    _sample: tuple[tuple[int, int], Floats] | None = None
    _sample_windows: Ints = field(default_factory=lambda: np.zeros((0, 3), np.int64))

    def __post_init__(self) -> None:
        self.rows = np.zeros((0, self.width), np.float16)
        self.windows = np.zeros((0, 3), np.int64)

    def __len__(self) -> int:
        """Windows that can be found."""
        return self.count - self._dead

    def reserve(self, rows: int) -> None:
        """Makes room for so many rows in all, and for a quarter more; what is not filled takes no memory."""
        if rows > len(self.rows):
            for name in ("rows", "windows"):
                old = getattr(self, name)
                new = np.zeros((rows + rows // 4, old.shape[1]), old.dtype)
                new[: self.count] = old[: self.count]
                setattr(self, name, new)

    def add(self, vectors: Halves, windows: Ints) -> None:
        """Appends rows.

        Args:
            vectors: (n, width).
            windows: (n, 3): video number, start and end in seconds.
        """
        end = self.count + len(vectors)
        if end > len(self.rows):
            self.reserve(end)
        self.rows[self.count : end] = vectors
        self.windows[self.count : end] = windows
        self.count = end
        self._videos.update(np.unique(windows[:, 0]).tolist())

    def remove(self, videos: Collection[int]) -> None:
        """Takes all rows of these videos out."""
        found = np.isin(self.windows[: self.count, 0], list(videos))
        self._dead += int(found.sum())
        self.windows[: self.count][found, 0] = -1
        self._videos.difference_update(videos)
        if self._dead > MOST_DEAD:
            alive = self.windows[: self.count, 0] >= 0
            self.rows, self.windows = self.rows[: self.count][alive], self.windows[: self.count][alive]
            self.count, self._dead, self._coded, self._segments = len(self.rows), 0, 0, []

    def search(self, query: Floats, k: int, within: Collection[int] | None = None) -> tuple[Floats, Ints]:
        """The windows with the largest products.

        Args:
            query: (width,).
            k: how many; fewer come back where there are fewer.
            within: numbers of the only videos that count.

        Returns:
            (n,) products, falling, and the (n, 3) windows.
        """
        alive = self.windows[: self.count, 0] >= 0
        if within is not None:
            places = np.flatnonzero(alive & np.isin(self.windows[: self.count, 0], list(within)))
            return self._best(query, places, k)
        if (
            not self._asked and not self._segments
        ):  # a single query, as from the shell, is answered before codes were made
            self._asked = True
            return self._best(query, np.flatnonzero(alive), k)
        self.encode_new()
        k = min(k, len(self))
        candidates = CANDIDATES
        while 0 < candidates + self._dead < self.count:
            proposed, places = self._scan(query, max(candidates, 4 * k) + self._dead)
            scores, windows = self._best(query, places[alive[places]], k)
            if len(scores) == k and proposed[-1] + self.error * float(np.linalg.norm(query)) <= scores[-1]:
                return scores, windows
            candidates *= 8
        return self._best(query, np.flatnonzero(alive), k)

    def videos(self) -> set[int]:
        """Numbers of the videos that have rows."""
        return set(self._videos)

    def unlike_the_rest(self, k: int, within: Collection[int] | None = None) -> tuple[Floats, Ints]:
        """As the function below: of these videos' windows, those unlike the library's sample."""
        alive = self.windows[: self.count, 0] >= 0
        if within is not None:
            alive &= np.isin(self.windows[: self.count, 0], list(within))
        rest = self.sample()
        return unlike_the_rest(self.rows, self.windows, np.flatnonzero(alive), rest, self._sample_windows, k)

    def sample(self) -> Floats:
        """(n, width) at most 4096 rows that stand for all; the same for the same rows."""
        state = (self.count, self._dead)
        if self._sample is None or self._sample[0] != state:
            alive = np.flatnonzero(self.windows[: self.count, 0] >= 0)
            if len(alive) > SAMPLE:
                alive = np.sort(np.random.default_rng(0).choice(alive, SAMPLE, replace=False))
            self._sample = (state, as_floats(self.rows[alive]))
            self._sample_windows = self.windows[alive]
        return self._sample[1]

    def _best(self, query: Floats, places: Ints, k: int) -> tuple[Floats, Ints]:
        scores = np.empty(len(places), np.float32)
        for first in range(0, len(places), BLOCK):
            scores[first : first + BLOCK] = similarity(as_floats(self.rows[places[first : first + BLOCK]]), query)
        order = np.argsort(-scores, kind="stable")[:k]
        return scores[order], self.windows[places[order]]

    def _scan(self, query: Floats, candidates: int) -> tuple[Floats, Ints]:
        """Products with the codes, falling, and the rows' places."""

        def scan(segment: Segment) -> tuple[Floats, Ints]:
            scaled = (query * segment.step)[None]
            scores, places = segment.codes.search(scaled, min(candidates, segment.codes.ntotal))
            return scores[0] + query @ segment.low, places[0] + segment.first

        with ThreadPoolExecutor(THREADS) as threads:
            found = list(threads.map(scan, self._segments))
        scores = np.concatenate([own for own, _ in found])
        places = np.concatenate([own for _, own in found])
        order = np.argsort(-scores, kind="stable")[:candidates]
        return scores[order], places[order]

    def encode_new(self) -> None:
        """Makes codes of the rows that have none: all in equal parts, or a few more in a part of their own."""
        new = self.count - self._coded
        if not new:
            return
        if new > self.count // 4:
            self._segments, self._coded, self.error = [], 0, 0.0
            parts = np.array_split(np.arange(self.count), THREADS)
        else:
            parts = [np.arange(self._coded, self.count)]
        for part in parts:
            if len(part):
                self._segments.append(self._coded_segment(int(part[0]), int(part[-1]) + 1))
        self._coded = self.count
        if len(self._segments) > MOST_SEGMENTS:  # many small parts: as one, and the large ones stay
            small = next(i for i, part in enumerate(self._segments) if MOST_SEGMENTS * part.codes.ntotal < self.count)
            first = self._segments[small].first
            self._segments[small:] = [self._coded_segment(first, self.count)]

    def _coded_segment(self, first: int, end: int) -> Segment:
        import faiss

        codes = faiss.IndexScalarQuantizer(
            self.width, faiss.ScalarQuantizer.QT_8bit_uniform, faiss.METRIC_INNER_PRODUCT
        )
        codes.train(
            np.repeat(np.array([[0], [LARGEST_CODE]], np.float32), self.width, axis=1)
        )  # the range of all codes
        blocks = [self.rows[start : min(start + BLOCK, end)] for start in range(first, end, BLOCK)]
        low = np.min([block.min(axis=0) for block in blocks], axis=0).astype(np.float32)
        high = np.max([block.max(axis=0) for block in blocks], axis=0).astype(np.float32)
        step = np.maximum((high - low) / LARGEST_CODE, np.finfo(np.float32).tiny)
        for block in map(as_floats, blocks):
            scaled = (block - low) / step
            codes.add(scaled)
            decoded = low + step * codes.sa_decode(codes.sa_encode(scaled))
            self.error = max(self.error, float(np.linalg.norm(block - decoded, axis=1).max()))
        return Segment(first, codes, low, step)


def as_floats(halves: Halves) -> Floats:
    """float32 of a writable float16 array; torch takes a tenth of the time of numpy's `astype`."""
    return torch.from_numpy(halves).float().numpy()


def unlike_the_rest(
    rows: Halves, windows: Ints, places: Ints, rest: Floats, rest_windows: Ints, k: int
) -> tuple[Floats, Ints]:
    """Windows whose nearest neighbours are the furthest, around the mean of the rest.

    Args:
        rows: (n, width) and windows: (n, 3).
        places: positions in them to choose from.
        rest: (m, width) and rest_windows: (m, 3), the neighbours.
        k: how many.

    Returns:
        1 minus the mean cosine of the nearest neighbours that do not overlap, falling, and the windows, (k, 3).
    """
    scores = np.empty(len(places), np.float32)
    if not len(places):
        return scores, windows[places]
    mean = rest.mean(axis=0)
    rest = _directions(rest - mean)
    for first in range(0, len(places), NEIGHBOUR_BLOCK):
        block = places[first : first + NEIGHBOUR_BLOCK]
        cosines = _directions(as_floats(rows[block]) - mean) @ rest.T
        own, other = windows[block][:, None], rest_windows[None]
        cosines[(own[..., 0] == other[..., 0]) & (own[..., 1] < other[..., 2]) & (other[..., 1] < own[..., 2])] = -1
        nearest = min(NEIGHBOURS, cosines.shape[1])
        scores[first : first + len(block)] = 1 - np.partition(cosines, -nearest, axis=1)[:, -nearest:].mean(axis=1)
    order = np.argsort(-scores, kind="stable")[:k]
    return scores[order], windows[places[order]]


def _directions(vectors: Floats) -> Floats:
    """(n, D) rows of length 1; a zero row stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
