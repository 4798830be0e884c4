"""From a folder of films to a corpus: what is used, what is left out and why, and what a second call does."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.captions import TimedText
from mmpt_plugin.data.corpus import read_video_list
from mmpt_plugin.features import one_video
from mmpt_plugin.own_videos import sources
from mmpt_plugin.own_videos.corpus import open_corpus
from mmpt_plugin.own_videos.held_out import clips_of
from mmpt_plugin.own_videos.prepare import prepare
from mmpt_plugin.preparation.speech import SpeechSettings, Summary

from .conftest import SENTENCES, write_film, write_subtitles


class Recogniser:
    """Stands for the transcription: says the same of every video, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heard: list[str] = []
        self.silent: set[str] = set()
        monkeypatch.setattr(sources, "transcribe", self.transcribe)

    def transcribe(self, videos, out: Path, speech, **_) -> Summary:
        out.mkdir(parents=True, exist_ok=True)
        summary = Summary()
        for video_id in videos:
            if not (out / f"{video_id}.json").exists():
                self.heard.append(video_id)
                summary.transcribed += 1
                segments = [
                    {"start": 3.0 * i, "end": 3.0 * i + 2, "text": text}
                    for i, text in enumerate(SENTENCES.values())
                    if video_id not in self.silent
                ]
                (out / f"{video_id}.json").write_text(json.dumps({"video_id": video_id, "segments": segments}))
        return summary


