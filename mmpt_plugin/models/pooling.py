"""From hidden states to embeddings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from mmpt_plugin.models.packing import Lengths, on_device


def mean_pooling(hidden_states: Tensor, lengths: Lengths) -> Tensor:
    """Mean over the real tokens and the final [SEP], without [CLS] (paper, section 3.1).

    Args:
        hidden_states: (B, L, D); [CLS] first, zero where padded.
        lengths: (B,) tokens of each sequence, [CLS] and [SEP] among them.

    Returns:
        (B, D).
    """
    return hidden_states[:, 1:].sum(1) / on_device(lengths - 1, hidden_states.device)[:, None]


def part_means(hidden_states: Tensor, lengths: Lengths, parts: int) -> Tensor:
    """Mean states of the equal parts of clips.

    Part p of P of n features goes from feature floor(n p / P) to ceil(n (p + 1) / P), so that each has at least one, and
    neighbours share one where n is no multiple of P.

    Args:
        hidden_states: (B, L, D); [CLS] first, then the features' states.
        lengths: (B,) features of each clip; one without any has parts of zeros.
        parts: P.

    Returns:
        (B, P, D).
    """
    edges = lengths[:, None] * np.arange(parts + 1)
    first, last = edges[:, :-1] // parts, -(-edges[:, 1:] // parts)  # (B, P)
    places = np.arange(hidden_states.shape[1] - 1)
    inside = (places >= first[..., None]) & (places < last[..., None])  # (B, P, L - 1)
    weights = inside / np.maximum(inside.sum(2, keepdims=True), 1)
    return on_device(weights.astype(np.float32), hidden_states.device).to(hidden_states.dtype) @ hidden_states[:, 1:]


def cls_pooling(hidden_states: Tensor, lengths: Lengths) -> Tensor:
    """The state of [CLS] (the paper's ablation).

    Only what is embedded as a whole is pooled: texts, and clips in retrieval and multiple choice. Frame-wise evaluation
    (COIN, CrossTask, DiDeMo's moments) compares the states of seconds, of which none is a [CLS], with the [CLS] of texts
    under this pooling too; training never compared these, so such scores say little of the model.

    Args:
        hidden_states: (B, L, D); [CLS] first.
        lengths: not used, as every sequence has a [CLS].

    Returns:
        (B, D).
    """
    return hidden_states[:, 0]


POOLING: dict[str, Callable[[Tensor, Lengths], Tensor]] = {"mean": mean_pooling, "cls": cls_pooling}
