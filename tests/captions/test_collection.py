"""Which caption file is of which video."""

import os
from pathlib import Path

import pytest

from mmpt_plugin.captions import Left, collect

from .caption_files import srt, webvtt


@pytest.fixture
def make(tmp_path: Path):
    """Writes files; those of videos are empty."""

    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(srt() if name.endswith(".srt") else webvtt() if name.endswith(".vtt") else "")
        return tmp_path

    return make


def taken(collection) -> dict[str, str]:
    return {file.video_id: file.path.name for file in collection.files}


def reasons(collection) -> dict[str, str]:
    return {left.video_id: left.reason for left in collection.left}


def test_names_and_languages(make) -> None:
    folder = make(
        "a.srt",
        "b.en.vtt",
        "c.mp4.srt",
        "d.en-US.vtt",
        "sub/e.e.new.srt",
        "sub/e.e.mp4",
        "._a.srt",
        ".h/x.srt",
        "f.info.json",
    )
    assert taken(collect([folder])) == {
        "a": "a.srt",
        "b": "b.en.vtt",
        "c": "c.mp4.srt",
        "d": "d.en-US.vtt",
        "e.e": "e.e.new.srt",
    }


def test_videos_choose(make) -> None:
    folder = make("videos/talk.one.mp4", "videos/Talk [x].webm", "talk.one.pt_BR.srt", "Talk [x].srt", "stranger.srt")
    found = collect([folder], videos=[folder / "videos"])
    assert taken(found) == {"talk.one": "talk.one.pt_BR.srt", "Talk [x]": "Talk [x].srt"}
    assert reasons(found) == {"stranger.srt": "without_video"}


def test_one_file_of_several(make) -> None:
    folder = make("a.srt", "a.vtt", "b.de.srt", "b.en-US.srt", "b.en.vtt", "c.de.srt", "d.srt", "d.fr.srt")
    found = collect([folder], languages=["en", "de"])
    assert taken(found) == {"a": "a.srt", "b": "b.en.vtt", "c": "c.de.srt", "d": "d.srt"}
    assert sorted(left.reason for left in found.left) == ["second_files"] * 4
    french = collect([folder], languages=["fr"])
    assert taken(french) == {"a": "a.srt", "d": "d.fr.srt"} and reasons(french)["b"] == "other_languages"
    unsaid = collect([folder])
    assert taken(unsaid) == {"a": "a.srt", "c": "c.de.srt", "d": "d.srt"}
    assert "choose one with --language" in unsaid.left[-1].message or reasons(unsaid)["b"] == "other_languages"


def test_clashes_are_all_named(make) -> None:
    with pytest.raises(ValueError, match=r"2 videos of different folders .*one/a, .*two/a"):
        collect([make("one/a.srt", "two/a.srt")])


def test_ids_that_differ_by_capitals(make) -> None:
    with pytest.raises(ValueError, match="2 video ids differ by capital letters alone: A and a; B and b"):
        collect([make("a.srt", "A.srt", "b.srt", "B.srt", "c.srt")])


def test_a_file_s_failure_is_its_own_unless_it_was_named(make) -> None:
    folder = make("a.srt", "b.srt", "c.srt")
    (folder / "b.srt").write_text("no cue")
    os.symlink(folder / "nowhere", folder / "d.srt")
    os.mkfifo(folder / "e.srt")
    entries = list(collect([folder]).read())
    assert {entry.video_id for entry in entries if isinstance(entry, Left)} == {"b", "d.srt", "e.srt"}
    assert [entry.video_id for entry in entries if not isinstance(entry, Left)] == ["a", "c"]
    with pytest.raises(ValueError, match=r"b\.srt: Not a caption file"):
        list(collect([folder / "b.srt"]).read())


def test_a_video_that_comes_again_is_left_out(make) -> None:
    folder = make("a.srt")
    (folder / "t.csv").write_text("video,start,end,text\na,0,1,salt\nb,0,1,salt\n")
    first, second, third = collect([folder / "a.srt", folder / "t.csv"]).read()
    assert (
        (first.video_id, third.video_id) == ("a", "b")
        and isinstance(second, Left)
        and second.reason == "repeated_videos"
    )


def test_nothing_to_take(make) -> None:
    with pytest.raises(FileNotFoundError, match="no caption file to take"):
        collect([make("a.mp4")])
    with pytest.raises(FileNotFoundError, match="missing"):
        collect([make() / "no"])
