"""Pre-training on a generated small world: the embedded default, which needs no download."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairseq.tasks import register_task

from demo.corpus import write_demo_corpus
from demo.world import DemoWorld
from mmpt_plugin.runs.processes import check_launch, wait_for_all, world
from mmpt_plugin.tasks.pretraining import VideoClipPretrainingConfig, VideoClipPretrainingTask


@dataclass
class VideoClipDemoConfig(VideoClipPretrainingConfig):
    """Pre-training, and the world to do it in."""

    world_seed: int = field(default=1, metadata={"help": "of the generated world"})
    family_cue: float = field(default=1.5, metadata={"help": "strength of the cue that videos of a family share"})


@register_task("videoclip_demo", dataclass=VideoClipDemoConfig)
class VideoClipDemoTask(VideoClipPretrainingTask):
    """Writes its corpus and its BERT to `task.data` on the first run, then pre-trains."""

    @classmethod
    def setup_task(cls, cfg: VideoClipDemoConfig, from_checkpoint: bool = False, **kwargs: Any) -> "VideoClipDemoTask":
        """Called by fairseq; `from_checkpoint` tells that only a model is wanted, for which nothing is written.

        Raises:
            ValueError: if `task.data` holds another world.
        """
        if from_checkpoint:
            return cls(cfg)
        check_launch()
        if world()[0] == 0:
            write_demo_corpus(Path(cfg.data), DemoWorld(seed=cfg.world_seed, family_cue=cfg.family_cue))
        wait_for_all()
        return super().setup_task(cfg, **kwargs)
