"""One table over benchmarks and checkpoints."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.evaluation.bootstrap import VideoSums
from mmpt_plugin.report import collect

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "collect_results.py"


def test_the_script_is_a_face_of_the_module():
    shown = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True, check=True).stdout
    assert "--compare" in shown


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


def test_checkpoints_stand_below_each_other(outputs, capsys):
    collect.main([*outputs, "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["benchmark"], row["metric"], row["checkpoint"], row["ours"]) for row in rows] == [
        ("coin", "edit", "a.pt (01234567)", "30.0"),
        ("msrvtt", "R@1", "a.pt (01234567)", "10.0"),
        ("msrvtt", "R@1", "b.pt (01234567)", "40.0"),
        ("msrvtt", "R@5", "a.pt (01234567)", "20.0"),
        ("msrvtt", "R@5", "b.pt (01234567)", "50.0"),
    ]
    assert rows[0]["chance"] == "1.0" and rows[0]["found"] == "5 of 5 official items"


def test_markdown_goes_to_a_file(outputs, tmp_path):
    target = tmp_path / "table.md"
    collect.main([*outputs, "--output", str(target)])
    lines = target.read_text().splitlines()
    assert lines[0].startswith("| benchmark") and len(lines) == 2 + 5


def test_hidden_files_are_passed_over(outputs, capsys):
    (Path(outputs[0]) / "._coin.json").write_bytes(b"macOS's")
    collect.main([*outputs, "--brief"])
    assert "coin" in capsys.readouterr().out


def test_a_file_given_twice_counts_once(outputs, capsys):
    collect.main([outputs[0], f"{outputs[0]}/coin.json", "--format", "csv"])
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3


@pytest.mark.parametrize("content", [None, "{"])
def test_folders_without_results_are_errors(tmp_path, capsys, content):
    if content:
        (tmp_path / "x.json").write_text(content)
    with pytest.raises(SystemExit) as stop:
        collect.main([str(tmp_path)])
    assert stop.value.code == 1
    assert str(tmp_path) in capsys.readouterr().err


def read(capsys):
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_brief(outputs, capsys):
    collect.main([outputs[0], "--format", "csv", "--brief"])
    rows = read(capsys)
    assert [list(row.items()) for row in rows] == [
        [("benchmark", "coin"), ("metric", "edit"), ("chance", "1.0"), ("ours", "30.0")],  # no best possible is known
        [("benchmark", "msrvtt"), ("metric", "R@1"), ("chance", "1.0"), ("ours", "10.0")],
        [("benchmark", "msrvtt"), ("metric", "R@5"), ("chance", "1.0"), ("ours", "20.0")],
    ]


def test_brief_tells_checkpoints_apart_and_leaves_out_groups(outputs, tmp_path, capsys):
    write(tmp_path / "three", "crosstask", "b.pt", {"recall": 0.4, "recall_per_task": {"7": 0.4}})
    collect.main([*outputs, str(tmp_path / "three"), "--format", "csv", "--brief"])
    rows = read(capsys)
    assert list(rows[0]) == ["benchmark", "metric", "checkpoint", "chance", "ours"]
    assert [(row["metric"], row["checkpoint"]) for row in rows if row["benchmark"] == "msrvtt"] == [
        ("R@1", "a.pt (01234567)"),
        ("R@1", "b.pt (01234567)"),
        ("R@5", "a.pt (01234567)"),
        ("R@5", "b.pt (01234567)"),
    ]
    assert [row["metric"] for row in rows if row["benchmark"] == "crosstask"] == ["recall"]


def test_the_difference_of_two_checkpoints_with_its_paired_interval(outputs, tmp_path, capsys):
    for folder, hits in (("one", [1, 0, 0, 0]), ("two", [1, 1, 1, 0])):
        sums = VideoSums.of([*"abcd"], {"R@1": (hits, 1)}, ranks=np.array([1 if hit else 3 for hit in hits]))
        np.savez(tmp_path / folder / "msrvtt_scores.npz", **sums.arrays())
    collect.main([*outputs, "--compare", "--format", "csv"])
    recall, median = read(capsys)
    assert (recall["benchmark"], recall["metric"]) == ("msrvtt", "R@1")
    assert (recall["first"], recall["second"]) == ("a.pt (01234567)", "b.pt (01234567)")
    assert recall["second less first"] == "+50.0" and recall["95% interval"] == "+0.0 to +100.0"
    assert (median["metric"], median["second less first"]) == ("median_rank", "-2.0")
    collect.main([*reversed(outputs), "--compare", "--format", "csv"])
    assert read(capsys)[0]["second less first"] == "-50.0"  # the first given is the first


def test_what_cannot_be_compared(outputs, tmp_path, capsys):
    def refused(*arguments):
        with pytest.raises(SystemExit) as stop:
            collect.main([*arguments, "--compare"])
        assert stop.value.code == 1
        return capsys.readouterr().err

    assert "nothing to compare" in refused(outputs[0])
    assert "msrvtt_scores.npz not found" in refused(*outputs)
    for folder, videos in (("one", "ab"), ("two", "ac")):
        sums = VideoSums.of([*videos], {"R@1": (1, 1)})
        np.savez(tmp_path / folder / "msrvtt_scores.npz", **sums.arrays())
    assert "one/msrvtt.json and" in (message := refused(*outputs)) and "other videos or queries" in message


def test_the_numbers_side_by_side_as_a_page(outputs, tmp_path, capsys):
    collect.main([*outputs, "--html", str(tmp_path / "table.html")])
    assert "| msrvtt" in capsys.readouterr().out
    page = (tmp_path / "table.html").read_text()
    assert "a.pt" in page and "b.pt" in page and "40.0" in page
