"""The sigmoid loss: each pair of a text and a video is a yes or no of its own (Zhai et al. 2023, SigLIP)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.criterions import register_criterion
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmpt_plugin.bounds import check_bounds
from mmpt_plugin.criterions.contrastive import (
    Candidates,
    VideoTextContrastiveConfig,
    VideoTextContrastiveCriterion,
    check_pairs,
    check_temperature,
)
from mmpt_plugin.models.similarity import similarity


def sigmoid_loss(
    video_embeddings: Tensor,
    text_embeddings: Tensor,
    bias: Tensor | float,
    temperature: float = 1.0,
    candidates: Candidates | None = None,
    chunk: int = 0,
) -> Tensor:
    """-log sigmoid(z (similarity / temperature + bias)) of every video with every text, z = 1 for pairs and -1 else.

    Args:
        video_embeddings: (B, D).
        text_embeddings: (B, D); row i comes from the same pair as row i of the videos.
        bias: added to every logit; learned, for most of the B x B pairs are negatives.
        temperature: divides the similarities.
        candidates: all processes' rows, these among them; by default these alone. Their texts are compared with this
            process's videos, so that over all processes each pair counts once.
        chunk: texts compared at a time, with their logits computed again in the backward pass; 0: all at once. The loss is
            the same, and never more than B x chunk logits are kept.

    Returns:
        Scalar: the sum over pairs divided by B, so that the mean over processes is the joined batch's loss.

    Raises:
        ValueError: if the shapes differ or the temperature is not positive and finite.

    References:
        https://arxiv.org/abs/2303.15343, equation 1, algorithm 1 and section 3.3 (chunks).
    """
    check_pairs(video_embeddings, text_embeddings)
    check_temperature(temperature)
    given = candidates or Candidates(video_embeddings, text_embeddings, 0)
    own = given.first + torch.arange(len(video_embeddings), device=video_embeddings.device)

    def of_texts(video: Tensor, texts: Tensor, bias: Tensor, first: int) -> Tensor:
        columns = first + torch.arange(len(texts), device=texts.device)
        sign = 2.0 * (own[:, None] == columns) - 1
        losses = -F.logsigmoid(sign * (similarity(video, texts) / temperature + bias))
        if given.excluded is not None:
            losses = losses.masked_fill(given.excluded[:, first : first + len(texts)], 0)
        return losses.sum()

    summand = torch.as_tensor(bias, dtype=video_embeddings.dtype, device=video_embeddings.device)
    if not chunk:
        return of_texts(video_embeddings, given.text, summand, 0) / len(video_embeddings)
    total = video_embeddings.new_zeros(())
    for first in range(0, len(given.text), chunk):
        texts = given.text[first : first + chunk]
        total = total + checkpoint(of_texts, video_embeddings, texts, summand, first, use_reentrant=False)
    return total / len(video_embeddings)


@dataclass
class SigmoidConfig(VideoTextContrastiveConfig):
    """The settings of the paper's loss, and how the pairs are cut."""

    chunk: int = field(
        default=0,
        metadata={
            "help": "texts compared at a time, for large gathered batches in little memory; 0: all",
            "at_least": 0,
        },
    )


@register_criterion("sigmoid", dataclass=SigmoidConfig)
class SigmoidCriterion(VideoTextContrastiveCriterion):
    """SigLIP's loss on the embeddings of any model that gives a `logit_bias` beside them."""

    def __init__(self, task: Any, cfg: SigmoidConfig) -> None:
        super().__init__(task, cfg)
        check_bounds(cfg, SigmoidConfig, "criterion")
        if self.false_negatives == "soft":
            raise ValueError(
                "criterion.false_negatives=soft: the sigmoid loss knows pairs and others; take keep or mask"
            )
        self.chunk = cfg.chunk

    def check_model(self, model: torch.nn.Module) -> None:
        """Refuse a model without a bias, or whose products are neither scaled nor of bounded length."""
        learns_scale = self.check_scale(model)
        self.check_parts(model)
        if getattr(model, "logit_bias", None) is None:
            raise ValueError(
                "criterion sigmoid needs model.logit_bias: without it, the many negatives push all similarities down first; "
                "set it to minus the logarithm of the batch's pairs (SigLIP: -10)"
            )
        if self.temperature == 1 and not learns_scale and not getattr(model, "normalize", False):
            raise ValueError(
                "criterion sigmoid with criterion.temperature=1 and model.normalize=false: dot products of some hundreds "
                "leave no gradient; set model.normalize=true and model.logit_scale=true"
            )

    def loss(self, video: Tensor, text: Tensor, candidates: Candidates) -> Tensor:
        """See `sigmoid_loss`."""
        assert candidates.bias is not None  # `check_model` saw to it
        return sigmoid_loss(video, text, candidates.bias, self.temperature, candidates, self.chunk)
