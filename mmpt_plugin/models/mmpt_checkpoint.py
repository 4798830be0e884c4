"""Checkpoints of the original (MMPT): the only file that knows its parameter names.

Its state dict differs from ours in names and in three things that we do not keep: BERT's poolers, which it never uses,
the `position_ids` buffers, and the video tower's embeddings of words that are not [CLS] or [SEP] (never looked up).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

PREFIX = "mmmodel."
_UNUSED = (".pooler.dense.weight", ".pooler.dense.bias", ".embeddings.position_ids")
_RENAMED = (
    ("video_encoder.videomlp.linear1.", "video_encoder.feature_projection.input."),
    ("video_encoder.videomlp.LayerNorm.", "video_encoder.feature_projection.norm."),
    ("video_encoder.videomlp.linear2.", "video_encoder.feature_projection.output."),
    ("video_encoder.bert.", "video_encoder.transformer."),
    ("text_encoder.", "text_encoder.transformer."),
)
_VIDEO_WORDS = "video_encoder.transformer.embeddings.word_embeddings.weight"


def with_our_names(state_dict: Mapping[str, Tensor], cls_id: int, sep_id: int) -> dict[str, Tensor]:
    """A checkpoint's parameters under our names: MMPT's are renamed, ours are returned as they are."""
    is_mmpt = any(key.startswith(PREFIX) for key in state_dict)
    return from_mmpt(state_dict, cls_id, sep_id) if is_mmpt else dict(state_dict)


def from_mmpt(state_dict: Mapping[str, Tensor], cls_id: int, sep_id: int) -> dict[str, Tensor]:
    """Our names for MMPT's parameters; names that MMPT does not have are kept, so that loading reports them.

    Args:
        state_dict: `checkpoint["model"]` of MMPT.
        cls_id, sep_id: ids of [CLS] and [SEP] in the vocabulary, whose rows the video tower keeps.
    """
    renamed = {}
    for key, value in state_dict.items():
        name = key.removeprefix(PREFIX)
        if name.endswith(_UNUSED):
            continue
        for old, new in _RENAMED:
            if name.startswith(old):
                name = new + name[len(old) :]
                break
        is_words = name == _VIDEO_WORDS and value.ndim and len(value) > max(cls_id, sep_id)
        renamed[name] = value[[cls_id, sep_id]] if is_words else value
    return renamed
