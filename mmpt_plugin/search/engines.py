"""The windows' vectors in an engine elsewhere, for libraries that outgrow one machine's memory.

An address names the engine: `qdrant:http://HOST:6333` is a Qdrant server. Everything else (states of seconds, pictures,
spoken lines, records) stays in the library's own file. Each library has a collection of its own in the engine.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from mmpt_plugin.extras import naming_extras
from mmpt_plugin.search.vectors import SAMPLE, Floats, Halves, Ints, unlike_the_rest

IN_MEMORY = "qdrant::memory:"
KEY = "QDRANT_API_KEY"
TIMEOUT = 30  # seconds for an answer
BATCH = 256  # windows in one request
WINDOWS_OF_A_VIDEO = 1 << 20  # more than any video has: numbers points by video and window


class Engine(Protocol):
    """A store of windows' vectors, by the numbers of their videos."""

    def __len__(self) -> int:
        """Windows in it."""

    def add(self, number: int, spans: Ints, vectors: Halves) -> None:
        """Writes a video's windows: (n, 2) starts and ends in seconds, (n, width) vectors."""

    def remove(self, numbers: Collection[int]) -> None:
        """Takes these videos' windows out."""

    def keep_only(self, numbers: Collection[int]) -> None:
        """Takes the windows of all other videos out."""

    def search(self, query: Floats, k: int, within: Collection[int] | None = None) -> tuple[Floats, Ints]:
        """As `VectorIndex.search`; whether it is exact is up to the engine."""

    def scan(self, numbers: Collection[int]) -> Iterator[tuple[Halves, Ints]]:
        """(n, width) vectors and (n, 3) windows of these videos, in parts."""


def check_address(address: str) -> None:
    """Refuses what is no engine's address, or one whose package is missing.

    Raises:
        ValueError: for an unknown address.
        MissingExtra: naming the extra to install.
    """
    kind, _, place = address.partition(":")
    if kind != "qdrant" or not (place == ":memory:" or place.startswith(("http://", "https://"))):
        raise ValueError(
            f"--engine {address}: no address of an engine; qdrant:http://HOST:6333 names a Qdrant server (a folder of "
            "Qdrant's local mode is not taken, because its client unpickles what lies there)"
        )
    with naming_extras("qdrant", f"--engine {address}"):
        import qdrant_client  # noqa: F401


def new_collection() -> str:
    """A name that no other library's collection has."""
    return f"mmpt-{secrets.token_hex(8)}"


@lru_cache(maxsize=8)
def connect(address: str, key: str | None) -> Any:
    """The client of an address; one for a process, which also keeps what is only in memory."""
    from qdrant_client import QdrantClient

    place = address.partition(":")[2]
    if address == IN_MEMORY:
        return QdrantClient(":memory:")
    return QdrantClient(url=place, api_key=key, timeout=TIMEOUT, check_compatibility=False)


class Qdrant:
    """A collection of a Qdrant server, or of its client's memory for tests.

    Args:
        address: as above.
        collection: its name; made if it is not there.
        width: of a vector.
        trusted: whether the user named the address. Only then does the key in QDRANT_API_KEY go there: a library that
            comes from somebody else shall not name a server that collects keys.

    Raises:
        OSError: if the engine does not answer, or refuses.
    """

    def __init__(self, address: str, collection: str, width: int, trusted: bool) -> None:
        check_address(address)
        from qdrant_client import models

        self.address, self.collection, self.models = address, collection, models
        with self._answers():
            self.client = connect(address, os.environ.get(KEY) if trusted else None)
            if not self.client.collection_exists(collection):
                vectors = models.VectorParams(
                    size=width, distance=models.Distance.DOT, datatype=models.Datatype.FLOAT16, on_disk=True
                )
                self.client.create_collection(collection, vectors_config=vectors)
                if address != IN_MEMORY:
                    self.client.create_payload_index(collection, "video", models.PayloadSchemaType.INTEGER)

    @contextmanager
    def _answers(self) -> Iterator[None]:
        from qdrant_client.http.exceptions import ApiException

        try:
            yield
        except (ApiException, ConnectionError) as error:
            raise OSError(
                f"the engine {self.address} cannot be used ({error}): is it running, and does {KEY} hold its key? "
                "--engine names it where it has moved"
            ) from error

    def _of(self, numbers: Collection[int]) -> Any:
        """The condition that a window belongs to one of these videos."""
        return self.models.FieldCondition(key="video", match=self.models.MatchAny(any=sorted(numbers)))

    def __len__(self) -> int:
        with self._answers():
            return self.client.count(self.collection, exact=True).count

    def add(self, number: int, spans: Ints, vectors: Halves) -> None:
        for first in range(0, len(spans), BATCH):
            part = slice(first, first + BATCH)
            points = self.models.Batch(
                ids=[number * WINDOWS_OF_A_VIDEO + first + place for place in range(len(spans[part]))],
                vectors=vectors[part].astype(np.float32).tolist(),
                payloads=[{"video": number, "start": start, "end": end} for start, end in spans[part].tolist()],
            )
            with self._answers():
                self.client.upsert(self.collection, points, wait=True)

    def remove(self, numbers: Collection[int]) -> None:
        self._delete(self.models.Filter(must=[self._of(numbers)]))

    def keep_only(self, numbers: Collection[int]) -> None:
        self._delete(self.models.Filter(must_not=[self._of(numbers)]))

    def _delete(self, condition: Any) -> None:
        with self._answers():
            self.client.delete(self.collection, self.models.FilterSelector(filter=condition), wait=True)

    def search(self, query: Floats, k: int, within: Collection[int] | None = None) -> tuple[Floats, Ints]:
        condition = None if within is None else self.models.Filter(must=[self._of(within)])
        with self._answers():
            found = self.client.query_points(self.collection, query.tolist(), query_filter=condition, limit=k).points
        return np.array([point.score for point in found], np.float32), _windows(found)

    def scan(self, numbers: Collection[int]) -> Iterator[tuple[Halves, Ints]]:
        condition, offset = self.models.Filter(must=[self._of(numbers)]), None
        while True:
            with self._answers():
                points, offset = self.client.scroll(
                    self.collection, condition, limit=BATCH, offset=offset, with_vectors=True
                )
            if points:
                yield np.array([point.vector for point in points], np.float16), _windows(points)
            if offset is None:
                return


