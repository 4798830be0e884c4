"""VideoCLIP (Xu et al., EMNLP 2021, https://arxiv.org/abs/2109.14084) as a registered fairseq model."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmpt_plugin.models import bert
from mmpt_plugin.models.checkpoint import model_settings, read_checkpoint
from mmpt_plugin.models.encoders import TextEncoder, VideoEncoder
from mmpt_plugin.models.mmpt_checkpoint import from_mmpt, is_mmpt
from mmpt_plugin.models.pooling import mean_pooling

logger = logging.getLogger(__name__)

DEFAULT_BERT = "bert-base-uncased"


@dataclass
class VideoClipConfig(FairseqDataclass):
    """The paper's set-up."""

    bert: str = field(
        default=DEFAULT_BERT,
        metadata={
            "help": "BERT to start from: a folder (config.json, vocab.txt, weights) or a hub name; "
            "empty, in evaluation only: the checkpoint's own"
        },
    )
    video_layers: int = field(default=6, metadata={"help": "first layers of the BERT that make the video tower"})
    feature_size: int = field(default=512, metadata={"help": "width of the video features (S3D: 512)"})
    max_video_seconds: int = field(
        default=32, metadata={"help": "longest clip; the video's [SEP] follows this position"}
    )
    max_text_pieces: int = field(default=61, metadata={"help": "most word pieces of a text, without [CLS] and [SEP]"})
    chunk_pairs: int = field(
        default=0,
        metadata={
            "help": "run the towers on so many pairs at a time, to train large batches in little memory; 0: on all"
        },
    )


