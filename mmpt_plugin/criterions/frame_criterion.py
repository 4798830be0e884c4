"""What the criterions over the seconds of labelled videos share."""

from collections.abc import Sequence
from typing import Any

import torch
from fairseq import metrics
from fairseq.criterions import FairseqCriterion
from torch import Tensor


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
        logits = model(**sample["net_input"])["frame_logits"].float()
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
