"""The batch: THE place where its shapes are documented.

B pairs (videos_per_batch x clips_per_video in pre-training, or the items of an evaluation batch), F the feature size.
Nothing is padded: values stand end to end, pair after pair, and lengths tell them apart. Lengths are numpy arrays, which
fairseq leaves on the host when it moves a batch's tensors to a GPU: so nothing waits there to learn a shape.

    {"id": (B,) int64, position of the pair's group in the epoch
     "nsentences": B,
     "ntokens": int, rows of features and word pieces, special tokens not counted
     "video_id": list[str] of B,
     "spans": (B, 3) int64, the video's position in the corpus, the clip's first second and the one after its last; in
              pre-training alone, where losses may ask which clips overlap
     "net_input": {"video_features": (sum of video_lengths, F), model.features_per_second rows a second, as stored
                       (float16; others' files may have float32); cast by the model
                   "video_lengths": (B,) int64 array, rows of each clip, at most those of max_video_seconds
                   "text_ids": (sum of text_lengths,) int64, [CLS] pieces [SEP] of each text
                   "text_lengths": (B,) int64 array, tokens of each text, at most max_text_pieces + 2}}

`values.split(lengths.tolist())` gives the pairs' own, and torch's `pad_sequence` of these a padded form.

Where a clip has a bag of K texts (`task.clip_sampling=bag`), text_lengths has B * K entries, and texts i * K to
(i + 1) * K belong to clip i; all else is per clip. So K = texts / clips, of lengths and of embeddings alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Batch = dict[str, Any]
Inputs = dict[str, Any]
"""`net_input`, or one side of it."""


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens around a text."""

    cls: int
    sep: int

    @staticmethod
    def of(tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
        """Those of a model's tokenizer."""
        return SpecialTokens(tokenizer.cls_token_id, tokenizer.sep_token_id)


def build_text(pieces: NDArray[np.integer], lengths: NDArray[np.integer], special: SpecialTokens) -> Inputs:
    """`text_ids` and `text_lengths` of texts given one after the other.

    Args:
        pieces: (sum of lengths,) word pieces, without special tokens.
        lengths: (texts,) word pieces of each text; 0 gives [CLS] [SEP].
    """
    counts = np.asarray(lengths, np.int64) + 2
    ends = np.cumsum(counts)
    text_ids = np.empty(ends[-1], np.int64)
    is_piece = np.ones(len(text_ids), bool)
    for places, token in ((ends - counts, special.cls), (ends - 1, special.sep)):
        text_ids[places] = token
        is_piece[places] = False
    text_ids[is_piece] = pieces
    return {"text_ids": torch.from_numpy(text_ids), "text_lengths": counts}


def build_video(features: NDArray[np.floating], lengths: NDArray[np.integer]) -> Inputs:
    """`video_features` and `video_lengths`.

    Args:
        features: (sum of lengths, F), the clips one after the other.
        lengths: (B,) seconds of each clip; may be 0.
    """
    return {"video_features": torch.from_numpy(features), "video_lengths": np.asarray(lengths, np.int64)}


def build_pairs(
    index: int, video_ids: Sequence[str], video: Inputs, text: Inputs, spans: NDArray[np.integer] | None = None
) -> Batch:
    """A batch of pairs (or of clips with bags of texts) from its two sides; `index` is the group's position in the epoch."""
    pairs = len(video_ids)
    where = {} if spans is None else {"spans": torch.from_numpy(np.asarray(spans, np.int64))}
    return {
        "id": torch.full((pairs,), index),
        "nsentences": pairs,
        "ntokens": len(video["video_features"]) + len(text["text_ids"]) - 2 * len(text["text_lengths"]),
        "video_id": list(video_ids),
        **where,
        "net_input": {**video, **text},
    }


def collate_groups(groups: Sequence[Batch]) -> Batch:
    """Join the batches of several groups into one."""
    if len(groups) == 1:
        return groups[0]
    inputs = [group["net_input"] for group in groups]
    where = {"spans": torch.cat([group["spans"] for group in groups])} if "spans" in groups[0] else {}
    return {
        "id": torch.cat([group["id"] for group in groups]),
        "nsentences": sum(group["nsentences"] for group in groups),
        "ntokens": sum(group["ntokens"] for group in groups),
        "video_id": [video_id for group in groups for video_id in group["video_id"]],
        **where,
        "net_input": {
            name: (torch.cat if torch.is_tensor(value) else np.concatenate)([own[name] for own in inputs])
            for name, value in inputs[0].items()
        },
    }
