"""Malformed annotation files: each error names the file and what belongs there."""

import pytest

from mmpt_plugin.evaluation.annotation_files import read_json, read_table

OFFICIAL = "the official list"


def read_rows(tmp_path, content, delimiter=",", columns=("id", "text")):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [row.cells for row in read_table(path, OFFICIAL, delimiter=delimiter, columns=columns)]


def test_cells_stay_text(tmp_path):
    rows = read_rows(tmp_path, 'id,text\n1,NA\n2,null\n3,None\n4,nan\n5,1.50\n6,"a, ""b"""\n')
    assert [row["text"] for row in rows] == ["NA", "null", "None", "nan", "1.50", 'a, "b"']


def test_other_line_ends_byte_marks_and_empty_lines_are_read(tmp_path):
    content = "\ufeffid,text\r\n1,caf\u00e9\u2028x\r\n\r\n2,b"
    assert [row["text"] for row in read_rows(tmp_path, content)] == ["caf\u00e9\u2028x", "b"]


def test_a_row_knows_its_line(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('id,text\n1,"two\nlines"\n2,b\n')
    rows = read_table(path, OFFICIAL, delimiter=",", columns=("id",))
    assert [(row.line, row.cells["text"]) for row in rows] == [(3, "two\nlines"), (4, "b")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id\ttext\n1\ta\n", r"columns \['id', 'text'\] are missing.*looks tab separated, not comma"),
        ("id,caption\n1,a\n", r"columns \['text'\] are missing.*'caption'"),
        ("id,text,text\n1,a,b\n", "occurs twice"),
        ("id,text\n1,a,b\n", "line 2: 3 cells, the header has 2"),
        ("id,text\n1,a\n2\n", "line 3: 1 cells"),
        ('id,text\n1,"open\n2,b\n', "line 3"),
        ("id,text\n", "no rows"),
        ("", "are missing"),
        (b"\x80\x04\x95\xff\xfe", "not UTF-8 text"),
    ],
)
def test_malformed_tables_are_refused(tmp_path, content, words):
    with pytest.raises(ValueError, match=words) as error:
        read_rows(tmp_path, content)
    assert "table.csv" in str(error.value) and OFFICIAL in str(error.value)


@pytest.mark.parametrize("content", ['{"a": [1, 2', "", "key,video\n1,2\n"])
def test_truncated_or_other_files_are_no_json(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"a\.json: not valid JSON.*the official list"):
        read_json(path, OFFICIAL)


def test_a_missing_file_says_what_belongs_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.json not found: the official list.*task\.annotations"):
        read_json(tmp_path / "a.json", OFFICIAL)
