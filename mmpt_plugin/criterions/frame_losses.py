"""Losses over the seconds of labelled videos: to fine-tune on COIN (classes) and on CrossTask (steps)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from fairseq import metrics
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from torch import Tensor

from mmpt_plugin.models.precision import outside_autocast


class FrameCriterion(FairseqCriterion):
    """On batches of one video's windows with a `target`, of any model that returns `frame_logits` (S, classes).

    S are the seconds of all windows, at least one; those that two windows share count in both.
    """

    def frame_loss(self, frame_logits: Tensor, target: Tensor) -> Tensor:
        """A mean over the seconds."""
        raise NotImplementedError

    def counts(self, frame_logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Further sums over the seconds to log."""
        return {}

    def forward(self, model: torch.nn.Module, sample: dict[str, Any], reduce: bool = True) -> tuple[Tensor, int, dict]:
        """Loss of one video's windows.

        Returns:
            The loss; a sample size of 1, for the loss is a mean already and videos weigh the same; values to log.
        """
        target = sample["target"]
        logits = model(**sample["net_input"])["frame_logits"]
        with outside_autocast(logits):
            logits = logits.float()
            loss = self.frame_loss(logits, target)
        logging_output = {
            "loss": loss.detach(),
            **self.counts(logits, target),
            "nsentences": sample["nsentences"],
            "ntokens": sample["ntokens"],
            "sample_size": 1,
        }
        return loss, 1, logging_output

    @staticmethod
    def reduce_metrics(logging_outputs: Sequence[dict[str, Any]]) -> None:
        """Average the loss over videos."""
        videos, loss = (float(sum(out.get(key, 0) for out in logging_outputs)) for key in ("sample_size", "loss"))
        if videos:
            metrics.log_scalar("loss", loss / videos, videos, round=4)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All logged values are sums."""
        return True


@register_criterion("frame_cross_entropy", dataclass=FairseqDataclass)
class FrameCrossEntropyCriterion(FrameCriterion):
    """Every second is one of the frame classifier's classes: batches with `target` (S,) classes."""

    def frame_loss(self, frame_logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of the seconds' classes."""
        return F.cross_entropy(frame_logits, target)

    def counts(self, frame_logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Seconds whose class is the most likely one."""
        return {"frames_right": (frame_logits.argmax(1) == target).sum()}

    @staticmethod
    def reduce_metrics(logging_outputs: Sequence[dict[str, Any]]) -> None:
        """Average the loss over videos, the accuracy over seconds."""
        FrameCriterion.reduce_metrics(logging_outputs)
        frames, right = (float(sum(out.get(key, 0) for out in logging_outputs)) for key in ("ntokens", "frames_right"))
        if frames:
            metrics.log_scalar("frame_accuracy", right / frames, frames, round=3)


@register_criterion("step_binary_cross_entropy", dataclass=FairseqDataclass)
class StepBinaryCrossEntropyCriterion(FrameCriterion):
    """Each step of the video's task is or is not shown in a second: batches with `target` (S, steps), 1 where it is."""

    def frame_loss(self, frame_logits: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy of the steps, each by itself."""
        return F.binary_cross_entropy_with_logits(frame_logits, target.to(frame_logits.dtype))
