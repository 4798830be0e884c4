"""The loss against the paper's formulas written as loops, closed forms and the original's values."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq import metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt_plugin.criterions.contrastive import (
    Candidates,
    DirectedContrastiveCriterion,
    VideoTextContrastiveCriterion,
    in_batch_accuracy,
    info_nce,
    symmetric_info_nce,
)
from mmpt_plugin.criterions.mil_nce import MilNceCriterion

from ..together import criterion_of, together


def slow_info_nce(queries: torch.Tensor, keys: torch.Tensor, temperature: float) -> float:
    """Equation 1 of the paper, one direction: the mean of -log softmax of each query's own key, in float64."""
    total = 0.0
    for i, query in enumerate(queries.tolist()):
        logits = [sum(a * b for a, b in zip(query, key)) / temperature for key in keys.tolist()]
        largest = max(logits)
        total += largest + math.log(sum(math.exp(logit - largest) for logit in logits)) - logits[i]
    return total / len(queries)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 7), st.floats(0.05, 5.0), st.integers(0, 1000))
def test_equals_the_slow_loop(pairs: int, width: int, temperature: float, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    video, text = (2 * torch.randn(pairs, width, generator=rng, dtype=torch.float64) for _ in range(2))
    expected = slow_info_nce(video, text, temperature) + slow_info_nce(text, video, temperature)
    assert symmetric_info_nce(video, text, temperature).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("pairs", [1, 2, 512])
def test_indistinguishable_pairs_cost_two_log_b(pairs: int) -> None:
    # All logits are equal, so each direction is -log(1 / B).
    same = torch.ones(pairs, 8)
    assert symmetric_info_nce(same, same).item() == pytest.approx(2 * math.log(pairs), abs=1e-5)


@pytest.mark.parametrize(("scale", "temperature"), [(1.0, 1.0), (3.0, 1.0), (3.0, 0.5)])
def test_orthogonal_pairs(scale: float, temperature: float) -> None:
    # Orthogonal vectors of length s: own logit s^2 / t, the 7 others 0; each direction log(1 + 7 exp(-s^2 / t)).
    embeddings = scale * torch.eye(8, dtype=torch.float64)
    expected = 2 * math.log1p(7 * math.exp(-(scale**2) / temperature))
    assert symmetric_info_nce(embeddings, embeddings, temperature).item() == pytest.approx(expected, rel=1e-6)


def test_temperature_divides_the_dot_products() -> None:
    video, text = torch.randn(2, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(symmetric_info_nce(video, text, 4.0), symmetric_info_nce(video / 2, text / 2))


def test_the_two_modalities_and_the_order_of_pairs_may_be_swapped() -> None:
    video, text = torch.randn(2, 6, 3, dtype=torch.float64)
    loss = symmetric_info_nce(video, text, 0.7)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(symmetric_info_nce(text, video, 0.7), loss)
    torch.testing.assert_close(symmetric_info_nce(video[order], text[order], 0.7), loss)


def test_gradients_are_those_of_the_formula() -> None:
    video, text = torch.randn(2, 4, 3, dtype=torch.float64).requires_grad_().unbind()
    assert torch.autograd.gradcheck(lambda v, t: symmetric_info_nce(v, t, 0.8), (video, text))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"pair row by row, got \(3, 2\) and \(4, 2\)"):
        symmetric_info_nce(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"task\.clip_sampling=bag needs criterion=mil_nce"):
        symmetric_info_nce(torch.zeros(3, 2), torch.zeros(6, 2))
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(
            ValueError, match=rf"criterion\.temperature is {temperature}: it must be positive and finite"
        ):
            symmetric_info_nce(torch.zeros(3, 2), torch.zeros(3, 2), temperature)


def test_the_core_by_hand() -> None:
    # queries 1 and 0 against candidates 2 and 1: logits [[2, 1], [0, 0]]
    # -log(e^2 / (e^2 + e)) = log(1 + e^-1) for the first, log 2 for the second
    queries, candidates = torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0], [1.0]])
    expected = (math.log1p(math.exp(-1)) + math.log(2)) / 2
    assert info_nce(queries, candidates, torch.arange(2)).item() == pytest.approx(expected, rel=1e-6)
    # with the targets swapped: log(1 + e) and log 2
    expected = (math.log1p(math.e) + math.log(2)) / 2
    assert info_nce(queries, candidates, torch.tensor([1, 0])).item() == pytest.approx(expected, rel=1e-6)
    # the other way: [[2, 0], [1, 0]], log(1 + e^-2) and -log(1 / (e + 1)) = log(1 + e)
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.e)) / 2
    assert info_nce(candidates, queries, torch.arange(2)).item() == pytest.approx(expected, rel=1e-6)


