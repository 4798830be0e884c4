"""mmpt_plugin/preparation/train_tokenizer.py: captions in, a tokenizer folder out that the rest of the project takes."""

import json
from pathlib import Path

import pytest

from demo import words
from mmpt_plugin.models import text_backbone
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.videoclip import VideoClipModel
from mmpt_plugin.preparation import train_tokenizer

LINES = ["Add the onions to the pan", "salt and stir the onions", "schneide die Kartoffeln", "把洋葱放进锅里"]
FRAMES = {"wordpiece": ("[CLS]", "[SEP]", "[UNK]"), "sentencepiece": ("<s>", "</s>", "<unk>")}


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """raw_caption.json of the lines, with what HowTo100M's holds besides."""
    path = tmp_path / "raw_caption.json"
    videos = {str(i): {"start": [0, 1], "end": [1, 2], "text": [line, None]} for i, line in enumerate(LINES)}
    path.write_text(json.dumps(videos | {"odd": [], "nan": {"text": [float("nan"), " "]}}))
    return path


@pytest.mark.parametrize("kind", FRAMES)
def test_a_folder_that_serves_as_model_bert(captions: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "made" / kind
    train_tokenizer.main(
        [str(captions), "--kind", kind, "--pieces", "120", "--out", str(out), "--size", "2", "32", "4"]
    )
    tokenizer = text_backbone.load_tokenizer(str(out))
    cls, sep, unknown = FRAMES[kind]
    assert len(tokenizer) <= 120
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("ADD the  Onions")["input_ids"])
    assert (tokens[0], tokens[-1]) == (cls, sep)
    assert "".join(tokens[1:-1]).replace("##", "").replace("▁", "") == "addtheonions"
    for line in LINES:
        assert unknown not in tokenizer.tokenize(line)
    model = VideoClipModel.from_backbone(VideoClipConfig(bert=str(out), video_layers=1))
    assert model.text_encoder.transformer.get_input_embeddings().weight.shape == (len(tokenizer), 32)
    assert model.text_encoder.transformer.config.model_type == {"wordpiece": "bert"}.get(kind, "xlm-roberta")


@pytest.mark.parametrize("kind", FRAMES)
def test_the_same_captions_give_the_same_pieces(tmp_path: Path, kind: str) -> None:
    text = tmp_path / "captions.txt"
    text.write_text("\n".join(" ".join(row) for row in (*words.VERBS, *words.OBJECTS)) + "\n\n")
    vocabularies = []
    for out in (tmp_path / "a", tmp_path / "b"):
        train_tokenizer.main([str(text), "--kind", kind, "--pieces", "150", "--out", str(out), "--keep-case"])
        assert not (out / "config.json").exists()  # no transformer was asked for
        vocabularies.append(text_backbone.load_tokenizer(str(out)).get_vocab())
    assert vocabularies[0] == vocabularies[1] and len(vocabularies[0]) == 150
    capital = text_backbone.load_tokenizer(str(tmp_path / "a")).tokenize("Onion")
    assert capital != text_backbone.load_tokenizer(str(tmp_path / "a")).tokenize("onion")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.txt"], "nothing.txt: no such file"),
        (["empty.txt"], "no text in empty.txt"),
        (["text.txt", "--pieces", "6"], "Increase vocab_size"),
        (["text.txt", "--size", "2", "30", "4"], "--size: a width of 30 is not divisible by 4 heads"),
        (["text.txt", "--out", "text.txt"], "text.txt exists: choose another --out"),
    ],
)
def test_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n \n")
    Path("text.txt").write_text("\n".join(LINES))
    with pytest.raises(SystemExit) as stop:
        train_tokenizer.main(["--kind", "sentencepiece", "--pieces", "60", "--out", "out", *arguments])
    assert stop.value.code == 1 and message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "text.txt"]  # nothing half-made
