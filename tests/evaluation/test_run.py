"""`evaluate(clip, benchmark)`: the same results as fairseq's task, without it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmpt_plugin import VideoClip
from mmpt_plugin.evaluation import evaluate
from mmpt_plugin.evaluation.benchmarks import BENCHMARKS
from mmpt_plugin.evaluation.report import read_results, read_scores
from mmpt_plugin.evaluation.run import read_best_possible


@pytest.fixture
def clip(tiny_checkpoint: Path) -> VideoClip:
    return VideoClip.from_pretrained(tiny_checkpoint)


@pytest.mark.parametrize("name", ["youcook2", "msrvtt_qa", "coin", "crosstask"])
def test_it_is_what_the_task_does(
    fairseq_train: Callable[..., None],
    clip: VideoClip,
    tiny_checkpoint: Path,
    benchmark_data: Path,
    tmp_path: Path,
    name: str,
) -> None:
    ours = evaluate(clip, BENCHMARKS[name](benchmark_data), batch_size=3, results_path=tmp_path / "ours")
    assert read_results(tmp_path / "ours" / f"{name}.json") == ours
    fairseq_train(
        f"zeroshot_{name}", f"task.data={benchmark_data}", f"task.results_path={tmp_path / 'task'}",
        f"checkpoint.restore_file={tiny_checkpoint}", "dataset.num_workers=0", "task.report=false",
    )  # fmt: skip
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


def test_what_is_refused(clip: VideoClip, benchmark_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        evaluate(clip, BENCHMARKS["coin"](benchmark_data), batch_size=0)
    assert read_best_possible(BENCHMARKS["coin"](benchmark_data), tmp_path) is None


def test_fairseq_is_not_needed() -> None:
    code = (
        "import sys; from mmpt_plugin.evaluation import evaluate; import mmpt_plugin.commands.evaluate; "
        "print([name for name in ('fairseq', 'hydra', 'omegaconf') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.stdout.strip() == "[]", shown.stderr
