"""Text, JSON and delimited tables."""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt_plugin.files.checks import UnusableFile, kind_of, require_file

TEXT_LIMIT = 2**30  # bytes; the largest text file that is read at once is MSR-VTT's, of some 30 MB
SURROGATE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}|\\u[dD][c-fC-F][0-9a-fA-F]{2}")
DELIMITER_NAMES = {",": "comma", "\t": "tab", ";": "semicolon"}


@dataclass(frozen=True)
class TableRow:
    """One row of a delimited file: the line it ends on and its cells by column name, as text ("NA" stays "NA")."""

    line: int
    cells: dict[str, str]


def read_text(path: str | Path, *, limit: int = TEXT_LIMIT, fallback: str | None = None) -> str:
    """The content of a text file, with every line ended by a single line feed.

    Args:
        path: UTF-8 with or without a byte order mark, or UTF-16 with one.
        limit: most bytes that are read.
        fallback: encoding to try where the bytes are not UTF-8, such as "cp1252".

    Raises:
        FileNotFoundError: there is no such file.
        UnusableFile: it is no text, is in another encoding, or is too large.
    """
    data = require_file(path, limit=limit).read_bytes()
    if (kind := kind_of(data[:200])) is not None and kind != "a saved web page":
        raise UnusableFile(f"{path}: this is {kind}, a text file is needed")
    encodings = ["utf-16"] if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else ["utf-8-sig"]
    if fallback is not None:
        encodings.append(fallback)
    for encoding in encodings:
        try:
            text = data.decode(encoding)
            break
        except UnicodeDecodeError as error:
            problem = error
    else:
        raise UnusableFile(
            f"{path}: not UTF-8 text (byte {problem.start} is 0x{data[problem.start]:02x}). Save it as UTF-8"
        )
    if "\0" in text:
        raise UnusableFile(f"{path}: holds a NUL character, so it is no text file")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | Path, *, limit: int = TEXT_LIMIT) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        UnusableFile: it is truncated or no JSON, is nested too deeply, gives a key twice, holds NaN or an infinite number,
            or half a surrogate pair, which no UTF-8 file can hold.
    """
    return parse_json(read_text(path, limit=limit), path)


def parse_json(text: str, name: object, *, null_for_nan: bool = False) -> Any:
    """As `read_json`, of a text that came from `name`; `null_for_nan` reads NaN and infinite numbers as None."""
    if (kind := kind_of(text[:200].encode(errors="replace"))) is not None:
        raise UnusableFile(f"{name}: this is {kind}, JSON is needed")
    try:
        constant = (lambda _: None) if null_for_nan else _refuse_constant
        value = json.loads(text, object_pairs_hook=_distinct, parse_constant=constant, parse_float=_finite)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise UnusableFile(f"{name}: the JSON is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise UnusableFile(
            f"{name}: a text holds half of a surrogate pair (\\u{ord(error.object[error.start]):x})"
        ) from error
    except ValueError as error:
        raise UnusableFile(f"{name}: not valid JSON, truncated or another file ({error})") from error
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return content


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"the number {digits} is too large")
    return number


def read_json_lines(path: str | Path, *, line_limit: int = 2**28) -> Iterator[tuple[int, Any]]:
    """Number and content of each line of a file of one JSON value a line; blank lines are passed over.

    Args:
        path: a UTF-8 file of any size, which is read line by line.
        line_limit: most bytes of a line.

    Raises:
        FileNotFoundError: there is no such file.
        UnusableFile: naming the line, as `read_json`.
    """
    with require_file(path).open("rb") as file:
        number = 0
        while line := file.readline(line_limit + 1):
            number += 1
            where = f"{path}, line {number}"
            if len(line) > line_limit:
                raise UnusableFile(f"{where}: longer than {line_limit:,} bytes")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UnusableFile(f"{where}: not UTF-8 text. Save the file as UTF-8") from error
            if text.strip():
                yield number, parse_json(text, where)


def read_table(path: str | Path, *, delimiter: str, columns: Sequence[str]) -> list[TableRow]:
    """The rows of a delimited file with a header line; all cells stay text.

    Args:
        path: the file.
        delimiter: one character.
        columns: columns that must be there; others are kept.

    Raises:
        FileNotFoundError: there is no such file.
        UnusableFile: for a missing or doubled column, another delimiter, a row with more or fewer cells than the header,
            an open quotation mark, or no rows.
    """
    reader = csv.reader(io.StringIO(read_text(path)), delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise UnusableFile(f"{path}, line {reader.line_num}: {error}") from error
    header = [cell.strip() for cell in lines[0][1]] if lines else []
    absent = [column for column in columns if column not in header]
    if absent:
        hint = "".join(
            f"; the file looks {name} separated, not {DELIMITER_NAMES.get(delimiter, delimiter)} separated"
            for other, name in DELIMITER_NAMES.items()
            if other != delimiter and len(header) == 1 and other in header[0]
        )
        raise UnusableFile(f"{path}: columns {absent} are missing, the header has {header}{hint}")
    if len(lines) < 2:
        raise UnusableFile(f"{path}: no rows below the header")
    if any(header.count(column) > 1 for column in columns):
        raise UnusableFile(f"{path}: a column occurs twice in the header {header}")
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise UnusableFile(f"{path}, line {line}: {len(cells)} cells, the header has {len(header)}")
    return [TableRow(line, dict(zip(header, cells, strict=True))) for line, cells in lines[1:]]
