"""The chain in little, with nothing simulated but the films: real weights of Whisper, of an image network and of MiniLM."""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mmpt_plugin.evaluation.results import read_results
from mmpt_plugin.inference import VideoClip
from mmpt_plugin.preparation.speech import RATE, sound_pieces

from .conftest import write_subtitles

FPS = 4
SHOTS = {  # what is seen, a colour in motion, and what is said
    (210, 40, 40): "Here you can see a red apple rolling down the hill.",
    (40, 180, 60): "Now we look at a green frog jumping over the stone.",
    (40, 70, 220): "The blue boat sails across the lake in the morning.",
}


def spoken(sentence: str, aside: Path) -> np.ndarray:
    """int16 samples at `RATE`."""
    subprocess.run(["espeak-ng", "-s", "150", "-w", str(aside), sentence], check=True)
    samples = np.concatenate([piece for _, piece in sound_pieces(aside)])
    aside.unlink()
    return (samples * 32767).astype(np.int16)


def write_spoken_film(path: Path, order: list[int]) -> None:
    """Three shots; where a program speaks on this machine, their sentences are spoken, else they lie beside the film."""
    shots = [list(SHOTS)[i] for i in order]
    if shutil.which("espeak-ng"):
        sounds = [spoken(SHOTS[colour], path.with_suffix(".wav")) for colour in shots]
    else:
        sounds = [np.zeros(4 * RATE, np.int16) for _ in shots]
        write_subtitles(path.with_suffix(".srt"), [SHOTS[colour] for colour in shots], seconds_each=4)
    rows, columns = np.mgrid[:96, :128]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        sound = container.add_stream("aac", rate=RATE, layout="mono")
        number = 0
        for colour, samples in zip(shots, sounds):
            for _ in range(len(samples) * FPS // RATE):
                inside = (rows - 48) ** 2 + (columns - 20 - 2 * number % 80) ** 2 < 700
                picture = np.where(inside[..., None], np.array(colour), 120).astype(np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                container.mux(video.encode(frame))
                number += 1
        container.mux(video.encode(None))
        heard = np.concatenate(sounds)
        for begin in range(0, len(heard) - 1024, 1024):
            block = av.AudioFrame.from_ndarray(heard[None, begin : begin + 1024], format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = RATE, begin, Fraction(1, RATE)
            container.mux(sound.encode(block))
        container.mux(sound.encode(None))


@pytest.mark.slow
def test_six_films_become_a_model(fairseq_train, tmp_path):
    films, run = tmp_path / "films", tmp_path / "run"
    films.mkdir()
    for number, order in enumerate(([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0])):
        write_spoken_film(films / f"film{number}.mp4", order)
    fairseq_train(
        "own_videos", f"task.videos={films}", f"checkpoint.save_dir={run}", "task.clips_per_video=4",
        "optimization.max_epoch=2", "task.report=false",
    )  # fmt: skip
    used = json.loads((run / "own_videos.json").read_text())
    assert used["corpus"]["left_out"] == {} and sum(used["corpus"]["transcripts"].values()) == 6
    assert used["corpus"]["features"]["network"] == "efficientnet-lite2"
    results = read_results(run / "results" / "csv.json")
    assert results["counts"]["queries"] == 3 and results["baselines"]["chance"]["R@1"] == pytest.approx(1 / 3)
    text = next((run / "cache").glob("corpus-*/transcripts.jsonl")).read_text().lower()
    assert text.count("apple") >= 4 and text.count("boat") >= 4  # of six: what is heard is not always what is said
    clip = VideoClip.from_pretrained(run / "checkpoint_best.pt")
    vectors = clip.encode_video(videos=[films / "film0.mp4"])  # the checkpoint knows how features are made
    assert vectors.shape == (1, 384)
