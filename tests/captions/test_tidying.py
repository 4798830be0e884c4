"""Lines become clean captions, and everything that is left out is counted."""

import pytest

from mmpt_plugin.captions import Tidying, Transcript, tidy


def tidied(rows, **options):
    starts, ends, texts = zip(*rows)
    return tidy(Transcript("v", starts, ends, texts), Tidying(**options))


def test_lines_that_are_no_captions_are_counted() -> None:
    rows = [
        (3, 4, "b\n c"), (0, 1, None), (0, 1, " "), (float("nan"), 1, "a"), ("0", 1, "a"), (True, 2, "a"), (1e30, 1e30, "a"),
        (-2, -1, "a"), (5, 4, "e"), (6, 36_006, "ten hours"), (8, 9, "d"),
    ]  # fmt: skip
    captions, counts = tidied(rows)
    assert captions == [(0, 0, "a"), (3, 4, "b c"), (5, 5, "e"), (8, 9, "d")]  # ordered by start
    assert counts == {"lines": 11, "not_text": 1, "empty": 1, "bad_times": 4, "mended_times": 2, "too_long": 1}


@pytest.mark.parametrize(
    ("text", "speech", "words"),
    [
        ("[Music] add salt (laughs)", "add salt", "[Music] add salt (laughs)"),
        ("\u266a la la la \u266a", "", "\u266a la la la \u266a"),
        ("JOHN: add: salt", "JOHN: add: salt", "add: salt"),
        (">> hello", ">> hello", "hello"),
        ("- Speaker 2: hello", "- Speaker 2: hello", "Speaker 2: hello"),
        ("Step one: cut", "Step one: cut", "Step one: cut"),
    ],
)
def test_marks_and_speakers_can_be_taken_away(text: str, speech: str, words: str) -> None:
    assert tidied([(0, 1, text)])[0] == [(0, 1, text)]
    captions, counts = tidied([(0, 1, text)], drop_marks=True)
    assert [caption.text for caption in captions] == [speech] * bool(speech) and counts["only_marks"] == (not speech)
    assert tidied([(0, 1, text)], drop_speakers=True)[0][0].text == words


def test_a_shift_moves_all_and_leaves_out_what_falls_before_the_start() -> None:
    captions, counts = tidied([(0, 1, "a"), (1, 3, "b"), (3, 4, "c")], shift=-2)
    assert captions == [(0, 1, "b"), (1, 2, "c")] and counts["before_start"] == 1


def test_milliseconds_are_recognised_or_refused() -> None:
    rows = [(2000.0 * i, 2000.0 * i + 1900, "add the salt") for i in range(4)]
    captions, counts = tidied(rows)
    assert captions[1] == (2.0, pytest.approx(3.9), "add the salt") and counts["milliseconds_videos"] == 1
    assert tidied(rows, unit="milliseconds")[0] == captions
    with pytest.raises(ValueError, match=r"video v: its captions last 1900 s.*Set --times"):
        tidied([(start + 0.5, end, text) for start, end, text in rows])
    assert tidied(rows, unit="seconds")[1]["too_long"] == 4
    long_speech = [(0, 300, "word " * 600), (300, 600, "word " * 600)]  # two words a second
    assert [caption.start for caption in tidied(long_speech)[0]] == [0, 300]


@pytest.mark.parametrize(
    ("options", "message"), [({"unit": "hours"}, "unit of times is 'hours'"), ({"shift": float("nan")}, "finite")]
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tidying(**options)


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 starts, 1 ends and 0 texts"):
        tidy(Transcript("v", [0, 1], [1], []))