def _windows(points: list[Any]) -> Ints:
    """(n, 3) video number, start and end of points."""
    rows = [[point.payload[name] for name in ("video", "start", "end")] for point in points]
    return np.array(rows, np.int64).reshape(-1, 3)


class EngineIndex:
    """Searches an engine as `VectorIndex` searches memory.

    Args:
        engine: which holds the vectors.
        width: of a vector.
    """

    def __init__(self, engine: Engine, width: int) -> None:
        self.engine = engine
        self.width = width
        self._videos: frozenset[int] = frozenset()
        self._windows = 0
        self._sample: tuple[frozenset[int], Floats, Ints] | None = None

    def follow(self, videos: Collection[int], windows: int) -> None:
        """Takes note of the videos that are there now, and of their windows' number."""
        self._videos, self._windows = frozenset(videos), windows

    def __len__(self) -> int:
        return self._windows

    def search(self, query: Floats, k: int, within: Collection[int] | None = None) -> tuple[Floats, Ints]:
        """As `VectorIndex.search`, as exact as the engine is; windows that a killed process left behind are no hits."""
        scores, windows = self.engine.search(query, k, within)
        known = np.isin(windows[:, 0], list(self._videos))
        return scores[known], windows[known]

    def sample(self) -> Floats:
        """(n, width) about 4096 rows at most, of videos drawn at random; drawn again when a tenth of them changed."""
        return self._drawn()[0]

    def _drawn(self) -> tuple[Floats, Ints]:
        if self._sample is None or len(self._sample[0] ^ self._videos) > len(self._sample[0]) // 10:
            rows, windows, count = [np.zeros((0, self.width), np.float16)], [np.zeros((0, 3), np.int64)], 0
            for number in np.random.default_rng(0).permutation(sorted(self._videos)).tolist():
                for own, places in self.engine.scan([number]):
                    rows.append(own)
                    windows.append(places)
                    count += len(own)
                if count >= SAMPLE:
                    break
            self._sample = (self._videos, np.concatenate(rows).astype(np.float32), np.concatenate(windows))
        return self._sample[1], self._sample[2]

    def unlike_the_rest(self, k: int, within: Collection[int] | None = None) -> tuple[Floats, Ints]:
        """As of `VectorIndex`; where no videos are named, only the sample's windows are looked at."""
        rest, rest_windows = self._drawn()
        if within is None:
            rows, windows = rest.astype(np.float16), rest_windows
            return unlike_the_rest(rows, windows, np.arange(len(rows)), rest, rest_windows, k)
        parts = list(self.engine.scan(within))
        rows = np.concatenate([np.zeros((0, self.width), np.float16), *(own for own, _ in parts)])
        windows = np.concatenate([np.zeros((0, 3), np.int64), *(places for _, places in parts)])
        return unlike_the_rest(rows, windows, np.arange(len(rows)), rest, rest_windows, k)
