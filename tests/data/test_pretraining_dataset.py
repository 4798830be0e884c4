"""Groups of clips against the corpus they were drawn from; what is drawn depends on seed, epoch and group alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt_plugin.data.clips import sample_aligned_clips_batch, sample_overlapped_clips_batch
from mmpt_plugin.data.corpus import VideoTextCorpus, read_video_list
from mmpt_plugin.data.pairs import Batch, SpecialTokens
from mmpt_plugin.data.pretraining_dataset import FIRST_SECONDS, ClipSettings, PretrainingDataset, draw_pairs
from mmpt_plugin.data.shard_writer import ShardWriter

SPECIAL = SpecialTokens(cls=2, sep=3)


@pytest.fixture(scope="module")
def corpus(tiny_data: Path) -> VideoTextCorpus:
    folder = tiny_data / "howto100m"
    return VideoTextCorpus.open(folder / "shards", read_video_list(folder / "train.txt"))


@pytest.fixture
def timed_corpus(tmp_path: Path) -> VideoTextCorpus:
    """Three videos whose features are their seconds, captions at chosen times; caption c of video v is the word 10v + c."""
    videos = {
        "long": (40, [(1, 3), (31.9, 40), (32, 33), (39, 40)]),
        "late": (50, [(35, 36), (45, 46)]),
        "short": (5, [(0, 2), (2, 9)]),
    }
    with ShardWriter(tmp_path, "train_0", feature_size=1) as writer:
        for v, (video_id, (seconds, times)) in enumerate(videos.items()):
            words = [[10 * v + 10 + caption] for caption in range(len(times))]
            writer.add(video_id, np.arange(seconds)[:, None], times, words)
    return VideoTextCorpus.open(tmp_path, list(videos), feature_size=1)


def clips_of(batch: Batch) -> list[tuple[list[int], list[int]]]:
    """Of each pair of a `timed_corpus`: its seconds and its words."""
    inputs = batch["net_input"]
    clips = inputs["video_features"].split(inputs["video_lengths"].tolist())
    texts = inputs["text_ids"].split(inputs["text_lengths"].tolist())
    seconds, words = [clip[:, 0].long().tolist() for clip in clips], [text[1:-1].tolist() for text in texts]
    return list(zip(seconds, words))


def assert_same(one: Batch, other: Batch) -> None:
    assert one["video_id"] == other["video_id"] and torch.equal(one["id"], other["id"])
    for name, value in one["net_input"].items():
        assert np.array_equal(value, other["net_input"][name]), name


def differ(one: Batch, other: Batch) -> bool:
    return any(not np.array_equal(value, other["net_input"][name]) for name, value in one["net_input"].items())


@settings(max_examples=30, deadline=None)
@given(
    videos=st.lists(st.integers(0, 23), min_size=1, max_size=5),
    rule=st.sampled_from(["overlapped", "aligned"]),
    per_video=st.integers(1, 4),
    max_seconds=st.integers(1, 40),
    max_pieces=st.integers(1, 61),
    seed=st.integers(0, 100),
)
def test_pairs_are_the_sampled_spans(
    corpus: VideoTextCorpus,
    videos: list[int],
    rule: str,
    per_video: int,
    max_seconds: int,
    max_pieces: int,
    seed: int,
) -> None:
    clips = ClipSettings(rule, per_video, 2, 20, 3, 10, 5, max_seconds, max_pieces)
    batch = draw_pairs(corpus, np.array(videos), clips, SPECIAL, np.random.default_rng(seed), index=9)
    table, rng = corpus.group_captions(np.array(videos)), np.random.default_rng(seed)
    if rule == "overlapped":
        spans = sample_overlapped_clips_batch(table, per_video, rng, text_tokens=(2, 20), clip_seconds=(3, 10))
    else:
        spans = sample_aligned_clips_batch(table, per_video, rng, text_tokens=(2, 20))
    inputs = batch["net_input"]
    assert batch["id"].tolist() == [9] * len(spans)
    features = inputs["video_features"].split(inputs["video_lengths"].tolist())
    texts = inputs["text_ids"].split(inputs["text_lengths"].tolist())
    for i, (start, end, first, last) in enumerate(spans):
        video = videos[i // per_video]  # video by video
        assert batch["video_id"][i] == corpus.video_ids[video]
        rows = corpus.features(video)[start:end][:max_seconds]
        pieces = corpus.text(video, first, last)[:max_pieces]
        np.testing.assert_array_equal(features[i], rows)
        assert texts[i].tolist() == [2, *pieces, 3]


def test_an_item_is_one_group_of_the_documented_shape(corpus: VideoTextCorpus) -> None:
    dataset = PretrainingDataset(corpus, ClipSettings(clips_per_video=4), SPECIAL, seed=1)
    dataset.set_groups(1, [np.array([3, 7, 1]), np.array([0, 2])])
    batch = dataset[0]
    pairs = 3 * 4
    assert batch["video_id"] == [name for name in ("train03", "train07", "train01") for _ in range(4)]
    inputs = batch["net_input"]
    seconds, tokens = inputs["video_lengths"], inputs["text_lengths"]
    assert inputs["video_features"].shape == (seconds.sum(), 512) and inputs["video_features"].dtype == torch.float16
    assert len(seconds) == len(tokens) == pairs and seconds.min() >= 3 and seconds.max() <= 32 and tokens.max() <= 63
    assert inputs["text_ids"].shape == (tokens.sum(),) and inputs["text_ids"].dtype == torch.int64
    assert len(dataset) == 2 and dataset[1]["nsentences"] == 2 * 4
    assert_same(dataset.collater([batch]), batch)
    assert dataset.collater([batch, dataset[1]])["nsentences"] == 20
    assert dataset.collater([]) == {}  # a process without a batch in validation


def test_draws_depend_on_seed_stream_epoch_and_group_alone(corpus: VideoTextCorpus) -> None:
    def item(seed: int = 1, stream: int = 0, epoch: int = 1, index: int = 0, before: tuple[int, ...] = ()) -> Batch:
        dataset = PretrainingDataset(corpus, ClipSettings(clips_per_video=2), SPECIAL, seed, stream)
        dataset.set_groups(epoch, [np.array([0, 1, 2])] * 3)
        for earlier in before:
            dataset[earlier]
        return dataset[index]

    torch.manual_seed(5)
    first = item()
    torch.manual_seed(6)
    np.random.seed(6)
    assert_same(item(before=(2, 1, 0)), first)
    for other in (item(seed=2), item(stream=1), item(epoch=2), item(index=1)):
        assert differ(other, first)


def test_a_video_with_few_captions_repeats_them(timed_corpus: VideoTextCorpus) -> None:
    clips = ClipSettings("aligned", clips_per_video=20, min_text_tokens=1, max_text_tokens=1)
    drawn = clips_of(draw_pairs(timed_corpus, np.array([1]), clips, SPECIAL, np.random.default_rng(0)))
    assert len(drawn) == 20
    assert {tuple(words) for _, words in drawn} == {(20,), (21,)}
    assert all(seconds == ([35] if words == [20] else [45]) for seconds, words in drawn)


def test_each_caption_of_a_bag_is_a_text(timed_corpus: VideoTextCorpus) -> None:
    clips = ClipSettings("bag", clips_per_video=30, max_clip_seconds=3, max_text_pieces=1, bag_captions=2)
    batch = draw_pairs(timed_corpus, np.array([0, 2]), clips, SPECIAL, np.random.default_rng(0))
    inputs = batch["net_input"]
    assert batch["nsentences"] == 60 and inputs["text_lengths"].tolist() == [3] * 120
    words = inputs["text_ids"].unflatten(0, (60, 2, 3))[..., 1]  # each text is [CLS] word [SEP]
    # long: middles 2, 35.95, 32.5 and 39.5, so that caption 0 goes with 1 (its only neighbour), 1 with 2 (nearer than 0),
    # 2 with 1 and 3 with 2; short has two captions
    assert {tuple(bag) for bag in words[:30].tolist()} == {(10, 11), (11, 12), (12, 13)}
    assert {tuple(bag) for bag in words[30:].tolist()} == {(30, 31)}
    assert inputs["video_lengths"].tolist() == [3] * 60
    for seconds, bag in zip(inputs["video_features"][:90].view(30, 3).tolist(), words[:30].tolist()):
        low, high = {(10, 11): (0, 6), (11, 12): (28, 40), (12, 13): (36, 40)}[tuple(bag)]
        assert low <= seconds[0] and seconds[-1] < high  # within 3 seconds of the drawn caption


def test_bags_need_captions(timed_corpus: VideoTextCorpus) -> None:
    assert ClipSettings("bag", bag_captions=3).captions_needed == 3
    assert ClipSettings("aligned", bag_captions=3).captions_needed == 1
    clips = ClipSettings("bag", bag_captions=3)
    with pytest.raises(ValueError, match=r"2 of 3 videos have fewer captions than a bag of 3, the first at position 1"):
        draw_pairs(timed_corpus, np.array([0, 1, 2]), clips, SPECIAL, np.random.default_rng(0))


def test_the_first_seconds_of_each_video(timed_corpus: VideoTextCorpus) -> None:
    # long: its captions 0 and 1 start before second 32; late: none does, so its first caption stands in; short: all.
    clips = ClipSettings(FIRST_SECONDS, clips_per_video=1)
    rng = np.random.default_rng(0)
    drawn = clips_of(draw_pairs(timed_corpus, np.array([0, 1, 2, 0]), clips, SPECIAL, rng))
    long = (list(range(32)), [10, 11])
    assert drawn == [long, (list(range(32)), [20]), (list(range(5)), [30, 31]), long]
    assert rng.random() == np.random.default_rng(0).random()  # nothing is drawn
    repeated = ClipSettings(FIRST_SECONDS, clips_per_video=2, max_video_seconds=2, max_text_pieces=1)
    # of 2 seconds: long's caption 0 starts at 1, short's at 0 (its caption 1 at 2 does not)
    assert clips_of(draw_pairs(timed_corpus, np.array([0, 2]), repeated, SPECIAL, rng)) == [
        ([0, 1], [10]),
        ([0, 1], [10]),
        ([0, 1], [30]),
        ([0, 1], [30]),
    ]


def test_an_unknown_rule(timed_corpus: VideoTextCorpus) -> None:
    with pytest.raises(ValueError, match=r"task\.clip_sampling is 'both': choose one of overlapped, aligned, bag"):
        draw_pairs(timed_corpus, np.array([0]), ClipSettings("both"), SPECIAL, np.random.default_rng(0))
