"""One direction of the contrastive loss: half of the symmetric one, and the right half."""

import math
from types import SimpleNamespace

import pytest
import torch

from mmpt_plugin.criterions.contrastive import symmetric_info_nce
from mmpt_plugin.criterions.directed_contrastive import DirectedContrastiveCriterion, info_nce


def test_both_directions_make_the_symmetric_loss() -> None:
    video, text = torch.randn(2, 7, 4, dtype=torch.float64)
    both = info_nce(text, video, 0.6) + info_nce(video, text, 0.6)
    torch.testing.assert_close(both, symmetric_info_nce(video, text, 0.6))


def test_by_hand() -> None:
    # queries 1 and 0 against candidates 2 and 1: logits [[2, 1], [0, 0]]
    # -log(e^2 / (e^2 + e)) = log(1 + e^-1) for the first, log 2 for the second
    queries, candidates = torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0], [1.0]])
    expected = (math.log1p(math.exp(-1)) + math.log(2)) / 2
    assert info_nce(queries, candidates).item() == pytest.approx(expected, rel=1e-6)
    # the other way: [[2, 0], [1, 0]], log(1 + e^-2) and -log(1 / (e + 1)) = log(1 + e)
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.e)) / 2
    assert info_nce(candidates, queries).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("direction", ["text_to_video", "video_to_text"])
def test_the_criterion_goes_the_way_it_is_told(direction: str) -> None:
    video, text = torch.randn(5, 3), torch.randn(5, 3)
    criterion = DirectedContrastiveCriterion(SimpleNamespace(), temperature=2.0, gather=False, direction=direction)
    model = torch.nn.Module()
    model.forward = lambda: {"video_embeddings": video, "text_embeddings": text}  # type: ignore[assignment]
    loss, size, _ = criterion(model, {"net_input": {}, "nsentences": 5, "ntokens": 9})
    expected = info_nce(text, video, 2.0) if direction == "text_to_video" else info_nce(video, text, 2.0)
    torch.testing.assert_close(loss, expected)
    assert size == 1 and not torch.isclose(info_nce(text, video, 2.0), info_nce(video, text, 2.0))


def test_unequal_sides_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must pair row by row, got \(2, 3\) and \(4, 3\)"):
        info_nce(torch.zeros(2, 3), torch.zeros(4, 3))
