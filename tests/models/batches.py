"""Padded batches without their padding, as the model's `forward` takes them."""

from torch import Tensor

from mmpt_plugin.data.pairs import Inputs


def without_padding(video_features: Tensor, video_mask: Tensor, text_ids: Tensor, text_mask: Tensor) -> Inputs:
    """The real rows, pair after pair, and their lengths (data/pairs.py)."""
    return {
        "video_features": video_features[video_mask],
        "video_lengths": video_mask.sum(1).numpy(),
        "text_ids": text_ids[text_mask],
        "text_lengths": text_mask.sum(1).numpy(),
    }
