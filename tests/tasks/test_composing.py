"""Composing with the rest of fairseq: its optimizers, schedulers and options, and modules of a user's own.

Each case trains 4 updates at once, and 2 and 2 with a resume between them: both end with the same bits, where fairseq's
checkpoints keep them (all but bf16).
"""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils

from mmpt_plugin.models.checkpoint import read_checkpoint
from mmpt_plugin.models.videoclip import load_videoclip

EXAMPLE = Path(__file__).resolve().parents[1] / "example_plugin"
RANDOM = ("task.retrieval.enabled=false", "dataset.disable_validation=true")
NO_BETAS, NO_TOTAL = "~optimizer.adam_betas", "~lr_scheduler.total_num_update"
NO_WARMUP, LR = "~lr_scheduler.warmup_updates", "+optimizer.lr=${optimization.lr}"
OWN = (f"common.user_dir={EXAMPLE}",)

GROUP = "+optimizer.groups.default"
BF16 = 2**-5  # fairseq saves a model of 8 bits, from which a resumed run makes its float32 copy; then 2 updates
CASES = {
    "adam and polynomial_decay": [],
    "fused_adam": ["optimizer._name=fused_adam"],
    "adafactor and inverse_sqrt": [  # adafactor and sgd have no defaults under hydra: all that they read must be given
        "optimizer._name=adafactor", NO_BETAS, LR, "+optimizer.adafactor_eps='(1e-30,1e-3)'",
        "+optimizer.clip_threshold=1.0", "+optimizer.decay_rate=-0.8", "+optimizer.beta1=null",
        "+optimizer.weight_decay=0.0", "+optimizer.scale_parameter=false", "+optimizer.relative_step=false",
        "+optimizer.warmup_init=false",
        "lr_scheduler._name=inverse_sqrt", NO_TOTAL,
    ],
    "sgd and cosine": [
        "optimizer._name=sgd", NO_BETAS, LR, "+optimizer.momentum=0.9", "+optimizer.weight_decay=0.0",
        "lr_scheduler._name=cosine", NO_TOTAL, "+lr_scheduler.lr_period_updates=10",
    ],
    "adam and tri_stage": [
        "lr_scheduler._name=tri_stage", NO_TOTAL, NO_WARMUP,
        "+lr_scheduler.warmup_steps=1", "+lr_scheduler.hold_steps=1", "+lr_scheduler.decay_steps=5",
    ],
    "composite and pass_through": [
        "optimizer._name=composite", NO_BETAS,
        f"{GROUP}.optimizer={{_name:adam,adam_betas:'(0.9,0.98)',lr:[0.001]}}",
        f"{GROUP}.lr_scheduler={{_name:cosine,lr_period_updates:10}}",
        "lr_scheduler._name=pass_through", NO_TOTAL, NO_WARMUP,
    ],
    "EMA and update_freq": ["optimization.update_freq=[2]", "ema.store_ema=true", "ema.ema_decay=0.9"],
    "bf16": ["common.bf16=true"],
    "memory-efficient bf16": ["common.bf16=true", "common.memory_efficient_bf16=true"],
    "memory-efficient fp16": ["common.fp16=true", "common.memory_efficient_fp16=true"],
    "own model under our criterion": [*OWN, "model._name=bag_of_words"],
    "our model under an own criterion": [*OWN, "criterion._name=sigmoid_contrastive"],
    "own task": [*OWN, "task._name=word_dropout", "+task.word_dropout=0.3"],
}  # fmt: skip


def tensors(content: object, place: str = "") -> dict[str, torch.Tensor]:
    """All tensors in nested dicts and lists, by their place."""
    if torch.is_tensor(content):
        return {place: content}
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return {key: value for name, part in items for key, value in tensors(part, f"{place}.{name}").items()}


@pytest.mark.slow
@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_training_stops_and_goes_on(pretrain: Callable[..., None], tmp_path: Path, options: list[str]) -> None:
    pretrain(tmp_path / "whole", *RANDOM, "optimization.max_update=4", *options)
    for updates in (2, 4):
        pretrain(tmp_path / "stopped", *RANDOM, f"optimization.max_update={updates}", *options)
    whole, stopped = (read_checkpoint(tmp_path / run / "checkpoint_last.pt") for run in ("whole", "stopped"))
    assert [content["optimizer_history"][-1]["num_updates"] for content in (whole, stopped)] == [4, 4]
    assert (
        whole["optimizer_history"][-1]["lr_scheduler_state"] == stopped["optimizer_history"][-1]["lr_scheduler_state"]
    )
    if options == CASES["bf16"]:
        ours, theirs = (torch.cat([x.flatten().float() for x in content["model"].values()]) for content in (whole, stopped))
        print("REL", (ours - theirs).norm() / ours.norm())
        assert (ours - theirs).norm() < BF16 * ours.norm()
        return
    for part in ("model", "last_optimizer_state"):
        ours, theirs = tensors(whole[part]), tensors(stopped[part])
        assert ours.keys() == theirs.keys() and len(ours) > 0
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    ours, theirs = (tensors(content["extra_state"].get("ema", {})) for content in (whole, stopped))
    assert ours.keys() == theirs.keys() and bool(ours) == ("ema.store_ema=true" in options)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_settings_of_another_scheduler_are_refused_by_name(pretrain: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(Exception, match="Key 'total_num_update' not in 'CosineLRScheduleConfig'"):
        pretrain(tmp_path, "lr_scheduler._name=cosine")


def test_amp_probe(pretrain, tmp_path):
    pretrain(tmp_path / "a", *RANDOM, "optimization.max_update=2", "common.amp=true")
    pretrain(tmp_path / "b", *RANDOM, "optimization.max_update=2")
    a, b = (read_checkpoint(tmp_path / r / "checkpoint_last.pt")["model"] for r in "ab")
    print("SAME", all(torch.equal(a[k], b[k]) for k in a))
    pretrain(tmp_path / "a", *RANDOM, "optimization.max_update=4", "common.amp=true")
    pretrain(tmp_path / "c", *RANDOM, "optimization.max_update=2", "common.bf16=true")
    pretrain(tmp_path / "d", *RANDOM, "optimization.max_update=4", "common.bf16=true")
    a, b = (torch.cat([x.flatten().float() for x in read_checkpoint(tmp_path / r / "checkpoint_last.pt")["model"].values()]) for r in "cd")
    print("MOVE", (a - b).norm() / b.norm())
