"""The library's file: one SQLite database with settings, videos, states of seconds, embeddings, pictures and spoken lines.

A video is written in one transaction: it is there as a whole or not at all, whatever kills the process. Readers see the
last whole state while a writer is at work (write-ahead log). Vectors are plain float16 numbers in blobs; nothing is ever
unpickled.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmpt_plugin.search.phrases import words_of

DATABASE = "library.sqlite"
VERSION = 2  # 2: the windows' vectors may lie in an engine elsewhere
OLDEST_VERSION = 1
STATE_BLOCK = 64  # seconds of states in one row
PAGE_BYTES = 16_384
BUSY_SECONDS = 30
MAPPED_BYTES = 0x7FFF0000  # as much of the file as SQLite maps at most: pages are then read without being copied

SCHEMA = f"""
PRAGMA page_size = {PAGE_BYTES};
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE video (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again, so that a change is a new number
    id TEXT NOT NULL UNIQUE,
    path TEXT NOT NULL UNIQUE,
    bytes INTEGER NOT NULL,
    modified INTEGER NOT NULL,                 -- nanoseconds
    sha256 TEXT NOT NULL,
    seconds INTEGER NOT NULL,
    failure TEXT,                              -- why there is nothing of it
    warning TEXT,
    transcript TEXT,
    transcript_sha256 TEXT
);
CREATE TABLE window (video INTEGER PRIMARY KEY REFERENCES video ON DELETE CASCADE, spans BLOB NOT NULL, vectors BLOB NOT NULL);
CREATE TABLE state (
    number INTEGER PRIMARY KEY, video INTEGER NOT NULL REFERENCES video ON DELETE CASCADE,
    start INTEGER NOT NULL, vectors BLOB NOT NULL, UNIQUE (video, start)
);
CREATE TABLE picture (
    number INTEGER PRIMARY KEY, video INTEGER NOT NULL REFERENCES video ON DELETE CASCADE,
    second INTEGER NOT NULL, jpeg BLOB NOT NULL, UNIQUE (video, second)
);
CREATE TABLE line (
    number INTEGER PRIMARY KEY, video INTEGER NOT NULL REFERENCES video ON DELETE CASCADE,
    start REAL NOT NULL, end REAL NOT NULL, text TEXT NOT NULL
);
CREATE INDEX line_of_video ON line (video, start);
CREATE VIRTUAL TABLE spoken USING fts5 (words, tokenize = "porter unicode61 remove_diacritics 2");
CREATE TABLE label (
    number INTEGER PRIMARY KEY, query TEXT NOT NULL, video_id TEXT NOT NULL,
    start REAL NOT NULL, end REAL NOT NULL, right INTEGER NOT NULL, UNIQUE (query, video_id, start, end)
);
"""

Halves = NDArray[np.float16]


class Line(NamedTuple):
    """Something said, from `start` to `end` seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Video:
    """What the library knows of a file."""

    id: str
    path: Path
    bytes: int
    modified: int
    sha256: str
    seconds: int = 0
    failure: str | None = None
    warning: str | None = None
    transcript: str | None = None
    transcript_sha256: str | None = None
    number: int = 0


@dataclass(frozen=True)
class Rows:
    """What a video became.

    Attributes:
        spans: (n, 2) int64, the windows' start and end in seconds.
        vectors: (n, D) their embeddings.
        states: (seconds, D), one row a second.
        pictures: JPEG bytes by second.
    """

    spans: NDArray[np.int64]
    vectors: Halves
    states: Halves
    pictures: Mapping[int, bytes] = field(default_factory=dict)


