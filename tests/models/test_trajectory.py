"""Twenty training updates from the original's weights, on the original's batches."""

import json

import numpy as np
import pytest
import torch
from fairseq.optim.adam import FairseqAdam
from fairseq.optim.lr_scheduler.polynomial_decay_schedule import (
    PolynomialDecayLRSchedule,
    PolynomialDecayLRScheduleConfig,
)
from omegaconf import OmegaConf

from mmpt_plugin.criterions.contrastive import symmetric_info_nce
from mmpt_plugin.data.pairs import Inputs
from mmpt_plugin.models.loading import load_videoclip

from .batches import without_padding

RUNS = {  # optimizer, clip, tolerance (relative, absolute)
    "adam_lr5e-5": ("adam", 0.0, (2e-5, 0.0)),
    "adam_lr5e-5_clip2_polynomial_warmup1000_total1e6": ("adam", 2.0, (2e-5, 0.0)),
    "adam_lr1e-3_clip2_polynomial_warmup5_total40": ("adam", 2.0, (1e-3, 2e-4)),
    "sgd_lr1e-4": ("sgd", 0.0, (2e-5, 0.0)),
    "adam_lr1e-3": ("adam", 0.0, (1e-3, 2e-4)),
}


def batch(arrays, i: int) -> Inputs:
    """The original's (1, videos, clips, ...) arrays as pairs, without the second token of its captions."""
    flat = {key: torch.from_numpy(arrays[f"{key}_{i}"]).flatten(0, 2) for key in ("caps", "cmasks", "vfeats", "vmasks")}
    keep = [0, *range(2, flat["caps"].shape[1])]
    return without_padding(flat["vfeats"], flat["vmasks"].bool(), flat["caps"][:, keep], flat["cmasks"][:, keep].bool())


def fairseq_adam(parameters: list) -> FairseqAdam:
    """The optimizer that fairseq builds for the paper's recipe."""
    settings = {"lr": [1.0], "adam_betas": "(0.9, 0.98)", "adam_eps": 1e-8, "weight_decay": 0.0}
    return FairseqAdam(
        OmegaConf.create(settings | {"use_old_adam": False, "fp16_adam_stats": False, "tpu": False}), parameters
    )


THE_PAPERS = "adam_lr5e-5_clip2_polynomial_warmup1000_total1e6"  # the one that the fast tests repeat


@pytest.mark.parametrize(
    "run", [pytest.param(run, marks=[] if run == THE_PAPERS else pytest.mark.slow) for run in RUNS]
)
def test_losses_follow_the_originals(golden, run):
    folder = golden / "train_trajectory"
    expected = json.loads((folder / "trajectories.json").read_text())[run]
    arrays = np.load(folder / "batches.npz")
    batches = [batch(arrays, i) for i in range(3)]
    kind, clip, (relative, absolute) = RUNS[run]
    model, _ = load_videoclip(golden / "model" / "checkpoint_best.pt", str(golden / "model" / "bert-tiny"))
    parameters = list(model.parameters())  # evaluation mode: the original ran with dropout of probability zero
    if kind == "sgd":
        optimizer = torch.optim.SGD(parameters, lr=1.0)
    else:
        optimizer = fairseq_adam(parameters).optimizer
    losses, norms = [], []
    for update, lr in enumerate(expected["lr"]):
        output = model(**batches[update % 3])
        loss = symmetric_info_nce(output["video_embeddings"], output["text_embeddings"])
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        if clip:
            for p in parameters:
                p.grad.mul_((clip / (norm + 1e-6)).clamp(max=1))
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        losses.append(loss.item())
        norms.append(norm.item())
    assert losses[0] == pytest.approx(expected["loss"][0], rel=1e-6)
    np.testing.assert_allclose(losses, expected["loss"], rtol=relative, atol=absolute)
    with torch.no_grad():
        output = model(**batches[0])
    final = np.load(folder / f"final_pooled_{run}.npz")
    bound = 1e-4 if relative < 1e-4 else 2e-2
    for ours, theirs in zip(output.values(), (final["pooled_video"], final["pooled_text"])):
        np.testing.assert_allclose(ours, theirs, atol=bound)


def test_learning_rates_equal_the_originals(golden):
    table = json.loads((golden / "train_trajectory" / "trajectories.json").read_text())["lr_table_how2.yaml"]

    cfg = PolynomialDecayLRScheduleConfig(warmup_updates=1000, total_num_update=1_000_000)
    cfg.lr = [5e-5]
    schedule = PolynomialDecayLRSchedule(cfg, fairseq_adam([torch.nn.Parameter(torch.zeros(1))]))
    for update, lr in table.items():
        assert schedule.step_update(int(update)) == pytest.approx(lr, abs=1e-12)
