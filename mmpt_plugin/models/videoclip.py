"""VideoCLIP (Xu et al., EMNLP 2021, https://arxiv.org/abs/2109.14084) as a registered fairseq model."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, List, Optional  # noqa: UP035 (no other list on fairseq's command line)

import numpy as np
import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmpt_plugin.models import bert
from mmpt_plugin.models.checkpoint import model_settings, read_checkpoint
from mmpt_plugin.models.encoders import TextEncoder, VideoEncoder
from mmpt_plugin.models.mmpt_checkpoint import from_mmpt, is_mmpt
from mmpt_plugin.models.packing import length_mask, on_device
from mmpt_plugin.models.pooling import POOLING
from mmpt_plugin.models.precision import outside_autocast

logger = logging.getLogger(__name__)

DEFAULT_BERT = "bert-base-uncased"
FRAME_CLASSIFIER = "frame_classifier."  # prefix of its parameters


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
    video_layers: Optional[int] = field(
        default=6, metadata={"help": "first layers of the BERT that make the video tower; null: all"}
    )
    shared_encoder: bool = field(
        default=False, metadata={"help": "one transformer for both, video of token type 0 and text of 1"}
    )
    pooling: ChoiceEnum(list(POOLING)) = field(  # type: ignore[valid-type]
        default="mean", metadata={"help": "embedding: mean over tokens and [SEP], or the state of [CLS]"}
    )
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
    frame_labels: List[int] = field(  # noqa: UP006
        default_factory=list,
        metadata={"help": "label ids of the frame classifier, as fine-tuning found them; none: no classifier"},
    )


@register_model("videoclip", dataclass=VideoClipConfig)
class VideoClipModel(BaseFairseqModel):
    """Two towers whose embeddings are compared by their dot product."""

    def __init__(
        self,
        video_encoder: VideoEncoder,
        text_encoder: TextEncoder,
        cls_id: int,
        sep_id: int,
        chunk_pairs: int = 0,
        frame_classes: int = 0,
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        self.chunk_pairs = chunk_pairs
        self.video_encoder = video_encoder
        self.text_encoder = text_encoder
        self.cls_id, self.sep_id = cls_id, sep_id
        self.pool = POOLING[pooling]
        self.frame_classifier = frame_classifier(video_encoder, frame_classes) if frame_classes else None

    @classmethod
    def build_model(cls, cfg: VideoClipConfig, task: Any = None) -> "VideoClipModel":
        """Called by fairseq: a model that starts from the BERT's weights."""
        model = cls.from_config(cfg)
        bert.initialise_text(model.text_encoder.transformer, cfg.bert)
        if not cfg.shared_encoder:
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
        first = bert.first_position(bert_config)
        longest = max(cfg.max_video_seconds, cfg.max_text_pieces) + 2
        if bert_config.max_position_embeddings - first < longest:
            raise ValueError(
                f"model.bert: {cfg.bert!r} has {bert_config.max_position_embeddings - first} positions; "
                f"model.max_video_seconds and model.max_text_pieces need {longest}"
            )
        special_ids = (tokenizer.cls_token_id, tokenizer.sep_token_id)
        if cfg.shared_encoder:
            bert.check_shareable(bert_config, cfg.video_layers)
            text = bert.new_transformer(bert_config)
            video_encoder = VideoEncoder(
                text, cfg.feature_size, cfg.max_video_seconds, special_ids, shared=True, first_position=first
            )
            text_encoder = TextEncoder(text, cfg.max_text_pieces, token_type=1)
        else:
            video = bert.video_transformer(bert_config, cfg.video_layers)
            video_encoder = VideoEncoder(video, cfg.feature_size, cfg.max_video_seconds, first_position=first)
            text_encoder = TextEncoder(bert.new_transformer(bert_config), cfg.max_text_pieces)
        return cls(
            video_encoder,
            text_encoder,
            *special_ids,
            chunk_pairs=cfg.chunk_pairs,
            pooling=str(cfg.pooling),
            frame_classes=len(cfg.frame_labels) + 1 if cfg.frame_labels else 0,  # background is a class of its own
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
            video_features: (B, T, feature_size), one row a second, T <= max_video_seconds; or (S, feature_size), the
                real ones alone, clip after clip.
            video_mask: (B, T) bool, True = real; a clip may have no second at all. On the host it costs a GPU no wait.
            attend_to_cls: False keeps the tokens from attending to [CLS], as the original's COIN and CrossTask do.
            return_hidden_states: give the states per token instead: [CLS], seconds, [SEP], then zeros.

        Returns:
            (B, D), or (B, T + 2, D) hidden states.
        """
        hidden_states, mask = self.video_encoder(video_features, video_mask, attend_to_cls)
        return hidden_states if return_hidden_states else self.pool(hidden_states, mask)

    def encode_text(self, text_ids: Tensor, text_mask: Tensor, return_hidden_states: bool = False) -> Tensor:
        """Embed texts.

        Args:
            text_ids: (B, L) int64, [CLS] pieces [SEP] [PAD]*; or (N,), the real ones alone, text after text.
            text_mask: (B, L) bool, True = real. On the host it costs a GPU no wait.
            return_hidden_states: give the states per token instead, zero where padded.

        Returns:
            (B, D), or (B, L, D) hidden states.
        """
        hidden_states, mask = self.text_encoder(text_ids, text_mask)
        return hidden_states if return_hidden_states else self.pool(hidden_states, mask)

    def forward(
        self,
        video_features: Tensor,
        video_lengths: NDArray[np.int64],
        text_ids: Tensor | None = None,
        text_lengths: NDArray[np.int64] | None = None,
        frames: bool = False,
    ) -> dict[str, Tensor]:
        """Embed a batch of pairs (data/pairs.py): video_embeddings and text_embeddings, both (B, D).

        With `frames` instead: frame_logits, as from `classify_frames`.

        With `chunk_pairs`, training keeps no activations of the towers: each chunk is run again, with the same dropout, when
        its gradient is wanted. The loss still sees all pairs, so gradients are those of the whole batch
        (Gao et al. 2021, https://arxiv.org/abs/2101.06983; here by torch's checkpointing).
        """
        if frames:
            return {"frame_logits": self.classify_frames(video_features, video_lengths, text_ids, text_lengths)}
        assert text_ids is not None and text_lengths is not None  # a pair has both sides
        return {
            "video_embeddings": self._embed(self.encode_video, video_features, video_lengths),
            "text_embeddings": self._embed(self.encode_text, text_ids, text_lengths),
        }

    def classify_frames(
        self,
        video_features: Tensor,
        video_lengths: NDArray[np.int64],
        text_ids: Tensor | None = None,
        text_lengths: NDArray[np.int64] | None = None,
    ) -> Tensor:
        """Logits of every second, among the frame classifier's classes or, if there are texts, among these.

        As the original does for COIN and CrossTask, [CLS] is not attended to, and a text's logit is the product of the
        second's state with the text's embedding.

        Args:
            video_features, video_lengths: windows of any videos (data/pairs.py).
            text_ids, text_lengths: K texts that all windows are compared with.

        Returns:
            (S, classes) with 0 for background, or (S, K); a row for each of the S seconds.
        """
        mask = length_mask(video_lengths)
        states = self.encode_video(video_features, mask, attend_to_cls=False, return_hidden_states=True)
        is_second = torch.nn.functional.pad(mask, (1, 1))  # [CLS] before them, and [SEP] or padding after them
        places = on_device(is_second.flatten().nonzero().squeeze(1), states.device)
        seconds = states.flatten(0, 1).index_select(0, places)
        texts = None
        if text_ids is not None and text_lengths is not None:
            texts = self.encode_text(text_ids, length_mask(text_lengths))
        with outside_autocast(seconds):
            if texts is not None:
                return seconds.float() @ texts.float().T
            assert self.frame_classifier is not None  # the task gave the model its labels
            weight, bias = self.frame_classifier.weight.float(), self.frame_classifier.bias.float()
            return torch.nn.functional.linear(seconds.float(), weight, bias)

    def _embed(self, encode: Callable[[Tensor, Tensor], Tensor], values: Tensor, lengths: NDArray[np.int64]) -> Tensor:
        """`encode` on what stands in `values`, in training by chunks that are recomputed in the backward pass."""
        if not (self.chunk_pairs and torch.is_grad_enabled()):
            return encode(values, length_mask(lengths))
        chunks = np.split(lengths, range(self.chunk_pairs, len(lengths), self.chunk_pairs))
        parts = values.split([int(chunk.sum()) for chunk in chunks])
        return torch.cat(
            [checkpoint(encode, part, length_mask(chunk), use_reentrant=False) for part, chunk in zip(parts, chunks)]
        )

    def upgrade_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Called by fairseq before loading: gives MMPT's parameters our names, in place.

        Where fine-tuning starts, the checkpoint has no frame classifier: the model keeps its new one.
        """
        self._rename(state_dict)
        if self.frame_classifier is not None:
            for key, value in self.frame_classifier.state_dict(prefix=FRAME_CLASSIFIER).items():
                state_dict.setdefault(key, value)

    def _rename(self, state_dict: dict[str, Tensor]) -> None:
        if is_mmpt(state_dict):
            renamed = from_mmpt(state_dict, self.cls_id, self.sep_id)
            state_dict.clear()
            state_dict.update(renamed)

    def check_state_dict(self, state_dict: dict[str, Tensor], source: str, new_classifier: bool = False) -> None:
        """Refuse parameters that do not fit this model.

        Args:
            state_dict: a checkpoint's parameters, ours or MMPT's.
            source: names the checkpoint in the message.
            new_classifier: the frame classifier is yet to be trained: no parameters are expected for it.

        Raises:
            ValueError: listing the missing, the unknown and those of another shape.
        """
        own, given = self.state_dict(), dict(state_dict)
        self._rename(given)
        if new_classifier:
            own = {key: value for key, value in own.items() if not key.startswith(FRAME_CLASSIFIER)}
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
            raise ValueError(
                f"{source} does not fit the model: {listing}. Check model.bert, model.video_layers and "
                "model.shared_encoder"
            )


def frame_classifier(video_encoder: VideoEncoder, classes: int) -> nn.Linear:
    """A linear layer from a second's state to classes, started as BERT starts its own."""
    config = video_encoder.transformer.config
    linear = nn.Linear(config.hidden_size, classes)
    nn.init.normal_(linear.weight, std=config.initializer_range)
    nn.init.zeros_(linear.bias)
    return linear


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
