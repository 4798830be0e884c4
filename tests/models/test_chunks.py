"""Training in chunks of pairs gives the whole batch's gradients, dropout included."""

import numpy as np
import pytest
import torch

from mmpt_plugin.criterions.contrastive import symmetric_info_nce

from .batches import without_padding


def gradients(model, inputs, chunk_pairs: int, seed: int = 0) -> tuple[float, list[torch.Tensor]]:
    model.chunk_pairs = chunk_pairs
    model.zero_grad()
    torch.manual_seed(seed)
    output = model(**inputs)
    loss = symmetric_info_nce(output["video_embeddings"], output["text_embeddings"])
    loss.backward()
    return loss.item(), [parameter.grad.clone() for parameter in model.parameters()]


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    seconds, tokens = (
        torch.tensor([[3], [8], [1], [0], [5], [7], [2]]),
        torch.tensor([[9], [2], [5], [4], [3], [8], [6]]),
    )
    return without_padding(
        torch.randn(7, 8, 512, generator=generator),
        torch.arange(8) < seconds,
        torch.randint(5, 19, (7, 9), generator=generator),
        torch.arange(9) < tokens,
    )


@pytest.mark.parametrize("chunk_pairs", [1, 3, 7, 100])
def test_gradients_equal_the_whole_batchs(tiny_model, inputs, chunk_pairs):
    whole_loss, whole = gradients(tiny_model, inputs, 0)
    loss, chunked = gradients(tiny_model, inputs, chunk_pairs)
    assert loss == pytest.approx(whole_loss, rel=1e-6)
    for ours, expected in zip(chunked, whole):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_dropout_of_the_second_run_is_that_of_the_first(tiny_model, inputs):
    """Frozen masks make the chunked loss a function that finite differences can check."""
    tiny_model.train()
    _, analytic = gradients(tiny_model, inputs, 3)
    parameter = tiny_model.video_encoder.feature_projection.output.bias
    index = [p is parameter for p in tiny_model.parameters()].index(True)
    step = torch.zeros_like(parameter)
    step[5] = 1e-2
    with torch.no_grad():
        parameter += step
    above, _ = gradients(tiny_model, inputs, 3)
    with torch.no_grad():
        parameter -= 2 * step
    below, _ = gradients(tiny_model, inputs, 3)
    assert (above - below) / 2e-2 == pytest.approx(analytic[index][5].item(), rel=2e-2, abs=1e-3)
    assert gradients(tiny_model, inputs, 3, seed=1)[0] != pytest.approx(below, rel=1e-4)


@pytest.mark.parametrize("chunk_pairs", [0, 2])
def test_clips_without_a_second(tiny_model, inputs, chunk_pairs):
    """A batch of nothing but [CLS] and [SEP] is embedded, and trains these."""
    empty = inputs | {"video_features": inputs["video_features"][:0], "video_lengths": np.zeros(7, np.int64)}
    _, gradients_of_all = gradients(tiny_model, empty, chunk_pairs)
    named = dict(zip([name for name, _ in tiny_model.named_parameters()], gradients_of_all))
    assert all(gradient.isfinite().all() for gradient in gradients_of_all)
    assert named["video_encoder.transformer.embeddings.word_embeddings.weight"].any()
    assert not named["video_encoder.feature_projection.input.weight"].any()
