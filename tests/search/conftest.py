"""Small videos of flat colours, a small network that sees them, and a small model with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ResNetConfig, ResNetModel

from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.videoclip import VideoClipModel
from mmpt_plugin.search import VideoLibrary

from ..features.video_files import write_video

FPS, SIZE, FEATURES = 4, 32, 16
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 40),
    "blue": (30, 50, 220),
    "white": (250, 250, 250),
    "black": (5, 5, 5),
    "violet": (160, 60, 170),
}


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A convolutional network of random weights, as --network takes it."""
    folder = tmp_path_factory.mktemp("network")
    config = ResNetConfig(embedding_size=8, hidden_sizes=[FEATURES], depths=[1], layer_type="basic")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ResNetModel(config).save_pretrained(folder)
    settings = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": SIZE}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return f"hf:{folder}"


@pytest.fixture(scope="session")
def checkpoint(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint for features of that network, which does not say what it was trained on."""
    cfg = VideoClipConfig(bert=str(tiny_bert), video_layers=2, feature_size=FEATURES)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = VideoClipModel.from_backbone(cfg)
    path = tmp_path_factory.mktemp("model") / "checkpoint.pt"
    settings = {name: getattr(cfg, name) for name in ("bert", "video_layers", "feature_size")}
    torch.save({"model": model.state_dict(), "cfg": {"model": settings | {"_name": "videoclip"}}}, path)
    return path


def film(path: Path, colours: Sequence[str], seconds: int = 6) -> Path:
    """A video that shows each colour for some seconds, a bar moving over it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = []
    for colour in colours:
        for frame in range(seconds * FPS):
            picture = np.full((SIZE, SIZE, 3), COLOURS[colour], np.uint8)
            picture[:, frame % SIZE] = 0
            pictures.append(picture)
    return write_video(path, pictures, fps=FPS, options={"crf": "18"})


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three videos, one of them with a transcript beside it. Copy it to alter it."""
    folder = tmp_path_factory.mktemp("films")
    film(folder / "one.mp4", ["red", "green", "blue"])
    film(folder / "two.mp4", ["blue", "white", "red", "white"])
    film(folder / "deep" / "three.mkv", ["black", "violet"])
    (folder / "one.srt").write_text(
        "1\n00:00:01,000 --> 00:00:04,000\nadd the onions\n\n2\n00:00:13,000 --> 00:00:16,000\nstir the <i>pan</i>\n"
    )
    return folder


@pytest.fixture(scope="session")
def make_library(checkpoint: Path, network: str) -> Callable[..., VideoLibrary]:
    """Makes a library in a folder: windows of 8 seconds, every 4."""

    def make(folder: Path, **settings: object) -> VideoLibrary:
        usual = {"network": network, "fps": FPS, "frame_size": SIZE, "window": 8, "stride": 4}
        return VideoLibrary.create(folder, checkpoint, **(usual | settings))

    return make


@pytest.fixture(scope="session")
def library(make_library, films: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VideoLibrary]:
    """The three videos, indexed. Only read it."""
    library = make_library(tmp_path_factory.mktemp("library"))
    library.add(films)
    yield library
    library.close()
