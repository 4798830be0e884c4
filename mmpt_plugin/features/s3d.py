"""S3D-G in its HowTo100M variant: the network that turns one second of video into one 512-d vector.

Separable 3D convolutions in Inception blocks with feature gating (Xie et al., "Rethinking Spatiotemporal Feature
Learning", ECCV 2018, sections 4 and 5), with a space-to-depth stem and a linear layer at the end (Miech et al.,
"End-to-End Learning of Visual Representations from Uncurated Instructional Videos", CVPR 2020). Parameter names are
those of the public weights file `s3d_howto100m.pth`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmpt_plugin.files import load_torch

FEATURE_SIZE = 512
WEIGHTS_URL = "https://www.rocq.inria.fr/cluster-willow/amiech/howto100m/s3d_howto100m.pth"

#: Channels of an Inception block: branch 0, branch 1 (reduced, out), branch 2 (reduced, out), branch 3.
#: The sizes are those of Inception-v1 (Szegedy et al. 2015, table 1), which S3D inflates.
INCEPTION_CHANNELS: dict[str, tuple[int, int, int, int, int, int]] = {
    "mixed_3b": (64, 96, 128, 16, 32, 32),
    "mixed_3c": (128, 128, 192, 32, 96, 64),
    "mixed_4b": (192, 96, 208, 16, 48, 64),
    "mixed_4c": (160, 112, 224, 24, 64, 64),
    "mixed_4d": (128, 128, 256, 24, 64, 64),
    "mixed_4e": (112, 144, 288, 32, 64, 64),
    "mixed_4f": (256, 160, 320, 32, 128, 128),
    "mixed_5b": (256, 160, 320, 32, 128, 128),
    "mixed_5c": (384, 192, 384, 48, 128, 128),
}


class ConvBlock(nn.Module):
    """3D convolution, batch norm, ReLU; `conv1`, `bn1` in the weights file."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int, int] = (1, 1, 1)) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, out_channels, kernel, bias=False)
        self.bn1: nn.Module = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, T, H, W) to (B, C', T, H, W), smaller by the kernel's size less one."""
        return F.relu(self.bn1(self.conv1(x)), inplace=True)

    def fold_batch_norm(self) -> None:
        """Moves the batch norm of evaluation mode into the convolution."""
        if isinstance(self.bn1, nn.BatchNorm3d):
            self.conv1, self.bn1 = fuse_conv_bn_eval(self.conv1, self.bn1), nn.Identity()


class SeparableConvBlock(nn.Module):
    """A 3x3x3 convolution split into 1x3x3 (space) and 3x1x1 (time), each with batch norm and ReLU (paper, fig. 4)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, out_channels, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.bn1: nn.Module = nn.BatchNorm3d(out_channels)
        self.conv2 = nn.Conv3d(out_channels, out_channels, (3, 1, 1), padding=(1, 0, 0), bias=False)
        self.bn2: nn.Module = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, T, H, W) to (B, C', T, H, W)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)), inplace=True)

    def fold_batch_norm(self) -> None:
        """Moves the batch norms of evaluation mode into the convolutions."""
        if isinstance(self.bn1, nn.BatchNorm3d) and isinstance(self.bn2, nn.BatchNorm3d):
            self.conv1, self.bn1 = fuse_conv_bn_eval(self.conv1, self.bn1), nn.Identity()
            self.conv2, self.bn2 = fuse_conv_bn_eval(self.conv2, self.bn2), nn.Identity()


class SelfGating(nn.Module):
    """Feature gating: every channel is scaled by sigmoid(linear(mean over time and space)) (paper, section 5.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, T, H, W) to the same shape."""
        gate = torch.sigmoid(self.fc(x.mean(dim=(2, 3, 4))))  # (B, C)
        return x * gate[:, :, None, None, None]


class InceptionBlock(nn.Module):
    """Four branches side by side, each gated: 1x1x1, two reduced separable 3x3x3, and max pool with 1x1x1."""

    def __init__(self, in_channels: int, channels: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        b0, b1_reduced, b1, b2_reduced, b2, b3 = channels
        self.conv_b0 = ConvBlock(in_channels, b0)
        self.conv_b1_a = ConvBlock(in_channels, b1_reduced)
        self.conv_b1_b = SeparableConvBlock(b1_reduced, b1)
        self.conv_b2_a = ConvBlock(in_channels, b2_reduced)
        self.conv_b2_b = SeparableConvBlock(b2_reduced, b2)
        self.maxpool_b3: nn.Module = nn.MaxPool3d(kernel_size=3, stride=1, padding=1)
        self.conv_b3_b = ConvBlock(in_channels, b3)
        self.gating_b0 = SelfGating(b0)
        self.gating_b1 = SelfGating(b1)
        self.gating_b2 = SelfGating(b2)
        self.gating_b3 = SelfGating(b3)
        self.out_channels = b0 + b1 + b2 + b3

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, T, H, W) to (B, out_channels, T, H, W)."""
        branches = (
            self.gating_b0(self.conv_b0(x)),
            self.gating_b1(self.conv_b1_b(self.conv_b1_a(x))),
            self.gating_b2(self.conv_b2_b(self.conv_b2_a(x))),
            self.gating_b3(self.conv_b3_b(self.maxpool_b3(x))),
        )
        return torch.cat(branches, dim=1)


class ZeroPaddedMaxPool3d(nn.Module):
    """TensorFlow's "SAME" max pool as the public weights expect it: zeros around, the odd one right and below.

    Zeros instead of -inf change nothing here, for every input is the output of a ReLU.
    """

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        padding: list[int] = []
        for size, step in reversed(list(zip(kernel, stride))):  # F.pad counts from the last dimension
            total = max(size - step, 0)
            padding += [total // 2, total - total // 2]
        self.kernel, self.stride, self.padding = kernel, stride, tuple(padding)
        self.pool = nn.MaxPool3d(kernel, stride, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, T, H, W) to (B, C, about T/stride, ...)."""
        return self.pool(F.pad(x, self.padding))


def space_to_depth(video: Tensor) -> Tensor:
    """Folds every 2x2x2 cube of pixels into channels.

    Args:
        video: (B, C, T, H, W) with even T, H, W.

    Returns:
        (B, 8C, T/2, H/2, W/2); channel = ((dt*2 + dh)*2 + dw)*C + c.
    """
    batch, channels, frames, height, width = video.shape
    cubes = video.reshape(batch, channels, frames // 2, 2, height // 2, 2, width // 2, 2)
    return cubes.permute(0, 3, 5, 7, 1, 2, 4, 6).reshape(batch, 8 * channels, frames // 2, height // 2, width // 2)


class S3D(nn.Module):
    """The video path of S3D-G as trained on HowTo100M. Call `.eval()` before use, as with every batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvBlock(3 * 8, 64, kernel=(2, 4, 4))
        self.maxpool_2a = ZeroPaddedMaxPool3d((1, 3, 3), (1, 2, 2))
        self.conv_2b = ConvBlock(64, 64)
        self.conv_2c = SeparableConvBlock(64, 192)
        self.gating = SelfGating(192)
        self.maxpool_3a = ZeroPaddedMaxPool3d((1, 3, 3), (1, 2, 2))
        self.maxpool_4a = ZeroPaddedMaxPool3d((3, 3, 3), (2, 2, 2))
        self.maxpool_5a = ZeroPaddedMaxPool3d((2, 2, 2), (2, 2, 2))
        channels = 192
        for name, sizes in INCEPTION_CHANNELS.items():
            block = InceptionBlock(channels, sizes)
            self.add_module(name, block)
            channels = block.out_channels
        self.fc = nn.Linear(channels, FEATURE_SIZE)

    def forward(self, video: Tensor) -> Tensor:
        """Embeds clips.

        Args:
            video: (B, 3, T, H, W) floats in [0, 1], RGB; T, H and W even. HowTo100M features use T=30, H=W=224.

        Returns:
            (B, 512) embeddings, not normalised.

        Raises:
            ValueError: if the shape is another.
        """
        return self.fc(self.pooled(video))

    def pooled(self, video: Tensor) -> Tensor:
        """The mean over time and space of the last Inception block: (B, 3, T, H, W) to (B, 1024)."""
        if video.dim() != 5 or video.shape[1] != 3 or any(size % 2 or not size for size in video.shape[2:]):
            raise ValueError(
                f"S3D wants video of shape (B, 3, T, H, W) with even T, H and W, got {tuple(video.shape)}; "
                "crop the frames or drop the last one"
            )
        # The original pads (1, 2, 2) on both sides and drops the first output in T, H and W. Padding one less on the
        # left is the same, without the outputs that nobody sees.
        x = self.conv1(F.pad(space_to_depth(video), (1, 2, 1, 2, 0, 1)))
        x = self.conv_2c(self.conv_2b(self.maxpool_2a(x)))
        x = self.maxpool_3a(self.gating(x))
        for name in INCEPTION_CHANNELS:
            if name == "mixed_4b":
                x = self.maxpool_4a(x)
            elif name == "mixed_5b":
                x = self.maxpool_5a(x)
            x = self.get_submodule(name)(x)
        return x.mean(dim=(2, 3, 4))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's; passes over `text_module.*`, the text half of the public file, which no video feature needs."""
        video_half = {name: value for name, value in state_dict.items() if not name.startswith("text_module.")}
        return super().load_state_dict(video_half, strict, assign)


class TemporalConv(nn.Module):
    """A 3x1x1 convolution, over time alone, computed as one over (time, rows x columns).

    The sums are the same; oneDNN's float32 kernels for channels-last tensors are up to three times as fast at it.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.conv = nn.Conv2d(conv.in_channels, conv.out_channels, (3, 1), padding=(1, 0))
        assert conv.bias is not None and self.conv.bias is not None  # batch norm is folded
        self.conv.weight.data = conv.weight.data[..., 0].contiguous(memory_format=torch.channels_last)
        self.conv.bias.data = conv.bias.data

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, T, H, W) to (B, C', T, H, W); both reshapings are views of channels-last tensors."""
        return self.conv(x.flatten(3)).unflatten(3, x.shape[3:])


class SlicedMaxPool3d(nn.Module):
    """The network's max pools as element-wise maxima of slices, one dimension after the other; without gradients.

    torch's own looks at every element of each window (up to 27), and keeps where the maxima were.

    Args:
        kernel: sizes of the windows in T, H and W.
        stride: from window to window. With stride 1 a window of 3 is centred on its element, with stride 2 a window
            begins there. What it has beyond the edge does not count; after a ReLU that is padding with zeros.
    """

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.windows = tuple(zip(kernel, stride))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, T, H, W) to (B, C, T/stride, H/stride, W/stride), rounded up."""
        for dim, (size, stride) in enumerate(self.windows, start=2):
            if size > 1:
                x = _centred_maxima(x, dim) if stride == 1 else _forward_maxima(x, dim, size, stride)
        return x


def _centred_maxima(x: Tensor, dim: int) -> Tensor:
    """Of each element and its two neighbours along a dimension."""
    maxima, others = x.clone(), x.shape[dim] - 1
    for to, source in ((0, 1), (1, 0)):
        window = maxima.narrow(dim, to, others)
        torch.maximum(window, x.narrow(dim, source, others), out=window)
    return maxima


def _forward_maxima(x: Tensor, dim: int, size: int, stride: int) -> Tensor:
    """Of every `stride`-th element and the `size` - 1 after it along a dimension."""
    slices = [x[(*[slice(None)] * dim, slice(offset, None, stride))] for offset in range(size)]
    maxima = slices[0].clone()
    for part in slices[1:]:
        window = maxima.narrow(dim, 0, part.shape[dim])
        torch.maximum(window, part, out=window)
    return maxima


def load_s3d(checkpoint: str | Path) -> S3D:
    """Loads the public weights.

    Args:
        checkpoint: `s3d_howto100m.pth`, a state dict saved by torch; also one that a training script has wrapped, under
            `state_dict` or with names that begin with `module.`.

    Returns:
        The network in float32 on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no state dict, its tensors are not those of S3D, or hold NaN or infinite values.
    """
    if not Path(checkpoint).exists():
        raise FileNotFoundError(f"S3D weights {checkpoint} not found: download {WEIGHTS_URL} and give its path")
    state_dict = load_torch(checkpoint)
    if isinstance(state_dict, Mapping) and isinstance(state_dict.get("state_dict"), Mapping):
        state_dict = state_dict["state_dict"]
    if not isinstance(state_dict, Mapping) or not all(isinstance(name, str) for name in state_dict):
        raise ValueError(f"{checkpoint} holds a {type(state_dict).__name__}; a state dict (name -> tensor) is needed")
    state_dict = {name.removeprefix("module."): value for name, value in state_dict.items()}
    model = S3D()
    _check_names_and_shapes(str(checkpoint), model.state_dict(), state_dict)
    model.load_state_dict(state_dict)
    for name, value in model.state_dict().items():
        if not value.isfinite().all():
            raise ValueError(f"{checkpoint}: {name} holds NaN or infinite values: the file is damaged")
    return model.eval()


def _check_names_and_shapes(file: str, wanted: Mapping[str, Tensor], found: Mapping[str, Any]) -> None:
    missing = [name for name in wanted if not isinstance(found.get(name), Tensor)]
    unknown = [name for name in found if name not in wanted and not name.startswith("text_module.")]
    other_shapes = [
        f"{name} {tuple(found[name].shape)} for {tuple(value.shape)}"
        for name, value in wanted.items()
        if isinstance(found.get(name), Tensor) and found[name].shape != value.shape
    ]
    faults = [
        f"{len(names)} {kind} (such as {', '.join(names[:3])})"
        for kind, names in (("missing", missing), ("unknown", unknown), ("of another shape", other_shapes))
        if names
    ]
    if faults:
        raise ValueError(f"{file} does not hold the weights of S3D; of its {len(wanted)} tensors: {'; '.join(faults)}")


def optimize_for_inference(model: S3D, dtype: torch.dtype = torch.float32, compiled: bool = False) -> nn.Module:
    """The same function, faster.

    Batch norm is folded into the convolutions (in float32, before the cast), tensors are channels last, of `dtype`, max
    pools become element-wise maxima of slices, convolutions over time become two-dimensional ones. Compilation on
    request: it takes about a minute once for each input shape (seconds when torch finds it in its cache) and needs a C++
    compiler. What each step brings is measured by scripts/bench_s3d.py.

    Args:
        model: in evaluation mode; left as it is.
        dtype: of weights and activations. bfloat16 is the fastest on CPUs with AVX-512 BF16 or AMX; it keeps 8 bits of
            every activation.
        compiled: passes the network through torch.compile with frozen weights; call it without gradients.

    Returns:
        A module that takes video as `model` does, in `dtype`, and returns `dtype`.

    Raises:
        ValueError: if the model is in training mode.
    """
    if model.training:
        raise ValueError("batch norm can be folded in evaluation mode only: call model.eval() first")
    folded = copy.deepcopy(model)
    for block in folded.modules():
        if isinstance(block, ConvBlock | SeparableConvBlock):
            block.fold_batch_norm()
    folded.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    for block in list(folded.modules()):
        for name, layer in list(block.named_children()):
            if isinstance(layer, nn.Conv3d) and layer.kernel_size == (3, 1, 1):
                setattr(block, name, TemporalConv(layer))
            elif isinstance(layer, ZeroPaddedMaxPool3d):
                setattr(block, name, SlicedMaxPool3d(layer.kernel, layer.stride))
        if isinstance(block, InceptionBlock):
            block.maxpool_b3 = SlicedMaxPool3d((3, 3, 3), (1, 1, 1))
    folded.to(dtype=dtype)
    if compiled:
        folded.compile(dynamic=False, options={"freezing": True})
    return folded
