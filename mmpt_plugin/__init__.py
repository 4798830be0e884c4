"""Video-text contrastive pre-training (VideoCLIP) as a plug-in for fairseq.

Importing the package registers its tasks, model, criterions and optimizers with fairseq.
"""

from mmpt_plugin import optimizers
from mmpt_plugin.inference import VideoClip
from mmpt_plugin.tasks import demo, finetuning, pretraining, zeroshot

__all__ = ["VideoClip", "demo", "finetuning", "optimizers", "pretraining", "zeroshot"]
__version__ = "0.1.0"
