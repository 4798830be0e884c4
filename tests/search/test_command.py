"""The command line: what it prints, writes and returns."""

from __future__ import annotations

import csv
import io
import json
import shutil

import av
import pytest

from mmpt_plugin.files import lock
from mmpt_plugin.search import command
from mmpt_plugin.search.marks import clock, safe_name

from .conftest import FPS, SIZE


@pytest.fixture(scope="module")
def indexed(films, checkpoint, network, tmp_path_factory):
    """A library made by the command line."""
    folder = tmp_path_factory.mktemp("command")
    shutil.copytree(films, folder / "films")
    (folder / "films" / "broken.mp4").write_bytes(b"junk" * 99)
    assert index(folder, checkpoint, network) == 1  # one failed
    return folder


def index(folder, checkpoint, network, *more):
    return command.main(
        [
            *("index", str(folder / "films"), "--library", str(folder / "lib"), "--checkpoint", str(checkpoint)),
            *(
                "--network",
                network,
                "--fps",
                str(FPS),
                "--frame-size",
                str(SIZE),
                "--window",
                "8",
                "--stride",
                "4",
                *more,
            ),
        ]
    )


def run(capsys, *arguments):
    code = command.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_indexing_says_what_became_of_the_videos(indexed, checkpoint, network, capsys):
    assert index(indexed, checkpoint, network) == 1
    out = capsys.readouterr().out
    assert "0 added, 0 changed, 0 moved, 3 as before, 1 failed; 1 videos with a transcript" in out
    assert "failed: broken:" in out


def test_info(indexed, capsys):
    code, out, _ = run(capsys, "info", indexed / "lib")
    assert code == 0 and "3 videos" in out and "one  0:18, transcript" in out and "broken  failed:" in out
    code, out, _ = run(capsys, "info", indexed / "lib", "--json")
    assert json.loads(out)["videos"] == 3 and list(json.loads(out)["failed"]) == ["broken"]


def test_a_table_for_people(indexed, capsys):
    code, out, _ = run(capsys, "query", indexed / "lib", "add the onions", "-k", 3)
    lines = out.splitlines()
    assert code == 0 and lines[0].split() == ["video", "when", "score", "what", "is", "said"] and len(lines) == 5
    assert "one.mp4" in out and "add the onions" in out


def test_json_and_csv_for_programs(indexed, capsys):
    code, out, _ = run(capsys, "query", indexed / "lib", "stir", "-k", 2, "--json", "--said", 0)
    content = json.loads(out)
    assert code == 0 and content["query"] == "stir" and len(content["hits"]) == 2
    assert content["hits"][0].keys() == {
        *("video_id", "path", "start", "end", "score", "shown", "said", "spoken", "thumbnail")
    }
    assert content["hits"][0]["thumbnail"].startswith("data:image/jpeg;base64,")
    code, out, _ = run(capsys, "query", indexed / "lib", "stir", "-k", 2, "--csv", "--said", 0)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and [float(row["start"]) for row in rows] == [hit["start"] for hit in content["hits"]]


def test_clips_chapters_and_cut_lists(indexed, capsys, tmp_path):
    clips, chapters, cuts = tmp_path / "clips", tmp_path / "chapters", tmp_path / "cuts.edl"
    code, out, _ = run(
        *(
            capsys,
            "query",
            indexed / "lib",
            "onions",
            "-k",
            2,
            "--json",
            "--said",
            1,
            "--clip",
            clips,
            "--vtt",
            chapters,
        ),
        *("--edl", cuts),
    )
    (hit,) = json.loads(out)["hits"]
    assert code == 0 and [path.name for path in clips.iterdir()] == ["01_one_1-4.mp4"]
    with av.open(str(clips / "01_one_1-4.mp4")) as container:
        frames = [frame.time for frame in container.decode(video=0)]
    assert len(frames) == 3 * FPS and frames[0] == 0 and (hit["start"], hit["end"]) == (1, 4)
    assert (chapters / "one.vtt").read_text() == "WEBVTT\n\n00:00:01.000 --> 00:00:04.000\nadd the onions\n"
    assert "001  AX       V     C        00:00:01:00 00:00:04:00 00:00:00:00 00:00:03:00" in cuts.read_text()


def test_other_commands(indexed, capsys):
    code, out, _ = run(capsys, "similar", indexed / "lib", "two", 12, 18, "-k", 1, "--json")
    assert code == 0 and json.loads(out)["hits"][0]["video_id"] == "one"
    code, out, _ = run(capsys, "highlights", indexed / "lib", "-k", 2, "--csv")
    assert code == 0 and len(out.splitlines()) == 3
    assert run(capsys, "label", indexed / "lib", "onions", "one", 1, 4, "right")[0] == 0
    assert run(capsys, "label", indexed / "lib", "onions", "two", 1, 4, "wrong")[0] == 0
    code, out, _ = run(capsys, "labels", indexed / "lib")
    assert code == 0 and [label["right"] for label in json.loads(out)] == [True, False]
    code, out, _ = run(capsys, "labels", indexed / "lib", "--evaluate", "--said", 1)
    report = json.loads(out)
    assert report["queries"] == 1 and report["metrics"]["R@1"] == 1.0 and report["intervals"]["R@1"] == [1.0, 1.0]


def test_nothing_found_is_told_by_the_exit_code(indexed, capsys):
    code, out, err = run(capsys, "query", indexed / "lib", "zebra", "--said", 1)
    assert code == 1 and out == "" and "nothing was found" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("query", "LIB", ""), "the query is empty"),
        (("query", "LIB", "a", "-k", 0), "k is 0; it must lie between 1"),
        (("query", "LIB", "a", "--said", 2), "said is 2"),
        (("query", "LIB", "a", "--within", "four"), "no video 'four'"),
        (("query", "nowhere", "a"), "nowhere is no library"),
        (("remove", "LIB", "one", "four"), "no video 'four'"),
        (("index", "nowhere", "--library", "LIB"), "nowhere: no such video or folder"),
        (("similar", "LIB", "one", 5, 99), "no stretch"),
        (("label", "LIB", "a", "one", 9, 2, "right"), "no stretch"),
    ],
)
def test_wrong_arguments(indexed, capsys, arguments, message):
    places = {"LIB": indexed / "lib"}
    code, out, err = run(capsys, *(places.get(argument, argument) for argument in arguments))
    assert code == 2 and message in err and out == ""


def test_a_new_library_needs_a_checkpoint(films, tmp_path, capsys):
    code, _, err = run(capsys, "index", films, "--library", tmp_path / "lib")
    assert code == 2 and "give the model's --checkpoint" in err and not (tmp_path / "lib").exists()


def test_a_second_writer_has_its_own_exit_code(indexed, capsys):
    with lock(indexed / "lib" / ".writer"):
        code, _, err = run(capsys, "remove", indexed / "lib", "one")
    assert code == 3 and "is in use by" in err


def test_times_and_names():
    assert (clock(83), clock(3723), clock(0)) == ("1:23", "1:02:03", "0:00")
    assert (
        safe_name("../a b<script>") == "a_b_script" and safe_name("..") == "video" and len(safe_name("x" * 500)) == 80
    )
