"""Which tower each parameter belongs to, and how deep it lies there: what optimizers choose learning rates by."""

from __future__ import annotations

import re
from typing import NamedTuple

from torch import nn

LAYER = re.compile(r"\blayers?\.(\d+)\.")  # as all architectures of transformers name theirs
TEXT, VIDEO, SHARED = "text", "video", "shared"


class Place(NamedTuple):
    """A parameter's tower, and how many layers of that tower lie above it."""

    tower: str
    above: int


def label_transformer(transformer: nn.Module, tower: str) -> None:
    """Note at each parameter of a transformer where it lies.

    fairseq's name for such a note is `param_group`, and under that name its copies of parameters in float32 keep it.
    """
    named = dict(transformer.named_parameters())
    layers = {name: int(match[1]) for name in named if (match := LAYER.search(name))}
    count = max(layers.values(), default=-1) + 1
    for name, parameter in named.items():
        above = count - 1 - layers[name] if name in layers else count if "embeddings" in name else 0
        parameter.param_group = f"{tower} {above}"  # type: ignore[attr-defined]


def place_of(parameter: nn.Parameter) -> Place | None:
    """Where a parameter lies; None for one of no tower, such as those that pre-training adds to the transformers."""
    label = getattr(parameter, "param_group", None)
    if not isinstance(label, str) or " " not in label:
        return None
    tower, above = label.split(" ")
    return Place(tower, int(above))
