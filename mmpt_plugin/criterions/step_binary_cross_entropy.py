"""Fine-tuning on CrossTask: each step of the video's task is or is not shown in a second."""

import torch.nn.functional as F
from fairseq.criterions import register_criterion
from fairseq.dataclass import FairseqDataclass
from torch import Tensor

from mmpt_plugin.criterions.frame_criterion import FrameCriterion


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
class StepBinaryCrossEntropyCriterion(FrameCriterion):
    """On batches with `target` (W, T, steps)."""

    def frame_loss(self, frame_logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """As the function."""
        return step_binary_cross_entropy(frame_logits, target, mask)
