"""What the task makes of its settings, field by field: clips to train on, and where the groups of videos come from."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt_plugin.data.groups import RandomGroups
from mmpt_plugin.data.pretraining_dataset import FIRST_SECONDS
from mmpt_plugin.retrieval.cluster_groups import ClusterGroups
from mmpt_plugin.retrieval.settings import RetrievalConfig
from mmpt_plugin.tasks.pretraining import RETRIEVAL_STREAM, VideoClipPretrainingConfig, VideoClipPretrainingTask


@pytest.fixture
def task(tiny_data: Path, tiny_bert: Path, tmp_path: Path):
    """A task with these settings, and a stand-in for a model."""

    def make(retrieval: dict[str, Any] | None = None, **settings: Any) -> VideoClipPretrainingTask:
        given = {
            "data": str(tiny_data),
            "bert": str(tiny_bert),
            "videos_per_batch": 4,
            "retrieval": RetrievalConfig(**(retrieval or {})),
            "num_workers": 3,
            "feature_size": 512,
            "features_per_second": 1,
            "max_video_seconds": 30,
            "max_text_pieces": 50,
            "save_dir": str(tmp_path),
            "restore_file": "checkpoint_last.pt",
            "finetune_from_model": None,
            "reset_dataloader": False,
            "amp": True,
            "seed": 5,
        }
        task = VideoClipPretrainingTask(VideoClipPretrainingConfig(**given | settings))
        task.model = torch.nn.Linear(1, 1)
        return task

    return make


CLIPS = {
    "clip_sampling": "bag",
    "clips_per_video": 7,
    "min_text_tokens": 5,
    "max_text_tokens": 40,
    "min_clip_seconds": 2,
    "max_clip_seconds": 20,
    "bag_captions": 2,
}


def drawn(clips: Any) -> tuple:
    """All that decides which clips are drawn and how they are cut."""
    return (
        str(clips.clip_sampling),
        clips.clips_per_video,
        tuple(clips.text_tokens),
        tuple(clips.clip_seconds),
        clips.max_video_seconds,
        clips.max_text_pieces,
        clips.bag_captions,
    )


def test_clips_to_train_on(task) -> None:
    assert drawn(task().clips) == ("overlapped", 16, (8, 64), (3, 32), 30, 50, 5)  # the paper's, cut as the model says
    assert drawn(task(**CLIPS).clips) == ("bag", 7, (5, 40), (2, 20), 30, 50, 2)


@pytest.mark.parametrize("sampling", ["overlapped", "aligned", "bag"])
def test_sampled_clips_to_embed_are_aligned_whatever_is_trained_on(task, sampling: str) -> None:
    made = task(retrieval={"clips_per_video": 9}, **CLIPS | {"clip_sampling": sampling})
    dataset = made.build_source(made.open_corpus("train")).dataset
    assert drawn(dataset.clips) == ("aligned", 9, (5, 40), (2, 20), 30, 50, 2)
    assert drawn(made.clips)[:2] == (sampling, 7)  # those to train on are as they were


def test_the_first_seconds_to_embed(task) -> None:
    made = task(retrieval={"clips": "first_32s", "clips_per_video": 9}, **CLIPS)
    dataset = made.build_source(made.open_corpus("train")).dataset
    assert drawn(dataset.clips) == (FIRST_SECONDS, 1, (5, 40), (2, 20), 30, 50, 2)


def test_draws_to_embed_are_of_another_stream_than_those_to_train_on(task) -> None:
    made = task()
    made.load_dataset("train")
    assert made.datasets["train"].seed == (5, 0)
    assert made.source.dataset.seed == (5, RETRIEVAL_STREAM) and RETRIEVAL_STREAM != 0


CHOSEN = {
    "num_neighbors": 12,
    "pick": "nearest",
    "start_epoch": 3,
    "start_recall": 0.3,
    "every": 2,
    "embeddings": "reuse",
    "clips": "first_32s",
    "clips_per_video": 9,
    "index": "ivf",
    "min_recall": 0.5,
    "num_centroids": 4,
    "max_nprobe": 3,
}


def test_clusters_get_every_setting_of_retrieval(task) -> None:
    assert CHOSEN.keys() | {"enabled", "_name"} == RetrievalConfig.__dataclass_fields__.keys()
    made = task(retrieval=CHOSEN)
    corpus = made.open_corpus("train")
    source = made.build_source(corpus)
    assert isinstance(source, ClusterGroups)
    assert source.settings is made.cfg.retrieval  # itself: there is no second copy to forget a field in
    assert (source.model, source.videos_per_group, source.seed) == (made.model, 4, 5)
    assert (source.num_workers, source.amp) == (3, True)
    assert source.dataset.corpus is corpus and source.num_groups == 24 // 4
    assert source.memory is not None
    made = task(retrieval={"embeddings": "fresh"})
    assert made.build_source(corpus).memory is None


def test_random_groups_without_retrieval(task) -> None:
    made = task(retrieval={"enabled": False}, videos_per_batch=5)
    source = made.build_source(made.open_corpus("train"))
    assert isinstance(source, RandomGroups)
    assert (source.num_videos, source.videos_per_group, source.seed) == (24, 5, 5)
