"""Pairs that are no negatives: which these are, and what the losses make of them, against loops and by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt_plugin.criterions.contrastive import (
    Candidates,
    DirectedContrastiveCriterion,
    VideoTextContrastiveCriterion,
    info_nce,
)
from mmpt_plugin.criterions.false_negatives import are_near, overlaps, say_the_same, word_sets
from mmpt_plugin.criterions.mil_nce import MilNceCriterion

from ..together import criterion_of, together
from .test_contrastive import FixedEmbeddings

SPANS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=8)


def as_spans(drawn: list[tuple[int, int, int]]) -> torch.Tensor:
    return torch.tensor([(video, start, start + seconds) for video, start, seconds in drawn])


@settings(max_examples=60, deadline=None)
@given(SPANS, SPANS, st.floats(0, 5))
def test_near_and_overlapping_clips_as_sets_of_seconds_have_them(first: list, second: list, seconds: float) -> None:
    one, other = as_spans(first), as_spans(second)
    near, shares = are_near(one, other, seconds), overlaps(one, other)
    for i, (video, start, end) in enumerate(one.tolist()):
        for j, (other_video, other_start, other_end) in enumerate(other.tolist()):
            gap = max(start, other_start) - min(end, other_end)
            assert near[i, j] == (video == other_video and gap < seconds)
            a, b = set(range(start, end)), set(range(other_start, other_end))
            expected = len(a & b) / len(a | b) if a | b else float((start, end) == (other_start, other_end))
            assert shares[i, j].item() == pytest.approx(expected * (video == other_video))


def test_near_clips_by_hand() -> None:
    spans = torch.tensor([[7, 0, 4], [7, 3, 8], [7, 4, 6], [7, 9, 12], [8, 0, 4]])
    # clip 0 shares second 3 with clip 1, touches clip 2, has 5 seconds to clip 3; clip 4 is of another video
    assert are_near(spans[:1], spans).tolist() == [[True, True, False, False, False]]
    assert are_near(spans[:1], spans, 1).tolist() == [[True, True, True, False, False]]
    assert are_near(spans[:1], spans, 5.5).tolist() == [[True, True, True, True, False]]
    assert overlaps(spans[:1], spans).tolist() == [[1.0, 1 / 8, 0.0, 0.0, 0.0]]


def test_same_words_by_hand() -> None:
    # texts {7, 8, 9}, {7, 8}, {9} twice, none: of the union's pieces the first two share 2 of 3
    ids = torch.tensor([2, 7, 8, 9, 3, 2, 8, 7, 7, 3, 2, 9, 3, 2, 9, 3, 2, 3])
    sets = word_sets(ids, np.array([5, 5, 3, 3, 2]))
    assert sets.sum(1).tolist() == [3, 2, 1, 1, 0]
    assert say_the_same(sets, sets, 2 / 3).int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ]
    assert not say_the_same(sets[:1], sets[1:2], 0.7)


def slow_loss(logits: torch.Tensor, shares: list[list[float]], excluded: list[list[bool]]) -> float:
    """The mean over queries of - sum of share * log softmax, over the candidates that are not excluded."""
    total = 0.0
    for row, own, out in zip(logits.tolist(), shares, excluded):
        below = sum(math.exp(logit) for logit, left_out in zip(row, out) if not left_out)
        total -= sum(share * (logit - math.log(below)) for share, logit in zip(own, row) if share)
    return total / len(logits)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_core_with_shares_and_exclusions_equals_the_slow_loop(pairs: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries, candidates = torch.randn(2, pairs, 3, generator=generator, dtype=torch.float64)
    excluded = (torch.rand(pairs, pairs, generator=generator) < 0.3) & ~torch.eye(pairs, dtype=torch.bool)
    shares = torch.rand(pairs, pairs, generator=generator, dtype=torch.float64).masked_fill(excluded, 0)
    shares = shares / shares.sum(1, keepdim=True)
    found = info_nce(queries, candidates, shares, 0.5, excluded=excluded)
    logits = queries @ candidates.T / 0.5
    assert found.item() == pytest.approx(slow_loss(logits, shares.tolist(), excluded.tolist()), rel=1e-9)
    hard = torch.eye(pairs, dtype=torch.float64)
    torch.testing.assert_close(
        info_nce(queries, candidates, torch.arange(pairs), 0.5, excluded=excluded),
        info_nce(queries, candidates, hard, 0.5, excluded=excluded),
    )


def sample_of(spans: torch.Tensor) -> dict:
    inputs = {"text_ids": torch.tensor([2, 5, 3] * len(spans)), "text_lengths": np.full(len(spans), 3)}
    return {"net_input": inputs, "nsentences": len(spans), "ntokens": 1, "spans": spans}


class Given(FixedEmbeddings):
    """Embeddings as told, whatever the input."""

    def forward(self, **inputs: object) -> dict[str, torch.Tensor]:
        return self.output


def test_masked_and_soft_by_hand() -> None:
    # Orthogonal unit vectors: own logits 1, others 0. Clips 0 and 1 share 1 of 3 seconds; clip 2 is of another video.
    spans, embeddings = torch.tensor([[0, 0, 2], [0, 1, 3], [1, 0, 2]]), torch.eye(3)
    model, e = Given(embeddings, embeddings), math.e
    keep, mask, soft = (
        criterion_of(false_negatives=kind)(model, sample_of(spans))[0].item() for kind in ("keep", "mask", "soft")
    )
    # keep: each of the 6 rows log((e + 2) / e)
    assert keep == pytest.approx(2 * math.log((e + 2) / e))
    # mask: clips 0 and 1 have one other left, clip 2 both
    assert mask == pytest.approx(2 * (2 * math.log((e + 1) / e) + math.log((e + 2) / e)) / 3)
    # soft: of clips 0 and 1, 3/4 is right with logit 1 and 1/4 with logit 0
    assert soft == pytest.approx(2 * (2 * (math.log(e + 2) - 0.75) + math.log(e + 2) - 1) / 3)


def test_nearer_clips_and_same_words_are_left_out_too() -> None:
    embeddings = torch.eye(3)
    spans = torch.tensor([[0, 0, 2], [0, 4, 6], [1, 0, 2]])
    sample = sample_of(spans)
    sample["net_input"] = {"text_ids": torch.tensor([2, 5, 3, 2, 6, 3, 2, 5, 3]), "text_lengths": np.array([3, 3, 3])}

    def left_out(**settings: object) -> list[list[int]]:
        criterion = criterion_of(**settings)
        return criterion.relate(sample, Candidates(embeddings, embeddings, 0)).excluded.int().tolist()

    assert left_out(false_negatives="mask") == [[0, 0, 0]] * 3
    assert left_out(false_negatives="mask", near_seconds=2.5) == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert left_out(false_negatives="mask", same_words=1.0) == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert left_out(false_negatives="soft", same_words=1.0) == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_gradients_are_those_of_the_formula() -> None:
    spans = torch.tensor([[0, 0, 2], [0, 1, 3], [1, 0, 2], [1, 1, 5]])
    video, text = torch.randn(2, 4, 3, dtype=torch.float64).requires_grad_().unbind()
    for kind in ("mask", "soft"):
        criterion = criterion_of(false_negatives=kind)

        def loss(
            v: torch.Tensor, t: torch.Tensor, criterion: VideoTextContrastiveCriterion = criterion
        ) -> torch.Tensor:
            related = criterion.relate(sample_of(spans), Candidates(v, t, 0))
            if related.shares is not None:
                related = related._replace(shares=related.shares.double())
            return criterion.loss(v, t, related)

        assert torch.autograd.gradcheck(loss, (video, text))


def test_what_cannot_be_done_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"false_negatives is mask, but the batches do not tell which seconds"):
        sample = sample_of(torch.zeros(2, 3, dtype=torch.int64))
        del sample["spans"]
        criterion_of(false_negatives="mask")(Given(torch.eye(2), torch.eye(2)), sample)
    with pytest.raises(ValueError, match=r"near_seconds is 2\.0, which criterion\.false_negatives=soft does not read"):
        criterion_of(false_negatives="soft", near_seconds=2.0)
    with pytest.raises(ValueError, match=r"same_words is 0\.5, which criterion\.false_negatives=keep does not read"):
        criterion_of(same_words=0.5)
    with pytest.raises(ValueError, match=r"criterion\.same_words is 1\.5: it must be more than 0 and at most 1"):
        criterion_of(false_negatives="mask", same_words=1.5)
    with pytest.raises(ValueError, match=r"criterion\.near_seconds is -1: it must be at least 0"):
        criterion_of(false_negatives="mask", near_seconds=-1)
    with pytest.raises(ValueError, match=r"criterion mil_nce knows keep alone"):
        criterion_of(MilNceCriterion, false_negatives="mask")


def test_one_direction_leaves_out_the_same_pairs() -> None:
    spans, embeddings = torch.tensor([[0, 0, 2], [0, 1, 3], [1, 0, 2]]), torch.eye(3)
    ways = [
        criterion_of(DirectedContrastiveCriterion, false_negatives="mask", direction=direction)
        for direction in ("text_to_video", "video_to_text")
    ]
    both = criterion_of(false_negatives="mask")
    one, other, whole = (c(Given(embeddings, 2 * embeddings), sample_of(spans))[0] for c in (*ways, both))
    torch.testing.assert_close(one + other, whole)


def rows_of(rank: int) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """Four pairs of a process; half of the clips are of a video that both processes have."""
    generator = torch.Generator().manual_seed(rank)
    video, text = (torch.randn(4, 3, generator=generator).requires_grad_() for _ in range(2))
    sample = sample_of(torch.tensor([[0, rank, rank + 2], [0, 1, 4], [1 + rank, 0, 3], [1 + rank, 2, 4]]))
    words = torch.arange(5, 9) + 2 * rank
    sample["net_input"]["text_ids"] = torch.stack([torch.full((4,), 2), words, torch.full((4,), 3)], 1).flatten()
    return video, text, sample


SETTINGS = {"false_negatives": "soft", "same_words": 1.0, "temperature": 0.7}


def gathered(rank: int) -> tuple:
    video, text, sample = rows_of(rank)
    loss, _, _ = criterion_of(gather=True, **SETTINGS)(Given(video, text), sample)
    loss.backward()
    return loss.item(), video.grad.numpy(), text.grad.numpy()


def test_two_processes_leave_out_and_share_as_the_joined_batch(tmp_path: Path) -> None:
    results = together(gathered, 2, tmp_path)
    rows = [rows_of(rank) for rank in range(2)]
    video, text = (torch.cat(side).detach().requires_grad_() for side in zip(*(row[:2] for row in rows)))
    sample = sample_of(torch.cat([row[2]["spans"] for row in rows]))
    sample["net_input"]["text_ids"] = torch.cat([row[2]["net_input"]["text_ids"] for row in rows])
    expected, _, _ = criterion_of(**SETTINGS)(Given(video, text), sample)
    expected.backward()
    plain, _, _ = criterion_of(temperature=0.7)(Given(video, text), sample)
    assert abs(plain - expected) > 0.05  # so that there was something to leave out and share
    assert np.mean([loss for loss, *_ in results]) == pytest.approx(expected.item(), rel=1e-6)
    for side, whole in ((1, video.grad), (2, text.grad)):
        np.testing.assert_allclose(np.concatenate([result[side] for result in results]) / 2, whole, atol=1e-6)
