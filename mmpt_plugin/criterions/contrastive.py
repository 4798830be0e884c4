"""The contrastive loss of VideoCLIP: symmetric InfoNCE over the pairs of a batch (paper, section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from fairseq import metrics
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from torch import Tensor


def symmetric_info_nce(video_embeddings: Tensor, text_embeddings: Tensor, temperature: float = 1.0) -> Tensor:
    """Contrastive loss over in-batch negatives, in both directions.

    Args:
        video_embeddings: (B, D); row i comes from the same pair as row i of the text.
        text_embeddings: (B, D). Neither is normalised: raw dot products are compared.
        temperature: divides the dot products; the paper's is 1.

    Returns:
        Scalar: the sum (not the mean) of the two cross-entropies, each a mean over the batch.

    Raises:
        ValueError: if the shapes differ or the temperature is not positive.

    References:
        https://arxiv.org/abs/2109.14084, equations 1 to 3.
    """
    if video_embeddings.shape != text_embeddings.shape:
        raise ValueError(
            "video and text embeddings must pair row by row, "
            f"got {tuple(video_embeddings.shape)} and {tuple(text_embeddings.shape)} "
            "(task.clip_sampling=bag needs criterion=mil_nce)"
        )
    check_temperature(temperature)
    logits_per_text = text_embeddings @ video_embeddings.T / temperature  # (B texts, B videos)
    targets = torch.arange(len(logits_per_text), device=logits_per_text.device)
    return F.cross_entropy(logits_per_text, targets) + F.cross_entropy(logits_per_text.T, targets)


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that is not positive."""
    if temperature <= 0:
        raise ValueError(f"criterion.temperature is {temperature}: it must be positive")


@torch.no_grad()
def in_batch_accuracy(video_embeddings: Tensor, text_embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """How many texts rank their own video first among the batch's, and how many videos one of their own texts.

    Args:
        video_embeddings: (B, D).
        text_embeddings: (B * K, D), K texts of each video (data/pairs.py); of these the first number is the mean of K.
    """
    similarities = text_embeddings @ video_embeddings.T
    texts_each = len(text_embeddings) // len(video_embeddings)
    owners = torch.arange(len(video_embeddings), device=similarities.device).repeat_interleave(texts_each)
    text_hits, video_hits = similarities.argmax(1) == owners, owners[similarities.argmax(0)] == owners[::texts_each]
    return text_hits.sum() / texts_each, video_hits.sum()


def gather_rows(local: Tensor) -> Tensor:
    """The rows of all processes, in their order; gradients flow to this process's own.

    Every process must bring equally many rows, as the groups of pre-training do.

    Args:
        local: (B, D).

    Returns:
        (processes x B, D).
    """
    rows = [torch.empty_like(local) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(rows, local.detach().contiguous())
    rows[torch.distributed.get_rank()] = local
    return torch.cat(rows)


@dataclass
class VideoTextContrastiveConfig(FairseqDataclass):
    """The paper's loss."""

    temperature: float = field(default=1.0, metadata={"help": "divides the dot products"})
    gather: bool = field(
        default=False, metadata={"help": "negatives from the batches of all processes; the paper's are of one GPU"}
    )


@register_criterion("video_text_contrastive", dataclass=VideoTextContrastiveConfig)
class VideoTextContrastiveCriterion(FairseqCriterion):
    """Symmetric InfoNCE on the embeddings of any model that returns `video_embeddings` and `text_embeddings`."""

    def __init__(self, task: Any, temperature: float, gather: bool) -> None:
        super().__init__(task)
        check_temperature(temperature)  # now, not in the first update
        self.temperature = temperature
        self.gather = gather and torch.distributed.is_available() and torch.distributed.is_initialized()

    def loss(self, video_embeddings: Tensor, text_embeddings: Tensor) -> Tensor:
        """The loss of a batch's embeddings; other losses with the same inputs replace this alone."""
        return symmetric_info_nce(video_embeddings, text_embeddings, self.temperature)

    def forward(self, model: torch.nn.Module, sample: dict[str, Any], reduce: bool = True) -> tuple[Tensor, int, dict]:
        """Loss of one batch of pairs.

        Returns:
            The loss; a sample size of 1, for the loss is a mean already and batches weigh the same; values to log.
        """
        output = model(**sample["net_input"])
        # in float32 whatever the model's precision: dot products of unnormalised embeddings are large
        video, text = output["video_embeddings"].float(), output["text_embeddings"].float()
        gather = self.gather and self.training  # validation's batches differ in size, and its loss not by processes
        if gather:
            video, text = gather_rows(video), gather_rows(text)
        loss = self.loss(video, text)
        text_to_video, video_to_text = in_batch_accuracy(video, text)
        processes = torch.distributed.get_world_size() if gather else 1
        logging_output = {
            "loss": loss.detach() * sample["nsentences"],
            "text_to_video": text_to_video / processes,  # each process ranks the rows of all
            "video_to_text": video_to_text / processes,
            "nsentences": sample["nsentences"],
            "ntokens": sample["ntokens"],
            "sample_size": 1,
        }
        # fairseq averages gradients over processes; with gathered rows each holds only its own part of their sum
        return loss * processes, 1, logging_output

    @staticmethod
    def reduce_metrics(logging_outputs: Sequence[dict[str, Any]]) -> None:
        """Average over the pairs of all batches and processes."""
        pairs = float(sum(output.get("nsentences", 0) for output in logging_outputs))
        if pairs == 0:
            return
        for key, digits in (("loss", 4), ("text_to_video", 3), ("video_to_text", 3)):
            total = sum(output.get(key, 0) for output in logging_outputs)
            metrics.log_scalar(key, float(total) / pairs, pairs, round=digits)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All logged values are sums."""
        return True
