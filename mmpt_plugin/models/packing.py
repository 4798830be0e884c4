"""Running a Hugging Face transformer on real tokens only.

Sequences of different lengths are packed into one row of tokens, so that every linear layer, LayerNorm and activation works
on real tokens only. Only attention needs sequence boundaries: inside it, tokens are scattered to a padded (batch, length)
form, of sequences of about equal length at a time. Lengths are numpy arrays on the host, so that a GPU is never waited for.

The transformer is Hugging Face's own, unchanged: the attention is plugged in through its `AttentionInterface`.
"""

from __future__ import annotations

from dataclasses import dataclass
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
"""On a CPU, attention works on so many sequences of about equal length at a time, so that little of it is padding. A GPU
works on all at once, because few large kernels are faster there."""


Lengths = NDArray[np.integer]


def length_mask(lengths: Lengths, longest: int | None = None) -> NDArray[np.bool_]:
    """(B,) lengths -> (B, longest), True where a row is real. By default it is as wide as the longest."""
    return np.arange(lengths.max(initial=0) if longest is None else longest) < lengths[:, None]


def on_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array as a tensor on the device, without waiting for the copy."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # from other memory CUDA may wait
    return tensor.to(device, non_blocking=True)


def scatter(tokens: Tensor, places: Tensor, shape: tuple[int, int]) -> Tensor:
    """(N, ...) -> (*shape, ...): token n at `places[n]` of the flattened result, which is zero elsewhere."""
    padded = tokens.new_zeros(shape[0] * shape[1], *tokens.shape[1:])
    return padded.index_copy_(0, places, tokens).unflatten(0, shape)


@dataclass(frozen=True)
class Bucket:
    """Sequences of about equal length, and where their tokens lie in a padded form of their own.

    Attributes:
        num_tokens: tokens of the bucket, consecutive among all packed ones.
        places: (num_tokens,) int64, their positions in the flattened (b * l) form; None where it has no padding.
        key_mask: (b, l) bool, True where a token may be attended to; at least one in every row.
    """

    num_tokens: int
    places: Tensor | None
    key_mask: Tensor

    def pad(self, tokens: Tensor) -> Tensor:
        """(num_tokens, ...) -> (b, l, ...), zero where no token is."""
        shape = (self.key_mask.shape[0], self.key_mask.shape[1])
        return tokens.unflatten(0, shape) if self.places is None else scatter(tokens, self.places, shape)

    def unpad(self, padded: Tensor) -> Tensor:
        """(b, l, ...) -> (num_tokens, ...)."""
        flat = padded.flatten(0, 1)
        return flat if self.places is None else flat.index_select(0, self.places)


@dataclass(frozen=True)
class Packing:
    """The N tokens of B sequences in one row, bucket by bucket.

    Attributes:
        sequences: (N,) int64 on the host, the sequence that each token belongs to.
        columns: (N,) int64 on the host, the token's place in its sequence.
        shape: B and L, the length of the longest sequence.
        places: (N,) int64 on the device, the tokens' positions in the flattened (B * L) batch.
        buckets: parts of the row that attention treats one after the other.
    """

    sequences: NDArray[np.int64]
    columns: NDArray[np.int64]
    shape: tuple[int, int]
    places: Tensor
    buckets: tuple[Bucket, ...]

    @classmethod
    def of(cls, lengths: Lengths, device: torch.device, key_mask: NDArray[np.bool_] | None = None) -> Packing:
        """The packing of sequences by their lengths.

        Args:
            lengths: (B,) tokens of each sequence.
            device: where to compute; it decides on the buckets.
            key_mask: (B, L), True where a token may be attended to; by default all real ones may.
        """
        B, L = len(lengths), int(lengths.max(initial=0))
        key_mask = length_mask(lengths) if key_mask is None else key_mask
        order = np.argsort(lengths, kind="stable")
        size = SEQUENCES_PER_BUCKET if device.type == "cpu" else max(B, 1)
        buckets = []
        for members in np.split(order, range(size, B, size)):
            mask = length_mask(lengths[members])
            places = None if mask.all() else on_device(np.flatnonzero(mask), device)
            keys = on_device(key_mask[members, : mask.shape[1]], device)
            buckets.append(Bucket(int(mask.sum()), places, keys))
        rows, columns = length_mask(lengths[order]).nonzero()
        sequences = order[rows]
        return cls(sequences, columns, (B, L), on_device(sequences * L + columns, device), tuple(buckets))

    def rows(self, lengths: Lengths) -> NDArray[np.int64]:
        """(N,) where each token's value lies, if each sequence has `lengths` values and they stand end to end.

        A video's [CLS] and [SEP] have none: for these the result means nothing.
        """
        return (np.cumsum(lengths) - lengths)[self.sequences] + self.columns

    def unpack(self, packed: Tensor) -> Tensor:
        """(N, ...) -> (B, L, ...), zero where no token is."""
        return scatter(packed, self.places, self.shape)


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


def run_packed(
    transformer: PreTrainedModel, packing: Packing, position_ids: NDArray[np.integer], **tokens: Tensor
) -> Tensor:
    """Hidden states of packed tokens.

    Args:
        transformer: a Hugging Face encoder whose attention goes through `AttentionInterface`.
        position_ids: (N,) positions of the tokens in their sequences.
        tokens: `input_ids` (N,) or `inputs_embeds` (N, D); `token_type_ids` (N,) where the model has them.

    Returns:
        (B, L, D), zero where no token is.
    """
    if transformer.config._attn_implementation != ATTENTION_NAME:
        transformer.set_attn_implementation(ATTENTION_NAME)
    positions = on_device(position_ids, packing.places.device)
    tokens = {name: value.unsqueeze(0) for name, value in tokens.items()}
    output = transformer(position_ids=positions.unsqueeze(0), attention_mask=None, packing=packing, **tokens)
    return packing.unpack(output.last_hidden_state.squeeze(0))
