"""Paths that are no files are named before they are opened."""

import os
from pathlib import Path

import pytest

from mmpt_plugin.files import UnusableFile, is_hidden, kind_of, require_file


def test_a_file_and_a_link_to_it_pass(tmp_path: Path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "link").symlink_to("a")
    assert require_file(tmp_path / "link", limit=1) == tmp_path / "link"


def test_what_is_no_file_is_named(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "lost").symlink_to("nowhere")
    with pytest.raises(UnusableFile, match="pipe: this is a named pipe"):
        require_file(tmp_path / "pipe")
    with pytest.raises(UnusableFile, match="this is a folder"):
        require_file(tmp_path)
    with pytest.raises(UnusableFile, match="this is a device"):
        require_file("/dev/null")
    with pytest.raises(FileNotFoundError, match="leads to nowhere, which does not exist"):
        require_file(tmp_path / "lost")
    with pytest.raises(FileNotFoundError, match="absent: no such file"):
        require_file(tmp_path / "absent")
    with pytest.raises(UnusableFile, match="too long"):
        require_file(tmp_path / ("a" * 300))
    with pytest.raises(UnusableFile, match="null"):
        require_file("a\0b")


def test_a_file_above_the_limit_is_refused(tmp_path: Path):
    (tmp_path / "a").write_bytes(bytes(1001))
    with pytest.raises(UnusableFile, match="1,001 bytes, at most 1,000"):
        require_file(tmp_path / "a", limit=1000)


@pytest.mark.parametrize(
    ("head", "kind"),
    [(b"\x1f\x8b\x08", "a gzip file"), (b"  <!DOCTYPE HTML><p>", "a saved web page"), (b"a,b\n", None), (b"", None)],
)
def test_kind_of(head: bytes, kind: str | None):
    assert kind_of(head) == kind


def test_hidden_files():
    assert is_hidden("videos/._a.mp4")
    assert not is_hidden(".videos/a.mp4")
