"""InfoNCE over the pairs of a batch: VideoCLIP's symmetric loss (paper, section 3.2), and one direction of it."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from fairseq import metrics
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from torch import Tensor

from mmpt_plugin.models.precision import outside_autocast
from mmpt_plugin.models.similarity import similarity
from mmpt_plugin.models.videoclip import LEARNED_LOGITS

logger = logging.getLogger(__name__)


def info_nce(
    queries: Tensor, candidates: Tensor, targets: Tensor, temperature: float = 1.0, *, both_ways: bool = False
) -> Tensor:
    """The core of every contrastive loss here: each query should find its own candidate among all candidates.

    Args:
        queries: (Q, D). Embeddings are not normalised: raw dot products are compared.
        candidates: (C, D).
        targets: (Q,) int64, the row of each query's own candidate.
        temperature: divides the dot products.
        both_ways: the candidates look for their queries as well, on the same dot products. Row i must pair with row i.

    Returns:
        Scalar: the mean cross-entropy of the queries, plus that of the candidates where both ways are wanted.

    Raises:
        ValueError: if the temperature is not positive and finite.
    """
    check_temperature(temperature)
    logits = similarity(queries, candidates) / temperature  # (Q, C)
    loss = F.cross_entropy(logits, targets)
    return loss + F.cross_entropy(logits.T, targets) if both_ways else loss


def symmetric_info_nce(video_embeddings: Tensor, text_embeddings: Tensor, temperature: float = 1.0) -> Tensor:
    """The paper's loss: in-batch negatives, in both directions.

    Args:
        video_embeddings: (B, D); row i comes from the same pair as row i of the text.
        text_embeddings: (B, D).
        temperature: divides the dot products; the paper's is 1.

    Returns:
        Scalar: the sum (not the mean) of the two cross-entropies, each a mean over the batch.

    Raises:
        ValueError: if the shapes differ or the temperature is not positive and finite.

    References:
        https://arxiv.org/abs/2109.14084, equations 1 to 3.
    """
    check_pairs(video_embeddings, text_embeddings)
    own = torch.arange(len(video_embeddings), device=video_embeddings.device)
    return info_nce(text_embeddings, video_embeddings, own, temperature, both_ways=True)


def check_pairs(video_embeddings: Tensor, text_embeddings: Tensor) -> None:
    """Refuse embeddings that do not pair row by row."""
    if video_embeddings.shape != text_embeddings.shape:
        raise ValueError(
            "video and text embeddings must pair row by row, "
            f"got {tuple(video_embeddings.shape)} and {tuple(text_embeddings.shape)} "
            "(task.clip_sampling=bag needs criterion=mil_nce)"
        )


def check_temperature(temperature: float) -> None:
    """Refuse a temperature by which nothing can be divided."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"criterion.temperature is {temperature}: it must be positive and finite")


class Candidates(NamedTuple):
    """What the rows of this process are compared with: the batch's own rows, or those of all processes in their order."""

    video: Tensor  #: (C, D)
    text: Tensor  #: (C * K, D), K texts of each video (data/pairs.py)
    first: int  #: where this process's first video stands among them


@torch.no_grad()
def in_batch_accuracy(
    video_embeddings: Tensor, text_embeddings: Tensor, candidates: Candidates | None = None
) -> tuple[Tensor, Tensor]:
    """How many texts rank their own video first, and how many videos one of their own texts.

    Args:
        video_embeddings: (B, D).
        text_embeddings: (B * K, D), K texts of each video (data/pairs.py); of these the first number is the mean of K.
        candidates: what they are compared with; by default one another.
    """
    videos, texts, first = candidates or Candidates(video_embeddings, text_embeddings, 0)
    texts_each = len(text_embeddings) // len(video_embeddings)
    own = first + torch.arange(len(video_embeddings), device=video_embeddings.device)
    from_texts = similarity(text_embeddings, videos)  # (B * K, C)
    to_videos = from_texts if videos is video_embeddings else similarity(texts, video_embeddings)  # (C * K, B)
    text_hits = from_texts.argmax(1) == own.repeat_interleave(texts_each)
    video_hits = to_videos.argmax(0) // texts_each == own
    return text_hits.sum() / texts_each, video_hits.sum()


