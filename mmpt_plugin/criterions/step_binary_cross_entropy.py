"""Fine-tuning on CrossTask: each step of the video's task is or is not shown in a second."""

import torch.nn.functional as F
from fairseq.criterions import register_criterion
from fairseq.dataclass import FairseqDataclass
from torch import Tensor

from mmpt_plugin.criterions.frame_criterion import FrameCriterion


@register_criterion("step_binary_cross_entropy", dataclass=FairseqDataclass)
class StepBinaryCrossEntropyCriterion(FrameCriterion):
    """On batches with `target` (S, steps), 1 where a step is shown, else 0."""

    def frame_loss(self, frame_logits: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy of the steps, each by itself."""
        return F.binary_cross_entropy_with_logits(frame_logits, target.to(frame_logits.dtype))
