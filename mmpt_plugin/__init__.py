"""Video-text contrastive pre-training (VideoCLIP) as a plug-in for fairseq.

Importing the package registers its tasks, model, criterion and optimizer with fairseq.
"""

from mmpt_plugin.inference import VideoClip
from mmpt_plugin.tasks import demo, pretraining, zeroshot

__all__ = ["VideoClip", "demo", "pretraining", "zeroshot"]
__version__ = "0.1.0"
