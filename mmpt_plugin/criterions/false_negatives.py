"""Which pairs of a batch are no negatives, though they are not each other's: pure functions of what the batch tells.

The paper's batches have 16 clips of each of 32 similar videos, every one a negative of all others. But clips of one video
that overlap show the same seconds, and a video that was uploaded twice says the same words.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WORD_BUCKETS = (
    4096  # two words in one bucket make texts look a little more alike: rare, with texts of at most 61 pieces
)


def are_near(spans: Tensor, others: Tensor, seconds: float = 0.0) -> Tensor:
    """Clips of one video that overlap in time, or lie nearer to each other than so many seconds.

    Args:
        spans: (Q, 3) int64: the video's number, the first second, the second after the last (data/pairs.py).
        others: (C, 3).
        seconds: the gap must be smaller; with 0, clips that only touch are not near.

    Returns:
        (Q, C) bool.
    """
    return _same_video(spans, others) & (-_common_seconds(spans, others).double() < seconds)


def overlaps(spans: Tensor, others: Tensor) -> Tensor:
    """Intersection over union in time of clips of one video, 0 for clips of two; arguments as for `are_near`.

    Returns:
        (Q, C) float32 in [0, 1]; 1 for two clips of the same seconds, also of none.
    """
    common = _common_seconds(spans, others).clamp(min=0)
    union = (spans[:, 2] - spans[:, 1])[:, None] + (others[:, 2] - others[:, 1]) - common
    same = (spans[:, None, 1:] == others[None, :, 1:]).all(2)
    shares = torch.where(union > 0, common / union.clamp(min=1), same.float())
    return shares * _same_video(spans, others)


def word_sets(text_ids: Tensor, text_lengths: NDArray[np.integer]) -> Tensor:
    """The different word pieces of each text, special tokens left out, as rows to compare with `say_the_same`.

    Args:
        text_ids: (N,) [CLS] pieces [SEP] of all texts (data/pairs.py).
        text_lengths: (B,) tokens of each.

    Returns:
        (B, WORD_BUCKETS) float32 of zeros and ones; a text without a piece has none.
    """
    lengths = torch.as_tensor(text_lengths)
    ends = lengths.cumsum(0)
    is_piece = torch.ones(len(text_ids), dtype=torch.bool)
    is_piece[ends - 1] = is_piece[ends - lengths] = False
    places = is_piece.nonzero()[:, 0]
    rows = torch.repeat_interleave(torch.arange(len(lengths)), lengths)[places]
    sets = torch.zeros(len(lengths), WORD_BUCKETS, device=text_ids.device)
    sets[rows.to(text_ids.device), text_ids[places.to(text_ids.device)] % WORD_BUCKETS] = 1
    return sets


def say_the_same(sets: Tensor, others: Tensor, share: float) -> Tensor:
    """Texts of which at least this share of the pieces of either is common to both (Jaccard).

    Args:
        sets: (Q, W), from `word_sets`.
        others: (C, W).
        share: above 0.

    Returns:
        (Q, C) bool; a text without words says nothing, so it is the same as none.
    """
    common = sets @ others.T
    union = sets.sum(1)[:, None] + others.sum(1) - common
    return (common >= share * union) & (union > 0)


def _same_video(spans: Tensor, others: Tensor) -> Tensor:
    return spans[:, None, 0] == others[:, 0]


def _common_seconds(spans: Tensor, others: Tensor) -> Tensor:
    """(Q, C) seconds that two clips share; negative: the gap between them."""
    return torch.minimum(spans[:, None, 2], others[:, 2]) - torch.maximum(spans[:, None, 1], others[:, 1])
