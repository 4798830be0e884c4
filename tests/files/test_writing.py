"""Files and folders are whole or absent, and dead processes' left-overs go."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmpt_plugin.files import clear_left_overs, whole_folder, write_whole
from mmpt_plugin.files.writing import HOST, aside_path


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path):
    (tmp_path / "a").write_text("old")
    with write_whole(tmp_path / "a", text=True) as file:
        file.write("né\n")
        assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "a").read_bytes() == "né\n".encode()
    assert os.listdir(tmp_path) == ["a"]


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(OSError, match="disk"), write_whole(tmp_path / "a") as file:
        file.write(b"half")
        raise OSError("disk full")
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_long_name(tmp_path: Path):
    with write_whole(tmp_path / ("é" * 127)) as file:
        file.write(b"x")


def test_folder(tmp_path: Path):
    with whole_folder(tmp_path / "x" / "a") as folder:
        (folder / "f").write_text("1")
        assert not (tmp_path / "x" / "a").exists()
    assert (tmp_path / "x" / "a" / "f").read_text() == "1"
    with pytest.raises(ValueError, match="stop"), whole_folder(tmp_path / "x" / "b"):
        raise ValueError("stop")
    with pytest.raises(FileExistsError, match="exists already"), whole_folder(tmp_path / "x" / "a"):
        pass
    assert os.listdir(tmp_path / "x") == ["a"]


def test_left_overs_of_the_dead_go_and_others_stay(tmp_path: Path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    process = int(dead.stdout)
    gone = [tmp_path / f".{HOST}-{process}-0123abcd.partial", tmp_path / f".{HOST}-{process}-0123abce.partial"]
    gone[0].write_text("x")
    gone[1].mkdir()
    (gone[1] / "f").write_text("y")
    stays = [aside_path(tmp_path / "a"), tmp_path / f".00000000-{process}-0123abcd.partial", tmp_path / ".mine.partial"]
    for path in stays:
        path.write_text("x")
    assert clear_left_overs(tmp_path) == gone
    assert sorted(tmp_path.iterdir()) == sorted(stays)
