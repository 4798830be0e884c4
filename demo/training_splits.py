"""The demo world's training splits to fine-tune on, added to the benchmarks' official files after their test sets.

YouCook2's and MSR-VTT's show the pre-training's tasks, so that the verb-object pairs of the test sets stay unseen; here
they are described well and at the right time. COIN's show the test set's tasks, for labels must be those of training.
CrossTask's are there already: the videos of its tasks that the test set leaves over. Each split has streams of random
numbers of its own: test sets and pre-training do not depend on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo.performance import film, lay_out
from demo.test_sets import annotated_bounds, lay_out_sparsely, save_features, unseen_tasks, write_json
from demo.world import Stream, World

MSRVTT_CAPTIONS = 20  # a video
MSRVTT_VIDEOS_PER_TASK = 3


def add_youcook2(folder: Path, world: World) -> None:
    """Videos of subset "training" in youcookii_annotations_trainval.json: two for every five test clips."""
    path = folder / "youcookii_annotations_trainval.json"
    content = json.loads(path.read_text())
    for number in range(2 * world.config.youcook2_clips // 5):
        rng = world.rng(Stream.YOUCOOK2_TRAINING, number)
        recipe = world.tasks[number % len(world.tasks)]
        timeline = lay_out(recipe, world.config.step_seconds, world.config.gap_seconds, rng)
        content["database"][f"yt_{number:04d}"] = {
            "duration": float(timeline.seconds),
            "subset": "training",
            "recipe_type": str(timeline.family),
            "video_url": "",
            "annotations": [
                {
                    "segment": annotated_bounds(span, timeline, world, rng),
                    "id": i,
                    "sentence": world.sentence(span.step, rng),
                }
                for i, span in enumerate(timeline.spans)
            ],
        }
        save_features(folder, f"yt_{number:04d}", film(timeline, world, rng))
    write_json(path, content)


def add_msrvtt(folder: Path, world: World) -> None:
    """MSRVTT_data.json: three videos for each of 1k-A, each with 20 captions; and those of 1k-A themselves."""
    videos: list[dict[str, Any]] = []
    sentences: list[dict[str, Any]] = []

    def add(video_id: str, split: str, captions: list[str]) -> None:
        videos.append({"video_id": video_id, "split": split, "category": 0, "id": len(videos)})
        sentences.extend({"caption": caption, "video_id": video_id} for caption in captions)

    number, wanted = 0, 3 * world.config.msrvtt_clips
    while number < wanted:
        task = number // MSRVTT_VIDEOS_PER_TASK
        rng = world.rng(Stream.MSRVTT_TRAINING, task)
        timeline = lay_out(
            world.tasks[task % len(world.tasks)], world.config.step_seconds, world.config.gap_seconds, rng
        )
        features = film(timeline, world, rng)
        for i in rng.permutation(len(timeline.spans))[: min(MSRVTT_VIDEOS_PER_TASK, wanted - number)]:
            span, (before, after) = timeline.spans[i], rng.integers(0, 6, size=2)
            save_features(folder, f"video{number}", features[max(0, span.start - int(before)) : span.end + int(after)])
            split = "train" if number < 0.8 * wanted else "validate" if number < 0.85 * wanted else "test"
            add(f"video{number}", split, [world.sentence(span.step, rng) for _ in range(MSRVTT_CAPTIONS)])
            number += 1
    tested = (folder / "MSRVTT_JSFUSION_test.csv").read_text().splitlines()[1:]
    for _, _, video_id, sentence in (line.split(",") for line in tested):
        add(video_id, "test", [sentence])
    write_json(folder / "MSRVTT_data.json", {"videos": videos, "sentences": sentences})


def add_coin(folder: Path, world: World) -> None:
    """Videos of subset "training" in COIN.json: as many of each task as the test set has."""
    path, config = folder / "COIN.json", world.config
    content = json.loads(path.read_text())
    tested = list(content["database"].values())
    recipes = unseen_tasks(world, Stream.COIN, config.coin_tasks)
    for number in range(len(recipes) * config.coin_videos_per_task):
        task, rng = number % len(recipes), world.rng(Stream.COIN_TRAINING, number)
        timeline = lay_out_sparsely(recipes[task], world, rng)
        like = tested[task]  # a test video of the same task, with the same steps in the same order
        content["database"][f"coint{number:03d}"] = like | {
            "duration": float(timeline.seconds),
            "subset": "training",
            "end": float(timeline.seconds),
            "annotation": [
                step | {"segment": [float(span.start), float(span.end)]}
                for step, span in zip(like["annotation"], timeline.spans, strict=True)
            ],
        }
        save_features(folder, f"coint{number:03d}", film(timeline, world, rng))
    write_json(path, content)


TRAINING_SPLITS: dict[str, Callable[[Path, World], None]] = {
    "youcook2": add_youcook2,
    "msrvtt": add_msrvtt,
    "coin": add_coin,
}
