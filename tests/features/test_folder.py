"""Which files count as videos, and what is wrong with those that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmpt_plugin.features.folder import find_videos, name_fault

from .video_files import moving_square, write_sound, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("one") / "one.mp4", moving_square(2, 32, 32))


@pytest.fixture
def folder(tmp_path, video) -> Path:
    """Two videos, one in a subfolder, and a file that is none."""
    folder = tmp_path / "videos"
    (folder / "more").mkdir(parents=True)
    os.link(video, folder / "a.mp4")
    os.link(video, folder / "more" / "-b_c.mkv")
    (folder / "notes.txt").write_text("hello")
    return folder


def test_find_videos(folder, caplog):
    assert list(find_videos(folder).videos) == ["a", "-b_c"]
    assert set(find_videos(folder, keep_suffix=True).videos) == {"a.mp4", "-b_c.mkv"}
    assert "1 files" in caplog.text


def test_all_clashing_ids_are_listed(folder):
    (folder / "more" / "a.webm").write_bytes(b"")
    (folder / "-b_c.avi").write_bytes(b"")
    with pytest.raises(ValueError, match=r"(?s)both become -b_c\.npy.*both become a\.npy"):
        find_videos(folder)


def test_what_is_missing_is_said(tmp_path, video):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_videos(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no video in it"):
        find_videos(tmp_path)
    with pytest.raises(ValueError, match=r"one\.mp4 is a file"):
        find_videos(video)


@pytest.mark.parametrize("keep_suffix", [False, True])
def test_files_with_odd_suffixes_are_taken_by_content(tmp_path, video, keep_suffix):
    # As DiDeMo has them: 31 of its files end in a dot, 2 in .3g2.
    for name in ("1@N00_2.", "3@N00_4", "talk.part2"):
        os.link(video, tmp_path / name)
    os.link(video, tmp_path / "5@N00_6.3g2")
    write_sound(tmp_path / "sound.m4a")
    (tmp_path / "README").write_text("hello " * 1000)
    (tmp_path / "list").write_text("ffconcat version 1.0\nfile talk.part2\n")
    (tmp_path / "page.").write_text("<html></html>")
    found = find_videos(tmp_path, keep_suffix)
    assert set(found.videos) == {"1@N00_2.", "3@N00_4", "talk.part2", "5@N00_6.3g2" if keep_suffix else "5@N00_6"}
    assert found.unusable == {}


def test_hidden_files_are_passed_over(folder):
    (folder / "._a.mp4").write_bytes(b"Mac")
    (folder / ".trash").mkdir()
    (folder / ".trash" / "old.mp4").write_bytes(b"")
    found = find_videos(folder)
    assert set(found.videos) == {"a", "-b_c"}
    assert found.unusable == {}


def test_linked_folders_are_followed_once(tmp_path, folder, video):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.link(video, elsewhere / "far.mp4")
    (elsewhere / "up").symlink_to(folder)  # a loop
    (folder / "link").symlink_to(elsewhere)
    (folder / "again").symlink_to(elsewhere)
    (folder / "self").symlink_to(folder)
    (folder / "file.mp4").symlink_to(video)
    assert set(find_videos(folder).videos) == {"a", "-b_c", "far", "file"}


def test_what_cannot_be_read_is_unusable(folder):
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    (folder / "gone_folder").symlink_to(folder / "nowhere")
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    os.mkfifo(folder / "pipe.mp4")
    found = find_videos(folder)
    assert set(found.videos) == {"a", "-b_c"}
    assert set(found.unusable) == {"gone", "gone_folder", "loop", "pipe"}
    assert found.unusable["gone"] == (
        str(folder / "gone.mp4"),
        f"this link leads to {folder / 'nowhere.mp4'}, which does not exist",
    )
    assert found.unusable["pipe"][1] == "this is a named pipe, a file is needed"


def test_folder_that_cannot_be_read_is_unusable(folder, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_videos(folder)
    assert set(found.videos) == {"a"}
    assert found.unusable == {"more": (str(folder / "more"), "the folder cannot be read (Permission denied)")}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (b"\xff.mp4", "not UTF-8"),
        (b"a" * 250 + b".mp4", "250 bytes"),
        ("ä".encode() * 121 + b".mp4", "242 bytes"),
        (b"a\nb.mp4", "line break"),
        (b"a\tb.mp4", "tab"),
        (b" a.mp4", "blank"),
    ],
)
def test_badly_named_video_is_unusable_and_the_others_go_on(folder, name, fault):
    Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).touch()
    found = find_videos(folder)
    assert set(found.videos) == {"a", "-b_c"}
    ((_, (source, reason)),) = found.unusable.items()
    assert os.fsencode(source).endswith(name)
    assert fault in reason


@pytest.mark.parametrize("name", ["a", "two  blanks", "-x", "a.b", "ü" * 120, "视频", "a=b,c (1) #&~'\"", "1@N00_2."])
def test_other_names_are_fine(name):
    assert name_fault(name) is None
