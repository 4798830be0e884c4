"""Short films of the demo world, drawn by our own code: a coloured shape is an object, its movement is what is done.

The words are those of the demo world (`words.py`): "chop the onion" is a disc that jumps. A model trained on such
films knows these twelve shapes, eight movements and their words, and nothing of real kitchens.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from demo import words
from mmpt_plugin.captions import TimedText

OBJECTS = 12  # of words.OBJECTS; the three shapes take turns, the colours go round the circle
MOVEMENTS = {0: "jump", 1: "sweep", 3: "shiver", 5: "circle", 6: "fall", 7: "slide", 8: "squash", 9: "pulse"}
"""Rows of words.VERBS and how they move: chop, peel, fry, stir, pour, grate, mash, whisk."""

UNSEEN_EVERY = 4  # each object is kept from two of the eight movements in training
STEPS, STEP_SECONDS, GAP_SECONDS = (6, 9), (6, 12), (2, 5)
NARRATION_SPREAD = 1.5
CHIT_CHAT = 0.04  # lines about nothing, per second
SIZE, FPS = (320, 240), 12


class Step(NamedTuple):
    """From second `start` to `end` (exclusive) a verb is done to an object: rows of the demo world's words."""

    start: int
    end: int
    verb: int
    object: int

    @property
    def unseen(self) -> bool:
        """Whether no training film does this to this."""
        return is_unseen(self.verb, self.object)

    def sentence(self, rng: np.random.Generator | None = None) -> str:
        """'chop the onion', by any of the words' synonyms."""
        verb, thing = words.VERBS[self.verb], words.OBJECTS[self.object]
        return f"{_pick(verb, rng)} the {_pick(thing, rng)}"


@dataclass(frozen=True)
class Film:
    """What is shown when, what is said when, and how the table looks."""

    steps: tuple[Step, ...]
    lines: tuple[TimedText, ...]
    seconds: int
    table: tuple[int, int, int]
    place: tuple[float, float]


def is_unseen(verb: int, thing: int) -> bool:
    """Whether a combination is kept from training."""
    return (list(MOVEMENTS).index(verb) + thing) % UNSEEN_EVERY == 0


def draw_film(rng: np.random.Generator, training: bool) -> Film:
    """Draws a film.

    Args:
        rng: the only source of randomness.
        training: leave out what is kept from training.
    """
    combinations = [
        (verb, thing) for verb in MOVEMENTS for thing in range(OBJECTS) if not (training and is_unseen(verb, thing))
    ]
    chosen = rng.permutation(len(combinations))[: rng.integers(*STEPS, endpoint=True)]
    steps, second = [], int(rng.integers(*GAP_SECONDS, endpoint=True))
    for number in chosen:
        end = second + int(rng.integers(*STEP_SECONDS, endpoint=True))
        steps.append(Step(second, end, *combinations[number]))
        second = end + int(rng.integers(*GAP_SECONDS, endpoint=True))
    lines = []
    for step in steps:
        start = max(0.0, step.start + rng.uniform(0, 3) + rng.normal(0, NARRATION_SPREAD))
        text = f"{_pick(words.OPENINGS, rng)} {step.sentence(rng)}".strip()
        lines.append(TimedText(round(start, 2), round(start + rng.uniform(2, 4), 2), text))
    for _ in range(rng.poisson(CHIT_CHAT * second)):
        start = round(float(rng.uniform(0, second - 3)), 2)
        lines.append(TimedText(start, start + 3, _pick(words.CHIT_CHAT, rng)))
    grey = int(rng.integers(170, 225))
    table = (grey, grey - int(rng.integers(0, 14)), grey - int(rng.integers(0, 26)))
    place = float(rng.uniform(-0.06, 0.06)), float(rng.uniform(-0.06, 0.06))
    return Film(tuple(steps), tuple(sorted(lines)), second, table, place)


def picture(film: Film, second: float, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """The film's picture at a time.

    Args:
        film: what to show.
        second: time.
        size: width and height in pixels.

    Returns:
        (height, width, 3).
    """
    width, height = size
    image = np.empty((height, width, 3), np.uint8)
    image[:] = film.table
    step = next((step for step in film.steps if step.start <= second < step.end), None)
    if step is None:
        return image
    dx, dy, wide, tall = _movement(MOVEMENTS[step.verb], second - step.start, int(second * FPS))
    x = (np.arange(width) - width / 2) / height - film.place[0] - dx  # in picture heights, from the middle
    y = (np.arange(height)[:, None] - height / 2) / height - film.place[1] - dy
    image[_shape(step.object, x / wide, y / tall)] = colour_of(step.object)
    return image


def colour_of(thing: int) -> tuple[int, int, int]:
    """An object's colour."""
    red, green, blue = colorsys.hls_to_rgb(thing / OBJECTS, 0.42, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def write_film(path: Path, film: Film) -> None:
    """Encodes a film (H.264); the suffix picks the container."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"preset": "veryfast", "crf": "24", "g": str(2 * FPS)}
        )
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(film.seconds * FPS):
            frame = av.VideoFrame.from_ndarray(picture(film, number / FPS), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_subtitles(path: Path, film: Film) -> None:
    """Writes what is said as WebVTT."""

    def stamp(seconds: float) -> str:
        whole, milliseconds = divmod(round(seconds * 1000), 1000)
        return f"{whole // 60:02}:{whole % 60:02}.{milliseconds:03}"

    cues = [f"{stamp(line.start)} --> {stamp(line.end)}\n{line.text}\n" for line in film.lines]
    path.write_text("WEBVTT\n\n" + "\n".join(cues), encoding="utf-8")


def _movement(name: str, t: float, frame: int) -> tuple[float, float, float, float]:
    """Shift (x, y) in picture heights and stretch (x, y) of a shape, `t` seconds after it came."""
    turn = 2 * math.pi * t
    if name == "jump":
        return 0, 0.22 - 0.44 * abs(math.sin(turn / 2)), 1, 1
    if name == "sweep":
        return 0.3 * math.sin(turn / 2), 0, 1, 1
    if name == "shiver":
        rng = np.random.default_rng(frame)
        return float(rng.uniform(-0.07, 0.07)), float(rng.uniform(-0.07, 0.07)), 1, 1
    if name == "circle":
        return 0.24 * math.cos(turn * 0.7), 0.24 * math.sin(turn * 0.7), 1, 1
    if name == "fall":
        return 0, -0.35 + 0.7 * (t % 1.0), 1, 1
    if name == "slide":
        shift = 0.26 * math.sin(turn * 0.6)
        return shift, shift, 1, 1
    stretch = 1 + 0.5 * math.sin(turn)
    return (0, 0, stretch, 2 - stretch) if name == "squash" else (0, 0, stretch, stretch)


def _shape(thing: int, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where an object covers the picture; (height, width) from (width,) and (height, 1) coordinates."""
    half = 0.13
    match thing % 3:
        case 0:
            return x**2 + y**2 < half**2
        case 1:
            return (np.abs(x) < half * 0.9) & (np.abs(y) < half * 0.9)
        case _:
            return (y < half) & (y > -half) & (np.abs(x) < (y + half) / 2)


def _pick(options: tuple[str, ...], rng: np.random.Generator | None) -> str:
    return options[0] if rng is None else options[int(rng.integers(len(options)))]
