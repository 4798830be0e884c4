"""Writes the demo world to disk: a data folder as pre-training and the benchmarks read it.

    world.json                              the DemoWorld that was drawn
    bert/                                   a small random BERT with the world's words
    howto100m/{train,val}.txt, shards/      videos to pre-train on; raw_caption.json holds their narration as text
    youcook2/ msrvtt/ didemo/ coin/ crosstask/   test sets in the official formats, each with best_possible_<NAME>.npz,
                                            and training splits to fine-tune on in the same files

The same DemoWorld gives the same bytes.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from demo import test_sets, training_splits, words
from demo.ideal import write_best_possible
from demo.performance import film, lay_out, narrate
from demo.world import DemoWorld, Stream, World
from mmpt_plugin.data.captions import vocabulary_sha256
from mmpt_plugin.data.shard_writer import ShardWriter
from mmpt_plugin.files import clear_left_overs
from mmpt_plugin.files.writing import aside_path

logger = logging.getLogger(__name__)

PROGRESS_DELAY = 5
"""Seconds after which a progress bar appears."""

WORLD_FILE = "world.json"
VERSION = 1
"""Raised with every change of what the generator wrote before, so that an older folder is not taken for the same world."""

TEST_SETS = {
    "youcook2": test_sets.write_youcook2,
    "msrvtt": test_sets.write_msrvtt,
    "didemo": test_sets.write_didemo,
    "coin": test_sets.write_coin,
    "crosstask": test_sets.write_crosstask,
}


def write_demo_corpus(folder: Path, world: DemoWorld | None = None, *, overwrite: bool = False) -> None:
    """Make sure that `folder` holds this world: write it, or return at once if it is there already.

    The files are written aside and renamed at the end, so that a folder with world.json is always whole.

    Args:
        folder: the data folder to be; made with its parents.
        world: the world; default: `DemoWorld()`.
        overwrite: replace another demo world in the folder.

    Raises:
        ValueError: if the folder holds another demo world and `overwrite` is not set, or anything else.
    """
    world = world or DemoWorld()
    if _holds(folder, world, overwrite):
        return
    clear_left_overs(folder.parent)
    aside = aside_path(folder)
    try:
        _write(aside, world)
        (aside / WORLD_FILE).write_text(json.dumps(_describe(world), indent=1))
        if overwrite and folder.exists():
            shutil.rmtree(folder)
        try:
            aside.rename(folder)
        except OSError:  # another process has been faster: keep its work if it is the same
            if not _holds(folder, world):
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    logger.info("demo world written to %s", folder)


def _describe(world: DemoWorld) -> dict[str, Any]:
    """What world.json says: all fields of the world and the generator's version, as JSON gives them back."""
    return json.loads(json.dumps({"version": VERSION, **asdict(world)}))


def _holds(folder: Path, world: DemoWorld, overwrite: bool = False) -> bool:
    """Whether the folder holds this world already.

    Raises:
        ValueError: if it holds something that must not be lost: another world without `overwrite`, or no demo corpus.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = dict(json.loads((folder / WORLD_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        raise ValueError(
            f"{folder} exists and is no demo corpus (it has no readable {WORLD_FILE}): choose another folder"
        ) from None
    wanted = _describe(world)
    names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    if names and not overwrite:
        differences = ", ".join(f"{name} is {found.get(name)}, not {wanted.get(name)}" for name in names)
        raise ValueError(
            f"{folder} holds another demo world than asked for: {differences}. Choose another folder, or replace it "
            f"with `python -m demo.make_corpus {folder} --overwrite`"
        )
    return not names


def _write(folder: Path, config: DemoWorld) -> None:
    from demo.bert import write_bert  # imports torch, which the rest of this package does without

    world = World(config)
    write_bert(folder / "bert", config.seed, config.bert_dropout)
    _write_howto100m(folder / "howto100m", world)
    for name, write in tqdm(TEST_SETS.items(), desc="demo world: test sets", unit="set", delay=PROGRESS_DELAY):
        write(folder / name, world)
    for name, add in training_splits.TRAINING_SPLITS.items():
        add(folder / name, world)
    write_best_possible(folder, world)


def _write_howto100m(folder: Path, world: World) -> None:
    """Pre-training videos in one shard a split, their lists, and the narration in HowTo100M's raw_caption.json."""
    token_ids = {word: i for i, word in enumerate(words.vocabulary())}
    tokenizer = {"tokenizer": "bert", "vocabulary_sha256": vocabulary_sha256(token_ids)}
    source = {"features": "mmpt_plugin.demo", "captions": tokenizer}
    config = world.config
    raw_captions: dict[str, dict[str, list[Any]]] = {}
    for split, stream, number in (
        ("train", Stream.TRAIN, config.train_videos),
        ("val", Stream.VAL, config.val_videos),
    ):
        video_ids = [f"{split}{i:04d}" for i in range(number)]
        with ShardWriter(folder / "shards", f"{split}_00000", source=source) as writer:
            progress = tqdm(video_ids, desc=f"demo world: {split} videos", unit="video", delay=PROGRESS_DELAY)
            for i, video_id in enumerate(progress):
                rng = world.rng(stream, i)
                timeline = lay_out(world.tasks[i % len(world.tasks)], config.step_seconds, config.gap_seconds, rng)
                features, captions = film(timeline, world, rng), narrate(timeline, config, rng)
                times = [[caption.start, caption.end] for caption in captions]
                writer.add(video_id, features, times, [[token_ids[w] for w in c.text.split()] for c in captions])
                starts, ends = (list(column) for column in zip(*times))
                raw_captions[video_id] = {"start": starts, "end": ends, "text": [c.text for c in captions]}
        (folder / f"{split}.txt").write_text("\n".join(video_ids) + "\n")
    (folder / "raw_caption.json").write_text(json.dumps(raw_captions, indent=1))
