"""Feature networks by name: what maps the frames of one second to one vector.

`load_network` knows `s3d` and `hf:<folder>`, any transformers vision model applied to every frame and averaged over the
second. To add one, register a loader under a new name; the run, the manifest and the readers need no change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmpt_plugin.features.s3d import FEATURE_SIZE, load_s3d, optimize_for_inference

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class NetworkConfig:
    """Which network, and how it computes."""

    network: str = "s3d"  #: a registered name, after a colon whatever its loader wants to know
    checkpoint: Path | None = None  #: file of weights, for networks that need one
    precision: str = "fp32"  #: key of PRECISIONS
    compiled: bool = False  #: through torch.compile, where the loader supports it
    device: str = "cpu"


class FeatureNetwork:
    """A network together with what the manifest says of it.

    Args:
        name: as the manifest states it, the same on every machine.
        weights_sha256: of the tensors.
        feature_size: D.
        embed: uint8 frames (B, T, H, W, 3), RGB, to (B, D).
        device: where `embed` wants its frames.
        fixed_batch: whether batches of always the same B are much faster (compiled networks).
    """

    def __init__(
        self,
        name: str,
        weights_sha256: str,
        feature_size: int,
        embed: Callable[[Tensor], Tensor],
        device: str = "cpu",
        fixed_batch: bool = False,
    ) -> None:
        self.name = name
        self.weights_sha256 = weights_sha256
        self.feature_size = feature_size
        self.device = device
        self.fixed_batch = fixed_batch
        self._embed = embed

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        """Maps uint8 frames (B, T, H, W, 3) to float32 (B, feature_size) on the CPU, not normalised."""
        return self._embed(frames.to(self.device, non_blocking=True)).float().cpu()


Loader = Callable[[str, NetworkConfig], FeatureNetwork]
NETWORKS: dict[str, Loader] = {}


def register_network(name: str) -> Callable[[Loader], Loader]:
    """Decorator: makes a loader known under a name. It is given what follows the colon, and the configuration."""

    def register(loader: Loader) -> Loader:
        if name in NETWORKS:
            raise ValueError(f"a feature network named {name!r} is registered already")
        NETWORKS[name] = loader
        return loader

    return register


def load_network(config: NetworkConfig) -> FeatureNetwork:
    """Builds the network that `config.network` names.

    Raises:
        ValueError: for an unknown name or precision, or weights that do not fit.
        FileNotFoundError: if a file of weights is missing.
    """
    name, _, argument = config.network.partition(":")
    if name not in NETWORKS:
        raise ValueError(f"--network {config.network}: unknown; allowed: s3d, hf:<folder of a transformers model>")
    if config.precision not in PRECISIONS:
        raise ValueError(f"--precision {config.precision}: unknown; allowed: {', '.join(PRECISIONS)}")
    return NETWORKS[name](argument, config)


@register_network("s3d")
def _load_s3d(argument: str, config: NetworkConfig) -> FeatureNetwork:
    if argument or config.checkpoint is None:
        raise ValueError("--network s3d needs its weights: --checkpoint s3d_howto100m.pth")
    model = load_s3d(config.checkpoint)
    dtype = PRECISIONS[config.precision]
    fast = optimize_for_inference(model.to(config.device), dtype, config.compiled)

    def embed(frames: Tensor) -> Tensor:
        return fast(frames.permute(0, 4, 1, 2, 3).to(dtype).div_(255))

    return FeatureNetwork("s3d", tensors_sha256(model), FEATURE_SIZE, embed, config.device, config.compiled)


@register_network("hf")
def _load_transformers(folder: str, config: NetworkConfig) -> FeatureNetwork:
    """A vision model of the transformers library with the `preprocessor_config.json` that belongs to it."""
    from transformers import AutoModel
    from transformers.utils import cached_file

    if not folder or config.checkpoint is not None:
        raise ValueError(
            f"--network hf:<folder> names the model's folder and takes no --checkpoint, got {config.network}"
        )
    try:
        preprocessing = FramePreprocessing.from_file(str(cached_file(folder, "preprocessor_config.json")))
        model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    except OSError as error:
        raise ValueError(f"--network hf:{folder}: {error}") from error
    missing = set(info["missing_keys"])
    if missing and all(name.startswith("pooler.") for name in missing):
        model.pooler = None  # trained without one, and a random one would be another at every start
    elif missing:
        raise ValueError(f"{folder} lacks weights of {type(model).__name__}: {', '.join(sorted(missing)[:5])}")
    weights_sha256 = tensors_sha256(model)
    dtype = PRECISIONS[config.precision]
    model = model.to(config.device, dtype).eval()

    def embed(frames: Tensor) -> Tensor:
        # A second at a time: its frames are a batch already.
        return torch.stack([_image_vectors(model, preprocessing(second).to(dtype)).mean(dim=0) for second in frames])

    blank = torch.zeros(1, 1, preprocessing.size, preprocessing.size, 3, dtype=torch.uint8, device=config.device)
    with torch.no_grad():
        feature_size = embed(blank).shape[1]
    return FeatureNetwork(f"hf:{Path(folder).name}", weights_sha256, feature_size, embed, config.device)


@dataclass(frozen=True)
class FramePreprocessing:
    """Square frames to what an image model was trained on."""

    size: int
    rescale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_file(cls, path: str | Path) -> FramePreprocessing:
        """Reads a transformers `preprocessor_config.json`.

        Raises:
            ValueError: if it states no size.
        """
        settings = json.loads(Path(path).read_text())
        size = (settings.get("do_center_crop") and settings.get("crop_size")) or settings.get("size")
        if isinstance(size, dict):
            size = size.get("height") or size.get("shortest_edge")
        if not isinstance(size, int):
            raise ValueError(f"{path} states no image size: 'crop_size' or 'size' is needed")
        normalised = settings.get("do_normalize", True)
        return cls(
            size=size,
            rescale=settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0,
            mean=tuple(settings["image_mean"]) if normalised else (0.0,) * 3,
            std=tuple(settings["image_std"]) if normalised else (1.0,) * 3,
        )

    def __call__(self, frames: Tensor) -> Tensor:
        """Maps uint8 (T, H, W, 3) to float32 (T, 3, size, size)."""
        images = frames.permute(0, 3, 1, 2).float()
        if images.shape[-1] != self.size:
            images = F.interpolate(images, size=(self.size, self.size), mode="bicubic", antialias=True).clamp(0, 255)
        mean, std = (torch.tensor(values, device=frames.device).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (images * self.rescale - mean) / std


def tensors_sha256(model: nn.Module) -> str:
    """Hash over names, shapes, types and values of all parameters and buffers, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _image_vectors(model: Any, images: Tensor) -> Tensor:
    """One vector per image, (T, D): projected (CLIP and its kin), else pooled, else the mean over the patches."""
    if hasattr(model, "get_image_features"):
        outputs = model.get_image_features(pixel_values=images)
        return outputs if isinstance(outputs, Tensor) else outputs.pooler_output
    outputs = model(pixel_values=images)
    pooled = getattr(outputs, "pooler_output", None)
    return outputs.last_hidden_state.mean(dim=1) if pooled is None else pooled.flatten(1)
