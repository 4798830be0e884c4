"""From hidden states to embeddings."""

from __future__ import annotations

from torch import Tensor


def mean_pooling(hidden_states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real tokens and the final [SEP], without [CLS] (paper, section 3.1).

    Args:
        hidden_states: (B, L, D); [CLS] first, zero where padded.
        mask: (B, L) bool, True = real.

    Returns:
        (B, D).
    """
    return hidden_states[:, 1:].sum(1) / mask[:, 1:].sum(1, keepdim=True)
