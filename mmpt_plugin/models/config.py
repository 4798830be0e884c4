"""The model's settings, with the paper's values as defaults."""

from dataclasses import dataclass, field
from typing import List, Optional  # noqa: UP035 (no other list on fairseq's command line)

DEFAULT_BERT = "bert-base-uncased"


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
    shared_encoder: bool = field(
        default=False, metadata={"help": "one transformer for both, video of token type 0 and text of 1"}
    )
    pooling: str = field(
        default="mean", metadata={"help": "embedding: mean over tokens and [SEP], or (cls) the state of [CLS]"}
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
