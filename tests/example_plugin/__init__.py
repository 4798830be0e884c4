"""A plug-in of one's own on top of mmpt_plugin: a task, a model and a criterion (docs/extending.md)."""

from dataclasses import dataclass, field

import numpy as np
import torch
from fairseq.criterions import register_criterion
from fairseq.models import BaseFairseqModel, register_model
from fairseq.tasks import register_task

from mmpt_plugin.criterions.contrastive import VideoTextContrastiveConfig, VideoTextContrastiveCriterion
from mmpt_plugin.models.fairseq_model import FairseqVideoClipConfig
from mmpt_plugin.tasks.pretraining import VideoClipPretrainingConfig, VideoClipPretrainingTask


@dataclass
class WordDropoutConfig(VideoClipPretrainingConfig):
    word_dropout: float = field(default=0.1, metadata={"help": "share of word pieces that training leaves out"})


@register_task("word_dropout", dataclass=WordDropoutConfig)
class WordDropoutTask(VideoClipPretrainingTask):
    """Our data, with some words left out."""

    def train_step(self, sample, model, *args, **kwargs):
        inputs = sample["net_input"]
        ids, ends = inputs["text_ids"], np.cumsum(inputs["text_lengths"])
        firsts = ends - inputs["text_lengths"]
        kept = torch.rand(len(ids)).numpy() >= self.cfg.word_dropout  # on the host: no GPU is waited for
        kept[firsts] = kept[ends - 1] = True  # [CLS] and [SEP]
        inputs["text_ids"] = ids.index_select(0, torch.from_numpy(np.flatnonzero(kept)).to(ids.device))
        inputs["text_lengths"] = np.add.reduceat(kept, firsts, dtype=np.int64)
        return super().train_step(sample, model, *args, **kwargs)


@register_model("bag_of_words", dataclass=FairseqVideoClipConfig)
class BagOfWords(BaseFairseqModel):
    """Means of projected features and of word vectors: any model that returns the two embeddings will do."""

    def __init__(self, feature_size: int, pieces: int, width: int = 16) -> None:
        super().__init__()
        self.video, self.words = torch.nn.Linear(feature_size, width), torch.nn.Embedding(pieces, width)

    @classmethod
    def build_model(cls, cfg, task):
        return cls(cfg.feature_size, len(task.vocabulary))

    def forward(self, video_features, video_lengths, text_ids, text_lengths):
        seconds, words = self.video(video_features.to(self.video.weight)), self.words(text_ids)
        means = [
            torch.stack([own.sum(0) / max(len(own), 1) for own in states.split(lengths.tolist())])
            for states, lengths in ((seconds, video_lengths), (words, text_lengths))
        ]
        return {"video_embeddings": means[0], "text_embeddings": means[1]}


@register_criterion("sigmoid_contrastive", dataclass=VideoTextContrastiveConfig)
class SigmoidCriterion(VideoTextContrastiveCriterion):
    """Each pair of the batch is a yes or no of its own (Zhai et al. 2023, https://arxiv.org/abs/2303.15343)."""

    def forward(self, model, sample, reduce=True):
        output = model(**sample["net_input"])
        logits = output["text_embeddings"].float() @ output["video_embeddings"].float().T / self.temperature
        signs = 2 * torch.eye(len(logits), device=logits.device) - 1
        loss = -torch.nn.functional.logsigmoid(signs * logits).sum(1).mean()
        counts = {name: sample[name] for name in ("nsentences", "ntokens")}
        return loss, 1, {"loss": loss.detach() * counts["nsentences"], "sample_size": 1, **counts}
