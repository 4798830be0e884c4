"""MIL-NCE: a contrastive loss for clips with a bag of texts, of which any may be the right one (Miech et al., CVPR 2020)."""

from dataclasses import dataclass

import torch
from fairseq.criterions import register_criterion
from torch import Tensor

from mmpt_plugin.criterions.contrastive import (
    VideoTextContrastiveConfig,
    VideoTextContrastiveCriterion,
    check_temperature,
)


def mil_nce(video_embeddings: Tensor, text_embeddings: Tensor, temperature: float = 1.0) -> Tensor:
    """Multiple-instance contrastive loss over in-batch negatives of both directions.

    For clip i, with exp of the dot products summed over pairs of a clip and a text: -log(positives / (positives +
    negatives)). Positives are clip i with each text of its bag; negatives clip i with all texts of other bags, and all
    other clips with the texts of bag i.

    Args:
        video_embeddings: (B, D).
        text_embeddings: (B * K, D); rows i * K to (i + 1) * K are the bag of clip i. Neither is normalised.
        temperature: divides the dot products.

    Returns:
        Scalar: the mean over clips. Positives count once in the denominator, as in the paper's formula; its authors'
        published code counts them twice there, so that its loss cannot fall below log 2.

    Raises:
        ValueError: if the texts are not equally many a clip, the widths differ or the temperature is not positive.

    References:
        https://arxiv.org/abs/1912.06430, equation 1.
    """
    clips, texts = len(video_embeddings), len(text_embeddings)
    if not clips or not texts or texts % clips or video_embeddings.shape[1:] != text_embeddings.shape[1:]:
        raise ValueError(
            "every clip must have the same number of texts, of its own width, "
            f"got {tuple(video_embeddings.shape)} and {tuple(text_embeddings.shape)}"
        )
    check_temperature(temperature)
    logits = (video_embeddings @ text_embeddings.T / temperature).unflatten(1, (clips, -1))  # (clip, bag, text)
    positives = logits.diagonal().T  # (clip, text)
    own = torch.eye(clips, dtype=torch.bool, device=logits.device)[..., None]
    other_clips = logits.masked_fill(own, -torch.inf).transpose(0, 1)  # (bag, clip, text): positives count once
    everything = torch.cat([logits.flatten(1), other_clips.flatten(1)], 1)  # (clip, 2 * B * K)
    return (everything.logsumexp(1) - positives.logsumexp(1)).mean()


@dataclass
class MilNceConfig(VideoTextContrastiveConfig):
    """The settings of the paper's loss."""


@register_criterion("mil_nce", dataclass=MilNceConfig)
class MilNceCriterion(VideoTextContrastiveCriterion):
    """MIL-NCE on the embeddings of clips and their bags of texts (data/pairs.py)."""

    def loss(self, video_embeddings: Tensor, text_embeddings: Tensor) -> Tensor:
        """See `mil_nce`."""
        return mil_nce(video_embeddings, text_embeddings, self.temperature)
