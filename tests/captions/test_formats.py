"""Every format of captions, told by its content, in every encoding; and what is no caption file."""

import json
import os
import zipfile
from pathlib import Path

import pytest

from mmpt_plugin.captions import Left, Transcript, read_captions, read_transcript
from mmpt_plugin.captions.tables import parse_time
from mmpt_plugin.files import UnusableFile

from .caption_files import LINES, one_table, segments, words, write_all


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captions")
    write_all(folder)
    return folder


@pytest.mark.parametrize("kind", ["plain", "bom", "utf16", "crlf", "gz"])
def test_every_format_and_encoding_gives_the_same_captions(folder: Path, kind: str) -> None:
    paths = [*sorted((folder / kind).iterdir()), folder / "official.zip", folder / "howto.pickle"]
    assert len(paths) >= 18
    for path in paths:
        assert [(round(s, 3), round(e, 3), text) for s, e, text in read_transcript(path)] == LINES, path.name
        assert next(read_captions(path)).video_id.startswith("talk"), path.name


def test_the_official_zip_has_a_table_for_each_video(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "official.zip", "w") as archive:
        archive.writestr("__MACOSX/._a.csv", b"\0")
        archive.writestr("csv/a.csv", one_table())
        archive.writestr("csv/b.csv", "start;text")
        archive.writestr("csv/c.csv", one_table())
    a, b, c = read_captions(tmp_path / "official.zip")
    assert isinstance(a, Transcript) and (a.video_id, list(a.texts)) == ("a", [text for _, _, text in LINES])
    assert isinstance(b, Left) and b.reason == "unreadable_files" and "official.zip:csv/b.csv" in b.message
    assert c.video_id == "c"
    (tmp_path / "cut.zip").write_bytes((tmp_path / "official.zip").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"cut\.zip: no whole zip archive"):
        list(read_captions(tmp_path / "cut.zip"))


def test_words_become_lines_at_pauses(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"word_segments": [*words(), {"word": "late", "start": 9, "end": 10}]}))
    assert read_transcript(tmp_path / "a.json") == [
        (0.5, 7.5, "cut the onions add salt & pepper stir well"),
        (9, 10, "late"),
    ]


def test_a_long_segment_is_cut_at_its_words(tmp_path: Path) -> None:
    spoken = [{"word": f" w{i}", "start": 1.0 * i, "end": i + 0.5} for i in range(20)]
    long = {"start": 0, "end": 19.5, "text": "all of it", "words": spoken}
    short = {"start": 20, "end": 29, "text": "short", "words": spoken}
    timeless = {**long, "words": [*spoken, {"word": "late", "start": None, "end": None}]}
    (tmp_path / "a.json").write_text(json.dumps({"segments": [long, timeless, short]}))
    lines = sorted(read_transcript(tmp_path / "a.json"))
    assert [(line.start, line.end) for line in lines] == [(0, 11.5), (0, 19.5), (12, 19.5), (20, 29)]
    assert lines[2].text == "w12 w13 w14 w15 w16 w17 w18 w19" and lines[1].text == "all of it"


def test_a_segment_without_times_has_those_of_its_words(tmp_path: Path) -> None:
    segment = {"text": "a b", "words": [{"word": "a", "start": 1, "end": 2}, {"word": "b", "start": 3, "end": 4}]}
    (tmp_path / "a.json").write_text(json.dumps({"segments": [segment, {"text": "c"}]}))
    assert read_transcript(tmp_path / "a.json") == [(1, 4, "a b")]


def test_a_line_that_is_said_twice_is_kept_in_rolling_captions(tmp_path: Path) -> None:
    cues = [
        ("00:00:01.000 --> 00:00:02.000", " \nstir<00:00:01.500><c> well</c>"),
        ("00:00:02.000 --> 00:00:02.010", "stir well\n "),
        ("00:00:02.010 --> 00:00:04.000", "stir well\nstir well"),
        ("00:01:00.000 --> 00:01:02.000", "stir well\n "),
    ]
    (tmp_path / "a.vtt").write_text("WEBVTT\n\n" + "".join(f"{times}\n{text}\n\n" for times, text in cues))
    assert read_transcript(tmp_path / "a.vtt") == [(1, 2, "stir well"), (2.01, 4, "stir well"), (60, 62, "stir well")]


