"""Dropout whose random draws are cheap on a CPU.

torch draws a double-precision number for every value there, in one thread: 5% of a training step of BERT-base in fp32, 10%
in bf16. Sixteen bits decide as well. On other devices torch's own dropout is the quick one, and used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 2**16


def drop(values: Tensor, p: float) -> Tensor:
    """Zero each value with probability `p`, and scale the others so that means stay.

    On a CPU the probability is rounded to the nearest of 65,537 levels, and values are scaled by what it then is. Draws come
    from torch's default generator.
    """
    dropped_levels = round(p * LEVELS)
    if values.device.type != "cpu" or dropped_levels in (0, LEVELS):
        return F.dropout(values, p)
    words = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)  # all 64 bits
    draws = words.view(torch.int16)[: values.numel()].view(values.shape)  # uniform from -32768 to 32767
    kept = draws >= dropped_levels - LEVELS // 2
    return values * kept.to(values.dtype).mul_(LEVELS / (LEVELS - dropped_levels))


class Dropout(nn.Dropout):
    """`nn.Dropout` by `drop`."""

    def forward(self, values: Tensor) -> Tensor:
        """Values of any shape, changed in training only."""
        return drop(values, self.p) if self.training else values


def replace_dropout(module: nn.Module) -> None:
    """Make every `nn.Dropout` within a module a `Dropout`, in place."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p).train(child.training))
