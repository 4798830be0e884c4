"""Pooling of hand-worked states."""

import numpy as np
import pytest
import torch

from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.pooling import POOLING, cls_pooling, mean_pooling
from mmpt_plugin.models.videoclip import VideoClipModel

from .batches import without_padding

STATES = torch.tensor([[[9.0, 1.0], [2.0, 0.0], [4.0, 6.0]], [[5.0, 7.0], [3.0, 8.0], [0.0, 0.0]]])
LENGTHS = np.array([3, 2])


def test_mean_is_of_all_but_cls() -> None:
    # (2 + 4) / 2 = 3, (0 + 6) / 2 = 3; the second text has [SEP] alone beside [CLS]
    assert mean_pooling(STATES, LENGTHS).tolist() == [[3.0, 3.0], [3.0, 8.0]]


def test_cls_is_the_first_state() -> None:
    assert cls_pooling(STATES, LENGTHS).tolist() == [[9.0, 1.0], [5.0, 7.0]]


@pytest.mark.parametrize("pooling", POOLING)
def test_the_model_pools_both_modalities_as_told(tiny_bert, pooling: str) -> None:
    model = VideoClipModel.from_config(VideoClipConfig(bert=str(tiny_bert), video_layers=2, pooling=pooling)).eval()
    features, video_mask = torch.randn(2, 5, 512), torch.arange(5) < torch.tensor([[5], [2]])
    text_ids, text_mask = torch.randint(5, 19, (2, 6)), torch.arange(6) < torch.tensor([[4], [6]])
    output = model(**without_padding(features, video_mask, text_ids, text_mask))
    video = model.encode_video(features, video_mask, return_hidden_states=True)
    text = model.encode_text(text_ids, text_mask, return_hidden_states=True)
    video_tokens = torch.arange(7) < torch.tensor([[7], [4]])
    for name, states, mask in (("video_embeddings", video, video_tokens), ("text_embeddings", text, text_mask)):
        for embedding, rows, real in zip(output[name], states, mask):
            expected = rows[0] if pooling == "cls" else rows[real][1:].mean(0)
            torch.testing.assert_close(embedding, expected)
