"""A frozen text tower learns nothing and drops nothing out; labels tell every architecture's layers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from mmpt_plugin.models import text_backbone
from mmpt_plugin.models.checkpoint import read_checkpoint
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.towers import TEXT, Place, label_transformer, place_of
from mmpt_plugin.models.videoclip import VideoClipModel


@pytest.mark.parametrize(
    ("architecture", "sizes"),
    [
        ("bert", {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}),
        ("distilbert", {"dim": 8, "n_layers": 2, "n_heads": 2}),
        ("deberta-v2", {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}),
        ("modernbert", {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0}),
    ],
)
def test_layers_of_every_architecture(architecture: str, sizes: dict[str, int]) -> None:
    transformer = text_backbone.new_transformer(AutoConfig.for_model(architecture, vocab_size=20, **sizes))
    assert place_of(next(transformer.parameters())) is None
    label_transformer(transformer, TEXT)
    places = {name: place_of(parameter) for name, parameter in transformer.named_parameters()}
    assert places[next(name for name in places if "embeddings" in name)] == Place(TEXT, 2)
    assert {place for name, place in places.items() if ".0." in name} == {Place(TEXT, 1)}
    assert {place for name, place in places.items() if ".1." in name} == {Place(TEXT, 0)}


def pairs() -> dict:
    return {
        "video_features": torch.randn(7, 512, generator=torch.Generator().manual_seed(0)),
        "video_lengths": np.array([5, 2]),
        "text_ids": torch.tensor([2, 7, 8, 3, 2, 9, 3]),
        "text_lengths": np.array([4, 3]),
    }


def test_a_frozen_tower_reads_as_in_evaluation(tiny_bert: Path) -> None:
    """Its dropout is off in training too; the video tower has a gradient, it has none."""
    model = VideoClipModel.from_backbone(VideoClipConfig(bert=str(tiny_bert), video_layers=2, freeze_text=True))
    inputs = pairs()
    expected = model.eval()(**inputs)
    output = model.train()(**inputs)
    assert torch.equal(output["text_embeddings"], expected["text_embeddings"])
    assert not torch.equal(output["video_embeddings"], expected["video_embeddings"])
    (output["video_embeddings"] * output["text_embeddings"]).sum().backward()
    assert all(parameter.grad is None for parameter in model.text_encoder.parameters())
    assert all(parameter.grad is not None for parameter in model.video_encoder.feature_projection.parameters())


def test_training_leaves_it_as_it_was(pretrain: Callable[..., None], tmp_path: Path, tiny_bert: Path) -> None:
    options = ("task.retrieval.enabled=false", "model.freeze_text=true", "model.chunk_pairs=3")
    pretrain(tmp_path / "run", *options, "optimization.max_update=2")
    weights = read_checkpoint(tmp_path / "run" / "checkpoint_last.pt")["model"]
    start = VideoClipModel.from_backbone(VideoClipConfig(bert=str(tiny_bert), video_layers=2)).state_dict()
    text = [name for name in weights if name.startswith("text_encoder.")]
    assert len(text) > 20 and all(torch.equal(weights[name], start[name]) for name in text)
    video = "video_encoder.transformer.embeddings.word_embeddings.weight"
    assert not torch.equal(weights[video], start[video])
    with pytest.raises(ValueError, match=r"model\.freeze_text is False, and the run of .* had True: restore it"):
        pretrain(tmp_path / "run", "task.retrieval.enabled=false", "optimization.max_update=3")


def test_what_cannot_be_frozen_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.freeze_text=true and model\.shared_encoder=true"):
        VideoClipModel.from_backbone(
            VideoClipConfig(bert=str(tiny_bert), video_layers=None, freeze_text=True, shared_encoder=True)
        )
    for name in ("config.json", "vocab.txt", "tokenizer_config.json", "tokenizer.json"):
        if (tiny_bert / name).is_file():
            (tmp_path / name).write_bytes((tiny_bert / name).read_bytes())
    with pytest.raises(ValueError, match=r"no weights at .*model\.freeze_text=true trains none: they must be there"):
        VideoClipModel.from_backbone(VideoClipConfig(bert=str(tmp_path), video_layers=2, freeze_text=True))