@register_model("videoclip", dataclass=VideoClipConfig)
class VideoClipModel(BaseFairseqModel):
    """Two towers whose embeddings are compared by their dot product."""

    def __init__(
        self, video_encoder: VideoEncoder, text_encoder: TextEncoder, cls_id: int, sep_id: int, chunk_pairs: int = 0
    ) -> None:
        super().__init__()
        self.chunk_pairs = chunk_pairs
        self.video_encoder = video_encoder
        self.text_encoder = text_encoder
        self.cls_id, self.sep_id = cls_id, sep_id

    @classmethod
    def build_model(cls, cfg: VideoClipConfig, task: Any = None) -> "VideoClipModel":
        """Called by fairseq: a model that starts from the BERT's weights."""
        model = cls.from_config(cfg)
        bert.initialise_text(model.text_encoder.transformer, cfg.bert)
        bert.initialise_video(
            model.video_encoder.transformer, model.text_encoder.transformer, model.cls_id, model.sep_id
        )
        return model

    @classmethod
    def from_config(cls, cfg: VideoClipConfig | DictConfig) -> "VideoClipModel":
        """A model with random weights, into which a checkpoint can be loaded.

        Raises:
            ValueError: if the BERT is missing or does not fit the other settings.
        """
        bert_config, tokenizer = bert.load_config(cfg.bert), bert.load_tokenizer(cfg.bert)
        longest = max(cfg.max_video_seconds, cfg.max_text_pieces) + 2
        if bert_config.max_position_embeddings < longest:
            raise ValueError(
                f"model.bert: {cfg.bert!r} has {bert_config.max_position_embeddings} positions; "
                f"model.max_video_seconds and model.max_text_pieces need {longest}"
            )
        return cls(
            VideoEncoder(
                bert.video_transformer(bert_config, cfg.video_layers), cfg.feature_size, cfg.max_video_seconds
            ),
            TextEncoder(bert.text_transformer(bert_config), cfg.max_text_pieces),
            cls_id=tokenizer.cls_token_id,
            sep_id=tokenizer.sep_token_id,
            chunk_pairs=cfg.chunk_pairs,
        )

    def encode_video(
        self,
        video_features: Tensor,
        video_mask: Tensor,
        attend_to_cls: bool = True,
        return_hidden_states: bool = False,
    ) -> Tensor:
        """Embed clips.

        Args:
            video_features: (B, T, feature_size), one row a second, T <= max_video_seconds.
            video_mask: (B, T) bool, True = real; a clip may have no second at all.
            attend_to_cls: False keeps the tokens from attending to [CLS], as the original's COIN and CrossTask do.
            return_hidden_states: give the states per token instead: [CLS], seconds, [SEP], then zeros.

        Returns:
            (B, D), or (B, T + 2, D) hidden states.
        """
        hidden_states, mask = self.video_encoder(video_features, video_mask, attend_to_cls)
        return hidden_states if return_hidden_states else mean_pooling(hidden_states, mask)

    def encode_text(self, text_ids: Tensor, text_mask: Tensor, return_hidden_states: bool = False) -> Tensor:
        """Embed texts.

        Args:
            text_ids: (B, L) int64, [CLS] pieces [SEP] [PAD]*.
            text_mask: (B, L) bool, True = real.
            return_hidden_states: give the states per token instead, zero where padded.

        Returns:
            (B, D), or (B, L, D) hidden states.
        """
        hidden_states, mask = self.text_encoder(text_ids, text_mask)
        return hidden_states if return_hidden_states else mean_pooling(hidden_states, mask)

    def forward(
        self, video_features: Tensor, video_mask: Tensor, text_ids: Tensor, text_mask: Tensor
    ) -> dict[str, Tensor]:
        """Embed a batch of pairs (data/pairs.py): video_embeddings and text_embeddings, both (B, D).

        With `chunk_pairs`, training keeps no activations of the towers: each chunk is run again, with the same dropout, when
        its gradient is wanted. The loss still sees all pairs, so gradients are those of the whole batch
        (Gao et al. 2021, https://arxiv.org/abs/2101.06983; here by torch's checkpointing).
        """
        if not (self.chunk_pairs and torch.is_grad_enabled()):
            return {
                "video_embeddings": self.encode_video(video_features, video_mask),
                "text_embeddings": self.encode_text(text_ids, text_mask),
            }
        return {
            "video_embeddings": self._in_chunks(self.encode_video, video_features, video_mask),
            "text_embeddings": self._in_chunks(self.encode_text, text_ids, text_mask),
        }

    def _in_chunks(self, encode: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """`encode` on chunks of the inputs' rows, each recomputed in the backward pass."""
        chunks = zip(*(tensor.split(self.chunk_pairs) for tensor in inputs))
        return torch.cat([checkpoint(encode, *chunk, use_reentrant=False) for chunk in chunks])

    def upgrade_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Called by fairseq before loading: gives MMPT's parameters our names, in place."""
        if is_mmpt(state_dict):
            renamed = from_mmpt(state_dict, self.cls_id, self.sep_id)
            state_dict.clear()
            state_dict.update(renamed)

    def check_state_dict(self, state_dict: dict[str, Tensor], source: str) -> None:
        """Refuse parameters that do not fit this model.

        Raises:
            ValueError: listing the missing, the unknown and those of another shape.
        """
        own, given = self.state_dict(), dict(state_dict)
        self.upgrade_state_dict(given)
        problems = {
            "missing": sorted(own.keys() - given.keys()),
            "unknown": sorted(given.keys() - own.keys()),
            "of another shape": [
                f"{key} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
                for key in sorted(own.keys() & given.keys())
                if own[key].shape != given[key].shape
            ],
        }
        if any(problems.values()):
            listing = "; ".join(
                f"{len(keys)} {problem}: {', '.join(keys)}" for problem, keys in problems.items() if keys
            )
            raise ValueError(f"{source} does not fit the model: {listing}. Check model.bert and model.video_layers")


def checkpoint_config(path: Path, content: dict[str, Any], bert_name: str | None = None) -> VideoClipConfig:
    """The model settings to load a checkpoint with.

    Args:
        path: where the checkpoint lies; a folder `bert` beside it is preferred to the recorded path.
        content: as read by `read_checkpoint`.
        bert_name: overrides the checkpoint's own `model.bert`; MMPT's files record none that can be used.
    """
    settings = model_settings(content)
    settings.pop("_name", None)
    beside = path.parent / "bert"
    recorded = str(beside) if settings and (beside / "config.json").is_file() else settings.get("bert", DEFAULT_BERT)
    return VideoClipConfig(**settings | {"bert": bert_name or recorded})


def load_videoclip(path: str | Path, bert_name: str | None = None) -> tuple[VideoClipModel, VideoClipConfig]:
    """A model with the weights of a checkpoint, ours or MMPT's, in evaluation mode and float32.

    Raises:
        FileNotFoundError, ValueError: if the file is missing, unsafe, or does not fit.
    """
    path = Path(path)
    content = read_checkpoint(path)
    cfg = checkpoint_config(path, content, bert_name)
    model = VideoClipModel.from_config(cfg)
    model.check_state_dict(content["model"], str(path))
    model.load_state_dict({key: value.float() for key, value in content["model"].items() if torch.is_tensor(value)})
    return model.eval(), cfg