class GatherRows(torch.autograd.Function):
    """The rows of all processes, in their order; each row's gradient is the sum of what all processes' losses give it."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        """(B, D) of this process to (processes x B, D); every process must bring equally many rows."""
        ctx.rows = len(local)
        parts = [torch.empty_like(local) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """This process's rows of the summed gradient."""
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        return gradient[torch.distributed.get_rank() * ctx.rows :][: ctx.rows]


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

    def check_model(self, model: torch.nn.Module) -> None:
        """Refuse a model whose logits are scaled otherwise than this loss takes them; called before training.

        Raises:
            ValueError: naming the settings that exclude one another.
        """
        learns_scale, learns_bias = (getattr(model, name, None) is not None for name in LEARNED_LOGITS)
        if learns_scale and self.temperature != 1:
            raise ValueError(
                f"model.logit_scale learns what criterion.temperature={self.temperature} would fix: leave one of the two out"
            )
        if learns_bias:
            raise ValueError(
                f"model.logit_bias is read by criterion sigmoid alone, not by {type(self).__name__}, whose loss no summand "
                "of all logits changes: leave it out"
            )
        if getattr(model, "normalize", False) and not learns_scale and self.temperature >= 1:
            logger.warning(
                f"model.normalize with criterion.temperature={self.temperature}: cosines lie between -1 and 1, so that the "
                "loss cannot fall far; set model.logit_scale=true, or a temperature of about 0.07"
            )

    def loss(self, video: Tensor, text: Tensor, candidates: Candidates) -> Tensor:
        """The loss of this process's embeddings; other losses with the same inputs replace this alone."""
        if candidates.video is video:  # both directions share their dot products
            return symmetric_info_nce(video, text, self.temperature)
        check_pairs(video, text)
        own = candidates.first + torch.arange(len(video), device=video.device)
        from_text = info_nce(text, candidates.video, own, self.temperature)
        return from_text + info_nce(video, candidates.text, own, self.temperature)

    def forward(self, model: torch.nn.Module, sample: dict[str, Any], reduce: bool = True) -> tuple[Tensor, int, dict]:
        """Loss of one batch of pairs.

        Returns:
            The loss; a sample size of 1, for the loss is a mean already and batches weigh the same; values to log.
        """
        output = model(**sample["net_input"])
        with outside_autocast(output["video_embeddings"]):  # and in float32, whatever the model's precision
            video, text = output["video_embeddings"].float(), output["text_embeddings"].float()
            if "logit_scale" in output:  # on one side: then it scales all similarities
                video = video * output["logit_scale"].float()
            candidates = Candidates(video, text, 0)
            if self.gather and self.training:  # validation's batches differ in size, and its loss not by processes
                first = torch.distributed.get_rank() * len(video)
                candidates = Candidates(GatherRows.apply(video), GatherRows.apply(text), first)
            loss = self.loss(video, text, candidates)
            text_to_video, video_to_text = in_batch_accuracy(video, text, candidates)
        logging_output = {
            "loss": loss.detach() * sample["nsentences"],
            "text_to_video": text_to_video,
            "video_to_text": video_to_text,
            "nsentences": sample["nsentences"],
            "ntokens": sample["ntokens"],
            "sample_size": 1,
        }
        return loss, 1, logging_output

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


@dataclass
class DirectedContrastiveConfig(VideoTextContrastiveConfig):
    """Which way."""

    direction: ChoiceEnum(["text_to_video", "video_to_text"]) = field(  # type: ignore[valid-type]
        default="text_to_video", metadata={"help": "which side looks for the other among the batch's"}
    )


@register_criterion("directed_contrastive", dataclass=DirectedContrastiveConfig)
class DirectedContrastiveCriterion(VideoTextContrastiveCriterion):
    """InfoNCE in the one direction that a retrieval test asks for; to fine-tune."""

    def __init__(self, task: Any, temperature: float, gather: bool, direction: str) -> None:
        super().__init__(task, temperature, gather)
        self.from_text = str(direction) == "text_to_video"

    def loss(self, video: Tensor, text: Tensor, candidates: Candidates) -> Tensor:
        """One direction's cross-entropy."""
        check_pairs(video, text)
        own = candidates.first + torch.arange(len(video), device=video.device)
        queries, found = (text, candidates.video) if self.from_text else (video, candidates.text)
        return info_nce(queries, found, own, self.temperature)
