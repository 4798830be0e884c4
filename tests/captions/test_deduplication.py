"""Repeated words of rolling captions: against a slow obvious version, by hand, and the original's rule."""

import json
import random
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpt_plugin.captions.deduplication import deduplicate, original_deduplicate, overlap_length
from mmpt_plugin.captions.transcript import TimedText

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
            TimedText(3, 6.5, "salt them"),
            TimedText(6, 9, "them and mix"),
            TimedText(9, 12, "and mix and mix well"),  # shares "and mix", not "mix"
        ]
        assert deduplicate(lines) == [
            (0, 3, "take potatoes"),
            (3, 6.5, "salt them"),
            (6.5, 9, "and mix"),
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
        lines = [TimedText(0, 2, "we"), TimedText(1.5, 4, "we cut"), TimedText(4, 7, "we cut onions")]
        assert deduplicate(lines) == [(0, 2, "we"), (2, 4, "cut"), (4, 7, "onions")]

    def test_what_is_said_again_after_a_pause_is_no_repetition(self):
        lines = [TimedText(0, 3, "now we add the salt"), TimedText(4.5, 7, "add the salt slowly")]
        assert deduplicate(lines) == lines
        assert texts(deduplicate([lines[0], TimedText(4, 7, "add the salt slowly")])) == [lines[0].text, "slowly"]
        far_apart = [TimedText(5, 8, "stir"), TimedText(300, 302, "stir"), TimedText(400, 402, "[Music]")]
        assert deduplicate(far_apart) == far_apart

    def test_a_single_word_needs_an_overlap_in_time(self):
        lines = [TimedText(0, 3, "now we add the salt"), TimedText(3, 6, "salt the water well")]
        assert deduplicate(lines) == lines
        at_once = [lines[0], TimedText(2.9, 6, "salt the water well")]
        assert deduplicate(at_once) == [lines[0], (3, 6, "the water well")]
        assert deduplicate([TimedText(0, 3, "stir"), TimedText(3, 5, "stir")]) == [(0, 3, "stir"), (3, 5, "stir")]

    def test_languages_without_blanks_by_characters(self):
        lines = [
            TimedText(0, 3, "\u628a\u6d0b\u8471\u653e\u8fdb\u9505\u91cc"),
            TimedText(2, 5, "\u653e\u8fdb\u9505\u91cc ok\u76d0"),
        ]
        assert deduplicate(lines) == [lines[0], (3, 5, "ok\u76d0")]
        apart = [lines[0], TimedText(3, 5, "\u9505\u91cc\u76d0")]  # two characters, one after the other
        assert deduplicate(apart) == apart
        assert deduplicate([lines[0], TimedText(2, 5, "\u9505\u91cc\u76d0")])[1] == (3, 5, "\u76d0")

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
        said, until = [], -1.0
        for line in lines:  # the obvious way: the shortest rest that makes the words said so far end with the line
            own = line.text.split()
            near = said[-1] if said and line.start - until <= 1 else []
            least = 1 if line.start < until else 2
            repeated = next(n for n in range(len(own), -1, -1) if n <= len(near) and near[len(near) - n :] == own[:n])
            near = [*near, *own[repeated if repeated >= least else 0 :]]
            said = [*said[:-1], near] if said and line.start - until <= 1 else [*said, near]
            until = max(until, line.end)
        said = [word for run in said for word in run]
        assert sorted(" ".join(texts(captions)).split()) == sorted(said)
        in_order = deduplicate(sorted(lines, key=lambda line: line.start))
        assert len(in_order) <= len(lines)


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
