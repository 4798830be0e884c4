"""scripts/collect_results.py: one table over benchmarks and checkpoints."""

import csv
import importlib.util
import io
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "collect_results.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("collect_results", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder, benchmark, checkpoint, metrics):
    folder.mkdir(exist_ok=True)
    results = {
        "benchmark": benchmark,
        "metrics": metrics,
        "baselines": {"chance": dict.fromkeys(metrics, 0.01)},
        "original": {},
        "paper": {},
        "counts": {"expected": 5, "found": 5, "missing": [], "queries": 5},
        "intervals": {},
        "checkpoint": {"path": checkpoint, "sha256": "0123456789"},
    }
    (folder / f"{benchmark}.json").write_text(json.dumps(results))


@pytest.fixture
def outputs(tmp_path):
    write(tmp_path / "one", "msrvtt", "a.pt", {"R@1": 0.1, "R@5": 0.2})
    write(tmp_path / "one", "coin", "a.pt", {"edit": 0.3})
    write(tmp_path / "two", "msrvtt", "b.pt", {"R@1": 0.4, "R@5": 0.5})
    return [str(tmp_path / "one"), str(tmp_path / "two")]


def test_checkpoints_stand_below_each_other(script, outputs, capsys):
    script.main([*outputs, "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["benchmark"], row["metric"], row["checkpoint"], row["ours"]) for row in rows] == [
        ("coin", "edit", "a.pt (01234567)", "30.0"),
        ("msrvtt", "R@1", "a.pt (01234567)", "10.0"),
        ("msrvtt", "R@1", "b.pt (01234567)", "40.0"),
        ("msrvtt", "R@5", "a.pt (01234567)", "20.0"),
        ("msrvtt", "R@5", "b.pt (01234567)", "50.0"),
    ]
    assert rows[0]["chance"] == "1.0" and rows[0]["found"] == "5 of 5"


def test_markdown_goes_to_a_file(script, outputs, tmp_path):
    target = tmp_path / "table.md"
    script.main([*outputs, "--output", str(target)])
    lines = target.read_text().splitlines()
    assert lines[0].startswith("| benchmark") and len(lines) == 2 + 5


def test_a_file_given_twice_counts_once(script, outputs, capsys):
    script.main([outputs[0], f"{outputs[0]}/coin.json", "--format", "csv"])
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3


@pytest.mark.parametrize("content", [None, "{"])
def test_folders_without_results_are_errors(script, tmp_path, capsys, content):
    if content:
        (tmp_path / "x.json").write_text(content)
    with pytest.raises(SystemExit) as stop:
        script.main([str(tmp_path)])
    assert stop.value.code == 1
    assert str(tmp_path) in capsys.readouterr().err


def test_brief(script, outputs, capsys):
    script.main([*outputs, "--format", "csv", "--brief"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(rows[0]) == ["benchmark", "metric", "chance", "ours"]  # no best possible is known
    assert rows[0] == {"benchmark": "coin", "metric": "edit", "chance": "1.0", "ours": "30.0"}
