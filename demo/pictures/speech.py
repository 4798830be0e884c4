"""Sentences spoken by a program: espeak-ng or flite, whichever is installed; else espeak-ng is downloaded."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from demo.pictures.packages import Program, program

RATE = 16_000  #: samples a second
VOICES = {  # program -> its voices
    "espeak-ng": ("en-us", "en-us+f3", "en-gb", "en-gb+f2", "en-us+m5"),
    "flite": ("slt", "kal", "rms", "awb"),
}
Speaker = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Voice:
    """Maps a sentence to int16 samples at `RATE`.

    Args:
        name: of the program, a key of `VOICES`.
        voice: of its voices.
        speech: how to start it.
    """

    name: str
    voice: str
    speech: Program

    def __call__(self, sentence: str) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "speech.wav"
            if self.name == "espeak-ng":
                options = ["-v", self.voice, "-s", "150", "-w", str(path), sentence]
            else:
                options = ["-voice", self.voice, "-t", sentence, "-o", str(path)]
            environment = os.environ | self.speech.environment
            subprocess.run([self.speech.path, *options], check=True, capture_output=True, env=environment)
            return read_sound(path)


def speakers(cache: Path) -> list[Speaker]:
    """The voices of the program that is here.

    Args:
        cache: where packages of Debian are unpacked.

    Raises:
        ValueError: if no program is here or to be had.
    """
    name, speech = program(list(VOICES), cache)
    return [Voice(name, voice, speech) for voice in VOICES[name]]


def read_sound(path: Path) -> np.ndarray:
    """A sound file as int16 samples at `RATE`, one channel."""
    resampler = av.AudioResampler("s16", "mono", RATE)
    with av.open(str(path)) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in [*frames, *resampler.resample(None)]])
