"""Dropout by cheap draws drops as often as it says, independently, and scales what is left."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import BertConfig, BertModel

from mmpt_plugin.models.dropout import Dropout, drop, replace_dropout
from mmpt_plugin.models.packing import _attention_with_dropout


@given(p=st.floats(0, 1), count=st.integers(0, 5000), seed=st.integers(0, 99))
def test_every_value_is_dropped_or_scaled(p, count, seed):
    torch.manual_seed(seed)
    dropped = drop(torch.ones(count), p)
    kept = dropped[dropped != 0]
    deviation = (p * (1 - p) * count) ** 0.5
    assert abs(count - len(kept) - p * count) <= 6 * deviation + 2**-17 * count + 6
    if len(kept):
        # from what was asked the probability differs by half a level at most
        assert kept.unique().numel() == 1 and abs(1 / kept[0].item() - (1 - p)) <= 2**-17 + 1e-6


def test_draws_are_independent_along_each_lane_and_across():
    torch.manual_seed(0)
    kept = (drop(torch.ones(1_000_000), 0.1) > 0).double()
    for distance in (1, 2, 3, 4, 8, 768):
        together = (kept[:-distance] * kept[distance:]).mean().item()
        assert together == pytest.approx(0.81, abs=0.002)
    for lane in range(4):
        assert kept[lane::4].mean().item() == pytest.approx(0.9, abs=0.002)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(), (3,), (7, 5), (2, 3, 4, 1)])
def test_gradient_is_that_of_the_values_left(dtype, shape):
    values = torch.rand(shape).add(1).to(dtype).requires_grad_()
    output = drop(values, 0.5)
    output.sum().backward()
    assert output.dtype == dtype and output.shape == shape
    torch.testing.assert_close(values.grad, (output != 0).to(dtype) * 2)


def test_draws_follow_torchs_seed():
    values = torch.ones(100)
    torch.manual_seed(3)
    first, second = drop(values, 0.5), drop(values, 0.5)
    torch.manual_seed(3)
    assert drop(values, 0.5).equal(first) and not first.equal(second)


def test_replaces_all_of_a_transformers_dropout():
    config = BertConfig(vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    transformer = BertModel(config).eval()
    before = [module.p for module in transformer.modules() if isinstance(module, nn.Dropout)]
    replace_dropout(transformer)
    after = [module for module in transformer.modules() if isinstance(module, nn.Dropout)]
    assert [module.p for module in after] == before and len(before) > 4
    assert all(type(module) is Dropout and not module.training for module in after)
    values = torch.rand(9)
    assert after[0](values) is values and not after[0].train()(torch.ones(1000)).all()


@pytest.fixture
def attention_inputs():
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 6, 8, generator=generator)
    mask = (torch.arange(6) < torch.tensor([[4], [6]]))[:, None, None, :]
    return q, k, v, mask


@pytest.mark.parametrize("scaling", [None, 0.2])
def test_attention_without_dropped_weights_is_torchs(attention_inputs, scaling):
    q, k, v, mask = attention_inputs
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
    torch.testing.assert_close(_attention_with_dropout(q, k, v, mask, 0.0, scaling), expected)


def test_attention_with_dropout_has_the_mean_of_attention_without(attention_inputs):
    q, k, v, mask = attention_inputs
    torch.manual_seed(0)
    runs = torch.stack([_attention_with_dropout(q, k, v, mask, 0.25, None) for _ in range(4000)])
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert runs.std(0).min() > 0
    torch.testing.assert_close(runs.mean(0), expected, rtol=0, atol=0.1)
    assert (runs.mean(0) - expected).abs().mean() < 0.02
