"""Items and batches of fine-tuning, against the files they come from."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin.evaluation.benchmark_files import BenchmarkFiles
from mmpt_plugin.finetuning.datasets import CaptionedClipDataset, LabelledVideoDataset
from mmpt_plugin.finetuning.training_sets import TRAINING_SETS
from mmpt_plugin.models import text_backbone


@pytest.fixture
def clips(benchmark_data: Path, tiny_bert: Path) -> CaptionedClipDataset:
    training = TRAINING_SETS["msrvtt"](BenchmarkFiles(benchmark_data))
    tokenizer = text_backbone.load_tokenizer(str(tiny_bert))
    return CaptionedClipDataset(training.clips, training.features, tokenizer, max_pieces=3, seed=1)


def videos(benchmark_data: Path, tiny_bert: Path, name: str) -> LabelledVideoDataset:
    training = TRAINING_SETS[name](BenchmarkFiles(benchmark_data))
    return LabelledVideoDataset(
        training.videos, training.features, text_backbone.load_tokenizer(str(tiny_bert)), max_pieces=3
    )


def test_a_batch_of_pairs(clips: CaptionedClipDataset, benchmark_data: Path, tiny_bert: Path) -> None:
    batch = clips.collater([clips[3], clips[0]])
    inputs = batch["net_input"]
    assert batch["id"].tolist() == [3, 0] and batch["video_id"] == ["video3", "video0"] and batch["nsentences"] == 2
    assert inputs["video_features"].shape == (40, 512) and inputs["video_lengths"].tolist() == [32, 8]
    stored = np.load(benchmark_data / "msrvtt" / "features" / "video0.npy")
    np.testing.assert_array_equal(inputs["video_features"][32:].numpy(), stored)
    assert inputs["video_features"].numpy().dtype == stored.dtype == np.float16
    tokenizer = text_backbone.load_tokenizer(str(tiny_bert))
    words = [tokenizer.convert_ids_to_tokens(ids) for ids in inputs["text_ids"].split(inputs["text_lengths"].tolist())]
    assert words[0] in [["[CLS]", verb, "the", "pan", "[SEP]"] for verb in ("add", "cut", "stir")]
    assert words[1] in [["[CLS]", verb, "a", "onion", "[SEP]"] for verb in ("add", "cut", "stir")]
    assert batch["ntokens"] == 32 + 8 + 3 + 3
    assert clips.collater([]) == {}


def test_each_sentence_is_drawn_equally_often_and_follows_from_seed_epoch_and_item(clips: CaptionedClipDataset) -> None:
    drawn = {}
    for epoch in range(1, 601):
        clips.set_epoch(epoch)
        drawn[epoch] = [tuple(clips[index][1].tolist()) for index in (0, 1)]
        assert drawn[epoch] == [tuple(clips[index][1].tolist()) for index in (0, 1)]  # however often it is asked
    for index in (0, 1):
        counts = np.unique([own[index] for own in drawn.values()], axis=0, return_counts=True)[1]
        assert len(counts) == 3 and counts.min() > 150  # 200 expected, standard deviation 12
    first_words = [(one[0], two[0]) for one, two in drawn.values()]
    assert len(set(first_words)) == 9  # the items' draws are independent
    clips.set_epoch(5)
    assert [tuple(clips[index][1].tolist()) for index in (0, 1)] == drawn[5]


def test_repeated_clips_draw_each_time_for_themselves(benchmark_data: Path, tiny_bert: Path) -> None:
    training = TRAINING_SETS["msrvtt"](BenchmarkFiles(benchmark_data))
    tokenizer = text_backbone.load_tokenizer(str(tiny_bert))
    once, often = (
        CaptionedClipDataset(training.clips, training.features, tokenizer, max_pieces=3, seed=1, repeats=repeats)
        for repeats in (1, 20)
    )
    assert (len(once), len(often)) == (4, 80)
    items = [often[index] for index in range(80)]
    assert [clip for clip, _ in items] == [0, 1, 2, 3] * 20
    assert len({tuple(pieces.tolist()) for clip, pieces in items if clip == 0}) == 3  # each of its sentences comes
    for index in range(4):  # the first round is what an epoch without repeats is
        assert once[index][1].tolist() == often[index][1].tolist()
    batch = often.collater([often[79], often[0]])
    assert batch["id"].tolist() == [3, 0] and batch["video_id"] == ["video3", "video0"]


def test_a_video_with_classes(benchmark_data: Path, tiny_bert: Path) -> None:
    dataset = videos(benchmark_data, tiny_bert, "coin")
    batch = dataset.collater([dataset[0]])
    assert batch["video_id"] == ["train_a"] and batch["nsentences"] == 1 and batch["ntokens"] == 64
    inputs = batch["net_input"]
    assert inputs["video_features"].shape == (64, 512) and inputs["video_lengths"].tolist() == [32, 32]
    assert inputs["frames"] is True
    assert batch["target"].dtype == torch.int64 and batch["target"].shape == (64,)
    assert batch["target"][:7].tolist() == [2, 2, 2, 0, 1, 1, 1] and not batch["target"][7:].any()
    assert "text_ids" not in batch["net_input"]
    assert dataset.collater([]) == {}


def test_a_video_with_steps(benchmark_data: Path, tiny_bert: Path) -> None:
    dataset = videos(benchmark_data, tiny_bert, "crosstask")
    lengths = [len(video.labels) for video in dataset.videos]
    index = lengths.index(max(lengths))
    batch, seconds = dataset[index], lengths[index]  # longer than a window: 0-32 and 16-end
    assert seconds > 32
    inputs, target = batch["net_input"], batch["target"]
    assert inputs["video_lengths"].tolist() == [32, seconds - 16] and target.shape == (32 + seconds - 16, 2)
    assert target[:5].tolist() == [[1, 0], [1, 0], [0, 1], [0, 1], [0, 0]] and not target[5:].any()
    assert inputs["text_lengths"].tolist() == [5, 3]  # "add the onion|s" is cut to 3 pieces; "stir"