@pytest.fixture
def recogniser(monkeypatch: pytest.MonkeyPatch) -> Recogniser:
    return Recogniser(monkeypatch)


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that go through the feature network."""
    seen: list[str] = []
    original = one_video.FeatureExtractor.extract

    def counting(self, video, *rest):
        seen.append(Path(video).stem)
        return original(self, video, *rest)

    monkeypatch.setattr(one_video.FeatureExtractor, "extract", counting)
    return seen


def test_a_folder_becomes_a_corpus(preparation):
    corpus = prepare(preparation())
    folder, same = open_corpus(preparation().cache)
    assert same == corpus and corpus.left_out == {}
    assert corpus.transcripts == {"found": 6, "made": 0} and corpus.features["feature_size"] == 3
    for split, own in corpus.videos.items():
        assert read_video_list(folder / "howto100m" / f"{split}.txt") == own
    rows = list(csv.DictReader((folder / "test.csv").open()))
    assert {row["video"] for row in rows} == set(corpus.videos["test"]) and len(rows) == corpus.clips["test"] == 4
    assert {row["text"] for row in rows} == set(SENTENCES.values())
    assert "4 for train (0.01 h), 1 for val (0.00 h), 1 for test" in corpus.words()


def test_a_second_call_does_what_is_new(preparation, films, recogniser, extracted):
    write_film(films, "quiet", 1, subtitles=False)
    settings = preparation(speech=SpeechSettings())
    before = prepare(settings)
    assert (len(extracted), recogniser.heard) == (7, ["quiet"])
    assert before.transcripts == {"found": 6, "made": 1}
    assert prepare(settings) == before and len(extracted) == 7  # nothing is new
    for number in range(3):
        write_film(films, f"new{number}", 2 + 4 * number, subtitles=number > 0)
    after = prepare(settings)
    assert (sorted(extracted[7:]), recogniser.heard) == (["new0", "new1", "new2"], ["quiet", "new0"])
    assert sum(map(len, after.videos.values())) == 10 and after.name != before.name
    assert all(set(before.videos[split]) <= set(after.videos[split]) for split in before.videos)
    assert len(list(settings.cache.glob("corpus-*"))) == 1


def test_a_video_that_changed_is_made_anew(preparation, films, extracted):
    prepare(preparation())
    write_film(films, "film2", 3)
    prepare(preparation())
    assert extracted[6:] == ["film2"]


def test_everything_that_is_left_out_is_named(preparation, films, recogniser):
    write_subtitles(films / "stray.srt", ["cut the onions"])
    write_film(films, "silent", 1, subtitles=False)
    recogniser.silent.add("silent")
    write_film(films, "longer", 2)
    write_subtitles(films / "longer.srt", list(SENTENCES.values()), seconds_each=14)  # of a film of a minute
    write_film(films, "foreign", 3)
    write_subtitles(films / "foreign.srt", [f"{word} wird in sehr kleine feine wuerfel geschnitten" for word in "wxyz"])
    (films / "broken.mp4").write_bytes(b"no video at all")
    write_subtitles(films / "broken.srt", list(SENTENCES.values()))
    corpus = prepare(preparation(speech=SpeechSettings()))
    assert sum(map(len, corpus.videos.values())) == 6
    assert {name: reason.partition(":")[0] for name, reason in corpus.left_out.items()} == {
        "stray.srt": "without video",
        "silent": "nothing is said in it",
        "longer": "other length",
        "foreign": "other language",
        "broken": "cannot be decoded",
    }
    for line in ("left out: 5", "1 x other language", "silent: nothing is said in it"):
        assert line in corpus.words()
    assert prepare(preparation(speech=SpeechSettings())).left_out == corpus.left_out  # a second call knows it still


def test_videos_without_subtitles_where_speech_cannot_be_transcribed(preparation, films, monkeypatch, caplog):
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    write_film(films, "quiet", 1, subtitles=False)
    corpus = prepare(preparation(speech=SpeechSettings()))
    assert corpus.left_out == {"quiet": "has no subtitles, and faster-whisper is not installed"}
    assert "pip install 'mmpt_plugin[speech]'" in caplog.text
    for path in films.glob("*.srt"):
        path.unlink()
    with pytest.raises(
        ValueError, match=r"no video in .* has anything that is said in it:\n    film0: has no subtitles"
    ):
        prepare(preparation(speech=SpeechSettings()))


def test_all_videos_are_silent(preparation, films, recogniser):
    for path in films.glob("*.srt"):
        path.unlink()
    recogniser.silent |= {f"film{number}" for number in range(6)}
    with pytest.raises(ValueError, match=r"no video in .*:\n    film0: nothing is said in it"):
        prepare(preparation(speech=SpeechSettings()))


def test_one_single_video(preparation, films):
    for path in films.glob("film[1-5].*"):
        path.unlink()
    with pytest.raises(ValueError, match="only 1 videos can be used, and at least 3 are needed"):
        prepare(preparation())
    assert not list(preparation().cache.glob("corpus-*"))


@pytest.mark.parametrize(
    ("name", "problem"),
    [("film0.mkv", "would both become film0"), ("FILM0.mp4", "differ by capital letters alone: FILM0 and film0")],
)
def test_ids_that_clash(preparation, films, name, problem):
    (films / name).write_bytes((films / "film0.mp4").read_bytes())
    with pytest.raises(ValueError, match=problem):
        prepare(preparation())


def test_no_folder_and_no_video(preparation, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        prepare(preparation(videos=tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no video in it"):
        prepare(preparation(videos=tmp_path / "empty"))


def test_captions_from_elsewhere(preparation, films, tmp_path):
    table = tmp_path / "captions.csv"
    rows = [
        f"film{video},{3 * i},{3 * i + 2},{text}\n" for video in range(6) for i, text in enumerate(SENTENCES.values())
    ]
    table.write_text("video,start,end,text\n" + "".join(rows))
    for path in films.glob("*.srt"):
        path.unlink()
    assert prepare(preparation(captions=table)).transcripts == {"found": 6, "made": 0}


def test_a_clip_has_words_enough_and_seconds_that_the_video_has():
    lines = [TimedText(i, i + 1.5, f"one two three {i}") for i in range(0, 9, 2)]
    clips = clips_of(lines, seconds=7)
    assert clips == [(0, 3.5, "one two three 0 one two three 2"), (4, 7, "one two three 4 one two three 6")]
    far = [TimedText(0, 1, "one two"), TimedText(50, 52, "one two three four five six seven eight")]
    assert clips_of(far, seconds=60) == [far[1]]
    assert np.all([clip.end - clip.start <= 32 for clip in clips_of([TimedText(0, 50, "a b c d e f g h")], 60)])
