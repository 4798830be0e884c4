"""A training step never waits for a GPU to learn a value.

Shown without one: torch's `meta` device computes shapes and holds no values, so that whatever would need one raises.
"""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmpt_plugin.criterions.contrastive import VideoTextContrastiveCriterion
from mmpt_plugin.criterions.frame_losses import FrameCrossEntropyCriterion, StepBinaryCrossEntropyCriterion
from mmpt_plugin.criterions.mil_nce import MilNceCriterion
from mmpt_plugin.data.pairs import Inputs
from mmpt_plugin.models.pooling import POOLING
from mmpt_plugin.models.videoclip import VideoClipModel, frame_classifier

from ..together import criterion_of

SECONDS, TOKENS = np.array([3, 8, 1, 5]), np.array([9, 2, 5, 4])


@pytest.fixture
def model(tiny_model: VideoClipModel) -> VideoClipModel:
    model = copy.deepcopy(tiny_model).train()
    model.frame_classifier = frame_classifier(model.video_encoder, 6)
    return model.to("meta")


def inputs(texts_each: int = 1) -> Inputs:
    tokens = np.repeat(TOKENS, texts_each)
    return {
        "video_features": torch.empty(SECONDS.sum(), 512, dtype=torch.float16, device="meta"),
        "video_lengths": SECONDS,
        "text_ids": torch.empty(tokens.sum(), dtype=torch.int64, device="meta"),
        "text_lengths": tokens,
    }


def sample(net_input: Inputs, target: torch.Tensor | None = None) -> dict:
    return {"net_input": net_input, "target": target, "nsentences": 4, "ntokens": 25}


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("criterion_class", [VideoTextContrastiveCriterion, MilNceCriterion])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("chunk_pairs", [0, 3])
def test_pre_training(
    model: VideoClipModel, criterion_class: type, dtype: torch.dtype, pooling: str, chunk_pairs: int
) -> None:
    criterion = criterion_of(criterion_class)
    model.pool, model.chunk_pairs = POOLING[pooling], chunk_pairs
    loss, _, _ = criterion(model.to(dtype), sample(inputs(3 if criterion_class is MilNceCriterion else 1)))
    loss.backward()
    parameters = [parameter for name, parameter in model.named_parameters() if "classifier" not in name]
    assert all(parameter.grad is not None for parameter in parameters)
    torch.nn.utils.clip_grad_norm_(parameters, 2.0)


@pytest.mark.parametrize("texts", [True, False])
def test_fine_tuning_on_seconds(model: VideoClipModel, texts: bool) -> None:
    criterion = (StepBinaryCrossEntropyCriterion if texts else FrameCrossEntropyCriterion)(SimpleNamespace())
    shape, dtype = ((17, 4), torch.uint8) if texts else ((17,), torch.int64)
    net_input = inputs() if texts else {name: value for name, value in inputs().items() if name.startswith("video")}
    loss, _, _ = criterion(model, sample({**net_input, "frames": True}, torch.empty(shape, dtype=dtype, device="meta")))
    loss.backward()


def test_the_device_would_tell() -> None:
    """Each way of asking a device for a value raises here."""
    values, mask = torch.empty(3, device="meta"), torch.empty(3, dtype=torch.bool, device="meta")
    for ask in (lambda: values[mask], lambda: mask.nonzero(), lambda: values.sum().item(), lambda: values.cpu()):
        with pytest.raises((NotImplementedError, RuntimeError)):
            ask()
