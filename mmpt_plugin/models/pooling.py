"""From hidden states to embeddings."""

from __future__ import annotations

from collections.abc import Callable

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


def cls_pooling(hidden_states: Tensor, mask: Tensor) -> Tensor:
    """The state of [CLS] (the paper's ablation).

    Only what is embedded as a whole is pooled: texts, and clips in retrieval and multiple choice. Frame-wise evaluation
    (COIN, CrossTask, DiDeMo's moments) compares the states of seconds, of which none is a [CLS], with the [CLS] of texts
    under this pooling too; training never compared these, so such scores say little of the model.

    Args:
        hidden_states: (B, L, D); [CLS] first.
        mask: (B, L) bool; not used, as every sequence has a [CLS].

    Returns:
        (B, D).
    """
    return hidden_states[:, 0]


POOLING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mean": mean_pooling, "cls": cls_pooling}
