"""The original's parameter names, which no other file knows."""

import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig

from mmpt_plugin.models import text_backbone
from mmpt_plugin.models.checkpoint import read_checkpoint
from mmpt_plugin.models.encoders import TextEncoder, VideoEncoder
from mmpt_plugin.models.loading import load_videoclip
from mmpt_plugin.models.mmpt_checkpoint import with_our_names
from mmpt_plugin.models.videoclip import VideoClipModel


def test_each_kind_of_name() -> None:
    words, other = torch.arange(10.0).view(5, 2), torch.zeros(2)
    named = {
        "mmmodel.video_encoder.videomlp.linear1.weight": other,
        "mmmodel.video_encoder.videomlp.LayerNorm.bias": other,
        "mmmodel.video_encoder.videomlp.linear2.bias": other,
        "mmmodel.video_encoder.bert.embeddings.word_embeddings.weight": words,
        "mmmodel.video_encoder.bert.embeddings.position_ids": other,
        "mmmodel.video_encoder.bert.pooler.dense.weight": other,
        "mmmodel.text_encoder.embeddings.word_embeddings.weight": words,
        "mmmodel.text_encoder.encoder.layer.0.output.dense.bias": other,
        "mmmodel.text_encoder.pooler.dense.bias": other,
        "mmmodel.something_else": other,
    }
    renamed = with_our_names(named, cls_id=1, sep_id=3)
    assert renamed.keys() == {
        "video_encoder.feature_projection.input.weight",
        "video_encoder.feature_projection.norm.bias",
        "video_encoder.feature_projection.output.bias",
        "video_encoder.transformer.embeddings.word_embeddings.weight",
        "text_encoder.transformer.embeddings.word_embeddings.weight",
        "text_encoder.transformer.encoder.layer.0.output.dense.bias",
        "something_else",  # kept, so that loading reports it
    }
    video_words = renamed["video_encoder.transformer.embeddings.word_embeddings.weight"]
    assert video_words.tolist() == [[2, 3], [6, 7]]  # rows 1 and 3
    assert torch.equal(renamed["text_encoder.transformer.embeddings.word_embeddings.weight"], words)


def test_ours_are_not_the_originals(tiny_model: VideoClipModel) -> None:
    own = tiny_model.state_dict()
    renamed = with_our_names(own, cls_id=1, sep_id=3)
    assert renamed.keys() == own.keys() and all(renamed[key] is own[key] for key in own)


def test_every_parameter_of_the_reference_has_its_place(golden: Path) -> None:
    path = golden / "model" / "checkpoint_best.pt"
    given = read_checkpoint(path)["model"]
    renamed = with_our_names(given, cls_id=101, sep_id=102)
    model, _ = load_videoclip(path, str(golden / "model" / "bert-tiny"))
    own = model.state_dict()
    assert renamed.keys() == own.keys()
    assert all(torch.equal(own[key], renamed[key]) for key in own)
    assert {key.rpartition("encoder.")[2] for key in given if key.endswith(("pooler.dense.bias", "position_ids"))}


def test_parameters_at_the_papers_size(golden: Path) -> None:
    """Names and shapes of the original at BERT-base's size, less what is not kept, are ours."""
    shapes = json.loads((golden / "model" / "state_dict_bert_base_size.json").read_text())
    given = {key: torch.empty(shape, device="meta") for key, (shape, _) in shapes.items()}
    expected = {key: tuple(value.shape) for key, value in with_our_names(given, 101, 102).items()}
    config = BertConfig()
    with torch.device("meta"):
        video = VideoEncoder(text_backbone.video_transformer(config, 6), feature_size=512, max_seconds=32)
        model = VideoClipModel(video, TextEncoder(text_backbone.new_transformer(config), max_pieces=61), 101, 102)
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == expected


@pytest.mark.parametrize("prefix", ["video_encoder", "text_encoder"])
def test_a_missing_parameter_of_the_original_is_reported_by_our_name(golden: Path, tmp_path: Path, prefix: str) -> None:
    content = dict(read_checkpoint(golden / "model" / "checkpoint_best.pt"))
    name = {"video_encoder": "videomlp.linear1.bias", "text_encoder": "embeddings.LayerNorm.weight"}[prefix]
    content["model"] = {key: value for key, value in content["model"].items() if key != f"mmmodel.{prefix}.{name}"}
    torch.save({"model": content["model"]}, tmp_path / "cut.pt")
    ours = {
        "video_encoder": "video_encoder.feature_projection.input.bias",
        "text_encoder": "text_encoder.transformer.embeddings.LayerNorm.weight",
    }[prefix]
    with pytest.raises(ValueError, match=rf"cut\.pt does not fit the model: 1 missing: {ours}\."):
        load_videoclip(tmp_path / "cut.pt", str(golden / "model" / "bert-tiny"))
