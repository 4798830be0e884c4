"""Fine-tuning on CrossTask: each step of the video's task is or is not shown in a second."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from fairseq import metrics
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from torch import Tensor


def step_binary_cross_entropy(frame_logits: Tensor, shown: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy of every step in the real seconds; seconds that two windows share count in both.

    Args:
        frame_logits: (W, T, steps), one row a window.
        shown: (W, T, steps), 1 where a step is shown, else 0.
        mask: (W, T) bool, True = real; at least one is.

    Returns:
        Scalar, a mean over the real seconds and the steps.
    """
    return F.binary_cross_entropy_with_logits(frame_logits[mask], shown[mask].to(frame_logits.dtype))


@register_criterion("step_binary_cross_entropy", dataclass=FairseqDataclass)
class StepBinaryCrossEntropyCriterion(FairseqCriterion):
    """On batches with `target` (W, T, steps), of any model that returns `frame_logits`."""

    def forward(self, model: torch.nn.Module, sample: dict[str, Any], reduce: bool = True) -> tuple[Tensor, int, dict]:
        """Loss of one video's windows.

        Returns:
            The loss; a sample size of 1, for the loss is a mean already and videos weigh the same; values to log.
        """
        logits = model(**sample["net_input"])["frame_logits"].float()
        loss = step_binary_cross_entropy(logits, sample["target"], sample["net_input"]["video_mask"])
        logging_output = {
            "loss": loss.detach(),
            "nsentences": sample["nsentences"],
            "ntokens": sample["ntokens"],
            "sample_size": 1,
        }
        return loss, 1, logging_output

    @staticmethod
    def reduce_metrics(logging_outputs: Sequence[dict[str, Any]]) -> None:
        """Average over videos."""
        videos, loss = (float(sum(out.get(key, 0) for out in logging_outputs)) for key in ("sample_size", "loss"))
        if videos:
            metrics.log_scalar("loss", loss / videos, videos, round=4)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All logged values are sums."""
        return True
