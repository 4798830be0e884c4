"""MIL-NCE against a slow loop over the paper's formula, closed forms and what it must not depend on."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from fairseq.criterions import CRITERION_REGISTRY
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt_plugin.criterions.contrastive import Candidates, in_batch_accuracy
from mmpt_plugin.criterions.mil_nce import MilNceCriterion, mil_nce

from ..together import criterion_of


def slow_mil_nce(video: list[list[float]], text: list[list[float]], temperature: float) -> float:
    """Equation 1 of the paper, pair by pair."""
    bag = len(text) // len(video)

    def score(i: int, j: int, k: int) -> float:
        """exp of clip i with text k of bag j."""
        return math.exp(sum(a * b for a, b in zip(video[i], text[j * bag + k])) / temperature)

    total = 0.0
    for i in range(len(video)):
        others = [j for j in range(len(video)) if j != i]
        positives = sum(score(i, i, k) for k in range(bag))
        negatives = sum(score(i, j, k) + score(j, i, k) for j in others for k in range(bag))
        total -= math.log(positives / (positives + negatives))
    return total / len(video)


def random_embeddings(clips: int, bag: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(rows, width, generator=rng, dtype=torch.float64) for rows in (clips, clips * bag))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 5), st.integers(1, 6), st.floats(0.2, 5.0), st.integers(0, 1000))
def test_equals_the_slow_loop(clips: int, bag: int, width: int, temperature: float, seed: int) -> None:
    video, text = random_embeddings(clips, bag, width, seed)
    expected = slow_mil_nce(video.tolist(), text.tolist(), temperature)
    assert mil_nce(video, text, temperature).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("shares", [(0, 2, 4), (0, 1, 4), (0, 3, 4)])
def test_clips_of_several_processes_compare_with_all(shares: tuple[int, ...]) -> None:
    video, text = random_embeddings(4, 3, 5, 0)
    losses = [
        mil_nce(video[first:last], text[3 * first : 3 * last], 0.4, Candidates(video, text, first)) * (last - first)
        for first, last in pairwise(shares)
    ]
    assert sum(losses).item() / 4 == pytest.approx(mil_nce(video, text, 0.4).item(), rel=1e-9)


@pytest.mark.parametrize(("clips", "bag"), [(1, 1), (1, 5), (4, 1), (64, 5)])
def test_indistinguishable_clips_cost_log_of_2b_minus_1(clips: int, bag: int) -> None:
    # All scores are equal: bag positives among bag + 2 (clips - 1) bag, whatever the bag.
    same = torch.ones(clips, 8), torch.ones(clips * bag, 8)
    assert mil_nce(*same).item() == pytest.approx(math.log(2 * clips - 1), abs=1e-5)


@pytest.mark.parametrize(("scale", "temperature", "bag"), [(1.0, 1.0, 1), (2.0, 0.5, 3)])
def test_orthogonal_clips(scale: float, temperature: float, bag: int) -> None:
    # Own score exp(s^2 / t), of each of the bag; the 2 * 7 bags of the others 1: log(1 + 14 exp(-s^2 / t)).
    video = scale * torch.eye(8, dtype=torch.float64)
    expected = math.log1p(14 * math.exp(-(scale**2) / temperature))
    assert mil_nce(video, video.repeat_interleave(bag, 0), temperature).item() == pytest.approx(expected, rel=1e-9)


def test_one_right_text_is_enough() -> None:
    # Two clips at (a, 0) and (0, a) with two texts each, one of its own direction and one of neither: own scores
    # e^(a a) and 1; the other's bag and clip give 2 each. log((e^(a a) + 1 + 4) / (e^(a a) + 1)).
    video = 3 * torch.eye(3, dtype=torch.float64)[:2]
    text = 3 * torch.eye(3, dtype=torch.float64)[[0, 2, 2, 1]]
    own = math.exp(9) + 1
    assert mil_nce(video, text).item() == pytest.approx(math.log((own + 4) / own), rel=1e-9)


def test_with_one_text_negatives_of_both_directions_share_a_denominator() -> None:
    video, text = random_embeddings(6, 1, 4, seed=0)
    logits = video @ text.T
    column = logits.T.masked_fill(torch.eye(6, dtype=torch.bool), -torch.inf)
    expected = F.cross_entropy(torch.cat([logits, column], 1), torch.arange(6))
    torch.testing.assert_close(mil_nce(video, text), expected)
    torch.testing.assert_close(mil_nce(text, video), expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.integers(2, 4), st.integers(0, 100))
def test_the_order_of_clips_and_of_texts_in_a_bag_does_not_matter(clips: int, bag: int, seed: int) -> None:
    video, text = random_embeddings(clips, bag, 5, seed)
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(clips, generator=rng)
    bags = text.unflatten(0, (clips, bag))[order]
    bags = torch.stack([texts[torch.randperm(bag, generator=rng)] for texts in bags])
    torch.testing.assert_close(mil_nce(video[order], bags.flatten(0, 1)), mil_nce(video, text))


@pytest.mark.parametrize(("clips", "bag"), [(3, 2), (1, 3)])
def test_gradients_are_those_of_the_formula(clips: int, bag: int) -> None:
    video, text = (x.requires_grad_() for x in random_embeddings(clips, bag, 3, seed=1))
    assert torch.autograd.gradcheck(lambda v, t: mil_nce(v, t, 0.8), (video, text))


def test_large_scores_do_not_overflow() -> None:
    video = 100 * torch.eye(4)  # own score e^10000
    text = video.repeat_interleave(2, 0)
    assert mil_nce(video, text).item() == 0
    assert mil_nce(video, text.flip(0)).item() == pytest.approx(10000 + math.log(2), rel=1e-6)  # a clip's, and a bag's


@pytest.mark.parametrize(("clips", "texts"), [((3, 2), (4, 2)), ((3, 2), (6, 3)), ((3, 2), (0, 2)), ((0, 2), (0, 2))])
def test_bags_of_unequal_size_or_width(clips: tuple[int, int], texts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="the same number of texts"):
        mil_nce(torch.zeros(clips), torch.zeros(texts))
    with pytest.raises(ValueError, match=r"criterion\.temperature is -1.0: it must be positive"):
        mil_nce(torch.zeros(3, 2), torch.zeros(6, 2), -1.0)


def test_the_criterion_and_what_it_logs() -> None:
    assert CRITERION_REGISTRY["mil_nce"] is MilNceCriterion
    video, text = (x.float() for x in random_embeddings(4, 3, 5, seed=2))
    sample = {"net_input": {}, "nsentences": 4, "ntokens": 9}
    criterion = criterion_of(MilNceCriterion, temperature=0.5)
    loss, sample_size, output = criterion(lambda: {"video_embeddings": video, "text_embeddings": text}, sample)
    torch.testing.assert_close(loss, mil_nce(video, text, 0.5))
    assert (sample_size, output["nsentences"], output["ntokens"]) == (1, 4, 9)
    assert output["loss"].item() == pytest.approx(4 * loss.item())
    assert [output["text_to_video"], output["video_to_text"]] == list(in_batch_accuracy(video, text))
