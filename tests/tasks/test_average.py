"""`ema.store_ema`: the running average of the weights is what validation, evaluation and search take."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmpt_plugin import VideoClip
from mmpt_plugin.models.checkpoint import read_checkpoint

AVERAGE = ("ema.store_ema=true", "ema.ema_decay=0.6", "task.retrieval.enabled=false", "optimization.max_update=3")


@pytest.fixture(scope="module")
def averaged(pretrain: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three updates that keeps an average."""
    folder = tmp_path_factory.mktemp("averaged")
    pretrain(folder, *AVERAGE, "optimization.lr=[0.01]")
    return folder / "checkpoint_last.pt"


def test_a_loaded_model_has_the_average(averaged: Path) -> None:
    content = read_checkpoint(averaged)
    loaded = VideoClip.from_pretrained(averaged).model.state_dict()
    average, last = content["extra_state"]["ema"], content["model"]
    assert loaded.keys() == average.keys()
    assert all(torch.equal(loaded[name], average[name]) for name in loaded)
    assert sum(not torch.equal(last[name], average[name]) for name in last) > 20


def test_validation_is_on_the_average(averaged: Path, pretrain: Callable[..., None], tmp_path: Path) -> None:
    """The best loss of the run is that of its average, and training goes as it does without."""
    pretrain(tmp_path, *AVERAGE[2:], "optimization.lr=[0.01]")
    kept, plain = read_checkpoint(averaged), read_checkpoint(tmp_path / "checkpoint_last.pt")
    assert all(torch.equal(kept["model"][name], plain["model"][name]) for name in plain["model"])
    assert kept["extra_state"]["best"] != plain["extra_state"]["best"]
