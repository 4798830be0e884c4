"""Narrated films: pictures move over photographs of nature, one after the other, and a voice speaks about them.

The narrator is as careless as those of real instructional videos: a sentence comes some seconds before or after its
picture, some sentences are off the topic, and some pictures are passed over in silence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demo.pictures.gather import Picture, read_picture
from demo.pictures.speech import RATE, Speaker

WIDTH, HEIGHT, FPS = 320, 240, 8
SHOWN = (4.0, 7.0)  #: seconds that a picture stands, drawn evenly
CROSSING = 0.5  #: seconds in which a picture gives way to the next
SPOKEN_LATE = (-4.0, 6.0)  #: seconds from a picture's start to its sentence, drawn evenly
SILENT = 0.15  #: share of pictures without a sentence
OFF_TOPIC = 0.25  #: share of pictures after which something else is said

SENTENCES = (
    *("Here you can see {}.", "This is {}.", "Well, now have a look at {}.", "And what we have here is {}."),
    *("Um, next comes {}.", "Look at that, {}.", "Let me show you {}.", "You may have met {} before.", "I love {}."),
)
ASIDES = (
    *(
        "So, where were we.",
        "Okay, let me see.",
        "Do not forget to subscribe to the channel.",
        "It was raining all day.",
    ),
    *("By the way, my brother called yesterday.", "I had some coffee before this.", "Please write a comment below."),
    *("We did this last year as well.", "Sorry about the noise.", "That is enough for now."),
)


@dataclass(frozen=True)
class Shot:
    """A picture in a film."""

    picture: Picture
    start: float  #: seconds
    end: float


@dataclass(frozen=True)
class Sentence:
    """What the narrator says from `start` on."""

    text: str
    start: float  #: seconds
    sound: np.ndarray  #: int16 samples


@dataclass(frozen=True)
class Film:
    """A film before it is drawn."""

    shots: tuple[Shot, ...]
    sentences: tuple[Sentence, ...]

    @property
    def seconds(self) -> float:
        """Length, with the last sentence."""
        return max(self.shots[-1].end, *(line.start + len(line.sound) / RATE for line in self.sentences), 0)


def plan_film(pictures: Sequence[Picture], speak: Speaker, rng: np.random.Generator) -> Film:
    """Draws how long each picture stands and what is said when.

    Args:
        pictures: in the order in which they are shown.
        speak: the narrator's voice.
        rng: of all draws.
    """
    shots, sentences = [], []
    start = silence_from = 0.0

    def say(text: str, earliest: float) -> float:
        sound = speak(text)
        begin = max(earliest, silence_from, 0.0)
        sentences.append(Sentence(text, begin, sound))
        return begin + len(sound) / RATE + 0.3

    for picture in pictures:
        end = start + rng.uniform(*SHOWN)
        shots.append(Shot(picture, start, end))
        late = rng.uniform(*SPOKEN_LATE)
        if rng.random() >= SILENT:
            silence_from = say(rng.choice(SENTENCES).format(picture.name), start + late)
        if rng.random() < OFF_TOPIC:
            silence_from = say(str(rng.choice(ASIDES)), silence_from)
        start = end
    return Film(tuple(shots), tuple(sentences))


def write_film(film: Film, path: Path, backgrounds: Sequence[Path], rng: np.random.Generator) -> None:
    """Draws a film and encodes it with its sound, as H.264 and AAC in mp4.

    Args:
        film: what is shown and said.
        path: of the file.
        backgrounds: photographs, of which each picture gets a piece of one.
        rng: of the camera.
    """
    aside = path.with_name(f".{path.name}.partial.mp4")
    with av.open(str(aside), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "26"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = container.add_stream("aac", rate=RATE, layout="mono")
        for number, picture in enumerate(draw(film, backgrounds, rng)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = np.zeros(int(film.seconds * RATE) + 1, np.int16)
        for line in film.sentences:
            begin = int(line.start * RATE)
            samples[begin : begin + len(line.sound)] = line.sound[: len(samples) - begin]
        for begin in range(0, len(samples), 1024):
            heard = av.AudioFrame.from_ndarray(samples[None, begin : begin + 1024], format="s16", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = RATE, begin, Fraction(1, RATE)
            container.mux(sound.encode(heard))
        container.mux(sound.encode(None))
    aside.replace(path)


def draw(film: Film, backgrounds: Sequence[Path], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The frames of a film, uint8 (HEIGHT, WIDTH, 3), at `FPS`."""
    scenes = [Scene(shot, backgrounds[int(rng.integers(len(backgrounds)))], rng) for shot in film.shots]
    for number in range(int(film.seconds * FPS)):
        second = number / FPS
        place = next((i for i, scene in enumerate(scenes) if second < scene.shot.end), len(scenes) - 1)
        frame = scenes[place].at(second)
        crossed = (second - film.shots[place].start) / CROSSING
        if place and crossed < 1:
            frame = scenes[place - 1].at(second).lerp(frame, crossed)
        yield frame.clamp(0, 255).byte().permute(1, 2, 0).numpy()


