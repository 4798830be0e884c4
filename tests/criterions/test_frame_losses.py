"""The losses of seconds against slow loops; padding has no part in them."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from fairseq import metrics

from mmpt_plugin.criterions.frame_cross_entropy import FrameCrossEntropyCriterion, frame_cross_entropy
from mmpt_plugin.criterions.step_binary_cross_entropy import (
    StepBinaryCrossEntropyCriterion,
    step_binary_cross_entropy,
)

MASK = torch.tensor([[True, True, True], [True, False, False]])


def answering(logits: torch.Tensor) -> torch.nn.Module:
    """A model that always returns these frame logits."""
    model = torch.nn.Module()
    model.forward = lambda video_mask: {"frame_logits": logits}  # type: ignore[assignment]
    return model


def test_cross_entropy_equals_a_loop() -> None:
    logits, classes = torch.randn(2, 3, 4, dtype=torch.float64), torch.randint(4, (2, 3))
    total = 0.0
    for window, second in MASK.nonzero().tolist():
        values = logits[window, second].tolist()
        total += math.log(sum(map(math.exp, values))) - values[classes[window, second]]
    assert frame_cross_entropy(logits, classes, MASK).item() == pytest.approx(total / 4)


def test_binary_cross_entropy_equals_a_loop() -> None:
    logits, shown = torch.randn(2, 3, 5, dtype=torch.float64), torch.randint(2, (2, 3, 5), dtype=torch.uint8)
    total = 0.0
    for window, second in MASK.nonzero().tolist():
        for value, is_shown in zip(logits[window, second].tolist(), shown[window, second].tolist()):
            total -= math.log(1 / (1 + math.exp(-value if is_shown else value)))
    assert step_binary_cross_entropy(logits, shown, MASK).item() == pytest.approx(total / (4 * 5))


@pytest.mark.parametrize("loss", [frame_cross_entropy, step_binary_cross_entropy])
def test_padding_gets_no_gradient(loss: Callable[..., torch.Tensor]) -> None:
    logits = torch.randn(2, 3, 4, requires_grad=True)
    target = torch.ones(2, 3, dtype=torch.int64) if loss is frame_cross_entropy else torch.ones(2, 3, 4)
    loss(logits, target, MASK).backward()
    assert logits.grad is not None
    assert not logits.grad[~MASK].any() and logits.grad[MASK].any(-1).all()


def test_what_is_logged() -> None:
    logits = torch.tensor([[[0.0, 4.0], [3.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 9.0], [0.0, 9.0]]])
    target = torch.tensor([[1, 1, 1], [0, 0, 0]])  # seconds 1, 3 and 4 of 4 are right
    sample = {"net_input": {"video_mask": MASK}, "target": target, "nsentences": 1, "ntokens": 4}
    loss, size, output = FrameCrossEntropyCriterion(SimpleNamespace())(answering(logits), sample)
    assert size == 1 and output["frames_right"] == 3
    with metrics.aggregate() as logged:
        FrameCrossEntropyCriterion.reduce_metrics([output, output | {"loss": output["loss"] + 2, "frames_right": 1}])
    values = logged.get_smoothed_values()
    assert values["frame_accuracy"] == 0.5 and values["loss"] == pytest.approx(loss.item() + 1, abs=1e-4)

    shown = torch.nn.functional.one_hot(target, 2).to(torch.uint8)
    loss, size, output = StepBinaryCrossEntropyCriterion(SimpleNamespace())(
        answering(logits), sample | {"target": shown}
    )
    with metrics.aggregate() as logged:
        StepBinaryCrossEntropyCriterion.reduce_metrics([output])
    assert size == 1 and logged.get_smoothed_values()["loss"] == pytest.approx(loss.item(), abs=1e-4)
