"""Films of one colour after the other, and what is said about each, in the words of the tiny BERT."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin.features.networks import NETWORKS, FeatureNetwork, NetworkConfig, register_network
from mmpt_plugin.own_videos.prepare import Preparation

from ..features.video_files import write_video

NETWORK = "mean-colour"
SENTENCES = {
    (220, 30, 30): "cut the onions cut the onions to the pan",
    (30, 200, 40): "add salt to the potatoes and stir a potato",
    (40, 60, 230): "stir a potato and add the salt to it",
    (200, 200, 30): "the pan the salt the onion b c a b",
}
SHOT_SECONDS = 3


def _mean_colour(argument: str, config: NetworkConfig) -> FeatureNetwork:
    def embed(frames: torch.Tensor) -> torch.Tensor:
        return frames.float().mean(dim=(1, 2, 3)) / 255  # (B, 3)

    return FeatureNetwork(NETWORK, "of no weights", 3, embed)


@pytest.fixture(scope="session", autouse=True)
def mean_colour() -> None:
    """A network that takes no time."""
    if NETWORK not in NETWORKS:
        register_network(NETWORK)(_mean_colour)


def stamp(second: float) -> str:
    return f"00:00:{second:06.3f}".replace(".", ",")


def write_subtitles(path: Path, texts: list[str], seconds_each: float = SHOT_SECONDS) -> None:
    cues = [
        f"{i + 1}\n{stamp(i * seconds_each)} --> {stamp((i + 1) * seconds_each - 0.5)}\n{text}\n"
        for i, text in enumerate(texts)
    ]
    path.write_text("\n".join(cues))


def write_film(folder: Path, name: str, number: int, subtitles: bool = True) -> Path:
    """A film of four shots; the numbers from 0 to 23 are all different."""
    order = list(itertools.permutations(SENTENCES))[number % 24]
    pictures = [np.full((48, 64, 3), colour, np.uint8) for colour in order for _ in range(2 * SHOT_SECONDS)]
    if subtitles:
        write_subtitles(folder / f"{name}.srt", [SENTENCES[colour] for colour in order])
    return write_video(folder / f"{name}.mp4", pictures, fps=2)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A folder of six films with subtitles."""
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(6):
        write_film(folder, f"film{number}", 4 * number)
    return folder


@pytest.fixture
def preparation(tmp_path: Path, films: Path, tiny_bert: Path) -> Callable[..., Preparation]:
    """The preparation of the films; call it with what shall be otherwise."""

    def make(**changes: object) -> Preparation:
        settings = {"videos": films, "cache": tmp_path / "run" / "cache", "bert": str(tiny_bert)}
        return Preparation(**settings | {"network": NETWORK, "fps": 1, "frame_size": 32} | changes)

    return make
