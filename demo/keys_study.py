"""Compare training recipes in the demo world: each key alone, then all together, paired over seeds, by CPU time.

    python -m demo.keys_study run OUT --arms paper normalize modern --seeds 1 2 3 4 5
    python -m demo.keys_study run OUT --arms paper modern --seeds 1 2 3 4 5 --benchmarks all
    python -m demo.keys_study table OUT

A seed is a world, a start and galleries, which all its arms share. One run at a time, one thread. Each finished run is a line
of OUT/runs.jsonl with its CPU seconds and its metrics; a run that was broken off is begun anew, one that has its line is not
run again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from demo.study import ROOT, fairseq, mean_and_error
from mmpt_plugin.evaluation.benchmarks import BENCHMARKS

NORMALIZE = ["model.normalize=true", "model.logit_scale=true"]
REUSE = ["task.retrieval.embeddings=reuse"]
ARMS = {  # name -> what differs from the demo, which is the paper's recipe
    "paper": [],
    "reuse": REUSE,
    "normalize": NORMALIZE,
    "mask": ["criterion.false_negatives=mask"],
    "mask_near": ["criterion.false_negatives=mask", "criterion.near_seconds=8"],
    "soft": ["criterion.false_negatives=soft"],
    "same_words": ["criterion.false_negatives=mask", "criterion.same_words=0.6"],
    "sigmoid": [*NORMALIZE, "model.logit_bias=-4.2", "criterion._name=sigmoid"],  # minus the logarithm of 64 pairs
    "choosing_parts": ["model.clip_parts=2", "criterion._name=choosing_parts"],
    "modern_parts": ["+difference=modern", "model.clip_parts=2", "criterion._name=choosing_parts"],
    "modern": ["+difference=modern"],
    "at_once": ["task.retrieval.start_epoch=1"],
    "by_recall": ["task.retrieval.start_epoch=1", "task.retrieval.start_recall=0.25"],
    "ema": ["ema.store_ema=true", "ema.ema_decay=0.98"],
    "cosine": ["lr_scheduler._name=cosine", "~lr_scheduler.total_num_update"],
    "frozen": ["model.freeze_text=true"],
    "fused": ["optimizer._name=fused_adam"],
    "text_rate": ["optimizer._name=fused_adam", "+optimizer.text_rate=0.3"],
    "layer_decay": ["optimizer._name=fused_adam", "+optimizer.layer_decay=0.7"],
}
HEADLINES = {  # benchmark -> metrics to show
    **dict.fromkeys(("youcook2", "msrvtt", "didemo_retrieval"), ("R@1", "R@5", "R@10")),
    "msrvtt_qa": ("accuracy",),
    "didemo_moment": ("R@1", "R@5", "mIoU"),
    "coin": (
        "frame_accuracy",
        "foreground_accuracy",
        "calibrated/foreground_accuracy",
        "edit",
        "F1@10",
        "F1@25",
        "F1@50",
    ),
    "crosstask": ("recall",),
}


def read_runs(out: Path) -> list[dict[str, Any]]:
    """The finished runs; a last line that was broken off does not count."""
    path = out / "runs.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


def children_seconds() -> float:
    """User and system seconds of all processes that this one has waited for."""
    times = os.times()
    return times.children_user + times.children_system


def run(out: Path, arm: str, seed: int, updates: int, benchmarks: list[str]) -> dict[str, Any]:
    """Train and evaluate one arm of one seed: what its line of runs.jsonl says."""
    data, folder = out / f"seed{seed}" / "data", out / f"seed{seed}" / f"{arm}-{updates}"
    shutil.rmtree(folder, ignore_errors=True)  # a run that was broken off
    if not data.exists():
        command = [sys.executable, "-m", "demo.make_corpus", str(data), "--seed", str(seed)]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    before = children_seconds()
    settings = [f"common.seed={seed}", f"task.data={data}", f"checkpoint.save_dir={folder}", "task.report=false"]
    fairseq("demo", *settings, f"optimization.max_update={updates}", *ARMS[arm], log=folder / "train.log")
    seconds = children_seconds() - before
    checkpoint, results = folder / "checkpoint_best.pt", folder / "results"
    with (folder / "evaluate.log").open("w") as log:
        command = [sys.executable, "-m", "mmpt_plugin.commands.evaluate", str(checkpoint), str(data), str(results)]
        command += ["--no-report", "--benchmarks", *benchmarks]
        subprocess.run(command, check=True, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    metrics = {name: json.loads((results / f"{name}.json").read_text())["metrics"] for name in benchmarks}
    return {"arm": arm, "seed": seed, "updates": updates, "cpu_seconds": round(seconds, 1), "metrics": metrics}


def missing(out: Path, args: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Runs to do, seed by seed, so that what is there is paired whenever the study is broken off."""
    done = {(r["arm"], r["seed"], r["updates"]) for r in read_runs(out) if set(args.benchmarks) <= r["metrics"].keys()}
    for seed in args.seeds:
        for arm in args.arms:
            if (arm, seed, args.updates) not in done:
                yield arm, seed


