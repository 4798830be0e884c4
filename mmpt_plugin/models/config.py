"""The model's settings, with the paper's values as defaults."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, List, Optional, get_args  # noqa: UP035 (no other list on fairseq's command line)

from mmpt_plugin.bounds import check_bounds
from mmpt_plugin.models.pooling import POOLING

DEFAULT_BERT = "bert-base-uncased"
MOST_FEATURES = 2**16  # of a clip


@dataclass
class VideoClipConfig:
    """What the network is made of; `model.*` on the command line."""

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
    freeze_text: bool = field(
        default=False, metadata={"help": "keep the text tower's weights as they come, and train without its dropout"}
    )
    shared_encoder: bool = field(
        default=False, metadata={"help": "one transformer for both, video of token type 0 and text of 1"}
    )
    pooling: str = field(
        default="mean", metadata={"help": "embedding: mean over tokens and [SEP], or (cls) the state of [CLS]"}
    )
    normalize: bool = field(
        default=False,
        metadata={"help": "embeddings of length 1, compared by their cosine; false: dot products, as the paper's"},
    )
    logit_scale: bool = field(
        default=False,
        metadata={"help": "a learned factor of the similarities in the losses, from 1 / 0.07 to at most 100 (CLIP)"},
    )
    logit_bias: Optional[float] = field(
        default=None,
        metadata={
            "help": "a learned summand of the scaled similarities starts here, for criterion sigmoid; null: none"
        },
    )
    clip_parts: int = field(
        default=1,
        metadata={
            "help": "equal parts of a clip among which a text may choose in training, for criterion choosing_parts; 1: none",
            "at_least": 1,
            "at_most": 64,
        },
    )
    feature_size: int = field(
        default=512, metadata={"help": "width of the video features (S3D: 512)", "at_least": 1, "at_most": 2**16}
    )
    max_video_seconds: int = field(
        default=32,
        metadata={"help": "longest clip; the video's [SEP] follows this position", "at_least": 1, "at_most": 2**16},
    )
    features_per_second: int = field(
        default=1,
        metadata={"help": "rows of features for a second of video", "at_least": 1, "at_most": 64},
    )
    max_text_pieces: int = field(
        default=61,
        metadata={"help": "most word pieces of a text, without [CLS] and [SEP]", "at_least": 1, "at_most": 2**16},
    )
    chunk_pairs: int = field(
        default=0,
        metadata={
            "help": "run the towers on so many pairs at a time, to train large batches in little memory; 0: on all",
            "at_least": 0,
        },
    )
    frame_labels: List[int] = field(  # noqa: UP006
        default_factory=list,
        metadata={"help": "label ids of the frame classifier, as fine-tuning found them; none: no classifier"},
    )

    @classmethod
    def of(cls, settings: Mapping[str, Any], source: str) -> "VideoClipConfig":
        """Settings from a file, each of its type and within its bounds.

        Raises:
            ValueError: for an unknown setting, or one of another type or out of bounds; `source` names the file.
        """
        known = {setting.name: setting for setting in fields(VideoClipConfig)}
        for name, value in settings.items():
            if name not in known:
                raise ValueError(
                    f"{source}: model.{str(name)[:100]} is no setting of this version; known are {', '.join(known)}"
                )
            kind = known[name].type
            if kind == List[int]:  # noqa: UP006
                fits = isinstance(value, list) and all(type(label) is int for label in value)
            else:
                fits = type(value) in (get_args(kind) or (kind,))
            if not fits:
                raise ValueError(f"{source}: model.{name} is {value!r:.100}, but must be of the type {kind}")
        config = cls(**settings)
        try:
            check_settings(config)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
        return config


def max_features(cfg: VideoClipConfig) -> int:
    """Features of the longest clip."""
    return cfg.max_video_seconds * cfg.features_per_second


def check_settings(cfg: VideoClipConfig) -> None:
    """Refuse settings outside of their bounds; `cfg` may also be hydra's.

    Raises:
        ValueError: naming the setting, its value and what is allowed.
    """
    check_bounds(cfg, VideoClipConfig, "model")
    if cfg.pooling not in POOLING:
        raise ValueError(f"model.pooling is {cfg.pooling!r}: it must be one of {', '.join(POOLING)}")
    if cfg.logit_bias is not None and not math.isfinite(cfg.logit_bias):
        raise ValueError(f"model.logit_bias is {cfg.logit_bias}: it must be finite (SigLIP starts at -10)")
    if max_features(cfg) > MOST_FEATURES:
        raise ValueError(
            f"model.max_video_seconds is {cfg.max_video_seconds} and model.features_per_second {cfg.features_per_second}: "
            f"their product, the features of a clip, must be at most {MOST_FEATURES}"
        )
    if cfg.freeze_text and cfg.shared_encoder:
        raise ValueError(
            "model.freeze_text=true and model.shared_encoder=true: the one transformer would be frozen for the video too, "
            "so that it never learns to read features: set one of them to false"
        )
    if len(set(cfg.frame_labels)) < len(cfg.frame_labels):
        raise ValueError(f"model.frame_labels is {list(cfg.frame_labels)}: a label stands there twice")
