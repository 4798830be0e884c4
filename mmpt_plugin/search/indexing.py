"""A video file becomes rows of the library: features, states of seconds, embeddings of windows, pictures, spoken lines."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray

from mmpt_plugin.data.inputs import batches_by_length
from mmpt_plugin.data.windows import whole_seconds
from mmpt_plugin.evaluation.windows import merge_windows, sliding_windows
from mmpt_plugin.features.one_video import FeatureExtractor, open_extractor
from mmpt_plugin.inference import VideoClip
from mmpt_plugin.search import grid_network  # noqa: F401  (registers the network of the demo)
from mmpt_plugin.search.store import Rows

PICTURE_EVERY = 4
"""Seconds from one kept picture to the next."""

STILL = 0.9995
"""Cosine of two seconds' features above which nothing has moved between them."""

HASH_BYTES = 1 << 22


@dataclass(frozen=True)
class Extraction:
    """How video files become features; what every worker has to know."""

    network: str  #: with its files: "s3d:FILE" or "hf:FOLDER"
    settings: tuple[tuple[str, Any], ...]  #: of the features, as their manifest would state them
    device: str = "cpu"
    torch_threads: int = 0  #: 0: torch decides


@dataclass(frozen=True)
class Extracted:
    """What the frames of a video gave."""

    features: NDArray[np.float16]  #: (seconds, feature_size)
    pictures: dict[int, bytes]  #: JPEG by second
    sha256: str
    warning: str | None = None


def extract(path: Path, extraction: Extraction) -> Extracted:
    """Decodes a video once: through the feature network, and into pictures.

    Raises:
        ValueError, OSError: if the file is no video, or cannot be read.
    """
    if extraction.torch_threads:
        torch.set_num_threads(extraction.torch_threads)
    pictures: dict[int, bytes] = {}

    def keep(second: int, frames: np.ndarray) -> None:
        if second % PICTURE_EVERY == 0:
            pictures[second] = jpeg(frames[len(frames) // 3])  # early: the last second's end may be filled with black

    video = extractor_of(extraction).extract(path, keep)
    return Extracted(video.features, pictures, file_sha256(path), "; ".join(video.doubts) or None)


@lru_cache(maxsize=1)
def extractor_of(extraction: Extraction) -> FeatureExtractor:
    """The feature network, loaded once in a process."""
    return open_extractor(dict(extraction.settings), extraction.network, extraction.device)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def file_sha256(path: Path) -> str:
    """Hash of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BYTES):
            digest.update(block)
    return digest.hexdigest()


def jpeg(picture: np.ndarray) -> bytes:
    """A picture (H, W, 3) uint8 as a JPEG file."""
    codec = av.CodecContext.create("mjpeg", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.height, codec.width = picture.shape[:2]
    codec.pix_fmt, codec.time_base = "yuvj420p", Fraction(1, 1)
    codec.options = {"q:v": "4", "qmin": "4", "qmax": "4"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format="yuvj420p")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def encode(clip: VideoClip, features: NDArray[np.float16], window: int, stride: int, batch_size: int = 32) -> Rows:
    """Runs the video encoder over a video in overlapping windows.

    Args:
        clip: the model.
        features: (rows, feature_size), the model's `features_per_second` rows a second.
        window, stride: seconds.
        batch_size: windows encoded at once.

    Returns:
        Windows with embeddings, still stretches only once, and the state of each second: the mean over the windows that
        hold it, so that each second is seen with what comes before and after.
    """
    rate = clip.model.video_encoder.features_per_second
    spans = sliding_windows(int(whole_seconds(np.array(len(features)), rate)), window, stride)
    places = [slice(start * rate, min(end * rate, len(features))) for start, end in spans]
    width = clip.model.video_encoder.transformer.config.hidden_size
    vectors = np.zeros((len(spans), width), np.float32)
    states: list[np.ndarray] = [np.zeros(0)] * len(spans)
    lengths = np.array([place.stop - place.start for place in places], np.int64)
    device = next(clip.model.parameters()).device
    with torch.no_grad():
        for batch in batches_by_length(lengths, batch_size):
            rows = np.concatenate([features[places[place]] for place in batch]).astype(np.float32)
            hidden = clip.model.video_encoder(torch.from_numpy(rows).to(device), lengths[batch])  # (B, T + 2, D)
            pooled = clip.model.pooled(hidden, lengths[batch] + 2)
            vectors[batch] = pooled.float().cpu().numpy()
            seconds = clip.model.comparable(clip.model.states_of_seconds(hidden, lengths[batch])).float().cpu().numpy()
            ends = np.cumsum(whole_seconds(lengths[batch], rate))
            for place, own in zip(batch, np.split(seconds, ends[:-1])):
                states[place] = own
    kept, kept_spans = leave_out_still(features[::rate], spans)
    return Rows(
        np.array(kept_spans, np.int64).reshape(-1, 2),
        vectors[kept].astype(np.float16),
        merge_windows(spans, states).astype(np.float16),
    )


def leave_out_still(
    features: NDArray[np.floating], spans: Sequence[tuple[int, int]]
) -> tuple[list[int], list[tuple[int, int]]]:
    """Joins windows in which nothing moves to the one before.

    Args:
        features: (seconds, feature_size), a row of norm 1 for each second.
        spans: the windows, in order.

    Returns:
        Positions of the windows that stay, and what they stand for now: a still one reaches to the end of the stretch.
    """
    same = np.ones(len(features), bool)  # as the second before
    same[1:] = np.einsum("sf,sf->s", features[1:].astype(np.float32), features[:-1].astype(np.float32)) > STILL
    moves = np.concatenate([[0], np.cumsum(~same)])
    kept: list[int] = []
    joined: list[tuple[int, int]] = []
    for place, (start, end) in enumerate(spans):
        if kept and moves[end] == moves[spans[kept[-1]][0] + 1]:  # no change since the kept window began
            joined[-1] = (joined[-1][0], end)
        else:
            kept.append(place)
            joined.append((start, end))
    return kept, joined
