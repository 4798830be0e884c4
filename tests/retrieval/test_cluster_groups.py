"""Groups of similar videos: what they are made of, when they are made anew, and what a checkpoint keeps of them."""

import logging
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin.data.corpus import VideoTextCorpus, read_video_list
from mmpt_plugin.data.epoch_iterator import GroupEpochIterator
from mmpt_plugin.data.groups import RandomGroups
from mmpt_plugin.data.pairs import SpecialTokens
from mmpt_plugin.data.pretraining_dataset import FIRST_SECONDS, ClipSettings, PretrainingDataset
from mmpt_plugin.retrieval import cluster_groups
from mmpt_plugin.retrieval.cluster_groups import ClusterGroups
from mmpt_plugin.retrieval.settings import RetrievalConfig

STYLES = 6  # of the tiny data: video v has style v % 6, four videos a style


class FeatureMeans(torch.nn.Module):
    """Embeds a video as the mean of its features, and its text likewise: styles are plain to see."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(
        self, video_features: torch.Tensor, video_lengths: np.ndarray, text_ids: torch.Tensor, text_lengths: np.ndarray
    ) -> dict[str, torch.Tensor]:
        clips = video_features.float().split(video_lengths.tolist())
        mean = self.scale * torch.stack([clip.sum(0) / max(len(clip), 1) for clip in clips])
        return {"video_embeddings": mean, "text_embeddings": mean}


@pytest.fixture(scope="module")
def corpus(tiny_data: Path) -> VideoTextCorpus:
    folder = tiny_data / "howto100m"
    return VideoTextCorpus.open(folder / "shards", read_video_list(folder / "train.txt"))


def source(corpus: VideoTextCorpus, videos_per_group: int = 4, seed: int = 1, **settings: object) -> ClusterGroups:
    """Clusters of 4 out of the 8 nearest, each video embedded by its first seconds, unless told otherwise."""
    clips = ClipSettings(FIRST_SECONDS, clips_per_video=1)
    dataset = PretrainingDataset(corpus, clips, SpecialTokens(2, 3), seed=1, stream=1)
    chosen = RetrievalConfig(**{"num_neighbors": 8, **settings})
    return ClusterGroups(FeatureMeans(), dataset, videos_per_group, chosen, seed, num_workers=0, amp=False)


def styles_of(groups: np.ndarray) -> list[int]:
    """Of each group the number of different styles."""
    return [len({video % STYLES for video in group}) for group in groups.tolist()]


@pytest.fixture
def refreshed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[int] | None]]:
    """The epochs in which videos were embedded, and which (None: all)."""
    seen: list[tuple[int, list[int] | None]] = []
    original = cluster_groups.embed_videos

    def recording(model, dataset, epoch, *, videos=None, **settings):
        seen.append((epoch, None if videos is None else videos.tolist()))
        return original(model, dataset, epoch, videos=videos, **settings)

    monkeypatch.setattr(cluster_groups, "embed_videos", recording)
    return seen


def test_a_normalised_models_videos_are_near_by_their_direction(
    corpus: VideoTextCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    angles = np.arange(24) // 6 * 0.5  # four directions of six videos, of every length
    lengths = np.random.default_rng(0).uniform(0.1, 10, 24)
    vectors = (np.stack([np.cos(angles), np.sin(angles)], 1) * lengths[:, None]).astype(np.float32)
    monkeypatch.setattr(cluster_groups, "embed_videos", lambda *given, **settings: vectors.copy())
    by_length, by_direction = source(corpus, 6, num_neighbors=6), source(corpus, 6, num_neighbors=6)
    by_direction.model.normalize = True
    directions = [
        max(len({video // 6 for video in group}) for group in groups.groups(1).tolist())
        for groups in (by_length, by_direction)
    ]
    assert directions[0] > 1 and directions[1] == 1


def test_clusters_are_the_videos_of_a_style(corpus: VideoTextCorpus) -> None:
    groups = source(corpus, num_neighbors=4).groups(1)
    assert groups.shape == (6, 4) and groups.dtype == np.int64
    assert styles_of(groups) == [1] * 6  # the 4 nearest are all there is of a style
    assert all(len(set(group)) == 4 for group in groups.tolist())


def test_random_pick_takes_neighbours_of_other_styles_too(corpus: VideoTextCorpus) -> None:
    clusters = source(corpus)
    assert max(styles_of(clusters.groups(1))) > 1  # 4 of 8, of which 4 are of one style
    assert styles_of(source(corpus, pick="nearest").groups(1)) == [1] * 6


def test_draws_depend_on_seed_and_epoch_alone(corpus: VideoTextCorpus) -> None:
    first = source(corpus).groups(2)
    clusters = source(corpus)
    clusters.groups(1)
    np.testing.assert_array_equal(clusters.groups(2), first)
    assert (source(corpus).groups(1) != first).any() and (source(corpus, seed=2).groups(2) != first).any()


def test_epochs_before_the_first_with_clusters_are_random(
    corpus: VideoTextCorpus, refreshed: list[tuple[int, list[int] | None]]
) -> None:
    clusters = source(corpus, start_epoch=3)
    for epoch in (1, 2):
        np.testing.assert_array_equal(clusters.groups(epoch), RandomGroups(24, 4, 1).groups(epoch))
    assert refreshed == []
    assert styles_of(source(corpus, start_epoch=3, num_neighbors=4).groups(3)) == [1] * 6
    clusters.groups(3)
    clusters.groups(4)
    assert refreshed == [(3, None), (3, None), (4, None)]


def test_clusters_wait_for_validations_recall(
    corpus: VideoTextCorpus, refreshed: list[tuple[int, list[int] | None]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clusters = source(corpus, start_epoch=2, start_recall=0.3, every=2)
    for epoch, recall in ((1, 0.9), (2, 0.29), (3, 0.2)):  # the first is before start_epoch, the others are too low
        clusters.recall = recall
        np.testing.assert_array_equal(clusters.groups(epoch), RandomGroups(24, 4, 1).groups(epoch))
    clusters.recall = 0.3
    resumed = source(corpus, start_epoch=2, start_recall=0.3, every=2)
    resumed.load_state_dict(clusters.state_dict())
    for run in (clusters, resumed):
        refreshed.clear()
        run.groups(4)
        run.recall = 0.1  # once begun, clusters go on
        run.groups(5)
        run.groups(6)
        assert refreshed == [(4, None), (6, None)]
    np.testing.assert_array_equal(resumed.groups(8), clusters.groups(8))
    assert "epoch 3: text_to_video of validation is 0.200, task.retrieval.start_recall 0.3: its videos" in caplog.text
    assert "epoch 4: text_to_video of validation is 0.300, task.retrieval.start_recall 0.3: clusters" in caplog.text
    begun = source(corpus, start_epoch=2, start_recall=0.3, every=2)
    begun.load_state_dict(clusters.state_dict())
    refreshed.clear()
    begun.groups(9)  # the run had begun: neither recall nor the rhythm are asked for anew
    assert refreshed == []


def test_epochs_between_take_the_last_clusters_in_another_order(
    corpus: VideoTextCorpus, refreshed: list[tuple[int, list[int] | None]]
) -> None:
    clusters = source(corpus, start_epoch=2, every=3)
    made = {epoch: clusters.groups(epoch) for epoch in range(2, 6)}
    assert refreshed == [(2, None), (5, None)]
    for epoch in (3, 4):
        assert sorted(made[epoch].tolist()) == sorted(made[2].tolist())
    assert len({str(made[epoch]) for epoch in (2, 3, 4)}) == 3


def test_what_a_checkpoint_keeps(corpus: VideoTextCorpus, refreshed: list[tuple[int, list[int] | None]]) -> None:
    every_epoch = source(corpus)
    every_epoch.groups(1)
    assert every_epoch.state_dict() == {}  # the next epoch makes its own
    assert source(corpus, every=2).state_dict() == {}  # there are none yet

    stopped = source(corpus, every=2)
    stopped.groups(1)
    resumed = source(corpus, every=2)
    resumed.load_state_dict(stopped.state_dict())
    refreshed.clear()
    np.testing.assert_array_equal(resumed.groups(2), stopped.groups(2))
    assert refreshed == []
    np.testing.assert_array_equal(resumed.groups(3), stopped.groups(3))
    assert refreshed == [(3, None)] * 2

    anew = source(corpus, every=2)
    anew.load_state_dict({})
    anew.groups(2)
    assert refreshed[2:] == [(2, None)]  # without clusters to take, they are made


def test_an_epoch_of_clusters_is_resumed_though_they_share_videos(corpus: VideoTextCorpus) -> None:
    stopped, resumed = (GroupEpochIterator(own.dataset, own) for own in (source(corpus), source(corpus)))
    batches = stopped.next_epoch_itr()
    next(batches)
    assert len(np.unique(stopped.dataset.groups)) < 24
    resumed.load_state_dict(stopped.state_dict())
    rest = [batch["video_id"] for batch in resumed.next_epoch_itr()]
    assert rest == [batch["video_id"] for batch in batches]


def test_clusters_of_another_size_are_refused(corpus: VideoTextCorpus) -> None:
    stopped = source(corpus, every=2)
    stopped.groups(1)
    with pytest.raises(ValueError, match=r"clusters are 6 of 4 videos, now they would be 4 of 5: restore task\.videos"):
        source(corpus, 5, every=2).load_state_dict(stopped.state_dict())


def test_reused_embeddings_save_the_pass(
    corpus: VideoTextCorpus, refreshed: list[tuple[int, list[int] | None]], caplog: pytest.LogCaptureFixture
) -> None:
    clusters = source(corpus, embeddings="reuse", num_neighbors=4)
    clusters.groups(1)
    assert refreshed == [(1, None)]  # nothing is remembered yet
    unseen = [5, 12, 20]  # of three styles: without their own vectors they would be near each other
    trained = [video for video in range(24) if video not in unseen]
    dataset = clusters.dataset
    dataset.set_groups(1, [np.array(trained)])
    batch = dataset[0]
    with clusters.memory.recording(clusters.model, batch["video_id"]):
        clusters.model(**batch["net_input"])
    caplog.set_level(logging.INFO)
    groups = clusters.groups(2)
    assert refreshed == [(1, None), (2, unseen)]
    assert "21 videos keep training's embeddings, 3 are embedded now" in caplog.text
    assert styles_of(groups) == [1] * 6
    np.testing.assert_array_equal(groups, source(corpus, num_neighbors=4).groups(2))  # the same vectors, the same draws


def test_reuse_embeds_nothing_where_training_saw_all(
    corpus: VideoTextCorpus, refreshed: list[tuple[int, list[int] | None]]
) -> None:
    clusters = source(corpus, embeddings="reuse", num_neighbors=4)
    clusters.dataset.set_groups(1, [np.arange(24)])
    batch = clusters.dataset[0]
    with clusters.memory.recording(clusters.model, batch["video_id"]):
        clusters.model(**batch["net_input"])
    assert styles_of(clusters.groups(2)) == [1] * 6
    assert refreshed == []


@pytest.mark.parametrize("settings", [{"index": "ivf"}, {"index": "ivf", "num_centroids": 3, "min_recall": 1.0}])
def test_an_approximate_index_of_full_recall_gives_the_same_clusters(corpus: VideoTextCorpus, settings: dict) -> None:
    np.testing.assert_array_equal(source(corpus, **settings).groups(1), source(corpus).groups(1))


def test_no_more_neighbours_than_videos(corpus: VideoTextCorpus) -> None:
    assert source(corpus, num_neighbors=64).groups(1).shape == (6, 4)


def test_the_model_is_left_in_training_mode(corpus: VideoTextCorpus) -> None:
    clusters = source(corpus)
    clusters.model.train()
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    clusters.groups(1)
    assert clusters.model.training and torch.equal(torch.rand(1), expected) and clusters.model.scale.grad is None


def test_figures_of_the_epoch_are_logged(corpus: VideoTextCorpus, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clusters = source(corpus, num_neighbors=4)
    started = time.perf_counter()
    clusters.groups(3)
    took = time.perf_counter() - started
    seconds = [value for name, value in clusters.statistics.items() if name.startswith("seconds_")]
    assert min(seconds) >= 0 and sum(seconds) <= took
    assert "clusters of epoch 3: 6 of 4 videos; within_cluster_distance" in caplog.text
    assert clusters.statistics["within_cluster_distance"] < 0.5 * clusters.statistics["random_distance"]
    assert clusters.statistics.keys() == {
        "within_cluster_distance",
        "random_distance",
        "share_of_videos_seen",
        "mean_repeats",
        "max_repeats",
        "seconds_embed",
        "seconds_index",
        "seconds_search",
    }


@pytest.mark.parametrize(
    ("size", "settings", "message"),
    [
        (25, {"num_neighbors": 64}, r"task\.videos_per_batch is 25 and the training list has 24 videos"),
        (4, {"num_neighbors": 3}, r"task\.retrieval\.num_neighbors is 3: a cluster keeps task\.videos_per_batch=4"),
        (4, {"start_epoch": 0}, r"task\.retrieval\.start_epoch is 0: it must be at least 1"),
        (4, {"every": 0}, r"task\.retrieval\.every is 0: it must be at least 1"),
    ],
)
def test_bad_settings(corpus: VideoTextCorpus, size: int, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source(corpus, size, **settings)


def test_a_model_that_diverged_names_the_videos(corpus: VideoTextCorpus) -> None:
    clusters = source(corpus)
    with torch.no_grad():
        clusters.model.scale.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"24 of 24 videos have embeddings that are not finite: train00, train01, "):
        clusters.groups(1)


def test_a_failure_of_the_first_process_stops_the_others_too(
    corpus: VideoTextCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[np.ndarray] = []
    monkeypatch.setattr(cluster_groups, "broadcast_from_first", lambda groups: told.append(groups) or groups)
    first = source(corpus)
    with torch.no_grad():
        first.model.scale.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"embeddings that are not finite"):
        first.groups(1)
    monkeypatch.setattr(cluster_groups, "broadcast_from_first", lambda groups: told[0])
    monkeypatch.setattr(cluster_groups, "embed_videos", lambda *given, **settings: None)  # as on any other process
    with pytest.raises(RuntimeError, match=r"the first process could not form the clusters of epoch 1"):
        source(corpus).groups(1)


def test_a_recall_that_is_out_of_reach(corpus: VideoTextCorpus) -> None:
    clusters = source(corpus, index="ivf", num_centroids=6, max_nprobe=1, min_recall=1.0)
    with pytest.raises(ValueError, match=r"min_recall 1\.0 not reached: recall@8 is 0\.\d+ with 1 of 6 lists"):
        clusters.groups(1)
