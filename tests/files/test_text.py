"""Text, JSON and tables: what is not as it should be is refused by name."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpt_plugin.files import UnusableFile, parse_json, read_json, read_json_lines, read_table, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str):
    (tmp_path / "a").write_bytes("né\r\nb\rc\n".encode(encoding))
    assert read_text(tmp_path / "a") == "né\nb\nc\n"


def test_another_encoding_is_named_or_read_as_told(tmp_path: Path):
    (tmp_path / "a").write_bytes("é1".encode("cp1252"))
    with pytest.raises(UnusableFile, match=r"a: not UTF-8 text \(byte 0 is 0xe9\)"):
        read_text(tmp_path / "a")
    assert read_text(tmp_path / "a", fallback="cp1252") == "é1"


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"\x1f\x8b\x08rest", "a gzip file"), (b"PK\x03\x04..", "a zip archive"), (b"a\0b", "NUL")],
)
def test_other_kinds_are_no_text(tmp_path: Path, content: bytes, problem: str):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UnusableFile, match=problem):
        read_text(tmp_path / "a")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1', "truncated"),
        ("", "not valid JSON"),
        ('{"a": 1, "b": 2, "a": 3}', "key 'a' is given twice"),
        ('[{"x": {"a": 1, "a": 1}}]', "key 'a' is given twice"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ('{"a": 1e999}', "1e999 is too large"),
        ('["\\ud83d"]', "half of a surrogate pair"),
        ('{"\\uDE00": 1}', "half of a surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[" + "9" * 5000 + "]", "not valid JSON"),
        ("<!DOCTYPE html><html>", "a saved web page"),
    ],
)
def test_bad_json(tmp_path: Path, text: str, problem: str):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UnusableFile, match=problem) as caught:
        read_json(tmp_path / "a.json")
    assert str(tmp_path / "a.json") in str(caught.value)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(plain)
def test_json_round_trip(value: object):
    assert parse_json(json.dumps(value), "a text") == value  # escapes whole surrogate pairs


def test_nan_is_none_on_demand():
    assert parse_json('{"a": [NaN, -Infinity, 1]}', "a text", null_for_nan=True) == {"a": [None, None, 1]}


def test_json_lines_name_the_line(tmp_path: Path):
    (tmp_path / "a").write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n[2]\n')
    assert list(read_json_lines(tmp_path / "a")) == [(1, {"a": 1}), (3, [2])]
    (tmp_path / "a").write_bytes(b"1\n\xe9\n")
    with pytest.raises(UnusableFile, match="a, line 2: not UTF-8"):
        list(read_json_lines(tmp_path / "a"))
    (tmp_path / "a").write_bytes(b"1\n" + b"2" * 100)
    with pytest.raises(UnusableFile, match="a, line 2: longer than 50"):
        list(read_json_lines(tmp_path / "a", line_limit=50))


def test_table(tmp_path: Path):
    (tmp_path / "a.csv").write_text('id,text,more\n1,"two\nlines",NA\n2,b,\n', encoding="utf-8-sig")
    first, second = read_table(tmp_path / "a.csv", delimiter=",", columns=["id", "text"])
    assert (first.line, first.cells) == (3, {"id": "1", "text": "two\nlines", "more": "NA"})
    assert (second.line, second.cells["more"]) == (4, "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a;b\n1;2\n", "semicolon separated, not comma separated"),
        ("a,c\n1,2\n", r"columns \['b'\] are missing"),
        ("a,b\n", "no rows"),
        ("", "missing"),
        ("a,b,a\n1,2,3\n", "column occurs twice"),
        ("a,b\n1\n", "line 2: 1 cells, the header has 2"),
        ('a,b\n1,"2\n', "line 2"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, problem: str):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UnusableFile, match=problem):
        read_table(tmp_path / "a.csv", delimiter=",", columns=["a", "b"])