class Store:
    """One library's database. Each thread has its own connection."""

    def __init__(self, folder: Path) -> None:
        """Opens an existing database.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is another file or of a newer version.
        """
        self.path = folder / DATABASE
        self._local = threading.local()
        if not self.path.is_file():
            raise FileNotFoundError(f"{folder} is no library (it has no {DATABASE}): create one with mmpt-search index")
        try:
            version = self.setting("version")
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path} is no library's database ({error}): restore it or index anew") from error
        if not isinstance(version, int) or not OLDEST_VERSION <= version <= VERSION:
            raise ValueError(
                f"{self.path} has version {version}, this release reads {OLDEST_VERSION} to {VERSION}: update "
                "mmpt_plugin, or index anew"
            )

    @classmethod
    def create(cls, folder: Path, settings: Mapping[str, Any]) -> Store:
        """Makes an empty database in a new or empty folder, whole or not at all.

        Raises:
            FileExistsError: if the folder holds a library.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / DATABASE).exists():
            raise FileExistsError(f"{folder} holds a library already: open it, or choose another folder")
        aside = folder / f".{DATABASE}.new"
        aside.unlink(missing_ok=True)
        connection = sqlite3.connect(aside)
        connection.executescript(SCHEMA)
        rows = {"version": VERSION, **settings}.items()
        connection.executemany("INSERT INTO setting VALUES (?, ?)", [(name, json.dumps(value)) for name, value in rows])
        connection.commit()
        connection.close()
        aside.rename(folder / DATABASE)
        return cls(folder)

    def close(self) -> None:
        """Closes this thread's connection."""
        connection = self._local.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        if not hasattr(self._local, "connection"):
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            self._local.connection = connection
        return self._local.connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is written inside, or nothing.

        Raises:
            OSError: if the disk is full or fails.
        """
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:  # a full disk may have rolled it back already
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError):
                raise OSError(
                    f"{self.path} cannot be written ({error}): what was indexed before is kept; make room on the disk "
                    "and run the same command again"
                ) from error
            raise

    # ---------------------------------------------------------------------------------------------------------- writing

    def put(self, video: Video, rows: Rows | None, lines: Sequence[Line] = ()) -> int:
        """Writes a video in place of what was known of its path; returns its number."""
        with self.transaction() as connection:
            before = connection.execute(
                "SELECT number FROM video WHERE path = ? OR id = ?", (str(video.path), video.id)
            )
            for (number,) in before.fetchall():
                self._delete(connection, number)
            number = connection.execute(
                "INSERT INTO video (id, path, bytes, modified, sha256, seconds, failure, warning, transcript, "
                "transcript_sha256) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(video.id, str(video.path), video.bytes, video.modified, video.sha256, video.seconds),
                    *(video.failure, video.warning, video.transcript, video.transcript_sha256),
                ),
            ).lastrowid
            assert number is not None
            if rows is not None:
                spans, vectors = rows.spans.astype("<i8").tobytes(), rows.vectors.astype("<f2").tobytes()
                connection.execute("INSERT INTO window VALUES (?, ?, ?)", (number, spans, vectors))
                states = rows.states.astype("<f2")
                connection.executemany(
                    "INSERT INTO state (video, start, vectors) VALUES (?, ?, ?)",
                    [
                        (number, start, states[start : start + STATE_BLOCK].tobytes())
                        for start in range(0, len(states), STATE_BLOCK)
                    ],
                )
                connection.executemany(
                    "INSERT INTO picture (video, second, jpeg) VALUES (?, ?, ?)",
                    [(number, second, jpeg) for second, jpeg in rows.pictures.items()],
                )
            self._put_lines(connection, number, lines)
        return number

    def next_number(self) -> int:
        """The number that the next video will get; for the only writer."""
        row = self.connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'video'").fetchone()
        return 1 + (row[0] if row else 0)

    def put_setting(self, name: str, value: Any) -> None:
        """Keeps a setting, as JSON."""
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, json.dumps(value)))

    def put_lines(self, number: int, transcript: str | None, sha256: str | None, lines: Sequence[Line]) -> None:
        """Replaces what is said in a video."""
        with self.transaction() as connection:
            self._delete_lines(connection, number)
            connection.execute(
                "UPDATE video SET transcript = ?, transcript_sha256 = ? WHERE number = ?", (transcript, sha256, number)
            )
            self._put_lines(connection, number, lines)

    def _delete(self, connection: sqlite3.Connection, number: int) -> None:
        self._delete_lines(connection, number)
        connection.execute("DELETE FROM video WHERE number = ?", (number,))  # the rest goes with it

    @staticmethod
    def _delete_lines(connection: sqlite3.Connection, number: int) -> None:
        connection.execute("DELETE FROM spoken WHERE rowid IN (SELECT number FROM line WHERE video = ?)", (number,))
        connection.execute("DELETE FROM line WHERE video = ?", (number,))

    @staticmethod
    def _put_lines(connection: sqlite3.Connection, number: int, lines: Sequence[Line]) -> None:
        for line in lines:
            row = connection.execute(
                "INSERT INTO line (video, start, end, text) VALUES (?, ?, ?, ?)", (number, *line)
            ).lastrowid
            connection.execute("INSERT INTO spoken (rowid, words) VALUES (?, ?)", (row, " ".join(words_of(line.text))))

    def move(self, video: Video) -> None:
        """Notes a new path, id and time of a file that was moved."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE video SET id = ?, path = ?, modified = ? WHERE number = ?",
                (video.id, str(video.path), video.modified, video.number),
            )

    def touch(self, number: int, bytes_: int, modified: int) -> None:
        """Notes size and time of a file whose content did not change."""
        with self.transaction() as connection:
            connection.execute("UPDATE video SET bytes = ?, modified = ? WHERE number = ?", (bytes_, modified, number))

    def remove(self, number: int) -> None:
        """Takes a video out with all that belongs to it."""
        with self.transaction() as connection:
            self._delete(connection, number)

    def put_label(self, query: str, video_id: str, start: float, end: float, right: bool) -> None:
        """Keeps a judgement; a later one on the same moment replaces it."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO label (query, video_id, start, end, right) VALUES (?, ?, ?, ?, ?)",
                (query, video_id, start, end, int(right)),
            )

    # ---------------------------------------------------------------------------------------------------------- reading

    def setting(self, name: str) -> Any:
        """A setting of the library, from JSON; None if it has none of that name."""
        row = self.connection.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    def change_counter(self) -> tuple[int, int]:
        """Another value after every change, by whichever connection."""
        connection = self.connection
        return connection.execute("PRAGMA data_version").fetchone()[0], connection.total_changes

    def videos(self) -> list[Video]:
        """All videos by id, those without rows too."""
        columns = "id, path, bytes, modified, sha256, seconds, failure, warning, transcript, transcript_sha256, number"
        rows = self.connection.execute(f"SELECT {columns} FROM video ORDER BY id").fetchall()
        return [Video(row[0], Path(row[1]), *row[2:]) for row in rows]

    def searchable(self) -> set[int]:
        """Numbers of the videos that have windows."""
        return {number for (number,) in self.connection.execute("SELECT video FROM window")}

    def windows(self, numbers: Iterable[int] | None, width: int) -> Iterator[tuple[int, NDArray[np.int64], Halves]]:
        """Number, spans (n, 2) and vectors (n, width) of these videos, or of all."""
        connection = self.connection
        if numbers is None:
            rows: Iterable[tuple[int, bytes, bytes]] = connection.execute("SELECT video, spans, vectors FROM window")
        else:
            found = (
                connection.execute("SELECT video, spans, vectors FROM window WHERE video = ?", (number,)).fetchone()
                for number in sorted(numbers)
            )
            rows = (row for row in found if row)
        for number, spans, vectors in rows:
            yield (
                number,
                np.frombuffer(spans, "<i8").reshape(-1, 2),
                np.frombuffer(vectors, "<f2").reshape(-1, width),
            )

    def window_count(self) -> int:
        """How many windows there are."""
        return self.connection.execute("SELECT coalesce(sum(length(spans)), 0) / 16 FROM window").fetchone()[0]

    def states(self, number: int, start: int, end: int, width: int) -> tuple[int, Halves]:
        """States of the blocks that hold seconds start to end; the first one's second, and (S, width)."""
        first = start // STATE_BLOCK * STATE_BLOCK
        rows = self.connection.execute(
            "SELECT vectors FROM state WHERE video = ? AND start >= ? AND start < ? ORDER BY start",
            (number, first, end),
        ).fetchall()
        return first, np.frombuffer(bytearray().join(row[0] for row in rows), "<f2").reshape(-1, width)  # writable

    def picture(self, number: int, second: float) -> bytes:
        """The picture nearest to a second; empty if the video has none."""
        row = self.connection.execute(
            "SELECT jpeg FROM picture WHERE video = ? ORDER BY abs(second - ?) LIMIT 1", (number, second)
        ).fetchone()
        return row[0] if row else b""

    def lines(self, number: int, start: float, end: float) -> list[Line]:
        """What is said between two seconds, in order."""
        rows = self.connection.execute(
            "SELECT start, end, text FROM line WHERE video = ? AND start < ? AND end > ? ORDER BY start",
            (number, end, start),
        )
        return [Line(*row) for row in rows]

    def find_lines(self, expression: str, limit: int) -> list[tuple[int, Line, float]]:
        """Lines that match an expression of FTS5, best first: video's number, line, BM25 (larger is better)."""
        if not expression:
            return []
        rows = self.connection.execute(
            "SELECT line.video, line.start, line.end, line.text, -bm25(spoken) FROM spoken "
            "JOIN line ON line.number = spoken.rowid WHERE spoken MATCH ? ORDER BY rank, line.number LIMIT ?",
            (expression, limit),
        )
        return [(video, Line(start, end, text), score) for video, start, end, text, score in rows]

    def line_count(self) -> int:
        """How many lines were read from transcripts."""
        return self.connection.execute("SELECT count(*) FROM line").fetchone()[0]

    def labels(self) -> list[dict[str, Any]]:
        """All judgements: query, video_id, start, end, right."""
        rows = self.connection.execute(
            "SELECT query, video_id, start, end, right FROM label ORDER BY number"
        ).fetchall()
        return [
            {"query": query, "video_id": video_id, "start": start, "end": end, "right": bool(right)}
            for query, video_id, start, end, right in rows
        ]
