"""Packed computation against the same transformer on padded batches, as Hugging Face runs it."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import BertConfig, PreTrainedModel

from mmpt_plugin.models.encoders import TextEncoder, VideoEncoder
from mmpt_plugin.models.packing import ATTENTION_NAME, SEQUENCES_PER_BUCKET, Packing, length_mask, run_packed
from mmpt_plugin.models.text_backbone import new_transformer, video_transformer

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
LENGTHS = np.array([12, 1, 5, 0, 9])


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


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.sampled_from(["cpu", "cuda"]))
def test_tokens_go_to_their_places(drawn: list[int], device: str) -> None:
    lengths = np.array(drawn)
    with pytest.MonkeyPatch.context() as patch:  # buckets as a GPU would have them, kept on the host
        patch.setattr("mmpt_plugin.models.packing.on_device", lambda array, device: torch.from_numpy(array.copy()))
        packing = Packing.of(lengths, torch.device(device))
    values = torch.arange(1.0, 2 * lengths.sum() + 1).view(-1, 2)
    packed = values[packing.rows(lengths)]
    by_length = sorted(values.split(lengths.tolist()), key=len)
    assert torch.equal(packed, torch.cat(by_length))
    expected = torch.nn.utils.rnn.pad_sequence(values.split(lengths.tolist()), batch_first=True)
    assert torch.equal(packing.unpack(packed), expected)
    assert len(packing.buckets) == (1 if device == "cuda" else -(-len(lengths) // SEQUENCES_PER_BUCKET))
    for bucket, tokens in zip(packing.buckets, packed.split([bucket.num_tokens for bucket in packing.buckets])):
        assert torch.equal(bucket.unpad(bucket.pad(tokens)), tokens)
        assert bucket.key_mask[:, -1:].any() or not len(tokens)  # as wide as its longest
    assert torch.cat([bucket.key_mask.sum(1) for bucket in packing.buckets]).tolist() == sorted(drawn)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_text_equals_the_padded_computation(implementation: str) -> None:
    packed, padded = with_a_padded_copy(new_transformer(CONFIG), implementation)
    ids = torch.randint(50, (5, 14))
    mask = torch.from_numpy(length_mask(LENGTHS + 2))
    weights = torch.randn(5, 14, 32) * mask[..., None]
    ours = TextEncoder(packed, max_pieces=12)(ids[mask], LENGTHS + 2)
    theirs = padded(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(ours, theirs * mask[..., None], rtol=0, atol=1e-5)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    assert_same_gradients(packed, padded)
    assert packed.config._attn_implementation == ATTENTION_NAME


def test_text_equals_the_padded_computation_under_autocast() -> None:
    """As near to it as the padded computation is to its own in float32."""
    packed, padded = with_a_padded_copy(new_transformer(CONFIG), "sdpa")
    ids, mask = torch.randint(50, (5, 14)), torch.from_numpy(length_mask(LENGTHS + 2))
    weights = torch.randn(5, 14, 32) * mask[..., None]
    with torch.no_grad():
        exact = padded(input_ids=ids, attention_mask=mask.long()).last_hidden_state[mask]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = TextEncoder(packed, max_pieces=12)(ids[mask], LENGTHS + 2)
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
    features, mask = torch.randn(5, 12, 8), torch.from_numpy(length_mask(LENGTHS))
    states = ours(features[mask], LENGTHS, attend_to_cls)
    expected = padded_video(theirs, padded, features, mask, attend_to_cls)
    weights = torch.randn(5, 14, 32)
    for state, rows in zip(states, expected):
        torch.testing.assert_close(state[: len(rows)], rows, rtol=0, atol=1e-5)
        assert not state[len(rows) :].any()
    (states * weights).sum().backward()
    sum((rows * weight[: len(rows)]).sum() for rows, weight in zip(expected, weights)).backward()
    assert_same_gradients(ours, theirs)


def test_reduced_precision_is_near(tiny_model: torch.nn.Module) -> None:
    """bfloat16 keeps 8 bits: a relative error of 2^-8 a value, of a few percent after the layers."""
    ids, mask = torch.randint(5, 19, (5, 14)), torch.from_numpy(length_mask(LENGTHS + 2))
    features, video_mask = torch.randn(5, 12, 512), torch.from_numpy(length_mask(LENGTHS))
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
    packing = Packing.of(LENGTHS + 2, torch.device("cpu"))
    ids = torch.randint(50, packing.columns.shape)

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return run_packed(transformer, packing, packing.columns, input_ids=ids)

    assert run(1).shape == (5, 14, 32)
    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    transformer.eval()
    assert torch.equal(run(1), run(2))


def test_one_bucket_gives_the_states_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU computes, on this device: all sequences at once."""
    encoder = TextEncoder(new_transformer(CONFIG).eval(), max_pieces=12)
    lengths = np.random.default_rng(0).integers(2, 15, 2 * SEQUENCES_PER_BUCKET + 3)
    ids = torch.randint(50, (lengths.sum(),))
    many = encoder(ids, lengths)
    monkeypatch.setattr("mmpt_plugin.models.packing.SEQUENCES_PER_BUCKET", len(lengths))
    torch.testing.assert_close(encoder(ids, lengths), many, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_seconds_that_are_not_attended_to(dtype: torch.dtype) -> None:
    """They attend to the others; those do not see them; [SEP] follows all."""
    packed, padded = with_a_padded_copy(video_transformer(CONFIG, 2), "sdpa")
    encoder = VideoEncoder(packed, feature_size=8, max_seconds=32)
    attended = np.array([6, 2])
    features, words = torch.randn(2, 6, 8).to(dtype), padded.get_input_embeddings().weight
    states = encoder(features.flatten(0, 1), np.array([6, 6]), attended_lengths=attended)
    rows = encoder.feature_projection(features.float())
    embeds = torch.cat([words[:1].expand(2, 1, -1), rows, words[1:].expand(2, 1, -1)], 1)
    keys = torch.nn.functional.pad(torch.from_numpy(length_mask(attended)), (1, 1), value=True)
    positions = torch.tensor([[*range(7), 33]] * 2)
    expected = padded(inputs_embeds=embeds, attention_mask=keys.long(), position_ids=positions).last_hidden_state
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", [torch.randn(3, 8), torch.randn(6, 8), torch.randn(1, 5, 8)])
def test_values_and_lengths_must_fit(rows: Tensor) -> None:
    encoder = VideoEncoder(video_transformer(CONFIG, 2), feature_size=8, max_seconds=32)
    with pytest.raises(ValueError, match=r"video_features of the shape .* do not fit 2 lengths with the sum 5"):
        encoder(rows, np.array([4, 1]))
    with pytest.raises(ValueError, match=r"text_ids of the shape \(4,\) do not fit 2 lengths with the sum 5"):
        TextEncoder(new_transformer(CONFIG), max_pieces=4)(torch.zeros(4, dtype=torch.int64), np.array([3, 2]))


def test_length_mask_of_hand_worked_cases() -> None:
    assert length_mask(np.array([0, 2, 3])).tolist() == [
        [False, False, False],
        [True, True, False],
        [True, True, True],
    ]
    assert length_mask(np.array([1]), 2).tolist() == [[True, False]]
    assert length_mask(np.array([0, 0])).shape == (2, 0)
