"""The losses of seconds against slow loops."""

import math
from types import SimpleNamespace

import pytest
import torch
from fairseq import metrics

from mmpt_plugin.criterions.frame_cross_entropy import FrameCrossEntropyCriterion
from mmpt_plugin.criterions.step_binary_cross_entropy import StepBinaryCrossEntropyCriterion


def answering(logits: torch.Tensor) -> torch.nn.Module:
    """A model that always returns these frame logits."""
    model = torch.nn.Module()
    model.forward = lambda: {"frame_logits": logits}  # type: ignore[assignment]
    return model


def test_cross_entropy_equals_a_loop() -> None:
    logits, classes = torch.randn(6, 4, dtype=torch.float64), torch.randint(4, (6,))
    total = sum(math.log(sum(map(math.exp, row))) - row[own] for row, own in zip(logits.tolist(), classes.tolist()))
    loss = FrameCrossEntropyCriterion(SimpleNamespace()).frame_loss(logits, classes)
    assert loss.item() == pytest.approx(total / 6)


def test_binary_cross_entropy_equals_a_loop() -> None:
    logits, shown = torch.randn(6, 5, dtype=torch.float64), torch.randint(2, (6, 5), dtype=torch.uint8)
    total = 0.0
    for value, is_shown in zip(logits.flatten().tolist(), shown.flatten().tolist()):
        total -= math.log(1 / (1 + math.exp(-value if is_shown else value)))
    loss = StepBinaryCrossEntropyCriterion(SimpleNamespace()).frame_loss(logits, shown)
    assert loss.item() == pytest.approx(total / (6 * 5))


def test_what_is_logged() -> None:
    logits = torch.tensor([[0.0, 4.0], [3.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    target = torch.tensor([1, 1, 1, 0])  # seconds 1, 3 and 4 of 4 are right
    sample = {"net_input": {}, "target": target, "nsentences": 1, "ntokens": 4}
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
