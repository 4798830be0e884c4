"""Running a Hugging Face transformer on real tokens only.

A batch of sequences of different lengths is packed into one row of tokens: every linear layer, LayerNorm and activation
then works on real tokens only. Attention alone needs to know where a sequence ends; it is given back its padded
(batch, length) form, which costs little (at BERT-base size and 61 tokens, 2% of the layer's operations).
The transformer is Hugging Face's own, unchanged: the attention is plugged in through its `AttentionInterface`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

ATTENTION_NAME = "mmpt_packed"


@dataclass(frozen=True)
class Packing:
    """Which positions of a padded (B, L) batch hold tokens, and which tokens may be attended to.

    Attributes:
        rows: (N,) int64, the positions of the N computed tokens in the flattened (B * L) batch, ascending; None where
            all are computed, so that nothing need be moved.
        key_mask: (B, L) bool, True where a token may be attended to; at least one in every row.
    """

    rows: Tensor | None
    key_mask: Tensor

    @classmethod
    def of(cls, token_mask: Tensor, key_mask: Tensor | None = None) -> Packing:
        """From masks of shape (B, L): the tokens to compute, and (default: the same) those to attend to."""
        rows = token_mask.flatten().nonzero().squeeze(1)
        return cls(None if len(rows) == token_mask.numel() else rows, token_mask if key_mask is None else key_mask)

    def pack(self, padded: Tensor) -> Tensor:
        """(B, L, ...) -> (N, ...)."""
        flat = padded.flatten(0, 1)
        return flat if self.rows is None else flat.index_select(0, self.rows)

    def unpack(self, packed: Tensor) -> Tensor:
        """(N, ...) -> (B, L, ...), zero where no token is."""
        if self.rows is not None:
            packed = packed.new_zeros(self.key_mask.numel(), *packed.shape[1:]).index_copy_(0, self.rows, packed)
        return packed.unflatten(0, tuple(self.key_mask.shape))


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within each sequence of a packed row; the signature is that of `AttentionInterface`.

    Args:
        query, key, value: (1, heads, N, head width), N tokens as packed by `packing`.

    Returns:
        (1, N, heads, head width), and None for the attention weights, which are not kept.
    """
    q, k, v = (packing.unpack(x.squeeze(0).transpose(0, 1)).transpose(1, 2) for x in (query, key, value))
    mask = packing.key_mask[:, None, None, :]  # (B, 1, 1, L)
    context = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling
    )  # (B, heads, L, d)
    return packing.pack(context.transpose(1, 2)).unsqueeze(0), None


AttentionInterface.register(ATTENTION_NAME, packed_attention)


def run_packed(transformer: PreTrainedModel, packing: Packing, position_ids: Tensor, **tokens: Tensor) -> Tensor:
    """Hidden states of packed tokens.

    Args:
        transformer: a Hugging Face encoder whose attention goes through `AttentionInterface`.
        position_ids: (N,) positions of the tokens in their sequences.
        tokens: `input_ids` (N,) or `inputs_embeds` (N, D); `token_type_ids` (N,) where the model has them.

    Returns:
        (N, D).
    """
    if transformer.config._attn_implementation != ATTENTION_NAME:
        transformer.set_attn_implementation(ATTENTION_NAME)
    tokens = {name: value.unsqueeze(0) for name, value in tokens.items()}
    output = transformer(position_ids=position_ids.unsqueeze(0), attention_mask=None, packing=packing, **tokens)
    return output.last_hidden_state.squeeze(0)
