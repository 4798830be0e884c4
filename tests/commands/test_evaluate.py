"""Several benchmarks in one process."""

import shutil
import subprocess
from pathlib import Path

import pytest

from mmpt_plugin.commands import evaluate
from mmpt_plugin.evaluation.results import read_results

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "evaluate_all.sh"


def run(*arguments: object) -> None:
    evaluate.main([str(argument) for argument in arguments])


def test_all_that_the_folder_has(tiny_checkpoint: Path, benchmark_data: Path, tmp_path: Path, caplog) -> None:
    with caplog.at_level("INFO"):
        run(tiny_checkpoint, benchmark_data, tmp_path, "--no-report")
    written = {file.stem for file in tmp_path.glob("*.json")}
    assert written == {"youcook2", "msrvtt", "msrvtt_qa", "coin", "crosstask"}
    assert "has no files of didemo_moment, didemo_retrieval: not evaluated" in caplog.text
    results = read_results(tmp_path / "coin.json")
    assert results["checkpoint"]["path"] == str(tiny_checkpoint.resolve()) and "| frame_accuracy " in caplog.text


def test_some_of_them_and_their_refusals(tiny_checkpoint: Path, benchmark_data: Path, tmp_path: Path, capsys) -> None:
    run(tiny_checkpoint, benchmark_data, tmp_path / "out", "--no-report", "--benchmarks", "coin")
    assert [file.name for file in (tmp_path / "out").glob("*.json")] == ["coin.json"]

    def refused(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stop:
            run(*arguments)
        assert stop.value.code != 0
        return capsys.readouterr().err

    assert "none of the folders" in refused(tiny_checkpoint, tmp_path, tmp_path / "x")
    assert "test_data.json not found" in refused(
        tiny_checkpoint, benchmark_data, tmp_path / "x", "--benchmarks", "coin", "didemo_moment"
    )
    assert "no checkpoint at" in refused(tmp_path / "none.pt", benchmark_data, tmp_path / "x")
    assert "--batch-size is 0" in refused(tiny_checkpoint, benchmark_data, tmp_path / "x", "--batch-size", 0)
    data = Path(shutil.copytree(benchmark_data, tmp_path / "data"))
    (data / "coin" / "features" / "test_a.npy").write_bytes(b"cut")
    assert "test_a.npy" in refused(tiny_checkpoint, data, tmp_path / "x")
    assert not (tmp_path / "x").exists()  # all files are looked at before anything is encoded


def test_the_script_is_its_face() -> None:
    shown = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=True).stdout
    assert "--benchmarks" in shown and "several benchmarks in one process" in shown
