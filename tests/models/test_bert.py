"""BERT folders: what is taken from them, and what is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from mmpt_plugin.models import text_backbone
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.videoclip import VideoClipModel


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    """A copy of the tiny BERT, to damage."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "bert"))


def build(folder: Path, **settings: int) -> VideoClipModel:
    return VideoClipModel.from_backbone(VideoClipConfig(bert=str(folder), **{"video_layers": 2, **settings}))


def alter_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def alter_weights(folder: Path, change: Callable[[dict], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


class TouchesAFile:
    """Pickled, it runs a command when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.path}'",)


def test_a_model_starts_from_the_folders_weights(tiny_bert: Path) -> None:
    source = load_file(tiny_bert / "model.safetensors")
    model = build(tiny_bert)
    text = model.text_encoder.transformer.state_dict()
    assert text.keys() == source.keys()
    assert all(torch.equal(text[key], source[key]) for key in source)
    video = model.video_encoder.transformer.state_dict()
    words = "embeddings.word_embeddings.weight"
    assert torch.equal(video.pop(words), source[words][[2, 3]])  # [CLS] and [SEP] are ids 2 and 3 of its vocabulary
    assert all(torch.equal(value, source[key]) for key, value in video.items())
    assert {key.split(".")[2] for key in video if key.startswith("encoder.layer.")} == {"0", "1"}  # the first layers
    assert (model.cls_id, model.sep_id) == (2, 3)


def test_a_folder_with_a_pooler_and_a_head_serves_too(tiny_bert: Path, tmp_path: Path) -> None:
    whole = AutoModel.from_pretrained(tiny_bert)  # with a pooler, which is not used
    shutil.copytree(tiny_bert, tmp_path / "whole")
    whole.save_pretrained(tmp_path / "whole")
    ours, plain = build(tmp_path / "whole").state_dict(), build(tiny_bert).state_dict()
    assert ours.keys() == plain.keys()
    assert all(torch.equal(ours[key], plain[key]) for key in plain if "feature_projection" not in key)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"model\.bert: no BERT configuration at '.*nothing'\. Give a folder with config"
    ):
        text_backbone.load_config(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match=r"model\.bert: no tokenizer at '.*nothing'; a BERT folder needs vocab\.txt"):
        text_backbone.load_tokenizer(str(tmp_path / "nothing"))


def test_a_damaged_configuration(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"model\.bert: no BERT configuration at .*bert"):
        text_backbone.load_config(str(folder))


def test_a_width_that_its_heads_do_not_divide(folder: Path) -> None:
    alter_config(folder, num_attention_heads=5)
    with pytest.raises(ValueError, match="hidden_size 32, which is not divisible by its num_attention_heads 5"):
        build(folder)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.bert: no weights at '.*bert' \(model\.safetensors or pytorch_model"):
        build(folder)


def test_truncated_weights(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.bert: no weights at '.*bert' .* that can be loaded"):
        build(folder)


def test_weights_that_lack_a_layer(folder: Path) -> None:
    alter_weights(folder, lambda weights: weights.pop("encoder.layer.1.output.dense.weight"))
    with pytest.raises(ValueError, match=r"weights at '.*bert' lack \['encoder\.layer\.1\.output\.dense\.weight'\]"):
        build(folder)


def test_weights_of_another_shape(folder: Path) -> None:
    alter_weights(folder, lambda weights: weights.update({"embeddings.LayerNorm.bias": torch.zeros(3)}))
    with pytest.raises(ValueError, match=r"no weights at '.*bert' .* that can be loaded"):
        build(folder)


def test_weights_that_would_run_code_are_not_loaded(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weights": TouchesAFile(tmp_path / "touched")}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"no weights at '.*bert' .* that can be loaded"):
        build(folder)
    assert not (tmp_path / "touched").exists()


def test_no_vocabulary(folder: Path) -> None:
    for path in (folder / "vocab.txt", *folder.glob("tokenizer*")):
        path.unlink()
    with pytest.raises(ValueError, match=r"model\.bert: no vocabulary at '.*bert'; a BERT folder needs vocab\.txt"):
        text_backbone.load_tokenizer(str(folder))


def test_a_tokenizer_without_cls(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cls_token": None}))
    with pytest.raises(ValueError, match=r"must have \[CLS\], \[SEP\] and \[PAD\] tokens"):
        text_backbone.load_tokenizer(str(folder))


@pytest.mark.parametrize("layers", [0, 4])
def test_more_layers_than_the_bert_has(tiny_bert: Path, layers: int) -> None:
    with pytest.raises(ValueError, match=rf"model\.video_layers is {layers}; '.*' has 3 layers: choose 1 to 3"):
        build(tiny_bert, video_layers=layers)


def test_more_positions_than_the_bert_has(tiny_bert: Path) -> None:
    with pytest.raises(ValueError, match=r"64 positions; model\.max_video_seconds and model\.max_text_pieces need 65"):
        build(tiny_bert, max_text_pieces=63)


def test_the_reference_beside_a_checkpoint_is_enough_to_load_one(tiny_bert: Path, tmp_path: Path) -> None:
    reference = tmp_path / "run" / "bert"
    text_backbone.save_reference(str(tiny_bert), reference)
    assert not list(reference.glob("*.safetensors")) + list(reference.glob("*.bin"))
    model = VideoClipModel.from_config(VideoClipConfig(bert=str(reference), video_layers=2))
    model.load_state_dict(build(tiny_bert).state_dict())
    ours, source = (text_backbone.load_tokenizer(str(place)) for place in (reference, tiny_bert))
    assert ours("add the onions")["input_ids"] == source("add the onions")["input_ids"]
    with pytest.raises(ValueError, match="no weights at"):
        build(reference)
    text_backbone.save_reference(str(tiny_bert), reference)  # of a run that goes on
