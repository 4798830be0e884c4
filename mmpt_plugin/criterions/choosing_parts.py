"""Alignment in time: a text chooses which part of its clip it is about (MIL-NCE's idea, within one long clip).

Narration comes before or after what it describes, so that a clip around a text often shows something else for half of its
time. Miech et al. (CVPR 2020, https://arxiv.org/abs/1912.06430) let a short clip choose among texts. Here a text chooses
among the whole clip and its equal parts, which cost no further pass: a part's embedding is the mean of its seconds' states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from fairseq.criterions import register_criterion
from torch import Tensor

from mmpt_plugin.criterions.contrastive import (
    Candidates,
    VideoTextContrastiveConfig,
    VideoTextContrastiveCriterion,
    check_temperature,
    left_out,
)
from mmpt_plugin.models.similarity import similarity


def best_part_logits(text: Tensor, video_parts: Tensor, temperature: float = 1.0) -> Tensor:
    """A soft maximum over a clip's parts: log of the mean of exp(similarity / temperature).

    Args:
        text: (T, D).
        video_parts: (V, P, D), the whole clip among the parts.
        temperature: divides the similarities.

    Returns:
        (T, V); with equal parts, what the whole clip would have.
    """
    logits = similarity(text, video_parts.flatten(0, 1)) / temperature
    return logits.unflatten(1, video_parts.shape[:2]).logsumexp(2) - math.log(video_parts.shape[1])


def choosing_info_nce(
    video_parts: Tensor, text_embeddings: Tensor, temperature: float = 1.0, candidates: Candidates | None = None
) -> Tensor:
    """Symmetric InfoNCE on the logits of the parts that texts choose.

    Args:
        video_parts: (B, P, D); clip i comes from the same pair as text i.
        text_embeddings: (B, D).
        temperature: divides the similarities.
        candidates: all processes' rows, these among them; `video` is (C, P, D). By default these alone.

    Returns:
        Scalar: the sum of both directions' cross-entropies, each a mean over the batch.

    Raises:
        ValueError: if the shapes do not pair, or the temperature is not positive and finite.
    """
    if video_parts.dim() != 3 or len(video_parts) != len(text_embeddings):
        raise ValueError(
            f"video parts (B, P, D) and texts (B, D) must pair row by row, got {tuple(video_parts.shape)} and "
            f"{tuple(text_embeddings.shape)}"
        )
    check_temperature(temperature)
    given = candidates or Candidates(video_parts, text_embeddings, 0)
    right = given.targets(len(text_embeddings))
    from_text = best_part_logits(text_embeddings, given.video, temperature)
    from_video = best_part_logits(given.text, video_parts, temperature).T
    return sum(
        (F.cross_entropy(left_out(logits, given.excluded), right) for logits in (from_text, from_video)),
        start=text_embeddings.new_zeros(()),
    )


@dataclass
class ChoosingPartsConfig(VideoTextContrastiveConfig):
    """The settings of the paper's loss."""


@register_criterion("choosing_parts", dataclass=ChoosingPartsConfig)
class ChoosingPartsCriterion(VideoTextContrastiveCriterion):
    """`choosing_info_nce` on the parts that a model with `model.clip_parts` gives."""

    def check_parts(self, model: torch.nn.Module) -> None:
        """Refuse a model that gives whole clips alone."""
        if getattr(model, "clip_parts", 1) < 2:
            raise ValueError(
                "criterion choosing_parts needs model.clip_parts of 2 or more, the parts of a clip that a text may choose from"
            )

    def video_side(self, output: dict[str, Tensor]) -> Tensor:
        """The whole clips and their parts, (B, P, D)."""
        return output["video_parts"]

    def loss(self, video: Tensor, text: Tensor, candidates: Candidates) -> Tensor:
        """See `choosing_info_nce`."""
        return choosing_info_nce(video, text, self.temperature, candidates)
