"""MIL-NCE: a contrastive loss for clips with a bag of texts, of which any may be the right one (Miech et al., CVPR 2020)."""

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
)
from mmpt_plugin.models.similarity import similarity


def mil_nce(
    video_embeddings: Tensor, text_embeddings: Tensor, temperature: float = 1.0, candidates: Candidates | None = None
) -> Tensor:
    """Multiple-instance contrastive loss over in-batch negatives of both directions.

    For clip i, with exp of the dot products summed over pairs of a clip and a text: -log(positives / (positives +
    negatives)). Positives are clip i with each text of its bag; negatives clip i with all texts of other bags, and all
    other clips with the texts of bag i.

    Args:
        video_embeddings: (B, D).
        text_embeddings: (B * K, D); rows i * K to (i + 1) * K are the bag of clip i. Neither is normalised.
        temperature: divides the dot products.
        candidates: all clips and bags, these among them; by default these alone.

    Returns:
        Scalar: the mean over clips. Positives count once in the denominator, as in the paper's formula; its authors'
        published code counts them twice there, so that its loss cannot fall below log 2.

    Raises:
        ValueError: if the texts are not equally many a clip, the widths differ or the temperature is not positive and
            finite.

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
    all_clips, all_texts, first = (candidates or Candidates(video_embeddings, text_embeddings, 0))[:3]
    texts_each = texts // clips
    own = first + torch.arange(clips, device=video_embeddings.device)
    from_clips = similarity(video_embeddings, all_texts) / temperature  # (clip, all texts)
    positives = from_clips.unflatten(1, (-1, texts_each))[torch.arange(clips), own]  # (clip, text of its bag)
    to_bags = from_clips if all_clips is video_embeddings else similarity(all_clips, text_embeddings) / temperature
    is_own = F.one_hot(own, len(all_clips)).bool().T[..., None]  # (all clips, bag, 1)
    others = to_bags.unflatten(1, (clips, texts_each)).masked_fill(is_own, -torch.inf)  # positives count once
    everything = torch.cat([from_clips, others.transpose(0, 1).flatten(1)], 1)  # (clip, all texts + all clips * K)
    return (everything.logsumexp(1) - positives.logsumexp(1)).mean()


@dataclass
class MilNceConfig(VideoTextContrastiveConfig):
    """The settings of the paper's loss."""


@register_criterion("mil_nce", dataclass=MilNceConfig)
class MilNceCriterion(VideoTextContrastiveCriterion):
    """MIL-NCE on the embeddings of clips and their bags of texts (data/pairs.py)."""

    def check_false_negatives(self) -> None:
        """Refuse to leave out or share pairs: neighbouring captions make a bag here."""
        super().check_false_negatives()
        if self.false_negatives != "keep":
            raise ValueError(
                f"criterion.false_negatives is {self.false_negatives}: criterion mil_nce knows keep alone; take "
                "video_text_contrastive for the others"
            )

    def loss(self, video: Tensor, text: Tensor, candidates: Candidates) -> Tensor:
        """See `mil_nce`."""
        return mil_nce(video, text, self.temperature, candidates)
