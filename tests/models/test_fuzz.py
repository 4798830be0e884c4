"""Altered text backbones, checkpoints and exported folders: a clear error that names the file, or the same embeddings.

What a folder of BERT's holds is not hashed, so that a value that could be right may change the result there.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmpt_plugin.commands.export import main as export
from mmpt_plugin.inference import VideoClip
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.text_backbone import load_tokenizer
from mmpt_plugin.models.videoclip import VideoClipModel

from ..mutations import mutations

TEXTS = ["Add the onions, a b", "", "stir"]
SECONDS = 20  #: that any one altered file may take, on a busy machine
ODD = (None, -1, 0, 2**63, 1e30, float("nan"), True, "", "x", "\ud800", [], {}, [[]], b"x", (1,), torch.zeros(2))


def embeddings(clip: VideoClip) -> tuple[list, list]:
    """Of a few texts and a video."""
    size = clip.model.video_encoder.feature_projection.input.in_features
    video = np.random.default_rng(0).standard_normal((5, size), dtype=np.float32)
    return clip.encode_text(TEXTS).tolist(), clip.encode_video([video]).tolist()


def of_checkpoint(path: Path) -> tuple[list, list]:
    return embeddings(VideoClip.from_pretrained(path, bert=None if path.is_dir() else str(path.parent / "bert")))


def of_bert(folder: Path) -> tuple[list, list]:
    """Of a model that starts from the folder."""
    torch.manual_seed(0)
    config = VideoClipConfig(bert=str(folder), video_layers=1)
    return embeddings(VideoClip(VideoClipModel.from_backbone(config).eval(), load_tokenizer(config.bert)))


def outcome(read: Callable[[Path], tuple[list, list]], path: Path, expected: tuple[list, list]) -> str:
    """ "refused" by the file's or folder's name, "same", or "other"; anything else that is raised fails the test."""
    start = time.monotonic()
    try:
        result = "same" if read(path) == expected else "other"
    except (ValueError, FileNotFoundError) as error:
        assert str(path) in str(error), f"{type(error).__name__} does not name {path.name}: {error}"
        assert len(str(error)) < 5000
        result = "refused"
    assert time.monotonic() - start < SECONDS
    return result


@pytest.fixture(scope="module")
def small_bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT, with its weights in torch's format as well."""
    folder = Path(shutil.copytree(tiny_bert, tmp_path_factory.mktemp("small") / "bert"))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    return folder


BERT_FILES = [
    "config.json",
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
    "pytorch_model.bin",
]

UNHASHED = ("config.json", "vocab.txt", "tokenizer.json", "model.safetensors")  # other values in them may be meant


@pytest.mark.slow
@pytest.mark.parametrize("name", BERT_FILES)
def test_text_backbones(small_bert: Path, tmp_path: Path, name: str) -> None:
    unread = {"vocab.txt": ["tokenizer.json"], "pytorch_model.bin": ["model.safetensors"]}
    folder = Path(shutil.copytree(small_bert, tmp_path / "bert", ignore=shutil.ignore_patterns(*unread.get(name, []))))
    expected, content = of_bert(folder), (folder / name).read_bytes()
    outcomes = []
    for altered in mutations(content, 110, random.Random(name)):
        (folder / name).write_bytes(altered)
        outcomes.append(outcome(of_bert, folder, expected))
    assert outcomes.count("refused") > len(outcomes) / 3
    assert name in UNHASHED or outcomes.count("other") == 0


def save_as_mmpt(model: VideoClipModel, words: int, path: Path) -> None:
    """Write the model's weights as the original would: under its names, with the rows of words that it never reads."""
    renamed = {}
    for name, value in model.state_dict().items():
        if name == VIDEO_WORDS:
            rows = torch.zeros(words, value.shape[1])
            rows[[model.cls_id, model.sep_id]] = value
            value = rows
        for ours, original in ORIGINAL_NAMES:
            name = name.replace(ours, original)
        renamed[f"mmmodel.{name}"] = value.clone()
    torch.save(
        {"model": renamed, "args": argparse.Namespace(lr=[0.1]), "optimizer_history": [], "extra_state": {}}, path
    )


VIDEO_WORDS = "video_encoder.transformer.embeddings.word_embeddings.weight"
ORIGINAL_NAMES = (
    ("feature_projection.input.", "videomlp.linear1."),
    ("feature_projection.norm.", "videomlp.LayerNorm."),
    ("feature_projection.output.", "videomlp.linear2."),
    ("video_encoder.transformer.", "video_encoder.bert."),
    ("text_encoder.transformer.", "text_encoder."),
)


