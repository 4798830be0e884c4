"""The model as fairseq knows it: registered, built from hydra's settings, loaded from fairseq's checkpoints."""

from dataclasses import dataclass
from typing import Any

from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from torch import Tensor

from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.mmpt_checkpoint import with_our_names
from mmpt_plugin.models.videoclip import FRAME_CLASSIFIER, LEARNED_LOGITS, VideoClipModel


@dataclass
class FairseqVideoClipConfig(VideoClipConfig, FairseqDataclass):
    """The settings as hydra's."""


@register_model("videoclip", dataclass=FairseqVideoClipConfig)
class FairseqVideoClipModel(VideoClipModel, BaseFairseqModel):
    """The network with what fairseq calls."""

    @classmethod
    def build_model(cls, cfg: VideoClipConfig, task: Any = None) -> "FairseqVideoClipModel":
        """A model that starts from the BERT's weights."""
        return cls.from_backbone(cfg)

    def upgrade_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Called before loading: gives MMPT's parameters our names, in place.

        Where fine-tuning starts, the checkpoint has no frame classifier: the model keeps its new one. So it does with what
        it learns of its logits, where pre-training starts from a checkpoint without.
        """
        renamed = with_our_names(state_dict, self.cls_id, self.sep_id)
        new = {name: value for name, value in self.state_dict().items() if name in LEARNED_LOGITS}
        renamed = new | renamed
        if self.frame_classifier is not None:
            renamed = self.frame_classifier.state_dict(prefix=FRAME_CLASSIFIER) | renamed
        state_dict.clear()
        state_dict.update(renamed)
