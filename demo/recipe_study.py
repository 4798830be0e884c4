"""Compare the recipe that `own_videos` chooses by the number of videos with a small grid around it, in the demo world.

    python -m demo.recipe_study OUT --videos 35 140 700 --seeds 1 2

Each cell is `fairseq-hydra-train --config-name demo` with one thread, then the evaluation on clips of tasks that were never
trained on. The weights of the lowest validation loss are evaluated. What OUT holds already is not run again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tabulate import tabulate

from demo.corpus import write_demo_corpus
from demo.study import METRICS, fairseq, mean_and_error
from demo.world import DemoWorld
from mmpt_plugin.own_videos.recipe import Recipe, fit_recipe


def grid(videos: int, cells: list[str]) -> Iterator[tuple[str, Recipe]]:
    """The chosen recipe and others near it, by name."""
    chosen = fit_recipe(videos)
    group = chosen.videos_per_batch
    changes: dict[str, dict[str, int]] = {
        "chosen": {},
        "half as long": {"max_epoch": chosen.max_epoch // 2},
        "twice as long": {"max_epoch": 2 * chosen.max_epoch},
        "fewer videos a batch": {"videos_per_batch": group // 2, "max_epoch": chosen.max_epoch // 2},
        "half the clips": {"clips_per_video": chosen.clips_per_video // 2},
        "twice the clips": {"clips_per_video": 2 * chosen.clips_per_video},
    }
    for name in cells or changes:
        yield name, fit_recipe(videos, **changes[name])


def run(out: Path, videos: int, seed: int, name: str, recipe: Recipe) -> dict:
    """Trains and evaluates one cell."""
    data, folder = out / f"{videos}-{seed}" / "data", out / f"{videos}-{seed}" / name.replace(" ", "_")
    results = folder / "results" / "youcook2.json"
    if not results.is_file():
        write_demo_corpus(data, DemoWorld(seed=seed, train_videos=videos, val_videos=max(8, videos // 7)))
        settings = [
            f"task.videos_per_batch={recipe.videos_per_batch}",
            f"task.clips_per_video={recipe.clips_per_video}",
            f"optimization.max_epoch={recipe.max_epoch}",
            "optimization.max_update=0",
            f"lr_scheduler.warmup_updates={recipe.warmup_updates}",
            f"lr_scheduler.total_num_update={recipe.max_epoch * (videos // recipe.videos_per_batch)}",
            f"dataset.validate_interval={recipe.validate_interval}",
            f"checkpoint.save_interval={recipe.validate_interval}",
            "+difference=no_retrieval", "task._name=videoclip_pretraining", "~task.world_seed", "~task.family_cue",
            f"task.data={data}", f"common.seed={seed}", f"checkpoint.save_dir={folder}", "task.report=false",
        ]  # fmt: skip
        fairseq("demo", *settings, log=folder / "train.log")
        evaluation = [
            f"task.data={data}",
            f"checkpoint.restore_file={folder / 'checkpoint_best.pt'}",
            "task.report=false",
        ]
        fairseq(
            "zeroshot_youcook2",
            *evaluation,
            f"task.results_path={results.parent}",
            "common.cpu=true",
            log=folder / "e.log",
        )
    metrics = json.loads(results.read_text())["metrics"]
    return {"videos": videos, "cell": name, **{metric: metrics[metric] for metric in METRICS}}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--videos", nargs="+", type=int, default=[35, 140, 700], help="to train on")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--cells", nargs="+", default=[], help="of the grid; default: all")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    args = parser.parse_args()
    cells = [
        (args.out, videos, seed, name, recipe)
        for videos in args.videos
        for name, recipe in grid(videos, args.cells)
        for seed in args.seeds
    ]
    with ThreadPoolExecutor(args.jobs) as pool:
        records = list(pool.map(lambda cell: run(*cell), cells))
    rows = []
    for videos, name in dict.fromkeys((record["videos"], record["cell"]) for record in records):
        own = [record for record in records if (record["videos"], record["cell"]) == (videos, name)]
        shown = mean_and_error if len(own) > 1 else lambda values: f"{100 * np.mean(values):.1f}"
        rows.append(
            {"videos": videos, "cell": name} | {metric: shown([record[metric] for record in own]) for metric in METRICS}
        )
    print(tabulate(rows, headers="keys", tablefmt="github"))


if __name__ == "__main__":
    main()
