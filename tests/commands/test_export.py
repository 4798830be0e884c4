"""An exported folder is the checkpoint's model, bit by bit, and is refused where it is not what was written."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin import VideoClip
from mmpt_plugin.commands.export import main, results_files
from mmpt_plugin.models.checkpoint import sha256
from mmpt_plugin.models.exported import config_hash
from mmpt_plugin.models.loading import load_videoclip

TEXTS = ["add the onions", "", "stir"]


@pytest.fixture(scope="module")
def results(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results") / "youcook2.json"
    content = {
        "benchmark": "youcook2",
        "metrics": {"R@1": 0.25, "median_rank": 3.0},
        "intervals": {"R@1": [0.2, 0.3]},
        "baselines": {"chance": {"R@1": 0.01, "median_rank": 50.0}},
        "original": {},
        "paper": {},
        "counts": {"expected": 9, "found": 9, "missing": [], "queries": 9},
        "checkpoint": {"path": str(tiny_checkpoint), "sha256": sha256(tiny_checkpoint)},
        "config": {},
    }
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def exported(tiny_checkpoint: Path, results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "my-model"
    main([str(tiny_checkpoint), str(folder), "--results", str(results)])
    return folder


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """To damage."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def change(folder: Path, **values: object) -> None:
    """Alter config.json as one would who writes it anew, with its hash."""
    path = folder / "config.json"
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps(content | {"config_sha256": config_hash(content)}))


def test_the_round_trip_is_bit_equal(
    tiny_checkpoint: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Path(shutil.copytree(exported, tmp_path / "elsewhere"))
    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.delattr(module, name)  # nothing is unpickled
    clip = VideoClip.from_pretrained(alone)
    monkeypatch.undo()
    expected, _ = load_videoclip(tiny_checkpoint)
    assert clip.model.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(value, expected.state_dict()[key]) for key, value in clip.model.state_dict().items())
    original = VideoClip.from_pretrained(tiny_checkpoint)
    x = np.random.default_rng(0).standard_normal((40, 512), dtype=np.float32)
    assert torch.equal(clip.encode_text(TEXTS), original.encode_text(TEXTS))
    assert torch.equal(clip.encode_video([x]), original.encode_video([x]))
    assert clip.feature_settings == original.feature_settings


def test_what_lies_in_the_folder(exported: Path) -> None:
    names = {path.name for path in exported.iterdir()}
    assert {"model.safetensors", "config.json", "README.md", "tokenizer.json", "tokenizer_config.json"} <= names
    assert not [name for name in names if name.endswith((".pt", ".bin", ".pkl", ".partial"))]
    content = json.loads((exported / "config.json").read_text())
    assert content["weights_sha256"] == sha256(exported / "model.safetensors")
    card = (exported / "README.md").read_text()
    for told in (
        "# my-model",
        "(seconds, 512) -> (1, 32)",
        "does not tell how its features were made",
        "updates: 2",
        "25.0",
        "9 queries",
    ):
        assert told in card, told


def test_what_it_was_fine_tuned_on_is_told(copy: Path) -> None:
    origin = json.loads((copy / "config.json").read_text())["origin"]
    change(copy, origin=origin | {"fine_tuned_on": "coin"})
    assert VideoClip.from_pretrained(copy).fine_tuned_on == "coin"


def test_mmpts_checkpoint(golden: Path, tmp_path: Path) -> None:
    folder, bert = golden / "model", str(golden / "model" / "bert-tiny")
    main([str(folder / "checkpoint_best.pt"), str(tmp_path / "out"), "--bert", bert])
    expected, _ = load_videoclip(folder / "checkpoint_best.pt", bert)
    weights = VideoClip.from_pretrained(tmp_path / "out").model.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in expected.state_dict().items())


# --- what is refused ---


