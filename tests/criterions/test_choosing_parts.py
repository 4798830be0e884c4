"""Texts that choose a part of their clip: against loops, by hand, and over processes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt_plugin.criterions.choosing_parts import ChoosingPartsCriterion, best_part_logits, choosing_info_nce
from mmpt_plugin.criterions.contrastive import Candidates, symmetric_info_nce
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.pooling import part_means
from mmpt_plugin.models.videoclip import VideoClipModel

from ..together import criterion_of, together
from .test_false_negatives import sample_of


def slow_loss(parts: torch.Tensor, text: torch.Tensor, temperature: float) -> float:
    """Pair by pair: the log of the mean over parts of exp(product / temperature), then both directions' cross-entropies."""
    pairs = len(text)
    logits = [
        [
            math.log(np.mean([math.exp(float(part @ one) / temperature) for part in parts[video]]))
            for video in range(pairs)
        ]
        for one in text
    ]
    columns = [list(column) for column in zip(*logits)]
    return (
        sum(math.log(sum(map(math.exp, row))) - row[i] for table in (logits, columns) for i, row in enumerate(table))
        / pairs
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.floats(0.3, 3), st.integers(0, 1000))
def test_equals_the_slow_loop(pairs: int, parts: int, temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    video = torch.randn(pairs, parts, 3, generator=generator, dtype=torch.float64)
    text = torch.randn(pairs, 3, generator=generator, dtype=torch.float64)
    assert choosing_info_nce(video, text, temperature).item() == pytest.approx(
        slow_loss(video, text, temperature), rel=1e-9
    )


def test_by_hand() -> None:
    # one text [1, 0]; a clip whose parts have the products 1 and 0, and one with 0 and 0
    logits = best_part_logits(
        torch.tensor([[1.0, 0.0]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 2.0]]])
    )
    assert logits.tolist() == [pytest.approx([math.log((math.e + 1) / 2), 0.0], abs=1e-6)]


def test_equal_parts_are_the_whole_clip() -> None:
    video, text = torch.randn(2, 5, 3, dtype=torch.float64)
    same = video[:, None].expand(-1, 3, -1)
    torch.testing.assert_close(choosing_info_nce(same, text, 0.7), symmetric_info_nce(video, text, 0.7))


def test_gradients_are_those_of_the_formula() -> None:
    video = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    text = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, t: choosing_info_nce(v, t, 0.6), (video, text))


def test_parts_by_hand() -> None:
    # [CLS] 9, features 1 2 3, [SEP] 9: halves of 3 features share the middle one; thirds are single ones; 1 is the mean
    states = torch.tensor([[9.0, 1.0, 2.0, 3.0, 9.0], [9.0, 4.0, 9.0, 0.0, 0.0], [9.0, 9.0, 0.0, 0.0, 0.0]])[..., None]
    lengths = np.array([3, 1, 0])
    assert part_means(states, lengths, 2)[..., 0].tolist() == [[1.5, 2.5], [4.0, 4.0], [0.0, 0.0]]
    torch.testing.assert_close(part_means(states, lengths, 3)[0, :, 0], torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(part_means(states, lengths, 1)[0, 0], torch.tensor([2.0]))


@pytest.mark.parametrize("chunk_pairs", [0, 1])
def test_the_model_gives_the_whole_clip_and_its_parts(tiny_bert: Path, chunk_pairs: int) -> None:
    cfg = VideoClipConfig(bert=str(tiny_bert), video_layers=2, normalize=True, clip_parts=2, chunk_pairs=chunk_pairs)
    model = VideoClipModel.from_config(cfg).eval()
    features, lengths = torch.randn(9, 512), np.array([4, 5])
    output = model(features, lengths, torch.tensor([2, 7, 3, 2, 6, 8, 3]), np.array([3, 4]))
    parts = output["video_parts"]
    assert parts.shape == (2, 3, 32)
    torch.testing.assert_close(parts[:, 0], output["video_embeddings"])
    torch.testing.assert_close(output["video_embeddings"], model.embed_videos(features, lengths))
    hidden = model.video_encoder(features, lengths)
    halves = torch.stack([hidden[0, 1:3].mean(0), hidden[0, 3:5].mean(0)])
    torch.testing.assert_close(parts[0, 1:], halves / halves.norm(dim=1, keepdim=True))


class Parts(torch.nn.Module):
    """A model of given parts."""

    clip_parts = 2

    def __init__(self, parts: torch.Tensor, text: torch.Tensor) -> None:
        super().__init__()
        self.output = {"video_embeddings": parts[:, 0], "video_parts": parts, "text_embeddings": text}

    def forward(self, **inputs: object) -> dict[str, torch.Tensor]:
        return self.output


def choosing(**given: object) -> ChoosingPartsCriterion:
    return criterion_of(ChoosingPartsCriterion, temperature=0.7, **given)


def test_who_reads_parts_and_who_does_not() -> None:
    model = Parts(torch.randn(2, 3, 4), torch.randn(2, 4))
    choosing().check_model(model)
    with pytest.raises(ValueError, match=r"model\.clip_parts is 2, which criterion choosing_parts alone reads"):
        criterion_of().check_model(model)
    model.clip_parts = 1
    with pytest.raises(ValueError, match=r"criterion choosing_parts needs model\.clip_parts of 2 or more"):
        choosing().check_model(model)
    with pytest.raises(ValueError, match=r"must pair row by row, got \(2, 4\) and \(2, 4\)"):
        choosing_info_nce(torch.zeros(2, 4), torch.zeros(2, 4))


def rows_of(rank: int) -> tuple[torch.Tensor, torch.Tensor, dict]:
    generator = torch.Generator().manual_seed(rank)
    parts = torch.randn(3, 3, 4, generator=generator).requires_grad_()
    text = torch.randn(3, 4, generator=generator).requires_grad_()
    return parts, text, sample_of(torch.tensor([[0, rank, rank + 2], [0, 1, 4], [1 + rank, 0, 3]]))


def gathered(rank: int) -> tuple:
    parts, text, sample = rows_of(rank)
    loss, _, output = choosing(gather=True, false_negatives="mask")(Parts(parts, text), sample)
    loss.backward()
    return loss.item(), parts.grad.numpy(), text.grad.numpy(), float(output["text_to_video"])


def test_two_processes_have_the_loss_and_the_gradients_of_the_joined_batch(tmp_path: Path) -> None:
    results = together(gathered, 2, tmp_path)
    rows = [rows_of(rank) for rank in range(2)]
    parts, text = (torch.cat(side).detach().requires_grad_() for side in zip(*(row[:2] for row in rows)))
    sample = sample_of(torch.cat([row[2]["spans"] for row in rows]))
    expected, _, output = choosing(false_negatives="mask")(Parts(parts, text), sample)
    expected.backward()
    plain = choosing_info_nce(parts, text, 0.7, Candidates(parts, text, 0))
    assert abs(plain - expected) > 0.01  # so that there was something to leave out
    assert np.mean([loss for loss, *_ in results]) == pytest.approx(expected.item(), rel=1e-6)
    assert sum(hits for *_, hits in results) == float(output["text_to_video"])
    for side, whole in ((1, parts.grad), (2, text.grad)):
        np.testing.assert_allclose(np.concatenate([result[side] for result in results]) / 2, whole, atol=1e-6)
