"""The registered fairseq tasks. Importing them registers all that this package adds to fairseq."""

from mmpt_plugin.extras import naming_extras

with naming_extras("train", "training or evaluation by fairseq"):
    from mmpt_plugin import optimizers
    from mmpt_plugin.models import fairseq_model
    from mmpt_plugin.tasks import finetuning, own_videos, pretraining, zeroshot

__all__ = ["fairseq_model", "finetuning", "optimizers", "own_videos", "pretraining", "zeroshot"]
