"""Altered files: each reader says clearly what is wrong with which file, or reads what is there, within bounds.

The alterations come from seeded draws: bits turned over, bytes replaced, stretches cut out, doubled or zeroed, numbers
exchanged for others.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin.features.manifest import (
    Failures,
    FeatureSettings,
    VideoRecord,
    append_record,
    read_failures,
    read_records,
    read_settings,
    write_settings,
)
from mmpt_plugin.features.networks import FramePreprocessing, NetworkConfig, load_network
from mmpt_plugin.features.s3d import S3D, load_s3d
from mmpt_plugin.features.video import LONGEST_STILL_SECONDS, STILL_SECONDS, VideoBlocks

from .video_files import moving_square, write_video

SECONDS = 20  #: that any one altered file may take, on a busy machine
NUMBERS = (b"-1", b"0", b"1e999", b"NaN", b"null", b"99999999999", b"100000", b"0.5", b'"7"', b"true", b"[]", b"{}")

pytestmark = pytest.mark.slow


def altered(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with one alteration."""
    data = bytearray(content)
    place = int(rng.integers(len(data)))
    length = int(rng.integers(1, max(2, min(64, len(data) - place))))
    match rng.integers(7):
        case 0:
            data[place] ^= 1 << int(rng.integers(8))
        case 1:
            data[place : place + length] = rng.bytes(length)
        case 2:
            del data[place:]
        case 3:
            del data[place : place + length]
        case 4:
            data[place:place] = data[place : place + length]
        case 5:
            data[place : place + length] = bytes(length)
        case _:
            numbers = list(re.finditer(rb"-?\d+(\.\d+)?", content))
            if not numbers:
                return altered(content, rng)
            number = numbers[int(rng.integers(len(numbers)))]
            data[number.start() : number.end()] = NUMBERS[int(rng.integers(len(NUMBERS)))]
    return bytes(data)


def survive(path: Path, count: int, read: Callable[[], object], named: str | None = None) -> int:
    """Alters a file `count` times and reads it; returns how often that was refused."""
    content, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(count):
        path.write_bytes(altered(content, rng))
        start = time.monotonic()
        try:
            read()
        except (ValueError, OSError) as error:
            assert (named or path.name) in str(error), f"the file is not named: {error}"
            assert len(str(error)) < 2000
            refused += 1
        assert time.monotonic() - start < SECONDS
    path.write_bytes(content)
    read()
    return refused


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.ts", "libx264")]
)
def test_videos(tmp_path, name, codec):
    # Small and all keyframes, so that headers, tables and time stamps are a good part of the file.
    path = write_video(tmp_path / name, moving_square(12, 32, 32), codec=codec, options={"g": "1"})

    def read() -> None:
        blocks = VideoBlocks(path, fps=2, size=16, threads=1)
        seconds = sum(block.shape == (2, 16, 16, 3) for block in blocks)
        assert 1 <= seconds <= LONGEST_STILL_SECONDS + STILL_SECONDS * blocks.decoded + 1

    assert survive(path, 150, read) > 5


def test_lists_of_a_folder_of_features(tmp_path):
    write_settings(tmp_path, FeatureSettings("s3d", "ab" * 32, 512))
    for video_id in ("a", "b c", "ü"):
        append_record(tmp_path, VideoRecord(video_id, f"{video_id}.mp4", 3, 90, 3.0, 0))
        Failures(tmp_path).add(f"{video_id}2", f"{video_id}2.mp4", "damaged")
    assert survive(tmp_path / "manifest.json", 300, lambda: read_settings(tmp_path)) > 50
    survive(tmp_path / "videos.jsonl", 300, lambda: read_records(tmp_path))
    survive(tmp_path / "failures.tsv", 300, lambda: read_failures(tmp_path))


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory) -> Path:
    from transformers import ViTConfig, ViTModel

    folder = tmp_path_factory.mktemp("models") / "tiny-vit"
    tiny = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "hidden_size": 8}
    ViTModel(ViTConfig(**tiny, image_size=16, patch_size=8)).save_pretrained(folder)
    settings = {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def test_preprocessing(vit_folder, tmp_path):
    path = Path(shutil.copy(vit_folder / "preprocessor_config.json", tmp_path))
    assert survive(path, 300, lambda: FramePreprocessing.from_file(path)) > 50


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_folders_of_image_models(vit_folder, tmp_path, name):
    folder = shutil.copytree(vit_folder, tmp_path / "tiny-vit")
    frames = torch.zeros(1, 2, 16, 16, 3, dtype=torch.uint8)
    survive(folder / name, 150, lambda: load_network(NetworkConfig(f"hf:{folder}"))(frames), named="tiny-vit")


def test_s3d_weights(tmp_path):
    path = tmp_path / "s3d.pth"
    torch.save(S3D().state_dict(), path)
    assert survive(path, 10, lambda: load_s3d(path)) > 6
