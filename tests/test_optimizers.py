"""Fused Adam against fairseq's own, and through a run that stops and goes on."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig

from mmpt_plugin.models.checkpoint import read_checkpoint
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
