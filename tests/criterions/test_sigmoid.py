"""The sigmoid loss against its formula as a loop, by hand, in chunks and over processes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt_plugin.criterions.contrastive import Candidates
from mmpt_plugin.criterions.sigmoid import SigmoidCriterion, sigmoid_loss

from ..together import criterion_of, together


def slow_sigmoid_loss(video: torch.Tensor, text: torch.Tensor, bias: float, temperature: float) -> float:
    """Equation 1 of the paper, pair by pair."""
    total = 0.0
    for i, one in enumerate(video.tolist()):
        for j, other in enumerate(text.tolist()):
            logit = sum(a * b for a, b in zip(one, other)) / temperature + bias
            total += math.log1p(math.exp(-logit if i == j else logit))
    return total / len(video)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.floats(0.2, 3.0), st.floats(-5, 2), st.integers(0, 8), st.integers(0, 1000))
def test_equals_the_slow_loop_in_chunks_of_every_size(
    pairs: int, temperature: float, bias: float, chunk: int, seed: int
) -> None:
    video, text = torch.randn(2, pairs, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = sigmoid_loss(video, text, bias, temperature, chunk=chunk)
    assert found.item() == pytest.approx(slow_sigmoid_loss(video, text, bias, temperature), rel=1e-9)


def test_by_hand() -> None:
    # orthogonal pairs, bias -1: own logits 0 cost log 2, others -1 cost log(1 + 1/e); each of 2 rows has one of both
    eye = torch.eye(2)
    expected = math.log(2) + math.log1p(math.exp(-1))
    assert sigmoid_loss(eye, eye, -1.0).item() == pytest.approx(expected, rel=1e-6)
    excluded = torch.tensor([[False, True], [False, False]])  # one of the two others is left out
    found = sigmoid_loss(eye, eye, -1.0, candidates=Candidates(eye, eye, 0, excluded))
    assert found.item() == pytest.approx(expected - math.log1p(math.exp(-1)) / 2, rel=1e-6)


def test_gradients_are_those_of_the_formula_with_and_without_chunks() -> None:
    video, text = torch.randn(2, 5, 3, dtype=torch.float64).requires_grad_().unbind()
    bias = torch.tensor(-1.5, dtype=torch.float64, requires_grad=True)
    for chunk in (0, 2):
        assert torch.autograd.gradcheck(
            lambda v, t, b, c=chunk: sigmoid_loss(v, t, b, 0.5, chunk=c), (video, text, bias)
        )


def test_chunks_keep_no_matrix_of_all_pairs() -> None:
    video = torch.randn(16, 4, requires_grad=True)
    all_texts = torch.randn(128, 4)
    largest = {}
    for chunk in (0, 8):
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            sigmoid_loss(video, all_texts[:16], -2.0, candidates=Candidates(video, all_texts, 0), chunk=chunk)
        largest[chunk] = max(kept)
    assert largest[0] == 16 * 128 and largest[8] < 16 * 8 + 1


class Given(torch.nn.Module):
    """Embeddings, scale and bias as told."""

    def __init__(self, video: torch.Tensor, text: torch.Tensor, bias: float) -> None:
        super().__init__()
        self.output = {"video_embeddings": video, "text_embeddings": text}
        self.logit_scale, self.logit_bias = (
            torch.nn.Parameter(torch.tensor(2.0)),
            torch.nn.Parameter(torch.tensor(bias)),
        )
        self.normalize = False

    def forward(self) -> dict[str, torch.Tensor]:
        return self.output | {"logit_scale": self.logit_scale, "logit_bias": self.logit_bias}


SAMPLE = {"net_input": {}, "nsentences": 4, "ntokens": 9}


def test_the_criterion_takes_the_models_scale_and_bias() -> None:
    video, text = torch.randn(2, 4, 3)
    model = Given(video, text, -3.0)
    criterion = criterion_of(SigmoidCriterion)
    criterion.check_model(model)
    loss, _, _ = criterion(model, SAMPLE)
    assert loss.item() == pytest.approx(slow_sigmoid_loss(video, text, -3.0, 0.5), rel=1e-5)
    loss.backward()
    assert model.logit_bias.grad.item() != 0 and model.logit_scale.grad.item() != 0


def test_settings_that_exclude_one_another() -> None:
    model = Given(torch.eye(2), torch.eye(2), -1.0)
    with pytest.raises(ValueError, match=r"model\.logit_scale learns what criterion\.temperature=0\.5 would fix"):
        criterion_of(SigmoidCriterion, temperature=0.5).check_model(model)
    model.logit_scale = None
    with pytest.raises(
        ValueError, match=r"criterion\.temperature=1 and model\.normalize=false.*set model\.normalize=true"
    ):
        criterion_of(SigmoidCriterion).check_model(model)
    criterion_of(SigmoidCriterion, temperature=0.1).check_model(model)
    model.logit_bias = None
    with pytest.raises(ValueError, match=r"criterion sigmoid needs model\.logit_bias"):
        criterion_of(SigmoidCriterion, temperature=0.1).check_model(model)
    with pytest.raises(ValueError, match=r"criterion\.false_negatives=soft: the sigmoid loss knows pairs and others"):
        criterion_of(SigmoidCriterion, false_negatives="soft")
    with pytest.raises(ValueError, match=r"criterion\.chunk is -1: it must be at least 0"):
        criterion_of(SigmoidCriterion, chunk=-1)


def rows_of(rank: int) -> Given:
    generator = torch.Generator().manual_seed(rank)
    return Given(*(torch.randn(4, 3, generator=generator).requires_grad_() for _ in range(2)), -2.0)


def gathered(rank: int, chunk: int) -> tuple:
    model = rows_of(rank)
    loss, _, _ = criterion_of(SigmoidCriterion, gather=True, chunk=chunk)(model, SAMPLE)
    loss.backward()
    grads = [model.output[side].grad.numpy() for side in ("video_embeddings", "text_embeddings")]
    return loss.item(), *grads, model.logit_bias.grad.item(), model.logit_scale.grad.item()


def test_two_processes_have_the_loss_and_the_gradients_of_the_joined_batch(tmp_path: Path) -> None:
    results = together(gathered, 2, tmp_path, 3)
    rows = [rows_of(rank).output for rank in range(2)]
    sides = [torch.cat([row[side] for row in rows]).detach().requires_grad_() for side in rows[0]]
    model = Given(*sides, -2.0)
    expected, _, _ = criterion_of(SigmoidCriterion)(model, SAMPLE | {"nsentences": 8})
    expected.backward()
    assert np.mean([loss for loss, *_ in results]) == pytest.approx(expected.item(), rel=1e-6)
    for place, side in ((1, sides[0]), (2, sides[1])):  # fairseq averages the gradients of processes
        np.testing.assert_allclose(np.concatenate([result[place] for result in results]) / 2, side.grad, atol=1e-6)
    for place, parameter in ((3, model.logit_bias), (4, model.logit_scale)):
        assert np.mean([result[place] for result in results]) == pytest.approx(parameter.grad.item(), rel=1e-5)