def test_both_directions_make_the_symmetric_loss() -> None:
    video, text = torch.randn(2, 7, 4, dtype=torch.float64)
    both = info_nce(text, video, torch.arange(7), 0.6) + info_nce(video, text, torch.arange(7), 0.6)
    torch.testing.assert_close(both, symmetric_info_nce(video, text, 0.6))


@pytest.mark.parametrize("direction", ["text_to_video", "video_to_text"])
def test_the_directed_criterion_goes_the_way_it_is_told(direction: str) -> None:
    video, text = torch.randn(5, 3), torch.randn(5, 3)
    criterion = criterion_of(DirectedContrastiveCriterion, temperature=2.0, direction=direction)
    loss, size, _ = criterion(FixedEmbeddings(video, text), {"net_input": {}, "nsentences": 5, "ntokens": 9})
    ways = {
        "text_to_video": info_nce(text, video, torch.arange(5), 2.0),
        "video_to_text": info_nce(video, text, torch.arange(5), 2.0),
    }
    torch.testing.assert_close(loss, ways[direction])
    assert size == 1 and not torch.isclose(*ways.values())
    with pytest.raises(ValueError, match=r"must pair row by row, got \(5, 3\) and \(4, 3\)"):
        criterion(FixedEmbeddings(video, text[:4]), {"net_input": {}, "nsentences": 5, "ntokens": 9})


@pytest.mark.parametrize("criterion", [VideoTextContrastiveCriterion, DirectedContrastiveCriterion, MilNceCriterion])
def test_shares_of_the_rows_against_all_make_the_loss_and_the_gradients_of_the_joined_batch(criterion: type) -> None:
    texts_each = 2 if criterion is MilNceCriterion else 1
    video = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    text = torch.randn(6 * texts_each, 3, dtype=torch.float64, requires_grad=True)
    direction = {"direction": "video_to_text"} if criterion is DirectedContrastiveCriterion else {}
    loss = criterion_of(criterion, temperature=0.7, **direction).loss
    whole = loss(video, text, Candidates(video, text, 0))
    shares, hits = [], torch.zeros(2)
    for first in (0, 2, 4):
        own = (video[first : first + 2], text[first * texts_each : (first + 2) * texts_each])
        shares.append(loss(*own, Candidates(video, text, first)))
        hits += torch.stack(in_batch_accuracy(*own, Candidates(video, text, first)))
    torch.testing.assert_close(sum(shares) / 3, whole)
    for part, all_rows in zip(*(torch.autograd.grad(value, (video, text)) for value in (sum(shares) / 3, whole))):
        torch.testing.assert_close(part, all_rows)
    torch.testing.assert_close(hits, torch.stack(in_batch_accuracy(video, text)).float())


def test_equals_the_originals_losses(golden: Path) -> None:
    outputs = np.load(golden / "model" / "outputs.npz")
    expected = json.loads((golden / "model" / "loss_and_gradients.json").read_text())["losses"]
    video, text = (torch.tensor(outputs[f"pooled_{side}"]) for side in ("video", "text"))
    assert symmetric_info_nce(video, text).item() == pytest.approx(expected["MMContraLoss_fp32"], rel=1e-6)
    video, text = video.double(), text.double()
    assert symmetric_info_nce(video, text).item() == pytest.approx(expected["MMContraLoss"], rel=1e-12)
    # its halves, by the name of the query
    assert slow_info_nce(text, video, 1.0) == pytest.approx(expected["T2VContraLoss"], rel=1e-12)
    assert slow_info_nce(video, text, 1.0) == pytest.approx(expected["V2TContraLoss"], rel=1e-12)


