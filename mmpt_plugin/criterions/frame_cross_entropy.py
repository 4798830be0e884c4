"""Fine-tuning on COIN: every second of video is one of the frame classifier's classes."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from fairseq import metrics
from fairseq.criterions import register_criterion
from fairseq.dataclass import FairseqDataclass
from torch import Tensor

from mmpt_plugin.criterions.frame_criterion import FrameCriterion


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
class FrameCrossEntropyCriterion(FrameCriterion):
    """On batches with `target` (W, T) classes."""

    def frame_loss(self, frame_logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """As the function."""
        return frame_cross_entropy(frame_logits, target, mask)

    def counts(self, frame_logits: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Seconds whose class is the most likely one."""
        return {"frames_right": (frame_logits[mask].argmax(1) == target[mask]).sum()}

    @staticmethod
    def reduce_metrics(logging_outputs: Sequence[dict[str, Any]]) -> None:
        """Average the loss over videos, the accuracy over seconds."""
        FrameCriterion.reduce_metrics(logging_outputs)
        frames, right = (float(sum(out.get(key, 0) for out in logging_outputs)) for key in ("ntokens", "frames_right"))
        if frames:
            metrics.log_scalar("frame_accuracy", right / frames, frames, round=3)
