"""Feature networks by name: what maps the frames of one second to one vector.

`load_network` knows `s3d:<file of weights>`, `efficientnet-lite2` (with the weights of a package, or of the file after a
colon) and `hf:<folder or hub name>`, any transformers image model. The last two are applied to every frame and averaged
over the second. To add one, register a loader under a new name; the run, the manifest and the readers need no change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmpt_plugin.features import efficientnet
from mmpt_plugin.features.s3d import FEATURE_SIZE, WEIGHTS_URL, load_s3d, optimize_for_inference
from mmpt_plugin.files import read_json

LARGEST_PICTURE = 4096  #: side, in pixels
MOST_LAYERS, LARGEST_SIZE = 1000, 10**7  #: of an image model
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class NetworkConfig:
    """Which network, and how it computes."""

    network: str = "s3d"  #: a registered name, after a colon whatever its loader wants to know
    checkpoint: Path | None = None  #: file of weights of s3d; the same as "s3d:<file>"
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
        raise ValueError(
            f"--network {config.network}: unknown; allowed: s3d:<file of weights>, hf:<folder of a transformers model>"
            + "".join(f", {other}" for other in NETWORKS if other not in ("s3d", "hf"))
        )
    if config.precision not in PRECISIONS:
        raise ValueError(f"--precision {config.precision}: unknown; allowed: {', '.join(PRECISIONS)}")
    return NETWORKS[name](argument, config)


@register_network("s3d")
def _load_s3d(argument: str, config: NetworkConfig) -> FeatureNetwork:
    if argument and config.checkpoint is not None:
        raise ValueError(f"--network {config.network} and --checkpoint {config.checkpoint} both name weights: drop one")
    checkpoint = Path(argument) if argument else config.checkpoint or usual_s3d_file()
    if checkpoint is None:
        raise ValueError(
            "--network s3d needs its weights: name the file by --checkpoint s3d_howto100m.pth, as the network s3d:FILE, "
            f"or put it into {Path(torch.hub.get_dir()) / 'checkpoints'}; it is to be had from {WEIGHTS_URL}"
        )
    model = load_s3d(checkpoint)
    dtype = PRECISIONS[config.precision]
    fast = optimize_for_inference(model.to(config.device), dtype, config.compiled)

    def embed(frames: Tensor) -> Tensor:
        return fast(frames.permute(0, 4, 1, 2, 3).to(dtype).div_(255))

    return FeatureNetwork("s3d", tensors_sha256(model), FEATURE_SIZE, embed, config.device, config.compiled)


def usual_s3d_file() -> Path | None:
    """The public weights in the folder where torch keeps what it downloads, if they are there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(WEIGHTS_URL).name
    return path if path.is_file() else None


