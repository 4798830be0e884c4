#!/usr/bin/env python3
"""Where the time of a zero-shot evaluation goes, on a generated set of the size of COIN or CrossTask.

Videos of 2-5 minutes with random features, a model of BERT-base's size with random weights. Measured are the
evaluation itself (encoding, scoring, metrics; one warm-up batch before) in fp32 and bf16 and the same model in the plain
way in fp32, one window and one text at a time, padded: in turn, repeated. Then, in a run under torch's profiler, the share
of the encoders' matrix products, with their biases, and attention.
Writes JSON to standard output.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware import bf16_is_fast, hardware
from torch.profiler import ProfilerActivity, profile
from transformers import BertConfig, BertModel, BertTokenizer

from mmpt_plugin.data.pairs import Batch
from mmpt_plugin.evaluation.benchmark import Benchmark, EncodingPlan
from mmpt_plugin.evaluation.benchmarks import BENCHMARKS
from mmpt_plugin.evaluation.encoding import EncodingDataset, assemble, encode_batch
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.videoclip import VideoClipModel

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::_scaled_dot_product_flash_attention_for_cpu")
WORDS = tuple(f"word{i}" for i in range(500))


def write_bert(folder: Path, base: bool) -> None:
    """A BERT folder with random weights: BERT-base's size, or a tiny one to try the script."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(vocab_size=30522)
    if not base:
        config = BertConfig(
            vocab_size=30522, hidden_size=32, num_attention_heads=2, intermediate_size=64, num_hidden_layers=6
        )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)


def write_coin(folder: Path, videos: int, labels: int, rng: np.random.Generator) -> None:
    """coin/: videos of 2-5 minutes, each with five labelled segments."""
    (folder / "coin" / "features").mkdir(parents=True)
    database: dict[str, Any] = {}
    for video in range(videos):
        seconds = write_features(folder / "coin" / "features" / f"v{video}.npy", rng)
        steps: list[dict[str, Any]] = [
            {"id": str((video * 5 + i) % labels + 1), "segment": [i * seconds / 5, i * seconds / 5 + 10.0]}
            for i in range(5)
        ]
        for step in steps:
            step["label"] = sentence(int(step["id"]))
        database[f"v{video}"] = {"subset": "testing", "annotation": steps}
    (folder / "coin" / "COIN.json").write_text(json.dumps({"database": database}))


