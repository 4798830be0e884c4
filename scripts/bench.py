#!/usr/bin/env python3
"""Run every benchmark in little, and compare ratios that must not fall: `make bench`, at most ten minutes.

Writes each benchmark's JSON to OUT and prints a table. Absolute times depend on the machine and are not judged; a ratio of
two ways of doing the same in one run is. A benchmark that does not end in the time that is left is stopped and named. Ratios
in bf16 are not judged on a processor that computes bf16 more slowly than fp32. Exit code 1 if a ratio is beyond its bound or
a benchmark did not end. Last figures: docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

SCRIPTS = Path(__file__).resolve().parent
COMMANDS = {
    "data": "bench_data.py",
    "step": "bench_step.py --pairs 32 --warm-up 1 --steps 4 --large-batch 256",
    "retrieval": "bench_retrieval.py --repeats 1",
    "zeroshot": "bench_zeroshot.py --videos 24 --repeats 1",
    "s3d": "bench_s3d.py --rounds 1 --batches 1 --threads 2 --video-seconds 6",
}


@dataclass(frozen=True)
class Ratio:
    """A comparison that a benchmark's report holds.

    Attributes:
        what: for the table.
        benchmark: one of COMMANDS.
        of: the ratio, from the report.
        bound: smallest value allowed; largest, where `at_most`.
    """

    what: str
    benchmark: str
    of: Callable[[dict[str, Any]], float]
    bound: float
    at_most: bool = False

    def holds(self, value: float) -> bool:
        """Whether the value is on the right side of the bound."""
        return value <= self.bound if self.at_most else value >= self.bound


RATIOS = (
    Ratio("data: ours over a naive loader, clips per CPU second", "data", lambda r: r["ours_over_naive"], 10),
    Ratio("step: real tokens only over padded, fp32", "step", lambda r: r["packed_over_padded"]["fp32"], 1.4),
    Ratio("step: real tokens only over padded, bf16", "step", lambda r: r["packed_over_padded"]["bf16"], 1.3),
    Ratio(
        "step: a pair's time in 256 pairs by chunks of 32 over 32 at once",
        "step",
        lambda r: r["large_batch"]["pair_time_over_whole"],
        1.35,
        at_most=True,
    ),
    Ratio(
        "step: peak of memory in 256 pairs by chunks above weights, gradients and moments, GiB",
        "step",
        lambda r: r["large_batch"]["peak_above_weights_MiB"] / 1024,
        4,
        at_most=True,
    ),
    Ratio(
        "retrieval: recall@64 of the flat index", "retrieval", lambda r: r["search"]["recall_against_brute_force"], 1
    ),
    Ratio(
        "zero-shot: ours over one padded window at a time, fp32",
        "zeroshot",
        lambda r: r["times_faster_than_plain"]["fp32"],
        2,
    ),
    Ratio("zero-shot: the same with ours in bf16", "zeroshot", lambda r: r["times_faster_than_plain"]["bf16"], 4),
)


def run(name: str, out: Path, limit: float) -> dict[str, Any] | None:
    """A benchmark's report, also written to OUT/NAME.json; None if it took longer than `limit` seconds or failed.

    Its output goes through a file: a pipe would stay open as long as any process that it started.
    """
    script, *arguments = COMMANDS[name].split()
    started = time.perf_counter()
    output = out / f"{name}.out"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPTS / script), *arguments], stdout=file, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as stop:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(stop, KeyboardInterrupt):
                raise
            code = None
    if code != 0:
        return None
    report = json.loads(output.read_text())
    output.unlink()
    (out / f"{name}.json").write_text(
        json.dumps(report | {"seconds_of_benchmark": time.perf_counter() - started}, indent=2)
    )
    return report


def row(ratio: Ratio, report: dict[str, Any] | None) -> tuple[dict[str, str], bool]:
    """The table's row of a ratio, and whether it stands against the run."""
    bound = f"{'<=' if ratio.at_most else '>='} {ratio.bound:g}"
    if report is None:
        return {"ratio": ratio.what, "value": "not finished", "bound": bound, "": "!"}, True
    try:
        value = ratio.of(report)
    except KeyError as missing:
        if missing.args != ("bf16",):
            raise
        return {"ratio": ratio.what, "value": "not judged: slow here", "bound": bound, "": ""}, False
    failed = not ratio.holds(value)
    return {"ratio": ratio.what, "value": f"{value:.2f}", "bound": bound, "": "!" if failed else ""}, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--limit", type=float, default=590, help="seconds for all benchmarks together")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    end = time.perf_counter() + args.limit
    reports = {name: run(name, args.out, max(end - time.perf_counter(), 0)) for name in args.only}
    rows = [row(ratio, reports[ratio.benchmark]) for ratio in RATIOS if ratio.benchmark in reports]
    print(tabulate([cells for cells, _ in rows], headers="keys", tablefmt="github", disable_numparse=True))
    unfinished = [name for name, report in reports.items() if report is None]
    for name in unfinished:
        print(f"not finished within {args.limit:g} s, or failed: {name}", file=sys.stderr)
    return int(bool(unfinished) or any(failed for _, failed in rows))


if __name__ == "__main__":
    sys.exit(main())