@register_network(efficientnet.NAME)
def _load_efficientnet(argument: str, config: NetworkConfig) -> FeatureNetwork:
    """EfficientNet-Lite2 with the package's weights, or those of a file."""
    weights = Path(argument) if argument else efficientnet.weights_file()
    model = efficientnet.load_efficientnet(weights)
    weights_sha256 = tensors_sha256(model)
    dtype = PRECISIONS[config.precision]
    model = model.to(config.device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on a CPU

    def embed(frames: Tensor) -> Tensor:
        return torch.stack([model(efficientnet.prepared(second).to(dtype)).mean(dim=0) for second in frames])

    return FeatureNetwork(efficientnet.NAME, weights_sha256, efficientnet.FEATURES, embed, config.device)


@register_network("hf")
def _load_transformers(folder: str, config: NetworkConfig) -> FeatureNetwork:
    """An image model of the transformers library with the preprocessing that belongs to it."""
    from transformers import AutoConfig, AutoModel

    if not folder or config.checkpoint is not None:
        raise ValueError(
            f"--network hf:<folder> names the model's folder and takes no --checkpoint, got {config.network}"
        )
    # No code of the folder's own (its `auto_map`) is run, and nobody is asked whether it may be.
    try:
        settings = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        _refuse_video_model(folder, settings)
        _check_sizes(settings.to_dict())
        preprocessing = FramePreprocessing.from_folder(folder)
        model, info = AutoModel.from_pretrained(
            folder, config=settings, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # a damaged folder may raise nearly anything
        raise ValueError(f"--network hf:{folder}: {_first_line(error)}") from error
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
    try:
        with torch.no_grad():
            feature_size = embed(blank).shape[1]
    except Exception as error:  # as above
        raise ValueError(
            f"--network hf:{folder}: {type(model).__name__} does not take single pictures of {preprocessing.size} x "
            f"{preprocessing.size} ({_first_line(error)}); an image model is needed"
        ) from error
    name = Path(folder).resolve().name if Path(folder).is_dir() else folder
    return FeatureNetwork(f"hf:{name}", weights_sha256, feature_size, embed, config.device)


def _first_line(error: Exception) -> str:
    """Of an error's message, with its kind where the message alone would say nothing."""
    line = str(error).strip().partition("\n")[0]
    return line if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {line}"


def _check_sizes(settings: Mapping[str, Any]) -> None:
    """Refuses numbers that only damage can have made, before a network of that size is built."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            _check_sizes(value)
        limit = MOST_LAYERS if "layers" in str(name) or "depth" in str(name) else LARGEST_SIZE
        for number in value if isinstance(value, list) else [value]:
            if type(number) is int and number > limit:
                raise ValueError(f"config.json: {name} is {number}; at most {limit} is taken")


def _refuse_video_model(folder: str, settings: Any) -> None:
    parts = (settings, getattr(settings, "vision_config", None))
    if any(hasattr(part, name) for part in parts for name in ("num_frames", "frames_per_clip")):
        raise ValueError(
            f"{folder} holds a video model ({settings.model_type}), which takes clips of frames; an image model such as "
            "ViT, CLIP, SigLIP or DINOv2 is needed"
        )


@dataclass(frozen=True)
class FramePreprocessing:
    """Square frames to what an image model was trained on."""

    size: int
    rescale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_folder(cls, folder: str) -> FramePreprocessing:
        """Reads `preprocessor_config.json`, or the part of `processor_config.json` that transformers 5 writes instead.

        Args:
            folder: a folder or a hub name.

        Raises:
            OSError: if the folder has neither file.
            ValueError: if the file does not state how pictures are prepared.
        """
        from transformers.utils import cached_file

        for name, part in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
            path = cached_file(folder, name, _raise_exceptions_for_missing_entries=False)
            if path is not None:
                return cls.from_file(path, part)
        raise ValueError("it has no preprocessor_config.json and no processor_config.json: how are pictures prepared?")

    @classmethod
    def from_file(cls, path: str | Path, part: str | None = None) -> FramePreprocessing:
        """Reads a transformers configuration of an image processor.

        Args:
            path: JSON.
            part: key under which the configuration stands, if it is not the whole file.

        Raises:
            ValueError: naming the file, if it does not state size, mean and deviation as numbers.
        """
        settings = read_json(path)
        if part is not None and isinstance(settings, dict):
            settings = settings.get(part)
        if not isinstance(settings, dict):
            raise ValueError(f"{path} holds no settings of an image processor{f' under {part!r}' if part else ''}")
        size = (settings.get("do_center_crop") and settings.get("crop_size")) or settings.get("size")
        if isinstance(size, dict):
            size = size.get("height") or size.get("shortest_edge")
        if type(size) is not int or not 1 <= size <= LARGEST_PICTURE:
            raise ValueError(
                f"{path} states no image size from 1 to {LARGEST_PICTURE}: 'crop_size' or 'size' is needed, got {size!r}"
            )
        rescale = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
        mean: Any = (0.0,) * 3
        std: Any = (1.0,) * 3
        if settings.get("do_normalize", True):
            mean, std = settings.get("image_mean"), settings.get("image_std")
        for name, values in (("rescale_factor", [rescale]), ("image_mean", mean), ("image_std", std)):
            numbers = isinstance(values, list | tuple) and all(type(value) in (int, float) for value in values)
            if not numbers or len(values) != (1 if name == "rescale_factor" else 3):
                raise ValueError(f"{path}: {name} is {values!r}; one number is needed for each of the colours")
        if 0 in std:
            raise ValueError(f"{path}: image_std is {std!r}; none may be 0, as pictures are divided by it")
        return cls(size, float(rescale), tuple(mean), tuple(std))

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
