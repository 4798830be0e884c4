"""Embedding all videos: against a slow loop, and without a trace in training."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin.data.corpus import VideoTextCorpus, read_video_list
from mmpt_plugin.data.pairs import SpecialTokens
from mmpt_plugin.data.pretraining_dataset import ClipSettings, PretrainingDataset
from mmpt_plugin.models.videoclip import VideoClipModel
from mmpt_plugin.retrieval import refresh
from mmpt_plugin.retrieval.refresh import EmbeddingMemory, embed_videos, evaluation_mode

CLIPS = 3


@pytest.fixture(scope="module")
def dataset(tiny_data: Path) -> PretrainingDataset:
    folder = tiny_data / "howto100m"
    corpus = VideoTextCorpus.open(folder / "shards", read_video_list(folder / "train.txt"))
    return PretrainingDataset(corpus, ClipSettings("aligned", CLIPS), SpecialTokens(2, 3), seed=1, stream=1)


def slow_means(model: VideoClipModel, dataset: PretrainingDataset, epoch: int, groups: list[np.ndarray]) -> np.ndarray:
    """Clip by clip: the mean of (video + text) / 2 over the clips of each video."""
    dataset.set_groups(epoch, groups)
    means = []
    for index, group in enumerate(groups):
        inputs = dataset[index]["net_input"]
        clips = inputs["video_features"].split(inputs["video_lengths"].tolist())
        texts = inputs["text_ids"].split(inputs["text_lengths"].tolist())
        for video in range(len(group)):
            total = 0
            for clip in range(video * CLIPS, (video + 1) * CLIPS):
                with torch.no_grad():
                    output = model(clips[clip], np.array([len(clips[clip])]), texts[clip], np.array([len(texts[clip])]))
                total += (output["video_embeddings"] + output["text_embeddings"])[0].numpy() / 2
            means.append(total / CLIPS)
    return np.stack(means)


def test_equals_the_slow_loop(tiny_model: VideoClipModel, dataset: PretrainingDataset) -> None:
    vectors = embed_videos(tiny_model, dataset, epoch=2, videos_per_batch=5)
    groups = [np.arange(start, min(start + 5, 24)) for start in range(0, 24, 5)]
    assert vectors.shape == (24, 32) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, slow_means(tiny_model, dataset, 2, groups), atol=1e-5)


def test_some_videos_in_their_order(tiny_model: VideoClipModel, dataset: PretrainingDataset) -> None:
    videos = np.array([7, 3, 20])
    vectors = embed_videos(tiny_model, dataset, epoch=1, videos=videos, videos_per_batch=2)
    np.testing.assert_allclose(vectors, slow_means(tiny_model, dataset, 1, [videos[:2], videos[2:]]), atol=1e-5)


def test_workers_change_nothing(tiny_model: VideoClipModel, dataset: PretrainingDataset) -> None:
    alone, helped = (embed_videos(tiny_model, dataset, 1, videos_per_batch=8, num_workers=n) for n in (0, 2))
    np.testing.assert_array_equal(alone, helped)


def test_epochs_draw_other_clips(tiny_model: VideoClipModel, dataset: PretrainingDataset) -> None:
    one, again, two = (embed_videos(tiny_model, dataset, epoch) for epoch in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != two).any()


def test_training_goes_on_as_if_nothing_had_been(tiny_model: VideoClipModel, dataset: PretrainingDataset) -> None:
    tiny_model.train()
    loss = sum(output.sum() for output in tiny_model(**_one_batch(dataset)).values())
    loss.backward()
    gradients = [parameter.grad.clone() for parameter in tiny_model.parameters()]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    vectors = embed_videos(tiny_model, dataset, 1, num_workers=2)
    assert torch.equal(torch.rand(4), expected)
    assert all(module.training for module in tiny_model.modules())
    assert all(torch.equal(parameter.grad, old) for parameter, old in zip(tiny_model.parameters(), gradients))
    tiny_model.eval()
    np.testing.assert_array_equal(embed_videos(tiny_model, dataset, 1), vectors)  # was in evaluation mode there too
    assert not tiny_model.training


def _one_batch(dataset: PretrainingDataset) -> dict[str, torch.Tensor]:
    dataset.set_groups(1, [np.arange(4)])
    return dataset[0]["net_input"]


def test_evaluation_mode_gives_the_mode_back_after_an_error(tiny_model: VideoClipModel) -> None:
    tiny_model.train()
    with pytest.raises(RuntimeError, match="out of memory"), evaluation_mode(tiny_model):
        raise RuntimeError("out of memory")
    assert tiny_model.training


def test_evaluation_mode_leaves_other_devices_alone(
    tiny_model: VideoClipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[list] = []
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: given.append(devices) or nullcontext())
    with evaluation_mode(tiny_model):
        pass
    assert given == [[]]  # on a CPU no GPU's state is touched


def test_vectors_are_fetched_in_blocks(
    tiny_model: VideoClipModel, dataset: PretrainingDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = embed_videos(tiny_model, dataset, 1, videos_per_batch=5)
    monkeypatch.setattr(refresh, "BATCHES_AT_ONCE", 2)
    np.testing.assert_array_equal(embed_videos(tiny_model, dataset, 1, videos_per_batch=5), whole)


def test_evaluation_mode_keeps_no_gradients(tiny_model: VideoClipModel) -> None:
    tiny_model.train()
    with evaluation_mode(tiny_model):
        assert not (tiny_model.training or torch.is_grad_enabled())
    assert tiny_model.training and torch.is_grad_enabled()


class Echo(torch.nn.Module):
    """Gives the embeddings that it is given."""

    def forward(self, video: torch.Tensor, text: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"video_embeddings": video, "text_embeddings": text}


def test_memory_averages_what_training_computed() -> None:
    # a: ((1 + 3)/2 + (3 + 5)/2 + (6 + 6)/2) / 3 = (2 + 4 + 6) / 3 = 4; b: (0 + 2)/2 = 1; c: never seen
    memory, model = EmbeddingMemory(["a", "b", "c"]), Echo()
    assert memory.take() is None
    with memory.recording(model, ["a", "b", "a"]):
        model(torch.tensor([[1.0], [0.0], [3.0]], requires_grad=True), torch.tensor([[3.0], [2.0], [5.0]]))
    with memory.recording(model, ["a"]):
        model(torch.tensor([[6.0]]), torch.tensor([[6.0]]))
    model(torch.tensor([[99.0]]), torch.tensor([[99.0]]))  # outside: validation
    means, seen = memory.take()
    assert means.tolist() == [[4.0], [1.0], [0.0]] and seen.tolist() == [True, True, False]
    assert memory.take() is None  # it starts anew


def test_memory_takes_the_mean_of_a_bag() -> None:
    # a: (2 + (1 + 3) / 2) / 2 = 2; b: (4 + (5 + 11) / 2) / 2 = 6
    memory, model = EmbeddingMemory(["a", "b"]), Echo()
    with memory.recording(model, ["a", "b"]):
        model(torch.tensor([[2.0], [4.0]]), torch.tensor([[1.0], [3.0], [5.0], [11.0]]))
    means, _ = memory.take()
    assert means.tolist() == [[2.0], [6.0]]


def test_memory_lets_go_of_a_model_that_fails() -> None:
    memory, model = EmbeddingMemory(["a"]), Echo()
    with pytest.raises(RuntimeError, match="out of memory"), memory.recording(model, ["a"]):
        raise RuntimeError("out of memory")
    model(torch.ones(1, 1), torch.ones(1, 1))
    assert memory.take() is None
