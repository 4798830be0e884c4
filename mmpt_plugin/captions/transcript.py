"""What every reader of captions gives: the lines of one video as its file has them, or why there are none."""

from __future__ import annotations

import codecs
import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mmpt_plugin.files import UnusableFile

MOST_BYTES = 256 << 20
"""Of a file that is read as a whole: one video's captions have less than a hundredth of it."""

BROKEN_ARCHIVE = (
    *(EOFError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, struct.error),
    *(NotImplementedError, RuntimeError, KeyError, OverflowError),
)
"""What zipfile and gzip raise for damaged files."""

ENCODINGS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""Byte order marks, and what they tell."""


class TimedText(NamedTuple):
    """A caption as text; times in seconds."""

    start: float
    end: float
    text: str


class Transcript(NamedTuple):
    """One video's captions as a file has them, unchecked: `tidy` makes clean ones of them."""

    video_id: str
    starts: Sequence[Any]  # (captions,) seconds, or milliseconds where the file has those
    ends: Sequence[Any]
    texts: Sequence[Any]


class Left(NamedTuple):
    """A video, or a file, without usable captions."""

    video_id: str
    reason: str  # one word of a few, to count by
    message: str  # a sentence that names the file


Entry = Transcript | Left


@dataclass(frozen=True)
class Source:
    """A file of captions, or a member of an archive."""

    path: Path
    video_id: str  # of the file's captions, if they are of one video
    member: str = ""  # name inside a zip archive
    encoding: str = ""  # of text; told by the content where empty

    @property
    def name(self) -> str:
        """The file for messages."""
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file's content, unpacked.

        Raises:
            ValueError: the file cannot be unpacked.
        """
        try:
            with self.path.open("rb") as file:
                packed = file.read(2)
                file.seek(0)
                if self.member:
                    with zipfile.ZipFile(file) as archive, archive.open(self.member) as member:
                        yield member  # type: ignore[misc]
                elif packed == b"\x1f\x8b":
                    with gzip.open(file) as unpacked:
                        yield unpacked  # type: ignore[misc]
                else:
                    yield file
        except UnusableFile:
            raise
        except BROKEN_ARCHIVE as error:
            raise UnusableFile(f"{self.name}: cannot be unpacked ({error}). Copy or download it again.") from error
        except OSError as error:  # a place before the archive's beginning
            if not self.member:
                raise
            raise UnusableFile(f"{self.name}: cannot be unpacked ({error}). Copy or download it again.") from error

    def head(self, size: int) -> bytes:
        """The content's first bytes."""
        with self.open() as file:
            return file.read(size)

    def read_text(self) -> str:
        """The whole content as text.

        Raises:
            ValueError: it is too large, or of another encoding.
        """
        with self.open() as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UnusableFile(f"{self.name}: above {MOST_BYTES >> 20} MiB, too large for one video's captions.")
        return decode(content, self.name, self.encoding)

    @contextmanager
    def open_utf8(self) -> Iterator[BinaryIO]:
        """The content as UTF-8 without a byte order mark, whatever its encoding."""
        encoding = self.encoding or encoding_of(self.head(4))
        with self.open() as file:
            if encoding == "utf-8":
                yield file
            elif encoding == "utf-8-sig":
                file.read(3)
                yield file
            else:
                yield codecs.EncodedFile(file, "utf-8", encoding)

    @contextmanager
    def open_text(self) -> Iterator[io.TextIOWrapper]:
        """The content as a stream of text."""
        encoding = self.encoding or encoding_of(self.head(4))
        with self.open() as file, io.TextIOWrapper(file, encoding=encoding, newline="") as text:
            try:
                yield text
            except UnicodeError as error:
                raise wrong_encoding(self.name, encoding) from error


def encoding_of(head: bytes) -> str:
    """The encoding that a byte order mark tells, else UTF-8."""
    return next((name for mark, name in ENCODINGS.items() if head.startswith(mark)), "utf-8")


def decode(content: bytes, name: str, encoding: str = "") -> str:
    """Bytes as text: UTF-8, or UTF-16 with a byte order mark, or the given encoding. Line ends become single.

    Raises:
        ValueError: the bytes are of another encoding, or no text.
    """
    encoding = encoding or encoding_of(content[:4])
    try:
        text = content.decode(encoding)
    except (UnicodeError, LookupError) as error:
        raise wrong_encoding(name, encoding) from error
    if "\0" in text:
        raise UnusableFile(f"{name}: holds zero bytes, so it is no text, or UTF-16 without a byte order mark.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def wrong_encoding(name: str, encoding: str) -> UnusableFile:
    """The error for text of another encoding."""
    return UnusableFile(
        f"{name}: cannot be read as {encoding}. Save it as UTF-8, or say its encoding (--encoding; often cp1252)."
    )
