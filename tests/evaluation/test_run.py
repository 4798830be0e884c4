"""`evaluate(clip, benchmark)`: the same results as fairseq's task, without it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin import VideoClip
from mmpt_plugin.evaluation import evaluate
from mmpt_plugin.evaluation.benchmark import Encodings
from mmpt_plugin.evaluation.benchmarks import BENCHMARKS
from mmpt_plugin.evaluation.results import read_results, read_scores
from mmpt_plugin.evaluation.run import Subject, conclude, prepare, read_best_possible, subject_of
from mmpt_plugin.features.manifest import MANIFEST, FeatureSettings
from mmpt_plugin.models.checkpoint import read_checkpoint
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.text_backbone import load_tokenizer
from mmpt_plugin.models.videoclip import VideoClipModel
from mmpt_plugin.tasks import zeroshot


@pytest.fixture
def clip(tiny_checkpoint: Path) -> VideoClip:
    return VideoClip.from_pretrained(tiny_checkpoint)


@pytest.fixture
def data_copy(benchmark_data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(benchmark_data, tmp_path / "data"))


@pytest.mark.parametrize("name", ["youcook2", "msrvtt_qa", "coin", "crosstask"])
def test_it_is_what_the_task_does(
    fairseq_train: Callable[..., None],
    clip: VideoClip,
    tiny_checkpoint: Path,
    benchmark_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(zeroshot, "read_checkpoint", lambda path: read.append(path) or read_checkpoint(path))
    ours = evaluate(clip, BENCHMARKS[name](benchmark_data), batch_size=3, results_path=tmp_path / "ours")
    assert read_results(tmp_path / "ours" / f"{name}.json") == ours
    fairseq_train(
        f"zeroshot_{name}", f"task.data={benchmark_data}", f"task.results_path={tmp_path / 'task'}",
        f"checkpoint.restore_file={tiny_checkpoint}", "dataset.num_workers=0", "task.report=false",
    )  # fmt: skip
    assert read == [tiny_checkpoint]  # once: by the task, and the weights are its own
    theirs = read_results(tmp_path / "task" / f"{name}.json")
    for part in ("benchmark", "metrics", "baselines", "original", "paper", "counts", "intervals", "checkpoint"):
        assert ours[part] == theirs[part], part
    saved, expected = (read_scores(tmp_path / place / f"{name}.json") for place in ("ours", "task"))
    assert saved.keys() == expected.keys()


def test_nothing_is_written_without_a_place(clip: VideoClip, benchmark_data: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert evaluate(clip, BENCHMARKS["coin"](benchmark_data))["benchmark"] == "coin"
    assert not list(tmp_path.iterdir())


def test_a_model_without_a_checkpoint(clip: VideoClip, benchmark_data: Path) -> None:
    bare = VideoClip(clip.model, clip.tokenizer)
    results = evaluate(bare, BENCHMARKS["coin"](benchmark_data))
    assert results["checkpoint"] == {"path": None, "sha256": None}
    assert results["metrics"] == evaluate(clip, BENCHMARKS["coin"](benchmark_data))["metrics"]


def test_the_checkpoint_is_not_read_again(tiny_checkpoint: Path, benchmark_data: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copy(tiny_checkpoint, tmp_path / "moved.pt"))
    clip = VideoClip.from_pretrained(moved, bert=str(tiny_checkpoint.parent / "bert"))
    moved.unlink()
    clip.feature_settings, clip.fine_tuned_on = {"network": "s3d", "feature_size": 512}, "coin"
    results = evaluate(clip, BENCHMARKS["coin"](benchmark_data))
    assert results["checkpoint"] == {"path": str(moved), "sha256": None, "fine_tuned_on": "coin"}
    assert subject_of(clip).features == clip.feature_settings


def test_what_is_refused(clip: VideoClip, benchmark_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        evaluate(clip, BENCHMARKS["coin"](benchmark_data), batch_size=0)
    assert read_best_possible(BENCHMARKS["coin"](benchmark_data), tmp_path) is None


def test_what_a_checkpoint_says_is_heeded(data_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = FeatureSettings("s3d", "ab" * 32, 512)
    coin = BENCHMARKS["coin"](data_copy)
    (data_copy / "coin" / "features" / MANIFEST).write_text(json.dumps(asdict(made)))
    prepare(coin, Subject({}, features=asdict(made)))
    with pytest.raises(ValueError, match="fps: 30 here, 4 expected"):
        prepare(coin, Subject({}, features=asdict(replace(made, fps=4))))
    assert not prepare(coin, Subject({"pooling": "mean"})).classify_frames and "pooling=cls" not in caplog.text
    prepare(coin, Subject({"pooling": "cls"}))
    assert "coin compares the states of seconds with texts" in caplog.text
    assert prepare(coin, Subject({"frame_labels": [3, 7, 12]})).classify_frames
    with pytest.raises(ValueError, match="1 labels of the test videos were in no training video"):
        prepare(coin, Subject({"frame_labels": [3]}))


@pytest.mark.parametrize(("trained_on", "paper"), [("coin", 0.687), ("msrvtt", None), (None, 0.589)])
def test_a_fine_tuned_model_stands_beside_the_papers_fine_tuned_number(
    clip: VideoClip, benchmark_data: Path, trained_on: str | None, paper: float | None
) -> None:
    coin = BENCHMARKS["coin"](benchmark_data)
    states = [np.zeros((window.end - window.start, 2), np.float32) for window in coin.plan().windows]
    encodings = Encodings(np.eye(2, dtype=np.float32), states)
    results = conclude(coin, encodings, Subject({"seed": 1}, fine_tuned_on=trained_on), config={"task": {}})
    assert results["paper"].get("frame_accuracy") == paper
    assert results["checkpoint"].get("fine_tuned_on") == trained_on and results["config"]["model"] == {"seed": 1}


@pytest.mark.slow
def test_fairseq_is_not_needed() -> None:
    code = (
        "import sys; from mmpt_plugin.evaluation import evaluate; import mmpt_plugin.commands.evaluate; "
        "print([name for name in ('fairseq', 'hydra', 'omegaconf') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.stdout.strip() == "[]", shown.stderr


@pytest.mark.parametrize("name", ["coin", "crosstask", "msrvtt"])
@pytest.mark.parametrize("seconds", [16, 48])
def test_windows_follow_the_model(tiny_bert: Path, benchmark_data: Path, name: str, seconds: int) -> None:
    config = VideoClipConfig(bert=str(tiny_bert), video_layers=2, max_video_seconds=seconds)
    clip = VideoClip(VideoClipModel.from_backbone(config).eval(), load_tokenizer(str(tiny_bert)), config=config)
    benchmark = BENCHMARKS[name](benchmark_data, max_seconds=seconds)
    windows = benchmark.plan().windows
    assert max(window.end - window.start for window in windows) == min(seconds, max(w.end for w in windows))
    assert evaluate(clip, benchmark)["benchmark"] == name
    with pytest.raises(ValueError, match=rf"was made for windows of 32 seconds, .* takes {seconds}: make it with"):
        evaluate(clip, BENCHMARKS[name](benchmark_data))


@pytest.mark.parametrize("name", ["youcook2", "msrvtt", "msrvtt_qa", "coin", "crosstask"])
def test_features_named_as_videos_meet_their_ids_on_demand(benchmark_data: Path, tmp_path: Path, name: str) -> None:
    for file in (benchmark_data / BENCHMARKS[name].folder / "features").glob("*.npy"):
        (tmp_path / f"{file.stem}.mp4.npy").symlink_to(file)
    with pytest.raises(FileNotFoundError, match=r"task\.drop_suffix=true"):
        BENCHMARKS[name](benchmark_data, features=tmp_path)
    renamed = BENCHMARKS[name](benchmark_data, features=tmp_path, drop_suffix=True)
    assert renamed.plan() == BENCHMARKS[name](benchmark_data).plan()


@pytest.mark.parametrize("name", ["coin", "crosstask", "youcook2"])
def test_two_features_a_second(tiny_bert: Path, benchmark_data: Path, tmp_path: Path, name: str) -> None:
    """With every row twice and as much time, windows and their seconds are the same ones, and all is encoded and scored."""
    for file in (benchmark_data / BENCHMARKS[name].folder / "features").glob("*.npy"):
        rows = np.random.default_rng(len(file.stem)).standard_normal(np.load(file).shape)
        np.save(tmp_path / file.name, rows.astype(np.float16).repeat(2, axis=0))
    config = VideoClipConfig(bert=str(tiny_bert), video_layers=2, features_per_second=2)
    clip = VideoClip(VideoClipModel.from_backbone(config).eval(), load_tokenizer(str(tiny_bert)), config=config)
    benchmark = BENCHMARKS[name](benchmark_data, features=tmp_path, features_per_second=2)
    assert benchmark.plan() == BENCHMARKS[name](benchmark_data).plan()
    results = evaluate(clip, benchmark)
    assert all(np.isfinite(value) for value in results["metrics"].values() if isinstance(value, float))
    with pytest.raises(ValueError, match=r"was made for 1 features a second, and the model takes 2: make it with"):
        evaluate(clip, BENCHMARKS[name](benchmark_data))
    (tmp_path / "manifest.json").write_text(
        json.dumps({"network": "s3d", "weights_sha256": "0", "feature_size": 512, "features_per_second": 3})
    )
    with pytest.raises(ValueError, match=r"have 3 rows a second, and the model takes 2 \(model\.features_per_second\)"):
        evaluate(clip, benchmark)
