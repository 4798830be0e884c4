"""Sentences spoken by a program: espeak-ng or flite, whichever is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

RATE = 16_000  #: samples a second
VOICES = {  # program -> its voices
    "espeak-ng": ("en-us", "en-us+f3", "en-gb", "en-gb+f2", "en-us+m5"),
    "flite": ("slt", "kal", "rms", "awb"),
}
Speaker = Callable[[str], np.ndarray]


def speaker(number: int) -> Speaker:
    """A voice: maps a sentence to int16 samples at `RATE`.

    Args:
        number: which of the voices at hand, counted round.

    Raises:
        ValueError: if neither program is installed.
    """
    voices = [(program, voice) for program, names in VOICES.items() if shutil.which(program) for voice in names]
    if not voices:
        raise ValueError("films need a program that speaks: apt-get install espeak-ng (or flite)")
    program, voice = voices[number % len(voices)]

    def speak(sentence: str) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "speech.wav"
            if program == "espeak-ng":
                command = [program, "-v", voice, "-s", "150", "-w", str(path), sentence]
            else:
                command = [program, "-voice", voice, "-t", sentence, "-o", str(path)]
            subprocess.run(command, check=True, capture_output=True)
            return read_sound(path)

    return speak


def read_sound(path: Path) -> np.ndarray:
    """A sound file as int16 samples at `RATE`, one channel."""
    resampler = av.AudioResampler("s16", "mono", RATE)
    with av.open(str(path)) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in [*frames, *resampler.resample(None)]])
