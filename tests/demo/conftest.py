"""The demo world in a size that is drawn and written in a second or two."""

from pathlib import Path

import pytest

from demo.corpus import write_demo_corpus
from demo.world import DemoWorld


@pytest.fixture(scope="session")
def tiny_world() -> DemoWorld:
    return DemoWorld(
        seed=5,
        families=3,
        tasks_per_family=3,
        verbs=10,
        objects=20,
        tools=4,
        min_steps=4,
        max_steps=5,
        train_videos=12,
        val_videos=3,
        youcook2_clips=12,
        msrvtt_clips=10,
        didemo_videos=6,
        coin_tasks=2,
        coin_videos_per_task=2,
        crosstask_tasks=1,
        crosstask_videos_per_task=33,
    )


@pytest.fixture(scope="session")
def tiny_corpus(tiny_world: DemoWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    write_demo_corpus(folder, tiny_world)
    return folder
