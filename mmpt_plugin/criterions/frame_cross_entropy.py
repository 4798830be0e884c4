"""Fine-tuning on COIN: every second of video is one of the frame classifier's classes."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from fairseq import metrics
from fairseq.criterions import register_criterion
from fairseq.dataclass import FairseqDataclass
from torch import Tensor

from mmpt_plugin.criterions.frame_criterion import FrameCriterion


@register_criterion("frame_cross_entropy", dataclass=FairseqDataclass)
class FrameCrossEntropyCriterion(FrameCriterion):
    """On batches with `target` (S,) classes."""

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