class Scene:
    """A picture that is panned and zoomed over a piece of a photograph.

    Args:
        shot: the picture and its time.
        background: the photograph.
        rng: draws the camera's movement and the piece.
    """

    def __init__(self, shot: Shot, background: Path, rng: np.random.Generator) -> None:
        self.shot = shot
        picture = torch.from_numpy(read_picture(shot.picture.path)).permute(2, 0, 1).float()
        opacity = picture[3:] / 255
        layers = torch.cat([picture[:3] * opacity, opacity])  # colours weighed: no dark edges
        self.zoom = rng.uniform(0.6, 0.95, 2)  # at the start and at the end: share of the frame that the picture fills
        # The middle at the start and at the end, near enough to the frame's that a square cut out of it shows the picture.
        self.place = np.stack([rng.uniform(0.4, 0.6, 2), rng.uniform(0.42, 0.58, 2)], axis=1)
        self.layers = fitting(layers, self.zoom.max())
        photograph = small_photograph(background)
        top, left = (
            int(rng.integers(room + 1)) for room in (photograph.shape[1] - HEIGHT, photograph.shape[2] - WIDTH)
        )
        self.background = photograph[:, top : top + HEIGHT, left : left + WIDTH]

    def at(self, second: float) -> Tensor:
        """The frame at a time of the film, (3, HEIGHT, WIDTH), 0 to 255."""
        share = float(np.clip((second - self.shot.start) / (self.shot.end - self.shot.start), 0, 1))
        layers = fitting(self.layers, np.interp(share, (0, 1), self.zoom))
        height, width = layers.shape[1:]
        middle = [np.interp(share, (0, 1), self.place[:, axis]) for axis in (0, 1)]
        top = int(np.clip(middle[0] * HEIGHT - height / 2, 0, HEIGHT - height))
        left = int(np.clip(middle[1] * WIDTH - width / 2, 0, WIDTH - width))
        frame = self.background.clone()
        window = frame[:, top : top + height, left : left + width]
        window.copy_(window * (1 - layers[3]) + layers[:3])
        return frame


def fitting(layers: Tensor, share: float) -> Tensor:
    """Layers (C, H, W), made larger or smaller to fill a share of the frame's height, or of the same width."""
    scale = share * HEIGHT / max(layers.shape[1:])
    size = [max(1, round(side * scale)) for side in layers.shape[1:]]
    return F.interpolate(layers[None], size, mode="bilinear", antialias=True)[0]


@lru_cache(maxsize=64)
def small_photograph(path: Path) -> Tensor:
    """A photograph of twice the frame's height at least, (3, H, W), 0 to 255."""
    photograph = torch.from_numpy(read_picture(path)[..., :3].copy()).permute(2, 0, 1).float()
    scale = max(2 * HEIGHT / photograph.shape[1], 2 * WIDTH / photograph.shape[2])
    size = [math.ceil(side * scale) for side in photograph.shape[1:]]
    return F.interpolate(photograph[None], size, mode="bilinear", antialias=True)[0]