def write_crosstask(folder: Path, videos: int, labels: int, rng: np.random.Generator) -> None:
    """crosstask/: primary tasks of 8 steps with 30 training videos each besides the tested ones."""
    release = folder / "crosstask" / "crosstask_release"
    (release / "annotations").mkdir(parents=True)
    (folder / "crosstask" / "features").mkdir()
    tasks = max(labels // 8, 1)
    blocks, rows = [], []
    for task in range(tasks):
        steps = ",".join(sentence(task * 8 + step) for step in range(8))
        blocks.append(f"{1000 + task}\n{sentence(task)}\nurl\n8\n{steps}\n\n")
        for video in range(30 + videos // tasks + (task < videos % tasks)):
            name = f"t{task}v{video}"
            rows.append(f"{1000 + task},{name},url\n")
            seconds = write_features(folder / "crosstask" / "features" / f"{name}.npy", rng)
            lines = [f"{step + 1},{step * seconds / 8:.1f},{step * seconds / 8 + 5:.1f}\n" for step in range(8)]
            (release / "annotations" / f"{1000 + task}_{name}.csv").write_text("".join(lines))
    (release / "tasks_primary.txt").write_text("".join(blocks))
    (release / "tasks_related.txt").write_text(f"1\nrelated\nurl\n1\n{sentence(0)}\n\n")
    (release / "videos.csv").write_text("".join(rows))
    (release / "videos_val.csv").write_text("1,validation,url\n")


def sentence(number: int) -> str:
    """A text of three to six words."""
    return " ".join(WORDS[(number * 7 + i) % len(WORDS)] for i in range(3 + number % 4))


def write_features(path: Path, rng: np.random.Generator) -> int:
    """Random features of a video of 2-5 minutes; its seconds."""
    seconds = int(rng.integers(120, 301))
    np.save(path, rng.standard_normal((seconds, 512), dtype=np.float32).astype(np.float16))
    return seconds


def timed(model: VideoClipModel, benchmark: Benchmark, plan: EncodingPlan, dataset: EncodingDataset) -> float:
    """Seconds to encode, score and evaluate; the numbers are of no interest."""
    started = time.perf_counter()
    loader: torch.utils.data.DataLoader[Batch] = torch.utils.data.DataLoader(
        dataset, batch_size=1, collate_fn=dataset.collater, num_workers=1
    )
    encoded = [encode_batch(model, batch, plan) for batch in loader]
    benchmark.evaluate(benchmark.score(assemble(plan, encoded)))
    return time.perf_counter() - started


def one_at_a_time(model: VideoClipModel, dataset: EncodingDataset, most: int = 200) -> float:
    """Seconds to encode all windows and texts in the plain way, each alone and padded; measured on `most` of each."""
    windows, texts = dataset.plan.windows, dataset.plan.texts
    with torch.no_grad():
        started = time.perf_counter()
        for window in windows[:most]:
            rows = torch.from_numpy(dataset.features.load(window.video_id, window.start, window.end))
            padded = torch.zeros(32, rows.shape[1])
            padded[: len(rows)] = rows
            model.video_encoder(padded, np.array([32]), dataset.plan.attend_to_cls, np.array([len(rows)]))
        encoded = time.perf_counter()
        tokens = model.text_encoder.max_pieces + 2
        for _ in texts[:most]:  # what the tokens are makes no difference
            model.text_encoder(torch.ones(tokens, dtype=torch.int64), np.array([tokens]))
    share_of_windows, share_of_texts = (min(most / len(items), 1) for items in (windows, texts))
    return (encoded - started) / share_of_windows + (time.perf_counter() - encoded) / share_of_texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", choices=("coin", "crosstask"), default="coin")
    parser.add_argument("--videos", type=int, help="test videos (default: 200 for coin, 300 for crosstask)")
    parser.add_argument("--labels", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="timed runs; the variants take turns")
    parser.add_argument("--tiny", action="store_true", help="a tiny BERT, to try the script")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    machine = hardware()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    videos = args.videos or {"coin": 200, "crosstask": 300}[args.benchmark]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write = write_coin if args.benchmark == "coin" else write_crosstask
        write(folder, videos, args.labels, np.random.default_rng(0))
        write_bert(folder / "bert", base=not args.tiny)
        config = VideoClipConfig(bert=str(folder / "bert"))
        model = VideoClipModel.from_config(config).eval()
        benchmark = BENCHMARKS[args.benchmark](folder)
        plan = benchmark.plan()
        dataset = EncodingDataset(
            plan,
            benchmark.features,
            BertTokenizer(str(folder / "bert" / "vocab.txt")),
            max_pieces=config.max_text_pieces,
            batch_size=args.batch_size,
        )
        encode_batch(model, dataset[len(dataset) - 1], plan)
        kinds = ("fp32", "bf16", "plain") if bf16_is_fast() else ("fp32", "plain")
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(args.repeats):
            times["fp32"].append(timed(model, benchmark, plan, dataset))
            if "bf16" in times:
                with torch.autocast("cpu", torch.bfloat16):
                    times["bf16"].append(timed(model, benchmark, plan, dataset))
            times["plain"].append(one_at_a_time(model, dataset))
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            profiled_seconds = timed(model, benchmark, plan, dataset)
        events = profiler.key_averages()
        # with what they call: torch's addmm copies the bias into place by an operation of its own
        in_products = sum(event.cpu_time_total for event in events if event.key in PRODUCTS) / 1e6
    median = {name: statistics.median(values) for name, values in times.items()}
    top = sorted(events, key=lambda event: -event.self_cpu_time_total)[:12]
    report = {
        "benchmark": args.benchmark,
        "videos": len({window.video_id for window in plan.windows}),
        "windows": len(plan.windows),
        "texts": len(plan.texts),
        "seconds": {name: [round(value, 2) for value in values] for name, values in times.items()},
        "share_in_matrix_products": round(in_products / profiled_seconds, 3),
        "times_faster_than_plain": {
            name: round(median["plain"] / median[name], 2) for name in times if name != "plain"
        },
        "top_operations_seconds": {event.key: round(event.self_cpu_time_total / 1e6, 2) for event in top},
        "threads": args.threads,
        "machine": machine,
        "model": "tiny" if args.tiny else "BERT-base size",
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
