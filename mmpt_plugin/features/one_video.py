"""One video file becomes features: what the extraction run, `VideoClip.encode_video` and the search library share.

    extractor = open_extractor(settings, "s3d:s3d_howto100m.pth")
    features = extractor.extract("a.mp4").features  # (seconds, 512) float16

The file is decoded in a thread while the network works on the seconds before.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from mmpt_plugin.features.manifest import RATE, FeatureSettings, check_rate, check_same_settings
from mmpt_plugin.features.networks import FeatureNetwork, NetworkConfig, load_network
from mmpt_plugin.features.video import VideoBlocks

TRIM_SECONDS = 4  #: of video, between two returns of free memory
T = TypeVar("T")


@dataclass(frozen=True)
class VideoFeatures:
    """What one video gave."""

    features: np.ndarray  #: (rows, feature_size) float16, L2-normalised; as many rows a second as the extractor makes
    frames: int  #: at the constant rate
    decoded: int  #: pictures in the file, of which the frames were made
    declared_seconds: float | None  #: length as the file states it
    damaged: int  #: packets and pictures that ffmpeg found damaged
    doubts: tuple[str, ...]  #: why it may not be the whole video, for people


@dataclass(frozen=True)
class FeatureExtractor:
    """A feature network with the settings of decoding that belong to it.

    Args:
        network: what maps the frames of a second to a vector.
        fps: frames of each second that the network sees.
        frame_size: short side of the scaled frames, and side of their centre crop.
        batch_seconds: seconds of video in one batch of the network.
        decode_threads: threads of ffmpeg; 0 lets it choose.
        features_per_second: rows for each second, each of as many frames; `fps` must be a multiple of it.
    """

    network: FeatureNetwork
    fps: int = 30
    frame_size: int = 224
    batch_seconds: int = 2
    decode_threads: int = 1  #: beside a network on the same cores, more would only get in its way
    features_per_second: int = 1

    def __post_init__(self) -> None:
        if self.features_per_second < 1 or self.fps % self.features_per_second:
            raise ValueError(
                f"{self.features_per_second} features a second (--features-per-second) cannot share {self.fps} frames (--fps) "
                "evenly: the frames must be a multiple"
            )

    def extract(self, video: str | Path, on_second: Callable[[int, np.ndarray], object] | None = None) -> VideoFeatures:
        """Decodes a video and embeds each of its seconds.

        Args:
            video: file.
            on_second: called with each second's number, from 0, and its frames, uint8 (fps, frame_size, frame_size, 3),
                RGB; for example to keep pictures of them. Called in the decoding thread.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no video that can be decoded, or the network gives values that are not finite.
        """
        blocks = VideoBlocks(video, self.fps, self.frame_size, self.decode_threads)
        watched = blocks if on_second is None else _watch(blocks, on_second)
        rate = self.features_per_second
        parts = watched if rate == 1 else (part for block in watched for part in np.split(block, rate))
        features = embed_blocks(parts, self.network, self.batch_seconds * rate)
        features = features[
            : -(-blocks.frames * rate // self.fps)
        ]  # the rest are of the black that fills the last block
        return VideoFeatures(
            features, blocks.frames, blocks.decoded, blocks.declared_seconds, blocks.damaged, _doubts(blocks)
        )


def open_extractor(
    settings: Mapping[str, Any] | None,
    network: str | None = None,
    device: str = "cpu",
    features_per_second: int | None = None,
) -> FeatureExtractor:
    """Loads the network that features were made with, for more videos.

    Args:
        settings: of the features, as `read_settings` gives them and checkpoints keep them; None where nothing is known.
        network: the network with its files, "s3d:FILE" or "hf:FOLDER", where the settings' name alone does not say where
            they are.
        device: where the network computes.
        features_per_second: of the model; None: as the settings say.

    Raises:
        ValueError: if no network is named, the name is unknown, or network or rate are others than the settings state.
        FileNotFoundError: if its weights are missing.
    """
    if network is None and not settings:
        raise ValueError(
            "which network made the features that the model was trained on is not known, so name it: "
            "network='s3d:FILE' or network='hf:FOLDER'"
        )
    names = [field.name for field in dataclasses.fields(FeatureSettings)]
    known = {name: value for name, value in (settings or {}).items() if name in names}
    rate = known.get(RATE, 1) if features_per_second is None else features_per_second
    check_rate("the features that the model was trained on", settings or None, rate)
    precision = known.get("precision", "fp32")
    loaded = load_network(NetworkConfig(network or str(known["network"]), precision=precision, device=device))
    found = FeatureSettings(
        network=loaded.name,
        weights_sha256=loaded.weights_sha256,
        feature_size=loaded.feature_size,
        features_per_second=rate,
        **{name: known[name] for name in ("precision", "fps", "frame_size") if name in known},
    )
    check_same_settings(f"features of network {loaded.name}", dataclasses.asdict(found), known)
    batch_seconds = 32 if device.startswith("cuda") else 2
    return FeatureExtractor(loaded, found.fps, found.frame_size, batch_seconds, features_per_second=rate)


def embed_blocks(blocks: Iterable[np.ndarray], network: FeatureNetwork, batch_seconds: int) -> np.ndarray:
    """One L2-normalised row for each block of frames.

    Args:
        blocks: uint8 (fps, size, size, 3) each; decoded ahead in a thread, at most two batches.
        network: what embeds them.
        batch_seconds: blocks that go through the network together.

    Returns:
        (blocks, feature_size) float16.

    Raises:
        ValueError: if the network gives NaN or infinite values.
    """
    rows: list[torch.Tensor] = []
    batch: list[np.ndarray] = []

    def embed_batch() -> None:
        real = len(batch)
        if network.fixed_batch:
            batch.extend([np.zeros_like(batch[0])] * (batch_seconds - real))
        rows.append(network(torch.from_numpy(np.stack(batch)))[:real])
        batch.clear()

    for second, block in enumerate(ahead(blocks, 2 * batch_seconds), start=1):
        batch.append(block)
        if second % TRIM_SECONDS == 0:
            return_free_memory()
        if len(batch) == batch_seconds:
            embed_batch()
    if batch:
        embed_batch()
    return_free_memory()
    features = F.normalize(torch.cat(rows), dim=1)
    if not features.isfinite().all():
        raise ValueError("the network gave NaN or infinite values: are its weights sound? Try --precision fp32")
    return features.numpy().astype(np.float16)


def return_free_memory() -> None:
    """Gives free memory back to the system.

    glibc before 2.38 seldom uses a freed aligned block again (its bug 14581), and tensors are aligned: a network that is
    as fast as the decoding made the heap grow by 15 MB for each second of video.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none, and no need
    if trim is not None:
        trim(0)


def ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """The same items, fetched in a thread of its own, at most `depth` before they are asked for."""
    iterator = iter(items)
    end: Any = object()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as thread:
        fetched = deque(thread.submit(next, iterator, end) for _ in range(depth))
        try:
            while (item := fetched.popleft().result()) is not end:
                fetched.append(thread.submit(next, iterator, end))
                yield item
        finally:
            for future in fetched:
                future.cancel()


def _watch(blocks: Iterable[np.ndarray], on_second: Callable[[int, np.ndarray], object]) -> Iterator[np.ndarray]:
    for second, block in enumerate(blocks):
        on_second(second, block)
        yield block


def _doubts(blocks: VideoBlocks) -> tuple[str, ...]:
    doubts = []
    seconds = blocks.frames / blocks.fps
    if blocks.declared_seconds is not None and seconds < 0.95 * blocks.declared_seconds - 1:
        doubts.append(f"{seconds:.1f} s decoded of {blocks.declared_seconds:.1f} s declared")
    if seconds > 2 * blocks.decoded:
        doubts.append(f"{seconds:.0f} rows were made of {blocks.decoded} pictures: are the time stamps right?")
    if blocks.damaged:
        doubts.append(f"{blocks.damaged} damaged packets or frames")
    return tuple(doubts)
