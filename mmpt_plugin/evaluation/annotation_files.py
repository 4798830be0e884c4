"""Opening annotation files: every failure names the file, the official file that belongs there and the remedy."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DELIMITER_NAMES = {",": "comma", "\t": "tab", ";": "semicolon"}


@dataclass(frozen=True)
class TableRow:
    """One row of a delimited file: the line it ends on and its cells by column name, as text ("NA" stays "NA")."""

    line: int
    cells: dict[str, str]


def require_file(path: Path, official: str) -> Path:
    """Returns `path` if it is a file.

    Args:
        path: where the file is looked for.
        official: the official file that belongs there, in words.

    Raises:
        FileNotFoundError: if there is no file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: {official} belongs there, or set task.annotations")
    return path


def malformed(path: Path, official: str, problem: str) -> ValueError:
    """The error for a file that is not what it should be."""
    return ValueError(f"{path}: {problem}. Expected: {official}")


def read_json(path: Path, official: str) -> Any:
    """Parses a JSON file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is truncated or no JSON at all.
    """
    try:
        return json.loads(_read_text(path, official))
    except json.JSONDecodeError as error:
        raise malformed(path, official, f"not valid JSON, truncated or another file ({error})") from error


def read_table(path: Path, official: str, *, delimiter: str, columns: Sequence[str]) -> list[TableRow]:
    """Reads a delimited file with a header line; all cells stay text.

    Args:
        path: the file.
        official: the official file expected, in words.
        delimiter: one character.
        columns: columns that must be there; others are kept.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a missing or doubled column, another delimiter, a row with more or fewer cells than the header,
            an open quotation mark, or no rows.
    """
    reader = csv.reader(io.StringIO(_read_text(path, official)), delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise malformed(path, official, f"line {reader.line_num}: {error}") from error
    if len(lines) < 2:
        raise malformed(path, official, "no rows below the header")
    header = lines[0][1]
    absent = [column for column in columns if column not in header]
    if absent:
        hint = "".join(
            f"; the file looks {name} separated, not {DELIMITER_NAMES[delimiter]} separated"
            for other, name in DELIMITER_NAMES.items()
            if other != delimiter and len(header) == 1 and other in header[0]
        )
        raise malformed(path, official, f"columns {absent} are missing, the header has {header}{hint}")
    if any(header.count(column) > 1 for column in columns):
        raise malformed(path, official, f"a column occurs twice in the header {header}")
    rows = []
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise malformed(path, official, f"line {line} has {len(cells)} cells, the header {len(header)}")
        rows.append(TableRow(line, dict(zip(header, cells, strict=True))))
    return rows


def _read_text(path: Path, official: str) -> str:
    try:
        return require_file(path, official).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise malformed(path, official, f"not a text file ({error})") from error
