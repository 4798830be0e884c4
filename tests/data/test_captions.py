"""mmpt_plugin/data/captions.py: against slow obvious versions, by hand, and the original's word pieces."""

import json
import random
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from mmpt_plugin.captions.deduplication import deduplicate, original_deduplicate
from mmpt_plugin.captions.transcript import TimedText
from mmpt_plugin.data.captions import encode_captions, original_encode_captions, split_caption, split_evenly

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
words = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=6)
lines = st.lists(
    st.builds(
        lambda start, length, text: TimedText(start, start + length, " ".join(text)),
        st.integers(0, 20),
        st.integers(0, 10),
        words,
    ),
    max_size=8,
)


def texts(captions):
    return [caption.text for caption in captions]


def spell(batch):
    """A tokenizer with a piece for each character that is not a hyphen."""
    return [[ord(character) for character in text if character not in " -"] for text in batch]


class TestSplitEvenly:
    def test_by_hand(self):
        # 7 pieces, at most 4 a run: two runs of about 3.5; middles of the words 1, 2.5, 4, 5.5, 6.5 of 7
        assert split_evenly([2, 1, 2, 1, 1], 4) == [(0, 2), (2, 5)]
        assert split_evenly([1, 50, 1], 4) == [(0, 1), (1, 2), (2, 3)]
        assert split_evenly([3], 4) == [(0, 1)]

    @patient
    @given(st.lists(st.integers(0, 40), min_size=1, max_size=40), st.integers(1, 32))
    def test_covers_all_words_within_the_limit(self, sizes, limit):
        runs = split_evenly(sizes, limit)
        assert [word for first, last in runs for word in range(first, last)] == list(range(len(sizes)))
        for first, last in runs:
            assert last - first == 1 or sum(sizes[first:last]) <= limit

    @patient
    @given(st.lists(st.integers(1, 3), min_size=40, max_size=80))
    def test_runs_are_about_equal_and_few(self, sizes):
        runs = split_evenly(sizes, 32)
        pieces = [sum(sizes[first:last]) for first, last in runs]
        assert len(runs) <= -(-sum(sizes) // 32) + 1
        assert max(pieces) - min(pieces) <= 6  # half of two words at each end


def test_split_caption_divides_time_by_pieces():
    caption = TimedText(10, 17, "aa b cc d e")
    assert split_caption(caption, [2, 1, 2, 1, 1], 4) == [
        (10, pytest.approx(13), "aa b"),
        (pytest.approx(13), 17, "cc d e"),
    ]


class TestEncodeCaptions:
    def test_splits_long_captions_and_drops_those_without_pieces(self):
        videos = [[TimedText(0, 1, "ab"), TimedText(1, 2, "-")], [], [TimedText(0, 8, "abc def gh")]]
        encoded, counts = encode_captions(videos, spell, 6)
        assert encoded[:2] == [[(0, 1, [97, 98])], []]
        # 8 pieces, two runs of about 4; the middle of "def" is at 4.5 of 8
        assert encoded[2] == [(0, 3, spell(["abc"])[0]), (3, 8, spell(["defgh"])[0])]
        assert counts == {"split": 1, "no_pieces": 1}

    def test_a_single_long_word_stays_whole(self):
        encoded, counts = encode_captions([[TimedText(0, 8, "abcdefgh")]], spell, 6)
        assert encoded == [[(0, 8, spell(["abcdefgh"])[0])]] and not counts

    def test_a_part_without_pieces_is_dropped_too(self):
        encoded, counts = encode_captions([[TimedText(0, 8, "abcdefgh - abcdefgh")]], spell, 6)
        assert [len(caption.pieces) for caption in encoded[0]] == [8, 8]
        assert counts == {"split": 1, "no_pieces": 1}

    @patient
    @given(lines, st.integers(1, 8))
    def test_no_piece_is_lost(self, lines, limit):
        captions = deduplicate(lines)
        (encoded,), _ = encode_captions([captions], spell, limit)
        assert [piece for caption in encoded for piece in caption.pieces] == spell(["".join(texts(captions))])[0]
        for earlier, later in pairwise(encoded):
            assert earlier.start <= later.start and earlier.end <= later.end


class TestOriginal:
    """The original's cuts."""

    def test_corpus_and_its_word_pieces(self, golden):
        folder = golden / "shards"
        raw = json.loads((folder / "data/how2/raw_caption.json").read_text())
        rng = random.Random(20241)
        videos = [original_deduplicate(*video.values(), rng) for video in raw.values()]
        expected = json.loads((folder / "decoded/raw_caption_dedup.json").read_text())
        assert videos == [list(zip(*video.values())) for video in expected.values()]

        tokenizer = AutoTokenizer.from_pretrained(folder / "bert-tiny")
        encoded = original_encode_captions(
            videos, lambda batch: tokenizer(batch, add_special_tokens=False)["input_ids"]
        )
        expected = json.loads((folder / "decoded/raw_caption_dedup.bert-tiny.json").read_text())
        assert encoded == [list(zip(*video.values())) for video in expected.values()]

    def test_cuts_characters_before_and_pieces_after(self):
        text = "abcd " * 30  # 96 characters end in "a", of the 20th word
        encoded = original_encode_captions([[TimedText(1, 2, text)]], lambda batch: [[len(batch[0])] * 40])
        assert encoded == [[(1, 2, [96] * 32)]]
