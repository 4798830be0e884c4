"""The results file and its table."""

import math
from typing import ClassVar

import numpy as np
import pytest

from mmpt_plugin.evaluation.benchmark import Benchmark, Evaluation
from mmpt_plugin.evaluation.report import format_table, read_results, results_json, table_rows, write_results


class MadeUp(Benchmark):
    name = "made_up"
    paper: ClassVar = {"accuracy": 0.5}
    expected = 10
    found = 9
    missing: ClassVar = ["v1"]

    def __init__(self):
        """No files to read."""

    def plan(self):
        raise NotImplementedError

    def score(self, encodings):
        raise NotImplementedError

    def evaluate(self, scores):
        raise NotImplementedError


EVALUATION = Evaluation(
    metrics={"accuracy": np.float64(0.625), "median_rank": 3.0, "calibrated": {"accuracy": 0.75}},
    baselines={"chance": {"accuracy": 0.2, "median_rank": 5.5}, "all_background": {"accuracy": math.nan}},
    original={"accuracy": 0.6},
    queries=8,
    intervals={"accuracy": (0.5, 0.75), "median_rank": (math.nan, math.nan)},
)


@pytest.fixture
def results():
    return results_json(MadeUp(), EVALUATION, checkpoint={"path": "a.pt", "sha256": "ff"}, config={"seed": 1})


def test_the_results_hold_the_promised_parts(results):
    assert results == {
        "benchmark": "made_up",
        "metrics": {"accuracy": 0.625, "median_rank": 3.0, "calibrated": {"accuracy": 0.75}},
        "baselines": {"chance": {"accuracy": 0.2, "median_rank": 5.5}, "all_background": {"accuracy": None}},
        "original": {"accuracy": 0.6},
        "paper": {"accuracy": 0.5},
        "counts": {"expected": 10, "found": 9, "missing": ["v1"], "queries": 8},
        "intervals": {"accuracy": [0.5, 0.75], "median_rank": [None, None]},
        "checkpoint": {"path": "a.pt", "sha256": "ff"},
        "config": {"seed": 1},
    }


def test_results_and_scores_are_written_and_read(tmp_path, results):
    scores = {"similarities": np.eye(3, dtype=np.float32), "video_ids": np.array(["-a", "b_c"])}
    path = write_results(tmp_path / "new" / "folder", "made_up", results, scores)
    assert read_results(path) == results
    with np.load(path.with_name("made_up_scores.npz"), allow_pickle=False) as saved:
        assert saved["similarities"].dtype == np.float32 and saved["video_ids"].tolist() == ["-a", "b_c"]
    assert sorted(file.name for file in path.parent.iterdir()) == ["made_up.json", "made_up_scores.npz"]


def test_a_failed_write_leaves_the_old_pair_alone(tmp_path, results):
    write_results(tmp_path, "made_up", results, {"a": np.zeros(2)})
    with pytest.raises(ValueError, match=r"\['b'\] hold Python objects"):
        write_results(tmp_path, "made_up", results, {"b": np.array([{}])})
    with pytest.raises(ValueError, match="JSON"):
        write_results(tmp_path, "made_up", {"x": math.inf}, {"b": np.zeros(2)})
    assert read_results(tmp_path / "made_up.json") == results
    with np.load(tmp_path / "made_up_scores.npz") as saved:
        assert saved.files == ["a"]


def test_a_crash_while_writing_leaves_nothing_that_looks_whole(tmp_path, results, monkeypatch):
    def crash(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", crash)
    with pytest.raises(OSError, match="disk full"):
        write_results(tmp_path, "made_up", results, {"a": np.zeros(2)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["{", "[]", '{"benchmark": "x"}'])
def test_other_files_are_no_results(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"x\.json is not a results file"):
        read_results(path)


def test_the_table_by_hand(results):
    rows = {row["metric"]: row for row in table_rows(results)}
    assert rows["accuracy"] == {
        "metric": "accuracy",
        "ours": "62.5",
        "95% interval": "50.0 - 75.0",
        "paper": "50.0",
        "original's rule": "60.0",
        "all background": "",
        "chance": "20.0",
    }
    assert (rows["median_rank"]["ours"], rows["median_rank"]["chance"]) == ("3.0", "5.5")
    assert rows["calibrated/accuracy"]["ours"] == "75.0"


def test_the_printed_table_names_the_counts_and_drops_empty_columns(results):
    table = format_table(results)
    assert "made_up: 9 of 10 official items, 8 queries" in table and "not comparable" in table
    assert "all background" not in table and "| accuracy " in table
    assert "not comparable" not in format_table({**results, "counts": {**results["counts"], "found": 10}})


def test_chance_and_best_possible_stand_last(results):
    results["baselines"] = {"best_possible": {"accuracy": 0.9}, "chance": {"accuracy": 0.2}, "prior": {"accuracy": 0.3}}
    assert list(table_rows(results)[0])[-3:] == ["prior", "chance", "best possible"]