def value(record: dict[str, Any], benchmark: str, metric: str) -> float:
    """A metric of a run; a slash leads into a table of metrics."""
    found: Any = record["metrics"][benchmark]
    for key in metric.split("/"):
        found = found[key]
    return float(found)


def rows_of(records: list[dict[str, Any]], benchmark: str, baseline: str) -> list[dict[str, str]]:
    """Mean and standard error of each metric and arm, and of its paired gain over the baseline on the seeds of both."""
    by = {(r["arm"], r["updates"], r["seed"]): r for r in records if benchmark in r["metrics"]}
    rows = []
    for arm, updates in dict.fromkeys((arm, updates) for arm, updates, _ in by):
        seeds = sorted(seed for a, u, seed in by if (a, u) == (arm, updates))
        paired = [seed for seed in seeds if (baseline, updates, seed) in by]
        for metric in HEADLINES[benchmark]:
            values = [value(by[arm, updates, seed], benchmark, metric) for seed in seeds]
            gains = [
                v - value(by[baseline, updates, s], benchmark, metric) for s, v in zip(seeds, values) if s in paired
            ]
            row = {"benchmark": benchmark, "arm": arm, "updates": str(updates), "seeds": ", ".join(map(str, seeds))}
            row |= {
                "metric": metric,
                "value": shown(values),
                f"gain over {baseline}": shown(gains) if arm != baseline else "",
            }
            rows.append(row | {"CPU s": f"{np.mean([by[arm, updates, s]['cpu_seconds'] for s in seeds]):.0f}"})
    return rows


def shown(values: list[float]) -> str:
    """Percent, mean +- standard error; one value has none."""
    return mean_and_error(values) if len(values) > 1 else f"{100 * values[0]:.1f}" if values else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs, table = (
        commands.add_parser("run", help="train and evaluate"),
        commands.add_parser("table", help="what is there"),
    )
    for command in (runs, table):
        command.add_argument("out", type=Path)
    runs.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    runs.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    runs.add_argument("--updates", type=int, default=800)
    runs.add_argument("--benchmarks", nargs="+", choices=[*HEADLINES, "all"], default=["youcook2"])
    table.add_argument("--baseline", default="paper")
    args = parser.parse_args()
    if args.command == "table":
        records = read_runs(args.out)
        rows = [row for name in HEADLINES for row in rows_of(records, name, args.baseline)]
        print(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True))
        return
    if "all" in args.benchmarks:
        args.benchmarks = list(BENCHMARKS)
    for arm, seed in tqdm(list(missing(args.out, args)), unit="run", disable=None):
        record = run(args.out.resolve(), arm, seed, args.updates, args.benchmarks)
        with (args.out / "runs.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
