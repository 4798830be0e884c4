"""Fused Adam against fairseq's own, and through a run that stops and goes on."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig

from mmpt_plugin.models.checkpoint import read_checkpoint
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.videoclip import VideoClipModel
from mmpt_plugin.optimizers import FusedAdam, FusedAdamConfig


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_updates_are_those_of_fairseqs_adam(weight_decay: float) -> None:
    settings = {"adam_betas": "(0.9, 0.98)", "lr": [0.01], "weight_decay": weight_decay}
    torch.manual_seed(0)
    start = torch.randn(50)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizers = FusedAdam(FusedAdamConfig(**settings), [ours]), FairseqAdam(FairseqAdamConfig(**settings), [theirs])
    for _ in range(20):
        gradient = torch.randn(50)
        for parameter, optimizer in zip((ours, theirs), optimizers):
            parameter.grad = gradient.clone()
            optimizer.step()
    assert (ours - start).abs().max() > 0.05
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_goes_on_where_it_stopped(pretrain: Callable[..., None], losses: list[float], tmp_path: Path) -> None:
    options = ["optimizer._name=fused_adam", "lr_scheduler.total_num_update=4"]
    pretrain(tmp_path / "whole", *options, "optimization.max_update=4")
    pretrain(tmp_path / "parts", *options, "optimization.max_update=2")
    pretrain(tmp_path / "parts", *options, "optimization.max_update=4")
    assert len(losses) == 8 and losses[2:4] == losses[6:8]
    whole, parts = (read_checkpoint(tmp_path / name / "checkpoint_last.pt") for name in ("whole", "parts"))
    assert whole["optimizer_history"][-1]["optimizer_name"] == "FusedAdam"
    assert all(torch.equal(value, parts["model"][key]) for key, value in whole["model"].items())


@pytest.fixture
def labelled(tiny_model: VideoClipModel) -> VideoClipModel:
    tiny_model.label_towers()
    return tiny_model


def rates(model: VideoClipModel, **settings: float) -> dict[str, float]:
    """The learning rate of each parameter of the model, at a base rate of 1."""
    optimizer = FusedAdam(FusedAdamConfig(lr=[1.0], **settings), list(model.parameters()))
    optimizer.set_lr(1.0)
    assert optimizer.get_lr() == 1.0
    of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: of[id(parameter)] for name, parameter in model.named_parameters()}


def test_layers_and_the_text_tower_have_rates_of_their_own(labelled: VideoClipModel) -> None:
    found = rates(labelled, text_rate=0.1, layer_decay=0.5)
    layer = "transformer.encoder.layer.{}.output.dense.weight"
    expected = {
        "text_encoder." + layer.format(2): 0.1,  # the last of three
        "text_encoder." + layer.format(1): 0.05,
        "text_encoder." + layer.format(0): 0.025,
        "text_encoder.transformer.embeddings.word_embeddings.weight": 0.0125,
        "video_encoder." + layer.format(1): 1.0,  # the last of two
        "video_encoder." + layer.format(0): 0.5,
        "video_encoder.transformer.embeddings.position_embeddings.weight": 0.25,
        "video_encoder.feature_projection.input.weight": 1.0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert set(rates(labelled).values()) == {1.0}


def test_an_update_is_as_large_as_the_rate_says(labelled: VideoClipModel) -> None:
    """Adam's first update is the learning rate, whatever the gradient."""
    optimizer = FusedAdam(FusedAdamConfig(lr=[0.0], text_rate=0.25, adam_eps=0.0), list(labelled.parameters()))
    optimizer.set_lr(0.01)
    text, video = (
        tower.transformer.encoder.layer[0].output.dense.bias
        for tower in (labelled.text_encoder, labelled.video_encoder)
    )
    starts = [parameter.detach().clone() for parameter in (text, video)]
    for parameter in labelled.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    optimizer.step()
    moved = [(start - parameter).mean().item() for start, parameter in zip(starts, (text, video))]
    assert moved == pytest.approx([0.0025, 0.01], rel=1e-4)


def test_rates_that_nothing_can_have_are_refused(labelled: VideoClipModel, tiny_bert: Path) -> None:
    with pytest.raises(ValueError, match=r"optimizer\.text_rate is 0: it must be more than 0"):
        rates(labelled, text_rate=0)
    flat = [torch.nn.Parameter(torch.zeros(9))]
    with pytest.raises(ValueError, match=r"set common\.fp16_no_flatten_grads=true"):
        FusedAdam(FusedAdamConfig(lr=[1.0], layer_decay=0.9), flat)
    shared = VideoClipModel.from_backbone(VideoClipConfig(bert=str(tiny_bert), video_layers=None, shared_encoder=True))
    shared.label_towers()
    assert set(rates(shared, layer_decay=0.5).values()) == {1.0, 0.5, 0.25, 0.125}
    with pytest.raises(ValueError, match=r"optimizer\.text_rate is 0\.1, but no text tower is trained"):
        rates(shared, text_rate=0.1)


def test_other_rates_cannot_go_on(labelled: VideoClipModel) -> None:
    first, second = (
        FusedAdam(FusedAdamConfig(lr=[1.0], text_rate=rate), list(labelled.parameters())) for rate in (0.1, 0.2)
    )
    first.load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match=r"restore optimizer\.text_rate, optimizer\.layer_decay"):
        second.load_state_dict(first.state_dict())


def test_the_rates_arrive_in_a_run(pretrain: Callable[..., None], tmp_path: Path) -> None:
    options = ("optimizer._name=fused_adam", "+optimizer.text_rate=0.5", "+optimizer.layer_decay=0.5")
    pretrain(tmp_path, *options, "task.retrieval.enabled=false", "optimization.max_update=1")
    groups = read_checkpoint(tmp_path / "checkpoint_last.pt")["last_optimizer_state"]["param_groups"]
    assert [group["rate"] for group in groups] == [1, 0.5, 0.25, 0.125, 0.0625]
    assert len({group["lr"] / group["rate"] for group in groups}) == 1
