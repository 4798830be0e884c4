"""Packed computation against the same transformer on padded batches, as Hugging Face runs it."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import BertConfig, PreTrainedModel

from mmpt_plugin.models.bert import new_transformer, video_transformer
from mmpt_plugin.models.encoders import TextEncoder, VideoEncoder
from mmpt_plugin.models.packing import ATTENTION_NAME, SEQUENCES_PER_BUCKET, Packing, length_mask, run_packed

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
@given(masked_batch(), st.sampled_from(["cpu", "cuda"]))
def test_pack_and_unpack_undo_each_other(drawn: tuple[Tensor, Tensor], device: str) -> None:
    padded, mask = drawn
    packing = Packing.of(mask, mask, torch.device(device))  # it stays on the host
    packed = packing.pack(padded)
    by_extent = sorted(zip(padded.tolist(), mask.tolist()), key=lambda x: max(i * r for i, r in enumerate(x[1], 1)))
    assert packed.tolist() == [token for row, real in by_extent for token, r in zip(row, real) if r]
    assert torch.equal(packing.unpack(packed), padded * mask[..., None])
    assert torch.equal(packing.pack(packing.unpack(packed)), packed)
    assert torch.equal(packing.pack(mask), torch.ones(len(packed), dtype=torch.bool))  # of any trailing shape
    assert len(packing.buckets) == (1 if device == "cuda" else -(-len(mask) // SEQUENCES_PER_BUCKET))
    assert sum(bucket.num_tokens for bucket in packing.buckets) == len(packed)
    for bucket, tokens in zip(packing.buckets, packed.split([bucket.num_tokens for bucket in packing.buckets])):
        assert torch.equal(bucket.unpad(bucket.pad(tokens)), tokens)
        assert bucket.key_mask[:, -1:].any() or not len(tokens)  # as wide as its longest


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_text_equals_the_padded_computation(implementation: str) -> None:
    packed, padded = with_a_padded_copy(new_transformer(CONFIG), implementation)
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
    packed, padded = with_a_padded_copy(new_transformer(CONFIG), "sdpa")
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
    transformer = new_transformer(config).train()
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


def test_one_bucket_gives_the_states_of_many() -> None:
    """What a GPU computes, on this device: all sequences at once."""
    transformer = new_transformer(CONFIG).eval()
    lengths = torch.randint(1, 15, (2 * SEQUENCES_PER_BUCKET + 3, 1))
    mask = torch.arange(14) < lengths
    ids, positions = torch.randint(50, mask.shape), torch.arange(14).expand_as(mask)
    states = []
    for device in ("cpu", "cuda"):
        packing = Packing.of(mask, mask, torch.device(device))
        packed = run_packed(transformer, packing, packing.pack(positions), input_ids=packing.pack(ids))
        states.append(packing.unpack(packed))
    torch.testing.assert_close(*states, rtol=0, atol=1e-5)


# --- padded batches and real rows alone ---

HOLES = torch.tensor([[1, 1, 0, 1, 1, 0], [1, 0, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]]).bool()


def test_a_texts_hidden_tokens_keep_their_positions() -> None:
    packed, padded = with_a_padded_copy(new_transformer(CONFIG), "sdpa")
    ids = torch.randint(50, HOLES.shape)
    states, _ = TextEncoder(packed, max_pieces=4)(ids, HOLES)
    expected = padded(input_ids=ids, attention_mask=HOLES.long()).last_hidden_state
    torch.testing.assert_close(states, expected * HOLES[..., None], rtol=0, atol=1e-5)
    alone, _ = TextEncoder(packed, max_pieces=4)(ids[HOLES], HOLES)
    assert torch.equal(alone, states)


def test_a_videos_hidden_seconds_leave_the_others_at_their_positions() -> None:
    packed, padded = with_a_padded_copy(video_transformer(CONFIG, 2), "sdpa")
    encoder = VideoEncoder(packed, feature_size=8, max_seconds=32)
    features, words = torch.randn(*HOLES.shape, 8), padded.get_input_embeddings().weight
    states, mask = encoder(features, HOLES)
    for state, own_mask, rows, is_real in zip(states, mask, features, HOLES):
        embeds = torch.cat([words[:1], encoder.feature_projection(rows[is_real]), words[1:]])
        positions = torch.tensor([0, *(is_real.nonzero().squeeze(1) + 1).tolist(), 33])
        expected = padded(inputs_embeds=embeds[None], position_ids=positions[None]).last_hidden_state[0]
        torch.testing.assert_close(state[own_mask], expected, rtol=0, atol=1e-5)
    alone, _ = encoder(features[HOLES], HOLES)
    assert torch.equal(alone, states)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_padding_can_be_computed(dtype: torch.dtype) -> None:
    """Padded seconds attend to the real ones; those do not see them; [SEP] follows the padding."""
    packed, padded = with_a_padded_copy(video_transformer(CONFIG, 2), "sdpa")
    encoder = VideoEncoder(packed, feature_size=8, max_seconds=32)
    mask = torch.arange(6) < torch.tensor([[6], [2]])
    features, words = torch.randn(2, 6, 8).to(dtype) * mask[..., None], padded.get_input_embeddings().weight
    states, all_of_them = encoder(features, mask, compute_padding=True)
    rows = encoder.feature_projection(features.float())
    embeds = torch.cat([words[:1].expand(2, 1, -1), rows, words[1:].expand(2, 1, -1)], 1)
    keys = torch.nn.functional.pad(mask, (1, 1), value=True)
    positions = torch.tensor([[*range(7), 33]] * 2)
    expected = padded(inputs_embeds=embeds, attention_mask=keys.long(), position_ids=positions).last_hidden_state
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-5)
    assert all_of_them.all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.randn(3, 8), r"shape \(3, 8\) does not fit a mask of the shape \(2, 4\) with 5 real tokens"),
        (torch.randn(2, 3, 8), r"shape \(2, 3, 8\) does not fit a mask of the shape \(2, 4\)"),
    ],
)
def test_rows_and_mask_must_fit(rows: Tensor, message: str) -> None:
    encoder = VideoEncoder(video_transformer(CONFIG, 2), feature_size=8, max_seconds=32)
    with pytest.raises(ValueError, match=message):
        encoder(rows, torch.arange(4) < torch.tensor([[4], [1]]))


def test_length_mask_of_hand_worked_cases() -> None:
    assert length_mask(np.array([0, 2, 3])).tolist() == [
        [False, False, False],
        [True, True, False],
        [True, True, True],
    ]
    assert length_mask(np.array([1]), 2).tolist() == [[True, False]]
    assert length_mask(np.array([0, 0])).shape == (2, 0)