def test_accuracy_of_a_hand_worked_case() -> None:
    # similarities (text x video): [[2, 0], [3, 1]]. Text 0 finds video 0 (2 > 0), text 1 finds video 0 (3 > 1): 1 of 2.
    # Video 0 finds text 1 (3 > 2), video 1 finds text 1 (1 > 0): 1 of 2. The other way round with rows swapped: 1, 1.
    video, text = torch.eye(2), torch.tensor([[2.0, 0.0], [3.0, 1.0]])
    assert [hits.item() for hits in in_batch_accuracy(video, text)] == [1, 1]
    # [[2, 3], [0, 1]]: text 0 finds video 1; text 1 finds video 1; video 0 finds text 0, video 1 finds text 0.
    # [[2, 1], [0, 3]]: everything is found.
    assert [hits.item() for hits in in_batch_accuracy(video, torch.tensor([[2.0, 1.0], [0.0, 3.0]]))] == [2, 2]
    # three texts, all nearest to video 2, whose own text is its nearest: texts 1 of 3, videos 1 of 3
    video, text = torch.eye(3), torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 2.0], [1.0, 1.0, 3.0]])
    assert [hits.item() for hits in in_batch_accuracy(video, text)] == [1, 1]
    # texts 2 of 3, videos 3 of 3: the two directions are told apart
    text = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.4, 0.0], [0.0, 0.0, 1.0]])
    assert [hits.item() for hits in in_batch_accuracy(video, text)] == [2, 3]


def test_accuracy_of_bags_of_texts() -> None:
    # two texts a video; similarities (text x video): texts 0, 1 of video 0: [1, 0], [0, 2]; texts 2, 3 of video 1: [3, 0],
    # [0, 1]. Texts 0 and 3 find their video: 2 of 4, that is 1 of 2 videos. Video 0 finds text 2, video 1 text 1: none.
    video, text = torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    assert [hits.item() for hits in in_batch_accuracy(video, text)] == [1, 0]
    text[2, 0] = 0.5  # video 0 now finds text 0, its own
    assert [hits.item() for hits in in_batch_accuracy(video, text)] == [1, 1]
    text[1] = torch.tensor([2.0, 0.0])  # text 1 finds video 0, which finds it: of its texts any will do
    assert [hits.item() for hits in in_batch_accuracy(video, text)] == [1.5, 2]


class FixedEmbeddings(torch.nn.Module):
    """A model that embeds as it is told."""

    def __init__(self, video: torch.Tensor, text: torch.Tensor) -> None:
        super().__init__()
        self.output = {"video_embeddings": video, "text_embeddings": text}

    def forward(self) -> dict[str, torch.Tensor]:
        return self.output


def logged(video: torch.Tensor, text: torch.Tensor, temperature: float = 1.0) -> tuple[torch.Tensor, int, dict]:
    criterion = criterion_of(temperature=temperature)
    return criterion(FixedEmbeddings(video, text), {"net_input": {}, "nsentences": len(video), "ntokens": 7})


def test_forward_and_what_it_logs() -> None:
    video, text = torch.randn(2, 6, 3)
    loss, sample_size, output = logged(video, text, 0.5)
    torch.testing.assert_close(loss, symmetric_info_nce(video, text, 0.5))
    assert (sample_size, output["sample_size"], output["nsentences"], output["ntokens"]) == (1, 1, 6, 7)
    assert output["loss"].item() == pytest.approx(6 * loss.item())
    assert [output["text_to_video"], output["video_to_text"]] == list(in_batch_accuracy(video, text))