def test_weights_that_are_missing_or_altered(copy: Path) -> None:
    path = copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors was altered or cut: .*download it again"):
        VideoClip.from_pretrained(copy)
    path.unlink()
    with pytest.raises(ValueError, match=r"has no model\.safetensors: copy or download the folder again"):
        VideoClip.from_pretrained(copy)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format_version": 2}, r"of the format 2, .* reads up to 1: pip install --upgrade mmpt_plugin"),
        ({"format_version": "1"}, r"format_version is '1'; a whole number from 1"),
        ({"model_type": "bert"}, "is not of an exported model"),
        ({"weights_sha256": None}, r"model\.safetensors was altered or cut"),
        ({"tokenizer_sha256": None}, "has no 'tokenizer_sha256'"),
        ({"text_backbone": None}, "has no 'text_backbone'"),
        ({"text_backbone": {"config": {}}}, "the record of the text backbone at .* cannot be used"),
        ({"model": {"video_layers": "two"}}, r"model\.video_layers is 'two'"),
        ({"model": {"video_layers": 1}}, r"does not fit the model: .* unknown"),
    ],
)
def test_a_configuration_that_was_altered(copy: Path, values: dict, message: str) -> None:
    change(copy, **values)
    with pytest.raises(ValueError, match=message):
        VideoClip.from_pretrained(copy)


@pytest.mark.parametrize("name", ["features", "origin", "model", "text_backbone"])
def test_a_setting_that_was_altered_by_hand(copy: Path, name: str) -> None:
    path = copy / "config.json"
    content = json.loads(path.read_text())
    content[name] = (content[name] or {}) | {"fps": 30}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"config\.json was altered: .*export the checkpoint again"):
        VideoClip.from_pretrained(copy)


def test_a_configuration_that_was_only_laid_out_anew(copy: Path) -> None:
    path = copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    VideoClip.from_pretrained(copy)


def test_a_tokenizer_that_was_altered(copy: Path) -> None:
    path = copy / "tokenizer_config.json"
    path.write_text(path.read_text().replace('"do_lower_case": true', '"do_lower_case": false'))
    with pytest.raises(ValueError, match=r"tokenizer_config\.json was altered or cut: "):
        VideoClip.from_pretrained(copy)
    path.unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer_config\.json: copy or download the folder again"):
        VideoClip.from_pretrained(copy)


def test_a_tokenizer_of_other_words(copy: Path) -> None:
    path = copy / "tokenizer.json"
    path.write_text(path.read_text().replace('"onion"', '"leek"'))
    files = json.loads((copy / "config.json").read_text())["tokenizer_sha256"]
    change(copy, tokenizer_sha256=files | {path.name: sha256(path)})
    with pytest.raises(ValueError, match="its vocabulary was altered"):
        VideoClip.from_pretrained(copy)


def test_what_is_no_model(tiny_checkpoint: Path, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no config\.json, .*give a folder that mmpt-export wrote"):
        VideoClip.from_pretrained(tiny_checkpoint.parent)
    with pytest.raises(ValueError, match="has its own tokenizer"):
        VideoClip.from_pretrained(exported, bert="bert-base-uncased")

    def unreachable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(
        FileNotFoundError, match=r"someone/model is neither a file nor a folder here, nor a model on the hub"
    ):
        VideoClip.from_pretrained("someone/model")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **kwargs: str(exported))
    assert VideoClip.from_pretrained("someone/model").encode_text("stir").shape == (1, 32)


def test_hidden_files_are_no_results(tmp_path: Path) -> None:
    (tmp_path / "._coin.json").write_bytes(b"macOS's")
    with pytest.raises(FileNotFoundError, match="no results file"):
        results_files([tmp_path])
    (tmp_path / "coin.json").touch()
    assert results_files([tmp_path]) == [tmp_path / "coin.json"]


def test_results_of_another_checkpoint(tiny_checkpoint: Path, results: Path, tmp_path: Path) -> None:
    content = json.loads(results.read_text())
    content["checkpoint"]["sha256"] = "0" * 64
    (tmp_path / "youcook2.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="holds results of another checkpoint"):
        main([str(tiny_checkpoint), str(tmp_path / "out"), "--results", str(tmp_path)])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there(tiny_checkpoint: Path, exported: Path) -> None:
    with pytest.raises(SystemExit, match="exists already"):
        main([str(tiny_checkpoint), str(exported)])
