"""Fine-tune the checkpoints of a finished demo study on each benchmark: a table beside zero-shot, with paired gains.

    python -m demo.finetune_study OUT STUDY --seeds 1 2 3 4 5       # STUDY: the OUT of demo.study

A seed's world is written anew to OUT, for STUDY may be older than the training splits; test sets follow from the seed. One
run at a time, one thread. What OUT holds already is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from demo.corpus import write_demo_corpus
from demo.study import fairseq, mean_and_error
from demo.world import DemoWorld

BENCHMARKS = {  # name -> metrics to show, and how the demo differs from the original's recipe
    "youcook2": (("R@1", "R@5", "R@10"), "finetuning_demo"),
    "msrvtt": (("R@1", "R@5", "R@10"), "finetuning_demo_msrvtt"),
    "msrvtt_qa": (("accuracy",), "finetuning_demo_msrvtt"),
    "coin": (("frame_accuracy", "foreground_accuracy", "edit", "F1@10", "F1@50"), "finetuning_demo"),
    "crosstask": (("recall",), "finetuning_demo"),
}


def evaluate(name: str, checkpoint: Path, data: Path, results: Path) -> dict:
    """Metrics of a checkpoint, from the results file if there is one."""
    path = results / f"{name}.json"
    if not path.is_file():
        settings = [f"task.data={data}", f"task.results_path={results}", f"checkpoint.restore_file={checkpoint}"]
        fairseq(f"zeroshot_{name}", *settings, "common.cpu=true", log=results / f"{name}.log")
    return json.loads(path.read_text())["metrics"]


def run(out: Path, pretrained: Path, seed: int, cue: float, name: str, extra: list[str]) -> dict:
    """Fine-tune and evaluate one checkpoint: its metrics before and after, and CPU seconds of fine-tuning."""
    folder, data = out / f"seed{seed}" / name, out / f"seed{seed}" / "data"
    write_demo_corpus(data, DemoWorld(seed=seed, family_cue=cue))
    seconds = folder / "cpu_seconds.json"
    if not seconds.is_file():
        before = os.times()
        fairseq(
            f"finetune_{name}",
            f"+difference={BENCHMARKS[name][1]}",
            f"common.seed={seed}",
            f"task.data={data}",
            f"checkpoint.finetune_from_model={pretrained}",
            f"checkpoint.save_dir={folder}",
            *extra,
            log=folder / "train.log",
        )
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        seconds.write_text(json.dumps(used))
    return {
        "zero-shot": evaluate(name, pretrained, data, out / f"seed{seed}" / "zeroshot"),
        "fine-tuned": evaluate(name, folder / "checkpoint_last.pt", data, folder / "results"),
        "seconds": json.loads(seconds.read_text()),
    }


def table(records: dict[str, list[dict]]) -> str:
    """Mean +- standard error of each metric, and of its gains seed by seed."""
    rows = []
    for name, of_seeds in records.items():
        for metric in BENCHMARKS[name][0]:
            before, after = ([record[kind][metric] for record in of_seeds] for kind in ("zero-shot", "fine-tuned"))
            gains = [new - old for old, new in zip(before, after)]
            rows.append(
                {
                    "benchmark": name,
                    "metric": metric,
                    "zero-shot": mean_and_error(before),
                    "fine-tuned": mean_and_error(after),
                    "paired gain": mean_and_error(gains),
                    "smallest gain": f"{100 * min(gains):.1f}",
                    "CPU minutes": f"{np.mean([record['seconds'] for record in of_seeds]) / 60:.1f}",
                }
            )
    return tabulate(rows, headers="keys", tablefmt="github")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("study", type=Path, help="the OUT of demo.study, its runs finished")
    parser.add_argument("--arm", default="clusters", help="whose checkpoints to start from")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--family-cue", type=float, default=1.5)
    parser.add_argument("--benchmarks", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings for all fine-tunings"
    )
    args = parser.parse_args()
    records: dict[str, list[dict]] = {name: [] for name in args.benchmarks}
    with tqdm(total=len(args.seeds) * len(args.benchmarks), unit="run", disable=None) as bar:
        for seed in args.seeds:
            pretrained = args.study / f"cue{args.family_cue}" / f"seed{seed}" / args.arm / "checkpoint_best.pt"
            for name in args.benchmarks:
                records[name].append(run(args.out, pretrained, seed, args.family_cue, name, args.set))
                bar.update()
    print(table(records))


if __name__ == "__main__":
    main()
