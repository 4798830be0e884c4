"""The BERT folder: loadable by its usual means, with the ids that the corpus was written with."""

import json
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

from demo import words
from demo.bert import write_bert
from demo.world import DemoWorld, Stream, World


def test_the_tokenizer_gives_each_word_its_place_in_the_vocabulary(tiny_corpus: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_corpus / "bert")
    vocabulary = words.vocabulary()
    assert len(vocabulary) == len(set(vocabulary))
    assert tokenizer.convert_tokens_to_ids(vocabulary) == list(range(len(vocabulary)))
    assert (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id) == (0, 2, 3)


def test_the_corpus_has_the_tokenizers_ids_and_no_unknown_word(tiny_corpus: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_corpus / "bert")
    place = {word: i for i, word in enumerate(words.vocabulary())}
    raw = json.loads((tiny_corpus / "howto100m" / "raw_caption.json").read_text())
    world = World(DemoWorld())
    sentences = [world.sentence(step, world.rng(Stream.TRAIN)) for step in world.tasks[0].steps]
    for text in [text for video in raw.values() for text in video["text"]] + sentences:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == [place[word] for word in text.split()]
        assert tokenizer.unk_token_id not in ids
    assert tokenizer("Dice THE Shallot")["input_ids"] == [2, place["dice"], place["the"], place["shallot"], 3]


def test_weights_have_the_spread_that_learning_needs(tiny_corpus: Path) -> None:
    model = AutoModel.from_pretrained(tiny_corpus / "bert", add_pooling_layer=False)
    assert (model.config.hidden_size, model.config.num_hidden_layers, model.config.num_attention_heads) == (128, 3, 4)
    for name, weight in model.named_parameters():
        if "LayerNorm.weight" in name:
            assert (weight == 1).all()
        elif name.endswith("bias"):
            assert not weight.any()
        elif "token_type" not in name:  # two rows only
            torch.testing.assert_close(weight.std().item(), 0.02 if "position" in name else 0.05, rtol=0.05, atol=0)


def test_the_seed_decides_the_weights_and_nothing_else(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_bert(tmp_path / name, seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c
    assert torch.equal(torch.random.get_rng_state(), before)
