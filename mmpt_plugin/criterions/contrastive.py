"""InfoNCE over the pairs of a batch: VideoCLIP's symmetric loss (paper, section 3.2), and one direction of it."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

import torch
import torch.nn.functional as F
from fairseq import metrics
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from torch import Tensor

from mmpt_plugin.bounds import check_bounds
from mmpt_plugin.criterions.false_negatives import are_near, overlaps, say_the_same, word_sets
from mmpt_plugin.models.precision import outside_autocast
from mmpt_plugin.models.similarity import similarity

logger = logging.getLogger(__name__)

FALSE_NEGATIVES = ("keep", "mask", "soft")
NO_SPANS = (
    "criterion.false_negatives is {}, but the batches do not tell which seconds of which video a clip is (`spans`, as those "
    "of pre-training do: data/pairs.py): set criterion.false_negatives=keep"
)


def info_nce(
    queries: Tensor,
    candidates: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    *,
    both_ways: bool = False,
    excluded: Tensor | None = None,
) -> Tensor:
    """The core of every contrastive loss here: each query should find its own candidate among all candidates.

    Args:
        queries: (Q, D). Embeddings are not normalised: raw dot products are compared.
        candidates: (C, D).
        targets: (Q,) int64, the row of each query's own candidate; or (Q, C), the share of each candidate in what is right
            for a query, of sum 1 (several positives: Khosla et al. 2020, https://arxiv.org/abs/2004.11362, equation 2).
        temperature: divides the dot products.
        both_ways: the candidates look for their queries as well, on the same dot products. Row i must pair with row i, and
            shares and exclusions be the same for (i, j) as for (j, i).
        excluded: (Q, C) bool, pairs that are no negatives either and are left out of the sums.

    Returns:
        Scalar: the mean cross-entropy of the queries, plus that of the candidates where both ways are wanted.

    Raises:
        ValueError: if the temperature is not positive and finite.
    """
    check_temperature(temperature)
    logits = similarity(queries, candidates) / temperature  # (Q, C)
    logits = left_out(logits, excluded)
    loss = F.cross_entropy(logits, targets)
    return loss + F.cross_entropy(logits.T, targets) if both_ways else loss


def left_out(logits: Tensor, excluded: Tensor | None) -> Tensor:
    """Logits with no weight where `excluded`, of the same shape; not infinite, which a share of 0 would make NaN."""
    return logits if excluded is None else logits.masked_fill(excluded, torch.finfo(logits.dtype).min)


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
    excluded: Tensor | None = None  #: (B, C) bool, pairs of the batch's rows with these that are no negatives
    shares: Tensor | None = None  #: (B, C), of these in what is right for each of the batch's rows; the sum is 1
    bias: Tensor | None = None  #: what the model adds to logits, if it learns such

    def targets(self, rows: int) -> Tensor:
        """What is right for the batch's rows: `shares`, or the place of each among the candidates."""
        if self.shares is not None:
            return self.shares
        return self.first + torch.arange(rows, device=self.video.device)


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
    videos, texts, first = (candidates or Candidates(video_embeddings, text_embeddings, 0))[:3]
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
        return rows_of_all(local)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """This process's rows of the summed gradient."""
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        return gradient[torch.distributed.get_rank() * ctx.rows :][: ctx.rows]


def rows_of_all(local: Tensor) -> Tensor:
    """The rows of all processes, in their order, of what needs no gradient."""
    parts = [torch.empty_like(local) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, local.contiguous())
    return torch.cat(parts)


@dataclass
class VideoTextContrastiveConfig(FairseqDataclass):
    """The paper's loss."""

    temperature: float = field(default=1.0, metadata={"help": "divides the dot products"})
    gather: bool = field(
        default=False, metadata={"help": "negatives from the batches of all processes; the paper's are of one GPU"}
    )
    false_negatives: ChoiceEnum(list(FALSE_NEGATIVES)) = field(  # type: ignore[valid-type]
        default="keep",
        metadata={
            "help": "clips of one video that overlap: negatives (keep, the paper's), left out (mask), or positives by the "
            "share of time that they have in common (soft)"
        },
    )
    near_seconds: float = field(
        default=0.0,
        metadata={"help": "with mask: so do clips with a smaller gap between them", "at_least": 0},
    )
    same_words: Optional[float] = field(
        default=None,
        metadata={
            "help": "with mask or soft: pairs whose texts share so much of their word pieces are left out; null: none",
            "above": 0,
            "at_most": 1,
        },
    )


@register_criterion("video_text_contrastive", dataclass=VideoTextContrastiveConfig)
class VideoTextContrastiveCriterion(FairseqCriterion):
    """Symmetric InfoNCE on the embeddings of any model that returns `video_embeddings` and `text_embeddings`."""

    def __init__(self, task: Any, cfg: VideoTextContrastiveConfig) -> None:
        super().__init__(task)
        check_temperature(cfg.temperature)  # now, not in the first update
        check_bounds(cfg, VideoTextContrastiveConfig, "criterion")
        self.temperature = cfg.temperature
        self.gather = cfg.gather and torch.distributed.is_available() and torch.distributed.is_initialized()
        self.false_negatives = str(cfg.false_negatives)
        self.near_seconds, self.same_words = cfg.near_seconds, cfg.same_words
        self.check_false_negatives()

    def check_false_negatives(self) -> None:
        """Refuse settings that would never be read."""
        unread = {"near_seconds": ("mask",), "same_words": ("mask", "soft")}
        for name, readers in unread.items():
            if getattr(self, name) and self.false_negatives not in readers:
                raise ValueError(
                    f"criterion.{name} is {getattr(self, name)}, which criterion.false_negatives={self.false_negatives} does "
                    f"not read: set that to {' or '.join(readers)}, or leave {name} out"
                )

    def check_model(self, model: torch.nn.Module) -> None:
        """Refuse a model whose logits are scaled otherwise than this loss takes them; called before training.

        Raises:
            ValueError: naming the settings that exclude one another.
        """
        learns_scale = self.check_scale(model)
        self.check_parts(model)
        if getattr(model, "logit_bias", None) is not None:
            raise ValueError(
                f"model.logit_bias is read by criterion sigmoid alone, not by {type(self).__name__}, whose loss no summand "
                "of all logits changes: leave it out"
            )
        if getattr(model, "normalize", False) and not learns_scale and self.temperature >= 1:
            logger.warning(
                f"model.normalize with criterion.temperature={self.temperature}: cosines lie between -1 and 1, so that the "
                "loss cannot fall far; set model.logit_scale=true, or a temperature of about 0.07"
            )

    def check_parts(self, model: torch.nn.Module) -> None:
        """Refuse a model that makes parts of clips, which this loss would not read."""
        if getattr(model, "clip_parts", 1) > 1:
            raise ValueError(
                f"model.clip_parts is {model.clip_parts}, which criterion choosing_parts alone reads, not "
                f"{type(self).__name__}: set it to 1"
            )

    def video_side(self, output: dict[str, Tensor]) -> Tensor:
        """What of a model's output stands for the clips: (B, D)."""
        return output["video_embeddings"]

    def check_scale(self, model: torch.nn.Module) -> bool:
        """Refuse a scale that is both learned and fixed; whether it is learned."""
        learned = getattr(model, "logit_scale", None) is not None
        if learned and self.temperature != 1:
            raise ValueError(
                f"model.logit_scale learns what criterion.temperature={self.temperature} would fix: leave one of the two out"
            )
        return learned

    def loss(self, video: Tensor, text: Tensor, candidates: Candidates) -> Tensor:
        """The loss of this process's embeddings; other losses with the same inputs replace this alone."""
        plain = candidates.shares is None and candidates.excluded is None
        if candidates.video is video and plain:  # both directions share their dot products
            return symmetric_info_nce(video, text, self.temperature)
        check_pairs(video, text)
        right, excluded = candidates.targets(len(video)), candidates.excluded
        from_text = info_nce(text, candidates.video, right, self.temperature, excluded=excluded)
        return from_text + info_nce(video, candidates.text, right, self.temperature, excluded=excluded)

    def relate(self, sample: dict[str, Any], candidates: Candidates) -> Candidates:
        """The candidates with what is known of false negatives among them.

        Raises:
            ValueError: if the batch does not tell where its clips come from.
        """
        if self.false_negatives == "keep":
            return candidates
        if "spans" not in sample:
            raise ValueError(NO_SPANS.format(self.false_negatives))
        joined = len(candidates.video) > sample["nsentences"]
        spans = sample["spans"]
        others = rows_of_all(spans) if joined else spans
        own = candidates.first + torch.arange(len(spans), device=spans.device)
        is_own = torch.nn.functional.one_hot(own, len(others)).bool()
        excluded = torch.zeros_like(is_own)
        shares = None
        if self.false_negatives == "mask":
            excluded = are_near(spans, others, self.near_seconds)
        else:
            shares = overlaps(spans, others)
        if self.same_words is not None:
            inputs = sample["net_input"]
            sets = word_sets(inputs["text_ids"], inputs["text_lengths"])
            excluded = excluded | say_the_same(sets, rows_of_all(sets) if joined else sets, self.same_words)
        excluded = excluded & ~is_own
        if shares is not None:
            shares = shares.masked_fill(excluded, 0).masked_fill(is_own, 1)
            shares = shares / shares.sum(1, keepdim=True)
        return candidates._replace(excluded=excluded, shares=shares)

    def forward(self, model: torch.nn.Module, sample: dict[str, Any], reduce: bool = True) -> tuple[Tensor, int, dict]:
        """Loss of one batch of pairs.

        Returns:
            The loss; a sample size of 1, for the loss is a mean already and batches weigh the same; values to log.
        """
        output = model(**sample["net_input"])
        with outside_autocast(output["video_embeddings"]):  # and in float32, whatever the model's precision
            video, text = self.video_side(output).float(), output["text_embeddings"].float()
            if "logit_scale" in output:  # on one side: then it scales all similarities
                video = video * output["logit_scale"].float()
            candidates = Candidates(video, text, 0)
            if self.gather and self.training:  # validation's batches differ in size, and its loss not by processes
                first = torch.distributed.get_rank() * len(video)
                candidates = Candidates(GatherRows.apply(video), GatherRows.apply(text), first)
            candidates = self.relate(sample, candidates)._replace(bias=output.get("logit_bias"))
            loss = self.loss(video, text, candidates)
            if video.dim() == 3:  # accuracies are of whole clips
                video, candidates = video[:, 0], candidates._replace(video=candidates.video[:, 0])
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

    def __init__(self, task: Any, cfg: DirectedContrastiveConfig) -> None:
        super().__init__(task, cfg)
        self.from_text = str(cfg.direction) == "text_to_video"

    def loss(self, video: Tensor, text: Tensor, candidates: Candidates) -> Tensor:
        """One direction's cross-entropy."""
        check_pairs(video, text)
        queries, found = (text, candidates.video) if self.from_text else (video, candidates.text)
        targets = candidates.targets(len(video))
        return info_nce(queries, found, targets, self.temperature, excluded=candidates.excluded)
