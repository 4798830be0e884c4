"""Training and evaluation by two processes on one machine's CPU (gloo)."""

from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch

from mmpt_plugin.evaluation.results import read_results

from ..together import train, train_together

# unlike Adam's, its steps are proportional to gradients, so that these are compared and not only their signs
SGD = (
    "optimizer._name=sgd",
    "+optimizer.lr=[0.001]",
    "+optimizer.momentum=0.0",
    "+optimizer.weight_decay=0.0",
    "~optimizer.adam_betas",
)

pytestmark = pytest.mark.slow


def run(processes: int, config: str, *overrides: object) -> None:
    """`fairseq-hydra-train` by one or two processes."""
    if processes == 1:
        train(config, *overrides)
    else:
        train_together(processes, Path(mkdtemp()), config, *overrides)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint_last.pt", weights_only=True)["model"]


@pytest.mark.parametrize("retrieval", ["true", "false"])
def test_stopping_in_mid_epoch_changes_nothing(tiny_settings, tmp_path, retrieval):
    """24 training videos make 6 groups, 3 updates an epoch; 5 validation videos make 2 groups of different size."""
    common = (*tiny_settings, f"task.retrieval.enabled={retrieval}", "task.retrieval.start_epoch=1")
    run(2, "pretrain", *common, f"checkpoint.save_dir={tmp_path / 'whole'}", "optimization.max_update=5")
    run(
        2, "pretrain", *common, f"checkpoint.save_dir={tmp_path / 'parts'}", "optimization.max_update=4"
    )  # 1 of 3 in epoch 2
    run(2, "pretrain", *common, f"checkpoint.save_dir={tmp_path / 'parts'}", "optimization.max_update=5")
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, rtol=0, atol=1e-6)


def test_two_processes_do_what_one_does_with_two_groups_a_step(tiny_settings, tmp_path):
    """Two processes with a group each equal one that averages the gradients of the same two groups."""
    common = (
        *tiny_settings,
        "task.retrieval.enabled=false",
        "optimization.max_update=3",
        "lr_scheduler.warmup_updates=0",
    )
    still = (*SGD, f"model.bert={_without_dropout(tiny_settings, tmp_path)}")
    run(2, "pretrain", *common, *still, f"checkpoint.save_dir={tmp_path / 'two'}")
    run(1, "pretrain", *common, *still, f"checkpoint.save_dir={tmp_path / 'one'}", "optimization.update_freq=[2]")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("difference", ["mil_nce", "shared_encoder", "cls_pooling"])
def test_ablations_on_two_processes(tiny_settings, tmp_path, difference):
    """As on one process with two groups a step; gradients of the encoder that both modalities share are averaged once."""
    common = (
        *(setting for setting in tiny_settings if difference != "shared_encoder" or "video_layers" not in setting),
        f"+difference={difference}",
        "task.bag_captions=2",
        *("task.retrieval.enabled=false", "optimization.max_update=3", "lr_scheduler.warmup_updates=0"),
        *(*SGD, f"model.bert={_without_dropout(tiny_settings, tmp_path)}"),
    )
    run(2, "pretrain", *common, f"checkpoint.save_dir={tmp_path / 'two'}")
    run(1, "pretrain", *common, f"checkpoint.save_dir={tmp_path / 'one'}", "optimization.update_freq=[2]")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("primary", "overrides", "chunks"),
    [("pretrain", [], 0), ("pretrain", [], 3), ("ablation_mil_nce", ["task.bag_captions=2"], 0)],
)
def test_gathered_negatives_are_those_of_one_large_batch(tiny_settings, tmp_path, primary, overrides, chunks):
    """Whether or not the processes run their shares in chunks, which takes the least memory for the largest batch."""
    common = (
        *tiny_settings,
        *overrides,
        "task.retrieval.enabled=false",
        "optimization.max_update=3",
        "lr_scheduler.warmup_updates=0",
    )
    still = (*SGD, f"model.bert={_without_dropout(tiny_settings, tmp_path)}")
    large = ("criterion.gather=true", f"model.chunk_pairs={chunks}")
    run(2, primary, *common, *still, f"checkpoint.save_dir={tmp_path / 'two'}", *large)
    run(1, primary, *common, *still, f"checkpoint.save_dir={tmp_path / 'one'}", "dataset.batch_size=2")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-6)


def test_zero_shot_metrics_are_the_same(golden, tmp_path):
    data = golden / "eval_youcook" / "data"
    for processes in (1, 2):
        run(
            processes,
            "zeroshot_youcook2",
            f"task.data={data}",
            f"task.annotations={data / 'youcook'}",
            f"task.features={data / 'feat' / 'feat_youcook_s3d'}",
            f"checkpoint.restore_file={golden / 'model' / 'checkpoint_best.pt'}",
            f"model.bert={golden / 'model' / 'bert-tiny'}",
            f"task.results_path={tmp_path / str(processes)}",
            "task.on_missing=skip",
            "task.batch_size=16",
        )
    one, two = (read_results(tmp_path / n / "youcook2.json")["metrics"] for n in ("1", "2"))
    assert one.pop("video_to_text") == pytest.approx(two.pop("video_to_text"), abs=1e-5)
    assert one == pytest.approx(two, abs=1e-5)
    scores = [np.load(tmp_path / n / "youcook2_scores.npz")["similarities"] for n in ("1", "2")]
    np.testing.assert_allclose(*scores, atol=1e-5)


def _without_dropout(tiny_settings: tuple[str, ...], folder: Path) -> Path:
    """A copy of the tiny BERT whose results do not depend on who draws which mask."""
    bert = Path(next(value for value in tiny_settings if value.startswith("model.bert=")).removeprefix("model.bert="))
    copy = folder / "bert"
    copy.mkdir()
    for file in bert.iterdir():
        content = file.read_bytes()
        if file.name == "config.json":
            content = content.replace(b'_dropout_prob": 0.1', b'_dropout_prob": 0.0')
        (copy / file.name).write_bytes(content)
    return copy
