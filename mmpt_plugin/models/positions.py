"""Learned positions of a video that is longer, or has more features a second, than those the weights were trained with.

The positions between are interpolated: so a model goes on from a checkpoint of shorter clips with little to learn anew. ViT
does the same for larger pictures (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, section 3.2), and Chen et al.
2023 (https://arxiv.org/abs/2306.15595) for longer texts.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

POSITIONS = "embeddings.position_embeddings.weight"
"""The table's name in the transformers that are told their positions (packing.PACKABLE)."""


def resampled(rows: Tensor, count: int) -> Tensor:
    """(n, D) -> (count, D), from the first row to the last, interpolated linearly."""
    return F.interpolate(rows.T[None], size=count, mode="linear", align_corners=True)[0].T.contiguous()


def stretched(trained: Tensor, new: Tensor, first: int, old_length: int, new_length: int) -> Tensor:
    """The positions of a video tower for clips of another number of features.

    Args:
        trained: (P, D) the table of a checkpoint, for clips of up to `old_length` features.
        new: (Q, D) the table of a new model, for clips of up to `new_length`.
        first: of [CLS]; features follow, and [SEP] follows the longest clip.
        old_length, new_length: features.

    Returns:
        (Q, D): [CLS] and [SEP] as trained, the features' positions interpolated; rows that no clip uses as in `new`.
    """
    table = new.clone().to(trained.dtype)
    table[first] = trained[first]
    table[first + 1 : first + 1 + new_length] = resampled(trained[first + 1 : first + 1 + old_length], new_length)
    table[first + 1 + new_length] = trained[first + 1 + old_length]
    return table
