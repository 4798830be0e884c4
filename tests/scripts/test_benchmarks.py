"""The benchmark scripts, in the smallest sizes: they run, and report what docs/performance.md and the guard read."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
TINY = ["--layers", "2", "--width", "64"]


def report(script: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def test_every_ratio_of_the_guard_is_of_a_benchmark_that_it_runs(load_script) -> None:
    bench = load_script("bench")
    assert {ratio.benchmark for ratio in bench.RATIOS} <= bench.COMMANDS.keys()
    assert all((SCRIPTS / command.split()[0]).is_file() for command in bench.COMMANDS.values())
    below, above = (bench.Ratio("", "data", lambda r: 1.0, 2, at_most) for at_most in (True, False))
    assert below.holds(2) and not below.holds(2.1) and above.holds(2) and not above.holds(1.9)


@pytest.mark.slow
def test_data() -> None:
    found = report("bench_data.py", "--videos", "40", "--repeats", "2", "--groups-from-disk", "1")
    ours, naive = (found["clips_per_cpu_second"][name] for name in ("ours", "naive"))
    assert 0 < naive["min"] <= naive["median"] < ours["median"] and found["ours_over_naive"] > 1
    assert found["videos"] == 40 and found["clips_per_batch"] == 512 and found.keys() >= {"from_disk"}
    if found["from_disk"]:  # null where the temporary folder lies in memory
        assert found["from_disk"]["MiB_read"] > 0 and found["from_disk"]["MiB_of_features"] > 0
    assert found["machine"]["cores"] >= 1 and "torch" in found["machine"]["versions"]


@pytest.mark.slow
def test_step() -> None:
    sizes = ["--pairs", "6", "--warm-up", "1", "--steps", "3", "--large-batch", "60", "--chunk", "4"]
    found = report("bench_step.py", *sizes, *TINY)
    steps = {name: len(times) for name, times in found["seconds"].items()}
    judged = {"fp32", "bf16"} - set(found["not_judged"])
    assert "fp32" in judged and found["packed_over_padded"].keys() == judged
    assert steps == {"chunked_fp32": 1} | {f"{kind}_{name}": 3 for kind in ("padded", "packed") for name in judged}
    assert found["pairs_per_second"].keys() == found["seconds"].keys()
    assert found["large_batch"]["pairs"] == 60 and found["large_batch"]["pair_time_over_whole"] > 0
    # 2 and 1 layers of 12 * 64^2 weights and the projection; 36.5 and 19.5 tokens, forward and backward
    expected = 3 * 2 * (12 * 64**2 * (2 * 36.5 + 19.5) + 17.5 * (512 * 64 + 64**2)) / 1e9
    assert found["useful_gigaflops_per_pair"] == pytest.approx(expected, rel=0.05)


@pytest.mark.slow
def test_a_step_that_takes_too_long_is_named() -> None:
    command = [sys.executable, str(SCRIPTS / "bench_step.py"), "--pairs", "6", *TINY, "--limit", "0.01"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "padded_fp32: its start and warm-up took longer than 0.01 s" in done.stderr


@pytest.mark.slow
def test_the_processes_of_the_steps_die_with_their_parent() -> None:
    command = [sys.executable, str(SCRIPTS / "bench_step.py"), "--pairs", "6", *TINY, "--steps", "100000"]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        workers = wait_for(
            lambda: [c for c in psutil.Process(parent.pid).children() if "spawn_main" in str(c.cmdline())]
        )
    finally:
        parent.kill()
        parent.wait()
    assert psutil.wait_procs(workers, timeout=30)[1] == []


def wait_for(found: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    """What `found` finds, asked until it finds something or a minute is over."""
    end = time.monotonic() + 60
    while not (result := found()) and time.monotonic() < end:
        time.sleep(0.1)
    assert result
    return result


def test_a_benchmark_that_does_not_end_is_stopped_and_named(load_script, monkeypatch, tmp_path, capsys) -> None:
    bench = load_script("bench")
    (tmp_path / "endless.py").write_text("import subprocess\nsubprocess.run(['sleep', '60'])\n")
    monkeypatch.setattr(bench, "SCRIPTS", tmp_path)
    monkeypatch.setattr(bench, "COMMANDS", {"data": "endless.py"})
    monkeypatch.setattr(sys, "argv", ["bench.py", str(tmp_path / "out"), "--only", "data", "--limit", "0.3"])
    assert bench.main() == 1
    said = capsys.readouterr()
    assert "not finished" in said.out and "data" in said.err


def test_what_this_processor_computes_slowly_is_not_judged(load_script) -> None:
    bench = load_script("bench")
    ratio = bench.Ratio("", "step", lambda report: report["packed_over_padded"]["bf16"], 2)
    assert bench.row(ratio, {"packed_over_padded": {}}) == (
        {"ratio": "", "value": "not judged: slow here", "bound": ">= 2", "": ""},
        False,
    )
    assert bench.row(ratio, {"packed_over_padded": {"bf16": 1.9}})[1]
    with pytest.raises(KeyError):
        bench.row(ratio, {})


@pytest.mark.slow
def test_embedding() -> None:
    found = report("bench_embedding.py", "--videos", "2", "4", "--clips-per-video", "3", "--repeats", "2", *TINY)
    assert {size: len(times) for size, times in found["seconds"].items()} == {"2": 2, "4": 2}
    assert all(rate > 0 for rate in found["pairs_per_second"].values())


@pytest.mark.slow
def test_retrieval() -> None:
    found = report(
        "bench_retrieval.py", "--videos", "500", "--queries", "20", "--sizes", "100", "200", "400", "--repeats", "1"
    )
    assert found["search"]["recall_against_brute_force"] == 1
    assert [row["videos"] for row in found["bookkeeping"]["measured"]] == [100, 200, 400]


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["coin", "crosstask"])
def test_zeroshot(benchmark: str) -> None:
    found = report(
        "bench_zeroshot.py", "--benchmark", benchmark, "--videos", "4", "--labels", "10", "--repeats", "1", "--tiny"
    )
    assert found["times_faster_than_plain"].keys() in ({"fp32"}, {"fp32", "bf16"})
    assert all(value > 0 for value in found["times_faster_than_plain"].values())


@pytest.mark.slow
def test_search(tmp_path: Path) -> None:
    library, engine = str(tmp_path / "library"), str(tmp_path / "engine")
    assert report("bench_search.py", "draw", library, "--windows", "1000")["windows"] == 1000
    found = report("bench_search.py", "queries", library, "--queries", "3", "--check", "3")
    assert found["queries that differ from brute force"] == 0 and found["scan ms"]["p50"] > 0
    assert found["whole query ms (10 moments)"]["p50"] > 0
    arguments = ("engine", "sqlite+faiss", engine, "--windows", "1000", "--queries", "3")
    assert report("bench_search.py", *arguments)["insert windows/s"] > 0
    found = report("bench_search.py", *arguments)
    assert found["after kill -9"] == {"whole videos only": True, "search works": True}
