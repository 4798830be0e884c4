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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_folder_stored_in_half_precision_is_loaded_in_float32(folder: Path, dtype: torch.dtype) -> None:
    weights = {key: value.to(dtype) for key, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    alter_config(folder, dtype=str(dtype).removeprefix("torch."))
    model = build(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    text = model.text_encoder.transformer.state_dict()
    assert all(torch.equal(text[key], value.float()) for key, value in weights.items())
    text_backbone.save_reference(str(folder), folder / "kept")
    assert {p.dtype for p in VideoClipModel.from_config(VideoClipConfig(str(folder / "kept"), 2)).parameters()} == {
        torch.float32
    }


def test_the_folder_beside_a_run_is_kept_completed_or_replaced(folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "run" / "bert"
    text_backbone.save_reference(str(folder), kept)
    whole = {path.name: path.read_bytes() for path in kept.iterdir()}
    moment = (kept / "config.json").stat().st_mtime_ns
    text_backbone.save_reference(str(folder), kept)
    assert (kept / "config.json").stat().st_mtime_ns == moment  # the same: it stays
    (kept / "tokenizer.json").unlink()  # as a full disk between the two would leave it
    text_backbone.save_reference(str(folder), kept)
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == whole
    words = (folder / "vocab.txt").read_text().replace("onion", "leek")
    shutil.rmtree(folder / "tokenizer.json", ignore_errors=True)
    for path in [*folder.glob("tokenizer*"), *folder.glob("special*")]:
        path.unlink()
    (folder / "vocab.txt").write_text(words)
    text_backbone.save_reference(str(folder), kept)  # another training in the same folder
    assert "leek" in text_backbone.load_tokenizer(str(kept)).get_vocab()
    assert [path.name for path in kept.parent.iterdir()] == ["bert"]  # nothing is left aside


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 100_000}, r"has num_hidden_layers 100000; a whole number from 1 to 512"),
        ({"hidden_size": -32}, "has hidden_size -32"),
        ({"vocab_size": "many"}, "bert'.*vocab_size"),
        ({"vocab_size": 7}, r"the tokenizer at .* has ids up to 18, but its config\.json a vocab_size of 7"),
        ({"hidden_size": 16384, "intermediate_size": 131072, "num_hidden_layers": 512}, "asks for .* parameters"),
        ({"hidden_act": "none of these"}, "the configuration at .* cannot be used"),
        ({"max_position_embeddings": None}, "bert'.*max_position"),
    ],
)
def test_configurations_that_make_no_model_name_the_folder(folder: Path, change: dict, message: str) -> None:
    alter_config(folder, **change)
    with pytest.raises(ValueError, match=rf"model\.bert: .*{message}"):
        build(folder)


def test_code_that_a_folder_brings_is_not_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers would ask on standard input, and run it on a "y"."""
    monkeypatch.setattr("builtins.input", lambda *args: "y")
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import BertConfig as Own, BertModel as OwnModel\n"
    (folder / "own.py").write_text(code)
    alter_config(folder, model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModel": "own.OwnModel"})
    with pytest.raises(ValueError, match=r"model\.bert: no BERT configuration at"):
        build(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("words, times", [("[CLS]\n[CLS]\n", 2), ("", 0)])
def test_special_tokens_stand_in_the_vocabulary_once(folder: Path, words: str, times: int) -> None:
    path = folder / "vocab.txt"
    path.write_text(path.read_text().replace("[CLS]\n", words))
    with pytest.raises(ValueError, match=rf"model\.bert: .*vocab\.txt has '\[CLS\]' {times} times"):
        build(folder)


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
