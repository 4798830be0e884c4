"""What the model is given (data/pairs.py), from texts and from windows of videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmpt_plugin.data.feature_folder import FeatureFolder
from mmpt_plugin.data.pairs import Inputs, SpecialTokens, build_text, build_video
from mmpt_plugin.data.windows import Window

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_pieces: int) -> list[NDArray[np.int64]]:
    """Word pieces of each text without special tokens, cut to max_pieces."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
    return [np.array(pieces[:max_pieces], np.int64) for pieces in encoded["input_ids"]]


def load_windows(features: FeatureFolder, windows: Sequence[Window]) -> Inputs:
    """`video_features` and `video_lengths` of windows (data/pairs.py)."""
    rows = [features.load(window.video_id, window.start, window.end) for window in windows]
    return build_video(np.concatenate(rows), np.array([len(own) for own in rows]))


def join_texts(pieces: Sequence[NDArray[np.int64]], special: SpecialTokens) -> Inputs:
    """`text_ids` and `text_lengths` of texts (data/pairs.py), from what `tokenize` gives."""
    return build_text(np.concatenate(pieces), np.array([len(own) for own in pieces]), special)


def batches_by_length(lengths: NDArray[np.integer], batch_size: int) -> list[NDArray[np.int64]]:
    """Indexes in batches of nearly equal size, at most batch_size, longest first: a batch's lengths are alike."""
    order = np.argsort(-lengths, kind="stable")
    return np.array_split(order, -(-len(order) // batch_size)) if len(order) else []
