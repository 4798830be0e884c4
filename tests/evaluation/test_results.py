"""The results file and its table."""

import contextlib
import json
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import pytest

from mmpt_plugin.evaluation.benchmark import Benchmark, Evaluation
from mmpt_plugin.evaluation.bootstrap import VideoSums
from mmpt_plugin.evaluation.results import (
    format_table,
    read_results,
    read_scores,
    read_sums,
    results_json,
    table_rows,
    write_results,
)


class MadeUp(Benchmark):
    name = "made_up"
    paper: ClassVar = {"accuracy": 0.5}
    official_items = 10
    paper_items = 12
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

    def describe(self):
        return {"texts": np.array(["cut", "stir"])}


EVALUATION = Evaluation(
    metrics={"accuracy": np.float64(0.625), "median_rank": 3.0, "calibrated": {"accuracy": 0.75}},
    baselines={"chance": {"accuracy": 0.2, "median_rank": 5.5}, "all_background": {"accuracy": math.nan}},
    original={"accuracy": 0.6},
    queries=8,
    sums=VideoSums.of(["v0", "v2"], {"accuracy": ([1, 3], [2, 4]), "edit": (0, 0)}),
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
        "counts": {"expected": 10, "paper": 12, "found": 9, "missing": ["v1"], "queries": 8},
        "intervals": {"accuracy": [0.5, 0.75], "edit": [None, None]},
        "checkpoint": {"path": "a.pt", "sha256": "ff"},
        "config": {"seed": 1},
    }


def write(folder, results, scores):
    return write_results(folder, MadeUp(), EVALUATION, results, scores)


def test_results_and_scores_are_written_and_read(tmp_path, results):
    scores = {"similarities": np.eye(3, dtype=np.float32), "video_ids": np.array(["-a", "b_c"])}
    path = write(tmp_path / "new" / "folder", results, scores)
    assert read_results(path) == results
    saved = read_scores(path)
    assert saved["similarities"].dtype == np.float32 and saved["video_ids"].tolist() == ["-a", "b_c"]
    assert saved["texts"].tolist() == ["cut", "stir"]
    assert read_sums(path).metrics()["accuracy"] == 4 / 6
    assert sorted(file.name for file in path.parent.iterdir()) == ["made_up.json", "made_up_scores.npz"]


def test_a_failed_write_leaves_the_old_pair_alone(tmp_path, results):
    write(tmp_path, results, {"a": np.zeros(2)})
    with pytest.raises(ValueError, match=r"\['b'\] hold Python objects"):
        write(tmp_path, results, {"b": np.array([{}])})
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path, {"x": math.inf}, {"b": np.zeros(2)})
    assert read_results(tmp_path / "made_up.json") == results
    assert "a" in read_scores(tmp_path / "made_up.json")


def test_a_crash_while_writing_leaves_nothing_that_looks_whole(tmp_path, results, monkeypatch):
    def crash(file, **arrays):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", crash)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, results, {"a": np.zeros(2)})
    assert list(tmp_path.iterdir()) == []


def test_two_evaluations_into_one_folder_end_with_a_whole_pair(tmp_path, results):
    def write_often(seed):
        for _ in range(30):
            write(tmp_path, {**results, "config": {"seed": seed}}, {"seed": np.array(seed)})

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(write_often, seed) for seed in range(3)]:
            while not done.done():
                with contextlib.suppress(OSError):
                    read_results(tmp_path / "made_up.json")  # whole, or not there
            done.result()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["made_up.json", "made_up_scores.npz"]
    path = tmp_path / "made_up.json"
    assert read_results(path)["config"]["seed"] == read_scores(path)["seed"]


def test_the_files_of_one_evaluation_are_never_parted(tmp_path, results, monkeypatch):
    """A second evaluation starts to write when the first has renamed one of its two files."""
    replace, second = os.replace, []

    def interrupted(source, target):
        replace(source, target)
        if not second:
            second.append(
                threading.Thread(target=write, args=(tmp_path, results | {"config": 2}, {"seed": np.array(2)}))
            )
            second[0].start()
            second[0].join(0.3)

    monkeypatch.setattr(os, "replace", interrupted)
    path = write(tmp_path, results | {"config": 1}, {"seed": np.array(1)})
    second[0].join()
    assert read_results(path)["config"] == read_scores(path)["seed"] == 2


WHOLE = {
    "benchmark": "x",
    "metrics": {"R@1": 0.5, "calibrated": {"R@1": None}},
    "baselines": {"chance": {"R@1": 0.1}},
    "paper": {},
    "counts": {"expected": 1, "found": 1, "missing": [], "queries": 1},
    "checkpoint": {"path": "a.pt"},
}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "Expected `object`, got `array`"),
        ('{"benchmark": "x"}', "missing required field `metrics`"),
        ({"metrics": {"R@1": "high"}}, r"got `str` - at `\$\.metrics"),
        ({"metrics": {"a": {"b": {"c": 1}}}}, r"\$\.metrics"),
        ({"baselines": {"chance": 0.1}}, r"\$\.baselines"),
        ({"counts": {"expected": 1}}, r"missing required field `found` - at `\$\.counts`"),
        ({"counts": {**WHOLE["counts"], "missing": [1]}}, r"\$\.counts\.missing"),
        ({"intervals": {"R@1": [0.1]}}, r"\$\.intervals"),
        ({"checkpoint": "a.pt"}, r"\$\.checkpoint"),
        ("[" * 100_000, "nested too deeply"),
        (json.dumps(WHOLE).replace("0.5", "NaN"), "NaN is no number"),
    ],
)
def test_other_files_are_no_results(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(WHOLE))
    read_results(path)
    path.write_text(json.dumps(WHOLE | content) if isinstance(content, dict) else content)
    with pytest.raises(ValueError, match=rf"x\.json is not a results file.*{message}"):
        read_results(path)


def test_scores_that_are_missing_damaged_or_of_an_older_version(tmp_path, results):
    path = write(tmp_path, results, {"a": np.zeros(2)})
    scores = tmp_path / "made_up_scores.npz"
    scores.write_bytes(scores.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"made_up_scores\.npz: .*Evaluate again"):
        read_scores(path)
    np.savez(scores, a=np.zeros(2))
    with pytest.raises(ValueError, match=r"made_up_scores\.npz holds no sums by video"):
        read_sums(path)
    scores.unlink()
    with pytest.raises(FileNotFoundError, match=r"made_up_scores\.npz not found"):
        read_scores(path)


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
    assert "made_up: 9 of 10 official items (the paper's numbers are on 12), 8 queries" in table
    assert "not comparable" in table and "bootstrap over videos in the gallery as it is" in table
    assert "all background" not in table and "| accuracy " in table
    for found in (10, 12):
        assert "not comparable" not in format_table({**results, "counts": {**results["counts"], "found": found}})


def test_chance_and_best_possible_stand_last(results):
    results["baselines"] = {"best_possible": {"accuracy": 0.9}, "chance": {"accuracy": 0.2}, "prior": {"accuracy": 0.3}}
    assert list(table_rows(results)[0])[-3:] == ["prior", "chance", "best possible"]
