"""mmpt_plugin/data/captions.py: against slow obvious versions, by hand, and the original's rule against its draws."""

import json
import math
import random
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from mmpt_plugin.data.captions import (
    TimedText,
    clean_lines,
    deduplicate,
    encode_captions,
    original_deduplicate,
    original_encode_captions,
    overlap_length,
    split_caption,
    split_evenly,
)

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


class TestCleanLines:
    def test_counts_every_line_that_is_dropped_or_mended(self):
        starts = [0, 1, 2, 3, 4, math.nan, 6, -1, 9]
        ends = [1, 2, 3, 4, 5, 6, None, 2, 8]
        said = ["add  the\nsalt ", None, math.nan, 7, " \n", "a", "b", "early", "reversed"]
        captions, counts = clean_lines(starts, ends, said)
        assert captions == [(0, 1, "add the salt"), (0, 2, "early"), (9, 9, "reversed")]
        assert counts == {"lines": 9, "not_text": 3, "empty": 1, "bad_times": 2, "mended_times": 2}

    def test_refuses_lists_of_different_lengths(self):
        with pytest.raises(ValueError, match="2 starts, 1 ends and 0 texts"):
            clean_lines([0, 1], [1], [])


class TestOverlapLength:
    @patient
    @given(st.lists(st.sampled_from("ab"), max_size=8), st.lists(st.sampled_from("ab"), min_size=1, max_size=8))
    def test_equals_trying_every_length(self, previous, following):
        lengths = range(min(len(previous), len(following)) + 1)
        assert overlap_length(previous, following) == max(
            n for n in lengths if previous[len(previous) - n :] == following[:n]
        )


class TestDeduplicate:
    def test_takes_the_longest_overlap_of_words(self):
        # character by character, "take potatoes" and "salt them" share an "s"; by words, nothing
        lines = [
            TimedText(0, 3, "take potatoes"),
            TimedText(3, 6, "salt them"),
            TimedText(6, 9, "them and mix"),
            TimedText(9, 12, "and mix and mix well"),  # shares "and mix", not "mix"
        ]
        assert deduplicate(lines) == [
            (0, 3, "take potatoes"),
            (3, 6, "salt them"),
            (6, 9, "and mix"),
            (9, 12, "and mix well"),
        ]

    def test_shared_words_take_the_shared_time(self):
        lines = [TimedText(0, 3, "now we take a pan"), TimedText(2, 5, "a pan and oil")]
        assert deduplicate(lines) == [(0, 3, "now we take a pan"), (3, 5, "and oil")]

    def test_a_caption_within_the_one_before_keeps_its_time(self):
        lines = [TimedText(0, 10, "a pan"), TimedText(2, 4, "pan and oil")]
        assert deduplicate(lines) == [(0, 4, "a pan"), (2, 4, "and oil")]

    def test_a_caption_without_new_words_extends_the_one_before(self):
        lines = [TimedText(0, 2, "cut the onion"), TimedText(2, 4, "the onion"), TimedText(4, 6, "cut the onion")]
        assert deduplicate(lines) == [(0, 6, "cut the onion")]

    def test_a_growing_line_becomes_its_increments(self):
        lines = [TimedText(0, 2, "we"), TimedText(2, 4, "we cut"), TimedText(4, 7, "we cut onions")]
        assert deduplicate(lines) == [(0, 2, "we"), (2, 4, "cut"), (4, 7, "onions")]

    def test_a_line_may_repeat_more_than_the_one_before(self):
        lines = [TimedText(0, 1, "a b"), TimedText(1, 2, "c"), TimedText(2, 3, "b c d")]
        assert texts(deduplicate(lines)) == ["a b", "c", "d"]

    def test_one_late_end_spoils_no_other_caption(self):
        lines = [TimedText(0, 900, "a"), TimedText(2, 4, "b"), TimedText(1, 3, "c")]
        assert deduplicate(lines) == [(0, 3, "a"), (1, 3, "c"), (2, 4, "b")]

    @patient
    @given(lines)
    def test_times_rise_and_no_word_is_lost_or_cut(self, lines):
        captions = deduplicate(lines)
        for caption in captions:
            assert caption.text and caption.start <= caption.end
        for earlier, later in pairwise(captions):
            assert earlier.start <= later.start and earlier.end <= later.end
        said = []
        for line in lines:  # the obvious way: the shortest rest that makes the words said so far end with the line
            own = line.text.split()
            said += next(
                own[n:] for n in range(len(own), -1, -1) if said[len(said) - n :] == own[:n] and n <= len(said)
            )
        assert sorted(" ".join(texts(captions)).split()) == sorted(said)
        in_order = deduplicate(sorted(lines, key=lambda line: line.start))
        assert len(in_order) <= len(lines)


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
        assert [len(caption.tokens) for caption in encoded[0]] == [8, 8]
        assert counts == {"split": 1, "no_pieces": 1}

    @patient
    @given(lines, st.integers(1, 8))
    def test_no_piece_is_lost(self, lines, limit):
        captions = deduplicate(lines)
        (encoded,), _ = encode_captions([captions], spell, limit)
        assert [piece for caption in encoded for piece in caption.tokens] == spell(["".join(texts(captions))])[0]
        for earlier, later in pairwise(encoded):
            assert earlier.start <= later.start and earlier.end <= later.end


class TestOriginal:
    """The original's rule, exact with its coin."""

    @pytest.fixture
    def tricky(self, golden):
        cases = json.loads((golden / "shards" / "dedup_tricky.json").read_text())
        return {name: case for name, case in cases.items() if "output_by_python_random_seed" in case}

    def test_hand_written_cases(self, tricky):
        assert len(tricky) >= 10
        for name, case in tricky.items():
            lines = [case["input"][column] for column in ("start", "end", "text")]
            for seed, expected in case["output_by_python_random_seed"].items():
                found = original_deduplicate(*lines, random.Random(int(seed)))
                assert found == list(zip(*expected.values())), (name, seed)

    def test_no_caption_at_all_is_no_caption(self):
        assert original_deduplicate([], [], [], random.Random(0)) == []

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
