"""Composing with the rest of fairseq: its optimizers, schedulers and options, and modules of a user's own.

Each case trains 4 updates at once, and 2 and 2 with a resume between them: both end with the same bits, where fairseq's
checkpoints keep them (all but bf16).
"""

import logging
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.dataclass.configs import FairseqConfig
from fairseq_cli import train, validate
from omegaconf import OmegaConf

from mmpt_plugin.models.checkpoint import read_checkpoint
from mmpt_plugin.models.loading import load_videoclip
from mmpt_plugin.tasks.pretraining import VideoClipPretrainingTask

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "tests" / "example_plugin"
RANDOM = ("task.retrieval.enabled=false", "dataset.disable_validation=true")
NO_BETAS, NO_TOTAL = "~optimizer.adam_betas", "~lr_scheduler.total_num_update"
NO_WARMUP, LR = "~lr_scheduler.warmup_updates", "+optimizer.lr=${optimization.lr}"
OWN = (f"common.user_dir={EXAMPLE}",)

GROUP = "+optimizer.groups.default"
BF16 = 2**-8  # fairseq saves a model of 8 bits, from which a resumed run makes its float32 copy
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
    "amp": ["common.amp=true"],
    "chunks, EMA and update_freq": [
        "model.chunk_pairs=3", "optimization.update_freq=[2]", "ema.store_ema=true", "ema.ema_decay=0.9",
    ],
    "chunks in memory-efficient bf16": ["model.chunk_pairs=3", "common.bf16=true", "common.memory_efficient_bf16=true"],
    "own model under our criterion": [*OWN, "model._name=bag_of_words"],
    "own model, with clusters": [*OWN, "model._name=bag_of_words", "task.retrieval.enabled=true"],
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
        ours, theirs = (
            torch.cat([x.flatten().float() for x in content["model"].values()]) for content in (whole, stopped)
        )
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


@pytest.mark.slow
def test_amp_without_a_gpu_changes_nothing(pretrain: Callable[..., None], tmp_path: Path) -> None:
    """torch's CUDA autocast, which fairseq's amp is, switches itself off and says so; common.bf16 is for CPUs."""
    pretrain(tmp_path / "plain", *RANDOM, "optimization.max_update=2")
    with pytest.warns(UserWarning, match="CUDA is not available"):
        pretrain(tmp_path / "amp", *RANDOM, "optimization.max_update=2", "common.amp=true")
    plain, amp = (read_checkpoint(tmp_path / run / "checkpoint_last.pt")["model"] for run in ("plain", "amp"))
    assert all(torch.equal(plain[name], amp[name]) for name in plain)


def test_fairseq_loads_a_checkpoint_by_itself(tiny_checkpoint: Path) -> None:
    (model,), cfg, task = checkpoint_utils.load_model_ensemble_and_task([str(tiny_checkpoint)])
    expected = load_videoclip(tiny_checkpoint)[0].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert cfg.model._name == "videoclip" and type(task).__name__ == "VideoClipPretrainingTask"


@pytest.mark.slow
def test_the_old_command_line_trains_and_resumes(
    tiny_data: Path,
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = f"""
        fairseq-train {tiny_data} --user-dir {REPOSITORY / "mmpt_plugin"} --cpu --save-dir {tmp_path} --num-workers 0
        --task videoclip_pretraining --videos-per-batch 4 --clips-per-video 2 --num-neighbors 8 --batch-size 1
        --arch videoclip --bert {tiny_bert} --video-layers 2 --criterion video_text_contrastive
        --optimizer adam --lr 0.001 --max-update
    """
    caplog.set_level(logging.INFO)
    for updates in (2, 4):
        monkeypatch.setattr(sys, "argv", [*options.split(), str(updates)])
        train.cli_main()
        assert read_checkpoint(tmp_path / "checkpoint_last.pt")["optimizer_history"][-1]["num_updates"] == updates
    assert caplog.text.count("Loaded checkpoint") == 1
    model, _ = load_videoclip(tmp_path / "checkpoint_last.pt")
    assert len(model.video_encoder.transformer.encoder.layer) == 2


@pytest.mark.slow
def test_fairseq_validate(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its function works."""
    monkeypatch.setattr(validate, "reset_logging", lambda: None)  # takes every other handler away, caplog's perhaps
    cfg = OmegaConf.structured(FairseqConfig)
    cfg.common.cpu, cfg.common.user_dir, cfg.dataset.batch_size = True, str(REPOSITORY / "mmpt_plugin"), 1
    cfg.common.log_format, cfg.common_eval.path = "simple", str(tiny_checkpoint)
    with caplog.at_level(logging.INFO):
        validate.main(cfg)
    assert any("valid on 'valid' subset | loss" in message for message in caplog.messages)


def test_fairseq_validate_as_a_command_is_refused_with_the_remedy(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = f"fairseq-validate x --user-dir {REPOSITORY / 'mmpt_plugin'} --task videoclip_pretraining --batch-size 1"
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit, match="2"):
        validate.cli_main()
    assert "--config-name zeroshot_NAME checkpoint.restore_file=CHECKPOINT" in capsys.readouterr().err


def test_a_users_file_that_is_named_as_its_task() -> None:
    """For such a file fairseq collects the task's options in a group of a parser without any other."""
    parser = ArgumentParser()
    VideoClipPretrainingTask.add_args(parser.add_argument_group())
    assert parser.parse_args(["DATA", "--videos-per-batch", "7"]).videos_per_batch == 7


def test_the_guide_includes_the_example_as_it_is() -> None:
    assert (EXAMPLE / "__init__.py").read_text() in (REPOSITORY / "docs" / "extending.md").read_text()
