"""The same clusters with several processes as with one, of which the first alone holds all vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmpt_plugin.data.corpus import VideoTextCorpus, read_video_list
from mmpt_plugin.retrieval import refresh
from mmpt_plugin.retrieval.refresh import EmbeddingMemory, embed_videos, rows_on_first
from mmpt_plugin.runs.processes import world

from ..together import together
from .test_cluster_groups import FeatureMeans, source


def open_corpus(data: Path) -> VideoTextCorpus:
    return VideoTextCorpus.open(data / "howto100m" / "shards", read_video_list(data / "howto100m" / "train.txt"))


def clusters(rank: int, data: Path) -> list[np.ndarray]:
    """Clusters of an epoch whose videos are embedded, and of one that reuses what training computed of most of them."""
    made = [source(open_corpus(data)).groups(1)]
    reusing = source(open_corpus(data), embeddings="reuse")
    training = source(open_corpus(data)).dataset
    training.set_groups(1, [np.arange(2 * group, 2 * group + 2) for group in range(10)])  # 20 of the 24 videos
    for group in range(world()[0], 10, world()[1]):
        batch = training[group]
        with reusing.memory.recording(reusing.model, batch["video_id"]):
            reusing.model(**batch["net_input"])
    return [*made, reusing.groups(2)]


def vectors(rank: int, data: Path) -> np.ndarray | None:
    return embed_videos(FeatureMeans(), source(open_corpus(data)).dataset, 1, videos_per_batch=5)


@pytest.mark.parametrize("processes", [2, 4, 7])  # seven: some have nothing to embed
def test_clusters_and_vectors_are_those_of_one_process(tiny_data: Path, tmp_path: Path, processes: int) -> None:
    alone = clusters(0, tiny_data)
    for made in together(clusters, processes, tmp_path / "clusters", tiny_data):
        for one, other in zip(alone, made):
            np.testing.assert_array_equal(one, other)
    first, *others = together(vectors, processes, tmp_path / "vectors", tiny_data)
    np.testing.assert_array_equal(first, vectors(0, tiny_data))
    assert first.any(axis=1).all() and others == [None] * (processes - 1)


def gathered(rank: int) -> tuple[Any, ...]:
    refresh.ROWS_AT_ONCE = 2  # in blocks
    own = np.arange(rank, 10, 3)  # of 3 processes, that hold every third row
    rows = rows_on_first(None if rank == 1 else np.outer(own, [1.0, 10.0]).astype(np.float32), own, 10)
    memory = EmbeddingMemory([str(video) for video in range(5)])
    before = memory.take()
    if rank > 0:  # video 1 is seen by processes 1 and 2, with embeddings 1 and 2; video 4 by process 2
        model = FeatureMeans()
        for video in range(1, 5, 3) if rank == 2 else (1,):
            with memory.recording(model, [str(video)]):
                model(torch.full((1, 1), float(rank)), np.ones(1, np.int64), torch.zeros(1), np.ones(1, np.int64))
    return rows, before, memory.take(), memory.take()


def test_rows_of_all_processes_stand_in_their_places(tmp_path: Path) -> None:
    results = together(gathered, 3, tmp_path)
    expected = np.outer(np.arange(10), [1.0, 10.0])
    expected[1::3] = 0  # process 1 had none
    np.testing.assert_array_equal(results[0][0], expected)
    for rank, (rows, before, (means, seen), after) in enumerate(results):
        assert before is None and after is None
        assert seen.tolist() == [False, True, False, False, True]
        if rank == 0:
            np.testing.assert_array_equal(means, [[0], [1.5], [0], [0], [2]])
        else:
            assert rows is None and means is None