@pytest.fixture(scope="module")
def originals(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as the original would write it, whose text backbone lies beside it."""
    folder = tmp_path_factory.mktemp("original")
    shutil.copytree(tiny_bert, folder / "bert", ignore=shutil.ignore_patterns("*.safetensors"))
    settings = json.loads((folder / "bert" / "config.json").read_text())
    (folder / "bert" / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 6}))
    model = VideoClipModel.from_config(VideoClipConfig(bert=str(folder / "bert")))
    save_as_mmpt(model, model.text_encoder.transformer.config.vocab_size, folder / "checkpoint.pt")
    return folder / "checkpoint.pt"


@pytest.fixture(scope="module")
def checkpoints(tiny_checkpoint: Path, originals: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of either kind one; ours without what loading a model does not read."""
    content = torch.load(tiny_checkpoint, weights_only=True)
    slim = {"model": content["model"], "cfg": {"model": content["cfg"]["model"]}, "task_state": content["task_state"]}
    ours = tmp_path_factory.mktemp("ours") / "checkpoint.pt"
    torch.save(slim, ours)
    shutil.copytree(tiny_checkpoint.parent / "bert", ours.parent / "bert")
    return {"ours": ours, "the original's": originals}


def places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every (dict or list, key) of nested content."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield content, key
        if isinstance(value, dict | list):
            yield from places(value)


def with_other_value(content: dict, rng: random.Random) -> None:
    """Exchange a value of the settings or the state, or take it away."""
    parts = {name: part for name, part in content.items() if name != "model"}
    holder, key = rng.choice(
        [(content, name) for name in parts] + [place for place in places(parts) if place[0] is not parts]
    )
    if key == "normalize":  # another similarity is no damage: embeddings of another length are right then
        return
    if rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = copy.deepcopy(rng.choice(ODD))


def with_other_weight(content: dict, rng: random.Random) -> None:
    """Exchange a tensor, or take it away."""
    model = content["model"]
    name = rng.choice(list(model))
    value = model[name]
    match rng.randrange(9):
        case 0:
            del model[name]
        case 1:
            value.view(-1)[rng.randrange(value.numel())] = rng.choice((float("nan"), float("inf")))
        case 2:
            model[name] = value[:-1]
        case 3:
            model[name] = value[..., None]
        case 4:
            model[name] = torch.zeros(1).expand(2**40, *value.shape)
        case 5:
            model[name] = value.to(
                rng.choice((torch.complex64, torch.bool, torch.int8, torch.uint8, torch.float8_e5m2))
            )
        case 6:
            model[rng.choice((name + "x", 5, ("a",), None, ""))] = value
        case 7:
            model[name] = rng.choice((value.to_sparse(), value[:1].tolist(), torch.empty_like(value, device="meta")))
        case _:
            model[name] = copy.deepcopy(rng.choice(ODD))


def recompressed(path: Path, rng: random.Random) -> None:
    """Write the archive with other compression, or with another order of its parts."""
    with zipfile.ZipFile(path) as archive:
        parts = [(name, archive.read(name)) for name in archive.namelist()]
    rng.shuffle(parts)
    with zipfile.ZipFile(path, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, part in parts:
            archive.writestr(name, part)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ours", "the original's"])
def test_bytes_of_checkpoints(checkpoints: dict[str, Path], tmp_path: Path, name: str) -> None:
    path, expected, content, rng = copied(checkpoints[name], tmp_path)
    outcomes = []
    for i, altered in enumerate(mutations(content, 110, rng)):
        path.write_bytes(altered if i % 25 else content)
        if i % 25 == 0:
            recompressed(path, rng)
        outcomes.append(outcome(of_checkpoint, path, expected))
    assert outcomes.count("other") == 0 and outcomes.count("refused") > 70


def copied(checkpoint: Path, folder: Path) -> tuple[Path, tuple[list, list], bytes, random.Random]:
    """A checkpoint and its text backbone in a folder of their own, what it gives, its content, and seeded chance."""
    shutil.copytree(checkpoint.parent / "bert", folder / "bert")
    path = Path(shutil.copy(checkpoint, folder / "copy.pt"))
    return path, of_checkpoint(path), path.read_bytes(), random.Random(str(checkpoint.name))


@pytest.mark.slow
@pytest.mark.parametrize("alter", [with_other_value, with_other_weight])
@pytest.mark.parametrize("name", ["ours", "the original's"])
def test_content_of_checkpoints(
    checkpoints: dict[str, Path], tmp_path: Path, name: str, alter: Callable[[dict, random.Random], None]
) -> None:
    path, expected, _, rng = copied(checkpoints[name], tmp_path)
    whole, outcomes = dict(torch.load(path, weights_only=True)), []
    for _ in range(50):
        content = copy.deepcopy(whole)
        alter(content, rng)
        torch.save(content, path)
        outcomes.append(outcome(of_checkpoint, path, expected))
    assert outcomes.count("other") == 0


EXPORTED_FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED_FILES)
def test_exported_folders(tiny_checkpoint: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "exported"
    export([str(tiny_checkpoint), str(folder)])
    expected, outcomes = of_checkpoint(folder), []
    for altered in mutations((folder / name).read_bytes(), 66, random.Random(name)):
        (folder / name).write_bytes(altered)
        outcomes.append(outcome(of_checkpoint, folder, expected))
    assert outcomes.count("other") == 0 and outcomes.count("refused") > 20
