"""Packed computation against the same transformer on padded batches, as Hugging Face runs it."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import BertConfig, PreTrainedModel

from mmpt_plugin.models.bert import text_transformer, video_transformer
from mmpt_plugin.models.encoders import TextEncoder, VideoEncoder
from mmpt_plugin.models.packing import ATTENTION_NAME, SEQUENCES_PER_BUCKET, Packing, run_packed

from .batches import without_padding

CONFIG = BertConfig(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=40,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
LENGTHS = torch.tensor([[12], [1], [5], [0], [9]])


def with_a_padded_copy(packed: PreTrainedModel, implementation: str) -> tuple[PreTrainedModel, PreTrainedModel]:
    """The transformer with weights large enough to tell tokens apart, and a copy that runs padded."""
    torch.manual_seed(0)
    for parameter in packed.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    padded = copy.deepcopy(packed)
    padded.set_attn_implementation(implementation)
    return packed, padded


def assert_same_gradients(packed: torch.nn.Module, padded: torch.nn.Module) -> None:
    for (name, ours), theirs in zip(packed.named_parameters(), padded.parameters(), strict=True):
        largest = theirs.grad.abs().max().item()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-4 * max(largest, 1), msg=name)


@st.composite
def masked_batch(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    batch, length = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    row = st.lists(st.booleans(), min_size=length, max_size=length)
    mask = torch.tensor(draw(st.lists(row, min_size=batch, max_size=batch)))
    return torch.arange(1.0, batch * length * 2 + 1).view(batch, length, 2), mask


@settings(deadline=None)
@given(masked_batch())
def test_pack_and_unpack_undo_each_other(drawn: tuple[Tensor, Tensor]) -> None:
    padded, mask = drawn
    packing = Packing.of(mask, mask, torch.device("cpu"))
    packed = packing.pack(padded)
    by_extent = sorted(zip(padded.tolist(), mask.tolist()), key=lambda x: max(i * r for i, r in enumerate(x[1], 1)))
    assert packed.tolist() == [token for row, real in by_extent for token, r in zip(row, real) if r]
    assert torch.equal(packing.unpack(packed), padded * mask[..., None])
    assert torch.equal(packing.pack(packing.unpack(packed)), packed)
    assert torch.equal(packing.pack(mask), torch.ones(len(packed), dtype=torch.bool))  # of any trailing shape
    assert len(packing.buckets) == -(-len(mask) // SEQUENCES_PER_BUCKET)
    assert sum(bucket.num_tokens for bucket in packing.buckets) == len(packed)
    for bucket, tokens in zip(packing.buckets, packed.split([bucket.num_tokens for bucket in packing.buckets])):
        assert torch.equal(bucket.unpad(bucket.pad(tokens)), tokens)
        assert bucket.key_mask[:, -1:].any() or not len(tokens)  # as wide as its longest


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_text_equals_the_padded_computation(implementation: str) -> None:
    packed, padded = with_a_padded_copy(text_transformer(CONFIG), implementation)
    ids = torch.randint(50, (5, 14))
    mask = torch.arange(14) < LENGTHS + 2
    weights = torch.randn(5, 14, 32) * mask[..., None]
    ours, our_mask = TextEncoder(packed, max_pieces=12)(ids, mask)
    theirs = padded(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    assert torch.equal(our_mask, mask)
    torch.testing.assert_close(ours, theirs * mask[..., None], rtol=0, atol=1e-5)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    assert_same_gradients(packed, padded)
    assert packed.config._attn_implementation == ATTENTION_NAME


def test_text_equals_the_padded_computation_under_autocast() -> None:
    """As near to it as the padded computation is to its own in float32."""
    packed, padded = with_a_padded_copy(text_transformer(CONFIG), "sdpa")
    ids, mask = torch.randint(50, (5, 14)), torch.arange(14) < LENGTHS + 2
    weights = torch.randn(5, 14, 32) * mask[..., None]
    with torch.no_grad():
        exact = padded(input_ids=ids, attention_mask=mask.long()).last_hidden_state[mask]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, _ = TextEncoder(packed, max_pieces=12)(ids, mask)
        theirs = padded(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    rounding = (theirs[mask] - exact).norm()
    assert rounding > 0 and (ours[mask] - theirs[mask]).norm() < rounding
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    for (name, our), their in zip(packed.named_parameters(), padded.parameters(), strict=True):
        assert (our.grad - their.grad).norm() <= 0.05 * their.grad.norm() + 1e-2, name


def padded_video(
    encoder: VideoEncoder, transformer: PreTrainedModel, features: Tensor, mask: Tensor, attend_to_cls: bool
) -> list[Tensor]:
    """Hidden states of each clip's [CLS], real seconds and [SEP], from a padded batch made row by row."""
    words = transformer.get_input_embeddings().weight
    projected = encoder.feature_projection(features)
    embeds, positions, keys = [], [], []
    for row, length in zip(projected, mask.sum(1).tolist()):
        padding = mask.shape[1] - length
        embeds.append(torch.cat([words[:1], row[:length], words[1:2], torch.zeros(padding, words.shape[1])]))
        positions.append([*range(length + 1), encoder.max_seconds + 1] + [0] * padding)
        keys.append([attend_to_cls] + [True] * (length + 1) + [False] * padding)
    states = transformer(
        inputs_embeds=torch.stack(embeds),
        position_ids=torch.tensor(positions),
        attention_mask=torch.tensor(keys).long(),
    ).last_hidden_state
    return [state[: length + 2] for state, length in zip(states, mask.sum(1).tolist())]


