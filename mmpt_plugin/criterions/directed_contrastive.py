"""Fine-tuning for retrieval: the contrastive loss in one direction only, that which the test asks for."""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from torch import Tensor

from mmpt_plugin.criterions.contrastive import VideoTextContrastiveConfig, VideoTextContrastiveCriterion


def info_nce(queries: Tensor, candidates: Tensor, temperature: float = 1.0) -> Tensor:
    """Half of `symmetric_info_nce`: each query should find its own candidate among the batch's.

    Args:
        queries: (B, D); row i belongs to row i of the candidates. Neither is normalised.
        candidates: (B, D).
        temperature: divides the dot products.

    Returns:
        Scalar, a mean over the queries.

    Raises:
        ValueError: if the shapes differ.
    """
    if queries.shape != candidates.shape:
        raise ValueError(
            f"queries and candidates must pair row by row, got {tuple(queries.shape)} and {tuple(candidates.shape)}"
        )
    logits = queries @ candidates.T / temperature  # (B queries, B candidates)
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


@dataclass
class DirectedContrastiveConfig(VideoTextContrastiveConfig):
    """Which way."""

    direction: ChoiceEnum(["text_to_video", "video_to_text"]) = field(  # type: ignore[valid-type]
        default="text_to_video", metadata={"help": "which side looks for the other among the batch's"}
    )


@register_criterion("directed_contrastive", dataclass=DirectedContrastiveConfig)
class DirectedContrastiveCriterion(VideoTextContrastiveCriterion):
    """InfoNCE in one direction on the embeddings of any model that returns both."""

    def __init__(self, task: Any, temperature: float, gather: bool, direction: str) -> None:
        super().__init__(task, temperature, gather)
        self.from_text = str(direction) == "text_to_video"

    def loss(self, video_embeddings: Tensor, text_embeddings: Tensor) -> Tensor:
        """One direction's cross-entropy."""
        pair = (text_embeddings, video_embeddings) if self.from_text else (video_embeddings, text_embeddings)
        return info_nce(*pair, self.temperature)
