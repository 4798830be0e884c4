"""Running a Hugging Face transformer on real tokens only.

A batch of sequences of different lengths is packed into one row of tokens: every linear layer, LayerNorm and activation
then works on real tokens only. Attention alone needs to know where a sequence ends; it is given back a padded
(batch, length) form, of sequences of about equal length at a time. Which token goes where follows from the lengths; it is
worked out on the host, so that a GPU is never waited for.
The transformer is Hugging Face's own, unchanged: the attention is plugged in through its `AttentionInterface`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel

from mmpt_plugin.models.dropout import drop

ATTENTION_NAME = "mmpt_packed"

PACKABLE = frozenset({"bert", "camembert", "distilbert", "roberta", "xlm-roberta"})
"""Architectures whose tokens meet in attention alone, which goes through `AttentionInterface`, at positions that are given.

Others join tokens by relative positions (DeBERTa, MPNet) or convolutions, or do not take embeddings of the model's width
(ELECTRA, ALBERT)."""


def can_be_packed(config: PretrainedConfig) -> bool:
    """Whether transformers of this architecture can be run on packed tokens."""
    return config.model_type in PACKABLE


SEQUENCES_PER_BUCKET = 16
"""Attention works on so many sequences of about equal length at a time on a CPU, so that little of it is padding too. A GPU
works on all at once: few large kernels are better there."""


def length_mask(lengths: NDArray[np.integer], longest: int | None = None) -> Tensor:
    """(B,) lengths -> (B, longest) bool on the host, True where a row is real; default: as wide as the longest."""
    return torch.from_numpy(np.arange(lengths.max(initial=0) if longest is None else longest) < lengths[:, None])


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device, without waiting for it."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # from other memory CUDA may wait
    return tensor.to(device, non_blocking=True)


@dataclass(frozen=True)
class Bucket:
    """Sequences of about equal length, and where their tokens lie in a padded form of their own.

    Attributes:
        num_tokens: tokens of the bucket, consecutive among all packed ones.
        rows: (num_tokens,) int64, their positions in the flattened (b * l) form; None where it has no padding.
        key_mask: (b, l) bool, True where a token may be attended to; at least one in every row.
    """

    num_tokens: int
    rows: Tensor | None
    key_mask: Tensor

    def to(self, device: torch.device) -> Bucket:
        """The same on a device."""
        rows = None if self.rows is None else on_device(self.rows, device)
        return replace(self, rows=rows, key_mask=on_device(self.key_mask, device))

    def pad(self, tokens: Tensor) -> Tensor:
        """(num_tokens, ...) -> (b, l, ...), zero where no token is."""
        return _pad(tokens, self.rows, self.key_mask.shape)

    def unpad(self, padded: Tensor) -> Tensor:
        """(b, l, ...) -> (num_tokens, ...)."""
        flat = padded.flatten(0, 1)
        return flat if self.rows is None else flat.index_select(0, self.rows)


@dataclass(frozen=True)
class Packing:
    """The tokens of a padded (B, L) batch in one row, bucket by bucket.

    Attributes:
        shape: B and L.
        rows: (N,) int64, the positions of the N computed tokens in the flattened (B * L) batch, in packed order.
        buckets: parts of the row that attention treats one after the other.
    """

    shape: torch.Size
    rows: Tensor
    buckets: tuple[Bucket, ...]

    @classmethod
    def of(cls, token_mask: Tensor, key_mask: Tensor, device: torch.device) -> Packing:
        """From masks of shape (B, L): the tokens to compute, and those to attend to. All lie on the host.

        Args:
            device: that computes; it decides on the buckets.
        """
        B, L = token_mask.shape
        positions = torch.arange(B * L).unflatten(0, (B, L))
        extents = (token_mask * torch.arange(1, L + 1)).amax(1)  # (B,) up to the last token
        buckets, all_rows = [], []
        for members in extents.argsort(stable=True).split(SEQUENCES_PER_BUCKET if device.type == "cpu" else B):
            width = int(extents[members].max())
            tokens = token_mask[members, :width]
            inner = tokens.flatten().nonzero().squeeze(1)
            all_rows.append(positions[members, :width][tokens])
            full = len(inner) == tokens.numel()
            buckets.append(Bucket(len(inner), None if full else inner, key_mask[members, :width]))
        return cls(token_mask.shape, torch.cat(all_rows), tuple(buckets))

    def to(self, device: torch.device) -> Packing:
        """The same on a device."""
        return Packing(self.shape, on_device(self.rows, device), tuple(bucket.to(device) for bucket in self.buckets))

    def pack(self, padded: Tensor) -> Tensor:
        """(B, L, ...) -> (N, ...)."""
        return padded.flatten(0, 1).index_select(0, self.rows)

    def unpack(self, packed: Tensor) -> Tensor:
        """(N, ...) -> (B, L, ...), zero where no token is."""
        return _pad(packed, self.rows, self.shape)


def _pad(tokens: Tensor, rows: Tensor | None, shape: torch.Size) -> Tensor:
    """(N, ...) -> (*shape, ...): token n at `rows[n]` of the flattened result, which is zero elsewhere."""
    if rows is not None:
        tokens = tokens.new_zeros(shape.numel(), *tokens.shape[1:]).index_copy_(0, rows, tokens)
    return tokens.unflatten(0, shape)


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
    counts = [bucket.num_tokens for bucket in packing.buckets]
    parts = zip(*(x.squeeze(0).transpose(0, 1).split(counts) for x in (query, key, value)))  # each (n, heads, d)
    contexts = []
    for bucket, part in zip(packing.buckets, parts):
        q, k, v = (bucket.pad(x).transpose(1, 2) for x in part)  # (b, heads, l, d)
        mask = bucket.key_mask[:, None, None, :]  # (b, 1, 1, l)
        if dropout and q.device.type == "cpu":
            context = _attention_with_dropout(q, k, v, mask, dropout, scaling)
        else:
            context = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling)
        contexts.append(bucket.unpad(context.transpose(1, 2)))
    return torch.cat(contexts).unsqueeze(0), None


def _attention_with_dropout(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, p: float, scaling: float | None) -> Tensor:
    """As `scaled_dot_product_attention`, which on a CPU has no fused kernel with dropout, by cheaper draws."""
    scores = (q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scaling is None else scaling)).masked_fill(
        ~mask, -torch.inf
    )
    return drop(scores.softmax(-1, dtype=torch.float32).to(v.dtype), p) @ v


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