@pytest.mark.parametrize("attend_to_cls", [True, False])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_video_equals_the_padded_computation(implementation: str, attend_to_cls: bool) -> None:
    packed, padded = with_a_padded_copy(video_transformer(CONFIG, 2), implementation)
    ours, theirs = (VideoEncoder(transformer, feature_size=8, max_seconds=32) for transformer in (packed, padded))
    theirs.feature_projection.load_state_dict(ours.feature_projection.state_dict())
    features, mask = torch.randn(5, 12, 8), torch.arange(12) < LENGTHS
    states, state_mask = ours(features, mask, attend_to_cls)
    expected = padded_video(theirs, padded, features, mask, attend_to_cls)
    assert state_mask.sum(1).tolist() == [len(rows) for rows in expected]
    weights = torch.randn(5, 14, 32)
    for state, rows in zip(states, expected):
        torch.testing.assert_close(state[: len(rows)], rows, rtol=0, atol=1e-5)
        assert not state[len(rows) :].any()
    (states * weights).sum().backward()
    sum((rows * weight[: len(rows)]).sum() for rows, weight in zip(expected, weights)).backward()
    assert_same_gradients(ours, theirs)


def test_reduced_precision_is_near(tiny_model: torch.nn.Module) -> None:
    """bfloat16 keeps 8 bits: a relative error of 2^-8 a value, of a few percent after the layers."""
    ids, mask = torch.randint(5, 19, (5, 14)), torch.arange(14) < LENGTHS + 2
    features, video_mask = torch.randn(5, 12, 512), torch.arange(12) < LENGTHS
    inputs = without_padding(features, video_mask, ids, mask)
    with torch.no_grad():
        exact = tiny_model(**inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            autocast = tiny_model(**inputs)
        half = copy.deepcopy(tiny_model).bfloat16()(**inputs)
    for name, expected in exact.items():
        for reduced in (autocast[name], half[name]):
            error = (reduced.float() - expected).norm() / expected.norm()
            assert 0 < error < 0.03, name  # it was reduced, and little was lost
        assert half[name].dtype == torch.bfloat16


def test_dropout_works_on_packed_tokens() -> None:
    config = BertConfig(**{**CONFIG.to_diff_dict(), "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1})
    transformer = text_transformer(config).train()
    mask = torch.arange(14) < LENGTHS + 2
    packing = Packing.of(mask, mask, torch.device("cpu"))
    tokens = len(packing.rows)
    ids, positions = torch.randint(50, (tokens,)), packing.pack(torch.arange(14).expand(5, 14))

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return run_packed(transformer, packing, positions, input_ids=ids)

    assert run(1).shape == (tokens, 32)
    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    transformer.eval()
    assert torch.equal(run(1), run(2))
