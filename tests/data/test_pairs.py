"""Batches against the obvious way, pair by pair."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmpt_plugin.data.pairs import (
    Batch,
    Inputs,
    SpecialTokens,
    build_pairs,
    build_text,
    build_video,
    collate_groups,
)

SPECIAL = SpecialTokens(cls=101, sep=102)
LONGEST = 6  # seconds
WIDTH = 3

texts_of_a_batch = st.lists(st.lists(st.integers(200, 300), max_size=5), min_size=1, max_size=6)
clips_of_a_batch = st.lists(st.integers(0, LONGEST), min_size=1, max_size=6)


def build_text_of(texts: Sequence[list[int]]) -> Inputs:
    pieces = np.array([piece for text in texts for piece in text], np.int32)
    return build_text(pieces, np.array([len(text) for text in texts]), SPECIAL)


def features_of(lengths: Sequence[int]) -> np.ndarray:
    """Clip i counts on from i."""
    rows = [i + second for i, length in enumerate(lengths) for second in range(length)]
    return np.repeat(np.array(rows, np.float16)[:, None], WIDTH, 1)


def group(index: int, texts: list[list[int]], seconds: list[int]) -> Batch:
    video_ids = [f"v{index}_{i}" for i in range(len(texts))]
    return build_pairs(index, video_ids, build_video(features_of(seconds), np.array(seconds)), build_text_of(texts))


@given(texts_of_a_batch)
def test_texts_equal_the_obvious_version(texts: list[list[int]]) -> None:
    built = build_text_of(texts)
    assert built["text_ids"].tolist() == [token for text in texts for token in (101, *text, 102)]
    assert built["text_lengths"].tolist() == [len(text) + 2 for text in texts]
    assert built["text_ids"].dtype == torch.int64 and built["text_lengths"].dtype == np.int64


@given(clips_of_a_batch)
def test_videos_equal_the_obvious_version(seconds: list[int]) -> None:
    built = build_video(features_of(seconds), np.array(seconds))
    assert built["video_features"].shape == (sum(seconds), WIDTH) and built["video_features"].dtype == torch.float16
    assert built["video_features"][:, 0].tolist() == [i + t for i, length in enumerate(seconds) for t in range(length)]
    assert built["video_lengths"].tolist() == seconds and built["video_lengths"].dtype == np.int64


def test_a_batch_has_the_documented_parts() -> None:
    batch = group(5, [[200, 201], [], [202]], [3, 0, 6])
    assert batch["id"].tolist() == [5, 5, 5] and batch["id"].dtype == torch.int64
    assert batch["nsentences"] == 3
    assert batch["ntokens"] == (3 + 0 + 6) + (2 + 0 + 1)  # seconds and word pieces, special tokens not counted
    assert batch["video_id"] == ["v5_0", "v5_1", "v5_2"]
    shapes = {name: tuple(value.shape) for name, value in batch["net_input"].items()}
    assert shapes == {"video_features": (9, 3), "video_lengths": (3,), "text_ids": (9,), "text_lengths": (3,)}


pairs_of_a_group = st.lists(st.tuples(st.lists(st.integers(200, 300), max_size=5), st.integers(0, LONGEST)), min_size=1)


@given(st.lists(pairs_of_a_group, min_size=1, max_size=3))
def test_joined_groups_equal_one_batch_of_all_pairs(drawn: list[list[tuple[list[int], int]]]) -> None:
    groups = [
        group(index, [text for text, _ in pairs], [length for _, length in pairs]) for index, pairs in enumerate(drawn)
    ]
    joined = collate_groups(groups)
    texts, seconds = zip(*chain(*drawn))
    assert joined["nsentences"] == len(texts) and joined["ntokens"] == sum(seconds) + sum(map(len, texts))
    assert joined["video_id"] == list(chain(*(one["video_id"] for one in groups)))
    assert joined["id"].tolist() == [index for index, pairs in enumerate(drawn) for _ in pairs]
    rows = np.concatenate([features_of([length for _, length in pairs]) for pairs in drawn])
    expected = {**build_text_of(texts), **build_video(rows, np.array(seconds))}
    assert joined["net_input"].keys() == expected.keys()
    for name, value in expected.items():
        assert type(joined["net_input"][name]) is type(value)
        np.testing.assert_array_equal(joined["net_input"][name], value)


def bags(index: int, texts: list[list[list[int]]], seconds: list[int]) -> Batch:
    video_ids = [f"v{index}_{i}" for i in range(len(seconds))]
    video = build_video(features_of(seconds), np.array(seconds))
    return build_pairs(index, video_ids, video, build_text_of(list(chain(*texts))))


def test_bags_of_texts_stand_clip_by_clip() -> None:
    one = bags(0, [[[200], [201, 202]], [[203], []]], [2, 3])
    assert one["nsentences"] == 2 and one["ntokens"] == (2 + 3) + (1 + 2 + 1 + 0)
    assert one["id"].tolist() == [0, 0] and len(one["video_id"]) == 2
    other = bags(1, [[[204, 205, 206], [207]]], [5])
    joined = collate_groups([one, other])
    assert joined["nsentences"] == 3 and joined["ntokens"] == one["ntokens"] + other["ntokens"]
    inputs = joined["net_input"]
    assert inputs["video_features"].shape == (2 + 3 + 5, WIDTH) and inputs["video_lengths"].tolist() == [2, 3, 5]
    texts = [text[1:-1].tolist() for text in inputs["text_ids"].split(inputs["text_lengths"].tolist())]
    assert texts == [[200], [201, 202], [203], [], [204, 205, 206], [207]]


def test_groups_of_different_types_join_in_the_wider_one() -> None:
    one, other = group(0, [[200]], [2]), group(1, [[201]], [1])
    other["net_input"]["video_features"] = other["net_input"]["video_features"].float() + 1 / 3
    features = collate_groups([one, other])["net_input"]["video_features"]
    assert features.dtype == torch.float32
    np.testing.assert_allclose(features[:, 0], [0, 1, 1 / 3])


def test_one_group_is_not_copied() -> None:
    one = group(0, [[200]], [2])
    assert collate_groups([one]) is one


@pytest.mark.parametrize("lengths", [[0], [0, 0]])
def test_texts_without_a_word(lengths: list[int]) -> None:
    built = build_text(np.zeros(0, np.int32), np.array(lengths), SPECIAL)
    assert built["text_ids"].tolist() == [101, 102] * len(lengths) and built["text_lengths"].tolist() == [2] * len(
        lengths
    )
