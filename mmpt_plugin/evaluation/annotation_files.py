"""Opening annotation files: every failure names the file, the official file that belongs there and the remedy.

What a record must look like is written as a msgspec type, such as

    class Record(msgspec.Struct):
        video: FilledText
        times: tuple[Seconds, Seconds]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from mmpt_plugin import files
from mmpt_plugin.files import TableRow, UnusableFile

FilledText = Annotated[str, msgspec.Meta(pattern=r"\S")]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e7)]
Whole = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
T = TypeVar("T")


@contextmanager
def expecting(path: Path, official: str) -> Iterator[None]:
    """Says in errors about a file which official file belongs there.

    Raises:
        FileNotFoundError: if there is no file.
        UnusableFile: for whatever else a checked entrance refuses.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} not found: {official} belongs there, or set task.annotations") from error
    except UnusableFile as error:
        raise UnusableFile(f"{error}. Expected: {official}") from error


def malformed(path: Path, official: str, problem: str) -> UnusableFile:
    """The error for a file that is not what it should be."""
    return UnusableFile(f"{path}: {problem}. Expected: {official}")


def read_json(path: Path, official: str) -> Any:
    """Parses a JSON file; errors as those of `files.read_json`, with the official file's name."""
    with expecting(path, official):
        return files.read_json(path)


def read_lines(path: Path, official: str) -> list[str]:
    """The lines of a text file."""
    with expecting(path, official):
        return files.read_text(path).removesuffix("\n").split("\n")


def read_table(path: Path, official: str, *, delimiter: str, columns: Sequence[str]) -> list[TableRow]:
    """Reads a delimited file with a header line; errors as those of `files.read_table`, with the official file's name."""
    with expecting(path, official):
        return files.read_table(path, delimiter=delimiter, columns=columns)


def checked(record: Any, kind: type[T], where: str, path: Path, official: str) -> T:
    """A record of a file as a value of a msgspec type.

    Args:
        record: plain data.
        kind: the type.
        where: names the record in the message.
        path, official: as for `malformed`.

    Raises:
        UnusableFile: saying where in the record what is wrong.
    """
    try:
        return msgspec.convert(record, kind)
    except msgspec.ValidationError as error:
        raise malformed(path, official, f"{where}: {error}") from error
