"""The study of recipes: what is done is not done again, and the table pairs seeds."""

import json
import sys
from pathlib import Path

import pytest

from demo import keys_study


def record(arm: str, seed: int, score: float, updates: int = 800) -> dict:
    metrics = {"youcook2": {"R@1": score, "R@5": score, "R@10": score}}
    return {"arm": arm, "seed": seed, "updates": updates, "cpu_seconds": 10.0 * seed, "metrics": metrics}


def study(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["keys_study", *arguments])
    keys_study.main()


def test_a_study_goes_on_where_it_was_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple] = []

    def run(out: Path, arm: str, seed: int, updates: int, benchmarks: list[str]) -> dict:
        done.append((arm, seed, updates, tuple(benchmarks)))
        return record(arm, seed, 0.5, updates)

    monkeypatch.setattr(keys_study, "run", run)
    runs = tmp_path / "runs.jsonl"
    runs.write_text(json.dumps(record("paper", 1, 0.4)) + "\n" + '{"arm": "pap')  # killed while it wrote
    assert [own["seed"] for own in keys_study.read_runs(tmp_path)] == [1]
    runs.write_text(json.dumps(record("paper", 1, 0.4)) + "\n")
    given = ("run", str(tmp_path), "--arms", "paper", "modern", "--seeds", "1", "2")
    study(monkeypatch, *given)
    youcook2 = ("youcook2",)
    assert done == [("modern", 1, 800, youcook2), ("paper", 2, 800, youcook2), ("modern", 2, 800, youcook2)]
    study(monkeypatch, *given)
    assert len(done) == 3
    study(monkeypatch, *given, "--updates", "400", "--seeds", "2")
    assert [own[:3] for own in done[3:]] == [("paper", 2, 400), ("modern", 2, 400)]


def test_gains_are_paired_over_the_seeds_of_both() -> None:
    records = [record("paper", 1, 0.2), record("paper", 2, 0.4), record("modern", 1, 0.5), record("modern", 2, 0.5)]
    records += [record("modern", 3, 0.8), record("modern", 1, 0.1, updates=400)]
    rows = {(row["arm"], row["updates"]): row for row in keys_study.rows_of(records, "youcook2", "paper")[::3]}
    # gains 0.3 and 0.1: mean 0.2, standard error 0.1; values 0.5, 0.5, 0.8: mean 0.6, standard error 0.1
    assert rows["modern", "800"]["gain over paper"] == "20.0 +- 10.0"
    assert rows["modern", "800"]["value"] == "60.0 +- 10.0"
    assert rows["modern", "800"]["CPU s"] == "20"
    assert rows["paper", "800"]["gain over paper"] == ""
    assert rows["modern", "400"] | {"value": "10.0", "gain over paper": ""} == rows["modern", "400"]


def test_every_arm_composes(compose_run) -> None:
    for arm, overrides in keys_study.ARMS.items():
        cfg = compose_run("demo", *overrides)
        assert (cfg.criterion._name == "sigmoid") == (arm == "sigmoid")
    modern = compose_run("demo", "+difference=modern")
    assert modern.model.normalize and modern.model.logit_scale and modern.criterion.false_negatives == "mask"
