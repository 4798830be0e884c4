"""The batch: THE place where its shapes are documented.

B pairs (videos_per_batch x clips_per_video in pre-training, or the items of an evaluation batch), F the feature size:

    {"id": (B,) int64, position of the pair's group in the epoch
     "nsentences": B,
     "ntokens": int, real seconds and word pieces, special tokens not counted
     "video_id": list[str] of B,
     "net_input": {"video_features": (B, T, F), one row a second, zero-padded; float16 as stored, cast by the model
                   "video_mask": (B, T) bool, True = real
                   "text_ids": (B, L) int64, [CLS] pieces [SEP] [PAD]*
                   "text_mask": (B, L) bool, True = real}}

T and L are the longest of the batch, at most max_video_seconds and max_text_pieces + 2.

Where a clip has a bag of K texts (`task.clip_sampling=bag`), text_ids and text_mask have B * K rows, and rows i * K to
(i + 1) * K belong to clip i; all else is per clip. So K is told by the rows, of inputs and of embeddings alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Batch = dict[str, Any]


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens around and after a text."""

    cls: int
    sep: int
    pad: int


def length_mask(lengths: Tensor, longest: int) -> Tensor:
    """(B,) lengths -> (B, longest) bool, True where a row is real."""
    return torch.arange(longest) < lengths[:, None]


def build_text(pieces: NDArray[np.integer], lengths: NDArray[np.integer], special: SpecialTokens) -> dict[str, Tensor]:
    """`text_ids` and `text_mask` of texts given one after the other.

    Args:
        pieces: (sum of lengths,) word pieces, without special tokens.
        lengths: (B,) word pieces of each text; 0 gives [CLS] [SEP].
    """
    counts = torch.from_numpy(np.ascontiguousarray(lengths, dtype=np.int64))
    longest = int(counts.max()) + 2
    text_mask = length_mask(counts + 2, longest)
    text_ids = torch.full((len(counts), longest), special.pad, dtype=torch.int64)
    is_piece = length_mask(counts + 1, longest)
    is_piece[:, 0] = False
    text_ids[is_piece] = torch.from_numpy(np.ascontiguousarray(pieces, dtype=np.int64))
    text_ids[:, 0] = special.cls
    text_ids[torch.arange(len(counts)), counts + 1] = special.sep
    return {"text_ids": text_ids, "text_mask": text_mask}


def build_video(features: NDArray[np.floating], lengths: NDArray[np.integer]) -> dict[str, Tensor]:
    """`video_features` and `video_mask`.

    Args:
        features: (B, longest allowed, F), zero where padded.
        lengths: (B,) real seconds of each clip; may be 0.
    """
    counts = torch.from_numpy(np.ascontiguousarray(lengths, dtype=np.int64))
    longest = max(int(counts.max()), 1)
    return {
        "video_features": torch.from_numpy(features)[:, :longest].contiguous(),
        "video_mask": length_mask(counts, longest),
    }


def build_pairs(
    index: int,
    video_ids: Sequence[str],
    video: dict[str, Tensor],
    text: dict[str, Tensor],
) -> Batch:
    """A batch of pairs (or of clips with bags of texts) from its two sides; `index` is the group's position in the epoch."""
    pairs = len(video_ids)
    return {
        "id": torch.full((pairs,), index),
        "nsentences": pairs,
        "ntokens": int(video["video_mask"].sum()) + int(text["text_mask"].sum()) - 2 * len(text["text_mask"]),
        "video_id": list(video_ids),
        "net_input": {**video, **text},
    }


def collate_groups(groups: Sequence[Batch], pad: int) -> Batch:
    """Join the batches of several groups into one."""
    if len(groups) == 1:
        return groups[0]
    inputs = [group["net_input"] for group in groups]
    return {
        "id": torch.cat([group["id"] for group in groups]),
        "nsentences": sum(group["nsentences"] for group in groups),
        "ntokens": sum(group["ntokens"] for group in groups),
        "video_id": [video_id for group in groups for video_id in group["video_id"]],
        "net_input": {
            "video_features": _join([x["video_features"] for x in inputs], 0),
            "video_mask": _join([x["video_mask"] for x in inputs], False),
            "text_ids": _join([x["text_ids"] for x in inputs], pad),
            "text_mask": _join([x["text_mask"] for x in inputs], False),
        },
    }


def _join(tensors: Sequence[Tensor], padding: float) -> Tensor:
    """Concatenate along the pairs, padding the second dimension to the longest."""
    longest = max(tensor.shape[1] for tensor in tensors)
    joined = tensors[0].new_full((sum(len(tensor) for tensor in tensors), longest, *tensors[0].shape[2:]), padding)
    for tensor, part in zip(tensors, joined.split([len(tensor) for tensor in tensors])):
        part[:, : tensor.shape[1]] = tensor
    return joined
