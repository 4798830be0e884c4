"""Batches against the obvious way of padding, pair by pair."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmpt_plugin.data.pairs import (
    Batch,
    SpecialTokens,
    build_pairs,
    build_text,
    build_video,
    collate_groups,
    length_mask,
)

SPECIAL = SpecialTokens(cls=101, sep=102, pad=7)
LONGEST = 6  # seconds
WIDTH = 3

texts_of_a_batch = st.lists(st.lists(st.integers(200, 300), max_size=5), min_size=1, max_size=6)
clips_of_a_batch = st.lists(st.integers(0, LONGEST), min_size=1, max_size=6)


def build_text_of(texts: Sequence[list[int]]) -> dict[str, torch.Tensor]:
    pieces = np.array([piece for text in texts for piece in text], np.int32)
    return build_text(pieces, np.array([len(text) for text in texts]), SPECIAL)


def padded_features(lengths: list[int]) -> np.ndarray:
    features = np.zeros((len(lengths), LONGEST, WIDTH), np.float16)
    for i, length in enumerate(lengths):
        features[i, :length] = 1 + i + np.arange(length)[:, None]
    return features


def group(index: int, texts: list[list[int]], seconds: list[int]) -> Batch:
    video_ids = [f"v{index}_{i}" for i in range(len(texts))]
    return build_pairs(index, video_ids, build_video(padded_features(seconds), np.array(seconds)), build_text_of(texts))


@given(texts_of_a_batch)
def test_texts_equal_the_obvious_version(texts: list[list[int]]) -> None:
    built = build_text_of(texts)
    longest = max(map(len, texts)) + 2
    for ids, mask, text in zip(built["text_ids"].tolist(), built["text_mask"].tolist(), texts, strict=True):
        row = [101, *text, 102]
        assert ids == row + [7] * (longest - len(row))
        assert mask == [True] * len(row) + [False] * (longest - len(row))
    assert built["text_ids"].dtype == torch.int64 and built["text_mask"].dtype == torch.bool


@given(clips_of_a_batch)
def test_videos_equal_the_obvious_version(seconds: list[int]) -> None:
    features = padded_features(seconds)
    built = build_video(features, np.array(seconds))
    longest = max(*seconds, 1)  # a model needs a second, if only a masked one
    assert built["video_features"].shape == (len(seconds), longest, WIDTH)
    assert built["video_features"].dtype == torch.float16 and built["video_features"].is_contiguous()
    np.testing.assert_array_equal(built["video_features"], features[:, :longest])
    assert built["video_mask"].tolist() == [[second < length for second in range(longest)] for length in seconds]


def test_length_mask_of_a_hand_worked_case() -> None:
    assert length_mask(torch.tensor([0, 2, 3]), 3).tolist() == [
        [False, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_a_batch_has_the_documented_parts() -> None:
    batch = group(5, [[200, 201], [], [202]], [3, 0, 6])
    assert batch["id"].tolist() == [5, 5, 5] and batch["id"].dtype == torch.int64
    assert batch["nsentences"] == 3
    assert batch["ntokens"] == (3 + 0 + 6) + (2 + 0 + 1)  # seconds and word pieces, special tokens not counted
    assert batch["video_id"] == ["v5_0", "v5_1", "v5_2"]
    shapes = {name: tuple(value.shape) for name, value in batch["net_input"].items()}
    assert shapes == {"video_features": (3, 6, 3), "video_mask": (3, 6), "text_ids": (3, 4), "text_mask": (3, 4)}


pairs_of_a_group = st.lists(st.tuples(st.lists(st.integers(200, 300), max_size=5), st.integers(0, LONGEST)), min_size=1)


@given(st.lists(pairs_of_a_group, min_size=1, max_size=3))
def test_joined_groups_equal_one_batch_of_all_pairs(drawn: list[list[tuple[list[int], int]]]) -> None:
    groups = [
        group(index, [text for text, _ in pairs], [length for _, length in pairs]) for index, pairs in enumerate(drawn)
    ]
    joined = collate_groups(groups, SPECIAL.pad)
    texts, seconds = zip(*chain(*drawn))
    assert joined["nsentences"] == len(texts) and joined["ntokens"] == sum(seconds) + sum(map(len, texts))
    assert joined["video_id"] == list(chain(*(one["video_id"] for one in groups)))
    assert joined["id"].tolist() == [index for index, pairs in enumerate(drawn) for _ in pairs]
    for name, value in build_text_of(texts).items():
        assert torch.equal(joined["net_input"][name], value)
    longest = max(*seconds, 1)
    assert joined["net_input"]["video_mask"].tolist() == [[t < length for t in range(longest)] for length in seconds]
    rows = np.concatenate([padded_features([length for _, length in pairs]) for pairs in drawn])
    np.testing.assert_array_equal(joined["net_input"]["video_features"], rows[:, :longest])


def bags(index: int, texts: list[list[list[int]]], seconds: list[int]) -> Batch:
    video_ids = [f"v{index}_{i}" for i in range(len(seconds))]
    video = build_video(padded_features(seconds), np.array(seconds))
    return build_pairs(index, video_ids, video, build_text_of(list(chain(*texts))))


def test_bags_of_texts_stand_clip_by_clip() -> None:
    one = bags(0, [[[200], [201, 202]], [[203], []]], [2, 3])
    assert one["nsentences"] == 2 and one["ntokens"] == (2 + 3) + (1 + 2 + 1 + 0)
    assert one["id"].tolist() == [0, 0] and len(one["video_id"]) == 2
    other = bags(1, [[[204, 205, 206], [207]]], [5])
    joined = collate_groups([one, other], SPECIAL.pad)
    assert joined["nsentences"] == 3 and joined["ntokens"] == one["ntokens"] + other["ntokens"]
    assert joined["net_input"]["video_features"].shape == (3, 5, WIDTH)
    inputs = joined["net_input"]
    texts = [row[mask][1:-1].tolist() for row, mask in zip(inputs["text_ids"], inputs["text_mask"])]
    assert texts == [[200], [201, 202], [203], [], [204, 205, 206], [207]]


def test_one_group_is_not_copied() -> None:
    one = group(0, [[200]], [2])
    assert collate_groups([one], SPECIAL.pad) is one


@pytest.mark.parametrize("lengths", [[0], [0, 0]])
def test_texts_without_a_word(lengths: list[int]) -> None:
    built = build_text(np.zeros(0, np.int32), np.array(lengths), SPECIAL)
    assert built["text_ids"].tolist() == [[101, 102]] * len(lengths) and built["text_mask"].all()