def test_ttml_in_ticks_of_an_old_namespace(tmp_path: Path) -> None:
    body = '<body><div><p begin="10000000t" end="25000000t">salt</p></div></body>'
    head = '<tt xmlns="http://www.w3.org/2006/10/ttaf1" xmlns:ttp="x" ttp:tickRate="10000000">'
    (tmp_path / "a.xml").write_text(f"{head}{body}</tt>")
    assert read_transcript(tmp_path / "a.xml") == [(1, 2.5, "salt")]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12.5", 12.5),
        ("12,5", 12.5),
        ("00:01:02,5", 62.5),
        ("1:02", 62),
        ("1e3", 1000),
        ("nan", None),
        ("", None),
        ("a", None),
    ],
)
def test_times_of_tables(text: str, seconds: float | None) -> None:
    assert parse_time(text) == seconds


def test_whisper_s_probabilities_that_are_no_numbers(tmp_path: Path) -> None:
    segment = '{"start": 1, "end": 2.5, "text": "salt", "avg_logprob": NaN, "compression_ratio": -Infinity}'
    (tmp_path / "a.json").write_text(f'{{"text": "salt", "segments": [{segment}], "language": "en"}}')
    assert read_transcript(tmp_path / "a.json") == [(1, 2.5, "salt")]


def test_a_table_s_bad_rows_are_their_video_s_own(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('video,start,end,text\na,0,1,"salt, then ""stir"""\nb,0\nc,x,1,pan\na,2,3,add\n')
    left, a, c = read_captions(tmp_path / "a.csv")
    assert isinstance(left, Left) and left.video_id == "b" and "line 3 has 2 fields" in left.message
    assert a == Transcript("a", [0, 2], [1, 3], ['salt, then "stir"', "add"])
    assert c == Transcript("c", [None], [1], ["pan"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"video,begin,text\n", "must name the columns video, start, end, text"),
        ("a.csv", b"id;words\n1;2\n", "must name the columns|known format"),
        ("a.csv", b'video,start,end,text\na,0,1,"never closed\n', "Is a quotation mark closed"),
        ("a.srt", b"", "is empty"),
        ("a.srt", b"\n\n \n", "is empty"),
        ("a.srt", b"1\nsome words\n", "known format"),
        ("a.vtt", b"WEBVTT\n\nNOTE nothing else\n", "without any caption"),
        ("a.srt", "1\n00:00:01,0 --> 00:00:02,0\ncaf\u00e9\n".encode("cp1252"), "--encoding"),
        ("a.srt", "1\n00:00:01,0 --> 00:00:02,0\nsalt\n".encode("utf-16-le"), "zero bytes"),
        ("a.json", b"<!DOCTYPE html><html></html>", "a web page"),
        ("a.json", b'{"segments": [{"start": 0, "end"', "JSON"),
        ("a.json", b'{"segments": [], "segments": []}', "twice"),
        ("a.json", b'{"a": {"start": [], "start": [], "end": [], "text": []}}', "twice"),
        ("a.json", b"[" * 100_000, "JSON"),
        ("a.json", b'{"a": ' + b"[" * 400_000, "nested more than"),
        ("a.json", b'{"a": "' + b"x" * (3 << 20), "quotation mark is missing"),
        ("a.jsonl", b'{"video": "a", "start": 0}\n{"end": 1}\n', "line 2 is no JSON object with a video's id"),
        ("a.ttml", b'<tt xmlns="http://www.w3.org/ns/ttml"><body><div><p begin="00:00:01:12" end="2s">', "no whole ttml"),
        ("a.gz", b"\x1f\x8b\x08\0\0", "cannot be unpacked"),
        ("a.bin", bytes(range(256)), "a.bin"),
    ],
)  # fmt: skip
def test_what_is_no_caption_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        read_transcript(tmp_path / name)
    assert str(tmp_path / name) in str(refused.value)


def test_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.srt")
    for name, message in (("fifo.srt", "a named pipe"), (".", "a folder"), ("no.srt", "no such file")):
        with pytest.raises((UnusableFile, FileNotFoundError), match=message):
            read_transcript(tmp_path / name)


def test_a_transcript_is_of_one_video(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"a": segments(), "b": segments()}))
    with pytest.raises(ValueError, match="of 2 videos"):
        read_transcript(tmp_path / "a.json")


def test_another_encoding_on_demand(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_bytes("1\n00:00:01,0 --> 00:00:02,0\ncaf\u00e9 &amp; \u20ac\n".encode("cp1252"))
    assert read_transcript(tmp_path / "a.srt", encoding="cp1252") == [(1, 2, "caf\u00e9 & \u20ac")]