def test_half_precision_embeddings_are_compared_in_float32() -> None:
    # dot products of 300 x 300 x 4 = 360,000 overflow float16's 65,504
    embeddings = torch.full((2, 4), 300.0, dtype=torch.float16)
    loss, _, _ = logged(embeddings, embeddings)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_leaves_the_loss_in_float32(dtype: torch.dtype) -> None:
    # Logits of 300 x 300: their float16 products are infinite; in bfloat16 90,000 and 89,970 are one number.
    video = torch.tensor([[300.0, 0.0], [0.0, 300.0]])
    text = torch.tensor([[300.0, 299.9], [0.0, 300.0]])
    expected, _, _ = logged(video.double(), text.double())
    with torch.autocast("cpu", dtype):
        loss, _, under_autocast = logged(video, text)
        assert (video @ text.T).dtype == dtype  # it was on
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert [under_autocast[key].item() for key in ("text_to_video", "video_to_text")] == [2, 2]


def test_metrics_average_over_pairs_of_unequal_batches() -> None:
    # 2 pairs of loss 4 and 6 pairs of loss 8: (2 * 4 + 6 * 8) / 8 = 7; 1 + 3 of 8 texts, 2 + 6 of 8 videos.
    outputs = [
        {"loss": torch.tensor(8.0), "text_to_video": 1, "video_to_text": 2, "nsentences": 2},
        {"loss": torch.tensor(48.0), "text_to_video": 3, "video_to_text": 6, "nsentences": 6},
    ]
    with metrics.aggregate(new_root=True) as meters:
        VideoTextContrastiveCriterion.reduce_metrics(outputs)
        values = meters.get_smoothed_values()
        assert values == {"loss": 7.0, "text_to_video": 0.5, "video_to_text": 1.0}
        assert all(type(meter.sum) is float for meter in meters.values())  # what torch's safe loading can read
        VideoTextContrastiveCriterion.reduce_metrics([{"loss": torch.tensor(8 * 15.0), "nsentences": 8}])
        assert meters["loss"].avg == 11.0  # batches weigh by their pairs: (8 * 7 + 8 * 15) / 16
        VideoTextContrastiveCriterion.reduce_metrics([{}])  # a process without a batch
    assert VideoTextContrastiveCriterion.logging_outputs_can_be_summed()


def rows_of(rank: int, pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rank)
    return tuple(torch.randn(pairs, 3, generator=generator, requires_grad=True) for _ in range(2))


def gathered_loss(rank: int, pairs: int) -> tuple:
    """A process's loss, what it logs, and the gradients of its own rows."""
    video, text = rows_of(rank, pairs)
    criterion = criterion_of(temperature=0.7, gather=True)
    sample = {"net_input": {}, "nsentences": pairs, "ntokens": 7}
    loss, _, output = criterion(FixedEmbeddings(video, text), sample)
    products = largest_products(criterion, FixedEmbeddings(video, text), sample)
    loss.backward()
    hits = [float(output[key]) for key in ("text_to_video", "video_to_text")]
    return loss.item(), hits, video.grad.numpy(), text.grad.numpy(), products


def largest_products(criterion: VideoTextContrastiveCriterion, model: torch.nn.Module, sample: dict) -> list[tuple]:
    """The shapes of the losses' logits."""
    seen: list[tuple] = []
    original = torch.nn.functional.cross_entropy
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            torch.nn.functional, "cross_entropy", lambda x, *rest: seen.append(tuple(x.shape)) or original(x, *rest)
        )
        criterion(model, sample)
    return seen


def test_gathered_rows_have_the_loss_and_the_gradients_of_the_joined_batch(tmp_path: Path) -> None:
    processes, pairs = 3, 4
    results = together(gathered_loss, processes, tmp_path, pairs)
    rows = [rows_of(rank, pairs) for rank in range(processes)]
    video, text = (torch.cat(side).detach().requires_grad_() for side in zip(*rows))
    expected = symmetric_info_nce(video, text, 0.7)
    expected.backward()
    assert np.mean([loss for loss, *_ in results]) == pytest.approx(expected.item(), rel=1e-6)
    assert np.sum([hits for _, hits, *_ in results], axis=0).tolist() == [
        float(n) for n in in_batch_accuracy(video, text)
    ]
    for side, whole in ((2, video.grad), (3, text.grad)):  # fairseq averages the gradients of processes
        np.testing.assert_allclose(np.concatenate([result[side] for result in results]) / processes, whole, atol=1e-6)
    assert all(result[4] == [(pairs, processes * pairs)] * 2 for result in results)  # its own rows only
