"""From hidden states to embeddings."""

from __future__ import annotations

from collections.abc import Callable

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
