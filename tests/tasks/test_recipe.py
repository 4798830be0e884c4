"""The recipe of today, from training to whoever reads its checkpoint."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin.inference import VideoClip
from mmpt_plugin.models.checkpoint import read_checkpoint


@pytest.fixture(scope="module")
def modern(
    fairseq_train: Callable[..., None], tiny_settings: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
):
    """A checkpoint of two updates by `pretrain_modern`."""
    folder = tmp_path_factory.mktemp("modern") / "run"
    fairseq_train("pretrain_modern", *tiny_settings, f"checkpoint.save_dir={folder}", "optimization.max_update=2")
    return folder / "checkpoint_last.pt"


def test_what_it_learns_is_saved_and_what_it_compares_is_given(modern: Path) -> None:
    weights = read_checkpoint(modern)["model"]
    assert weights["logit_scale"].item() != pytest.approx(np.log(1 / 0.07), abs=1e-6)  # it moved
    clip = VideoClip.from_pretrained(modern)
    assert clip.model.normalize and clip.model.logit_scale.item() == weights["logit_scale"].item()
    torch.testing.assert_close(clip.encode_text(["add the onions", "stir"]).norm(dim=1), torch.ones(2))


def test_a_run_goes_on_with_its_similarity_alone(
    modern: Path, pretrain: Callable[..., None], tiny_checkpoint: Path, tmp_path: Path, losses: list[float]
) -> None:
    with pytest.raises(ValueError, match=r"was trained with model\.normalize, and this run has it not set"):
        pretrain(modern.parent, "optimization.max_update=3")
    similarity = ("model.normalize=true", "model.logit_scale=true")
    with pytest.raises(ValueError, match=r"was trained without model\.normalize, and this run has it set"):
        pretrain(tiny_checkpoint.parent, *similarity, "optimization.max_update=3")
    begin = f"checkpoint.finetune_from_model={tiny_checkpoint}"
    pretrain(tmp_path / "run", *similarity, begin, "optimization.max_update=1")
    assert "logit_scale" in read_checkpoint(tmp_path / "run" / "checkpoint_last.pt")["model"]
    assert len(losses) == 1


def test_the_sigmoid_loss_trains_and_needs_what_it_needs(pretrain: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"criterion sigmoid needs model\.logit_bias"):
        pretrain(tmp_path / "no", "criterion._name=sigmoid")
    given = ("criterion._name=sigmoid", "model.logit_bias=-2", "optimization.max_update=2")
    with pytest.raises(ValueError, match=r"criterion\.temperature=1 and model\.normalize=false"):
        pretrain(tmp_path / "no", *given)
    pretrain(tmp_path / "run", *given, "model.normalize=true", "model.logit_scale=true")
    assert read_checkpoint(tmp_path / "run" / "checkpoint_last.pt")["model"]["logit_bias"].item() != -2


def test_texts_choose_parts_of_clips_in_training(pretrain: Callable[..., None], tmp_path: Path) -> None:
    given = ("model.clip_parts=2", "optimization.max_update=1")
    with pytest.raises(ValueError, match=r"model\.clip_parts is 2, which criterion choosing_parts alone reads"):
        pretrain(tmp_path / "no", *given)
    pretrain(tmp_path / "run", *given, "criterion._name=choosing_parts")
    clip = VideoClip.from_pretrained(tmp_path / "run" / "checkpoint_last.pt")
    assert clip.encode_video(features=[np.ones((3, 512))]).shape == (1, 32)
