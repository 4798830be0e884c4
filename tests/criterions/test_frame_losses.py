"""The losses of seconds against slow loops."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq import metrics

from mmpt_plugin.criterions.frame_losses import FrameCrossEntropyCriterion, StepBinaryCrossEntropyCriterion
from mmpt_plugin.models.videoclip import frame_classifier


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
    with metrics.aggregate() as beside:  # a process that had no video
        FrameCrossEntropyCriterion.reduce_metrics([output, {}])
    assert beside.get_smoothed_values()["frame_accuracy"] == 0.75
    assert beside.get_smoothed_values()["loss"] == pytest.approx(loss.item(), abs=1e-4)
    assert FrameCrossEntropyCriterion.logging_outputs_can_be_summed()
    values = logged.get_smoothed_values()
    assert values["frame_accuracy"] == 0.5 and values["loss"] == pytest.approx(loss.item() + 1, abs=1e-4)

    shown = torch.nn.functional.one_hot(target, 2).to(torch.uint8)
    loss, size, output = StepBinaryCrossEntropyCriterion(SimpleNamespace())(
        answering(logits), sample | {"target": shown}
    )
    with metrics.aggregate() as logged:
        StepBinaryCrossEntropyCriterion.reduce_metrics([output])
    assert size == 1 and logged.get_smoothed_values()["loss"] == pytest.approx(loss.item(), abs=1e-4)


def test_products_of_seconds_and_their_losses_stay_in_float32_under_autocast(tiny_model) -> None:
    lengths, tokens = np.array([5, 3]), np.array([4, 7])
    features, text_ids = torch.randn(8, 512), torch.randint(5, 19, (11,))
    classes, shown = torch.randint(4, (8,)), torch.randint(2, (8, 2), dtype=torch.uint8)
    tiny_model.frame_classifier = frame_classifier(tiny_model.video_encoder, 4)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        by_text = tiny_model.classify_frames(features, lengths, text_ids, tokens)
        by_class = tiny_model.classify_frames(features, lengths)
        seconds = tiny_model.encode_seconds(features, lengths, attend_to_cls=False).float()
        texts = tiny_model.embed_texts(text_ids, tokens).float()
        losses = [
            FrameCrossEntropyCriterion(SimpleNamespace())(answering(by_class), sample_of(classes)),
            StepBinaryCrossEntropyCriterion(SimpleNamespace())(answering(by_text), sample_of(shown)),
        ]
    assert by_text.dtype == by_class.dtype == torch.float32
    torch.testing.assert_close(by_text, seconds @ texts.T, rtol=1e-6, atol=1e-6)  # bfloat16 has an error of 4e-3
    torch.testing.assert_close(by_class, tiny_model.frame_classifier(seconds), rtol=1e-6, atol=1e-6)
    assert [loss.dtype for loss, _, _ in losses] == [torch.float32] * 2
    torch.testing.assert_close(losses[0][0], torch.nn.functional.cross_entropy(by_class, classes))


def sample_of(target: torch.Tensor) -> dict:
    return {"net_input": {}, "target": target, "nsentences": 1, "ntokens": len(target)}
