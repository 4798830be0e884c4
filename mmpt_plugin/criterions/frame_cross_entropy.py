"""Fine-tuning on COIN: every second of video is one of the frame classifier's classes."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from fairseq import metrics
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from torch import Tensor


def frame_cross_entropy(frame_logits: Tensor, classes: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of the real seconds; seconds that two windows share count in both.

    Args:
        frame_logits: (W, T, classes), one row a window.
        classes: (W, T) int64.
        mask: (W, T) bool, True = real; at least one is.

    Returns:
        Scalar, a mean over the real seconds.
    """
    return F.cross_entropy(frame_logits[mask], classes[mask])


@register_criterion("frame_cross_entropy", dataclass=FairseqDataclass)
class FrameCrossEntropyCriterion(FairseqCriterion):
    """On batches with `target` (W, T) classes, of any model that returns `frame_logits`."""

    def forward(self, model: torch.nn.Module, sample: dict[str, Any], reduce: bool = True) -> tuple[Tensor, int, dict]:
        """Loss of one video's windows.

        Returns:
            The loss; a sample size of 1, for the loss is a mean already and videos weigh the same; values to log.
        """
        mask, target = sample["net_input"]["video_mask"], sample["target"]
        logits = model(**sample["net_input"])["frame_logits"].float()
        loss = frame_cross_entropy(logits, target, mask)
        logging_output = {
            "loss": loss.detach(),
            "frames_right": (logits[mask].argmax(1) == target[mask]).sum(),
            "nsentences": sample["nsentences"],
            "ntokens": sample["ntokens"],
            "sample_size": 1,
        }
        return loss, 1, logging_output

    @staticmethod
    def reduce_metrics(logging_outputs: Sequence[dict[str, Any]]) -> None:
        """Average the loss over videos, the accuracy over seconds."""
        videos, frames, loss, right = (
            float(sum(output.get(key, 0) for output in logging_outputs))
            for key in ("sample_size", "ntokens", "loss", "frames_right")
        )
        if videos:
            metrics.log_scalar("loss", loss / videos, videos, round=4)
            metrics.log_scalar("frame_accuracy", right / frames, frames, round=3)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All logged values are sums."""
        return True
