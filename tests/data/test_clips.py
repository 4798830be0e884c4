"""Clip sampling: against the reference draws, a slow version that replays them, hand-worked cases and invariants."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmpt_plugin.data import clips
from mmpt_plugin.data.caption_table import CaptionTable
from mmpt_plugin.data.clips import (
    sample_aligned_clips,
    sample_aligned_clips_batch,
    sample_bags_batch,
    sample_overlapped_clips,
    sample_overlapped_clips_batch,
)

SMALLEST_P = 1e-4  # the tolerance that comes with the reference draws

# The original's three samplers, by what ours is called with.
SAMPLERS = {
    "OverlappedAligner": (sample_overlapped_clips_batch, (8, 64)),
    "VariedLenAligner": (sample_aligned_clips_batch, (8, 64)),
    "FixedLenAligner": (sample_aligned_clips_batch, (61, 61)),
}


def slow_clip(video: dict, aligner: str, rng: random.Random, clip_seconds: tuple[int, int] = (3, 32)) -> list[int]:
    """One clip by the words that come with the reference data, drawing in the original's order."""
    starts, ends, counts, seconds = video["start"], video["end"], video["ntok"], video["T"]
    n = len(starts)
    centre = rng.randint(0, n - 1)
    budget = 61 if aligner == "FixedLenAligner" else rng.randint(8, 64)
    first, stop, tokens = centre, centre + 1, counts[centre]
    while (first > 0 or stop < n) and tokens < budget and ends[stop - 1] - starts[first] < 256:
        right = rng.random() > 0.5 and stop < n
        rng.random()  # the original's unused test of keeping the caption
        if right or first == 0:
            tokens += counts[stop]
            stop += 1
        else:
            first -= 1
            tokens += counts[first]
    low, high = math.floor(starts[first]), math.ceil(ends[stop - 1])
    if aligner != "OverlappedAligner":
        video_end = min(high, seconds)
        return [max(min(low, video_end), 0), video_end, first, stop]
    second = rng.randint(low, high) if low < high else (low + high) // 2
    start = end = min(max(second, 0), seconds - 1)
    length = rng.randint(*clip_seconds)
    while (start > 0 or end < seconds) and end - start < length:
        if start <= 0:
            end += 1
        elif end >= seconds:
            start -= 1
        elif rng.random() > 0.5:
            end += 1
        else:
            start -= 1
    return [start, end, first, stop]


def table_of(videos: list[dict]) -> CaptionTable:
    """The videos' captions in one table."""
    starts, ends, counts = ([x for video in videos for x in video[key]] for key in ("start", "end", "ntok"))
    offsets = np.cumsum([0] + [len(video["start"]) for video in videos])
    return CaptionTable.of(starts, ends, counts, [video["T"] for video in videos], offsets)


def draw_group(videos: list[dict], aligner: str, n: int, seed: int) -> np.ndarray:
    """(videos, n, 4) clips of all videos, drawn in one call."""
    sample, text_tokens = SAMPLERS[aligner]
    rows = sample(table_of(videos), n, np.random.default_rng(seed), text_tokens=text_tokens)
    return rows.reshape(len(videos), n, 4)


def coarse(values: np.ndarray, bins: int) -> np.ndarray:
    """Integers mapped to at most `bins` groups of neighbouring values, of about equal size."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1], method="lower"))
    return np.searchsorted(edges, values, side="left")


def same_categories(ours: np.ndarray, theirs: np.ndarray) -> float:
    """p of a two-sample chi-square test; categories seen fewer than 20 times in all are one."""
    labels, index, count = np.unique(np.concatenate([ours, theirs]), return_inverse=True, return_counts=True)
    index = np.where(count[index] < 20, len(labels), index)
    table = np.stack([np.bincount(part, minlength=len(labels) + 1) for part in np.split(index, [len(ours)])])
    table = table[:, table.sum(axis=0) > 0]
    return 1.0 if table.shape[1] == 1 else float(stats.chi2_contingency(table).pvalue)


def assert_same_distribution(ours: np.ndarray, theirs: np.ndarray, video: dict) -> None:
    """All marginals, and the joints of video and text, of two sets of (draws, 4) clips."""
    both = np.concatenate([ours, theirs]).astype(np.int64)
    video_start, video_end, first, stop = both.T
    text_start = np.floor(video["start"]).astype(int)[first]
    text_end = np.ceil(video["end"]).astype(int)[stop - 1]
    marginals = {
        "video_start": video_start,
        "video_end": video_end,
        "first caption": first,
        "last caption + 1": stop,
        "video seconds": video_end - video_start,
        "captions": stop - first,
        "offset of starts": video_start - text_start,
        "offset of ends": video_end - text_end,
    }
    joints = {
        "offsets": ("offset of starts", "offset of ends"),
        "starts": ("video_start", "first caption"),
        "ends": ("video_end", "last caption + 1"),
        "lengths": ("video seconds", "captions"),
        "video": ("video_start", "video seconds"),
        "text": ("first caption", "captions"),
    }
    ours_and_theirs = {}
    for name, values in marginals.items():
        a, b = np.split(values, [len(ours)])
        assert stats.ks_2samp(a, b, method="asymp").pvalue > SMALLEST_P, f"{name}: Kolmogorov-Smirnov"
        ours_and_theirs[name] = coarse(values, 30)
    for name, (x, y) in joints.items():
        ours_and_theirs[name] = coarse(marginals[x], 6) * 6 + coarse(marginals[y], 6)
    for name, values in ours_and_theirs.items():
        assert same_categories(*np.split(values, [len(ours)])) > SMALLEST_P, f"{name}: chi-square"


@pytest.fixture(scope="module")
def videos(golden_part: Path) -> dict[str, dict]:
    return json.loads((golden_part / "sampler" / "videos.json").read_text())


@pytest.mark.parametrize("aligner", SAMPLERS)
def test_slow_version_replays_the_reference_draws(aligner: str, golden: Path, videos: dict[str, dict]) -> None:
    exact = json.loads((golden / "sampler" / "exact_draws.json").read_text())[aligner]
    assert exact.keys() == videos.keys()
    for name, by_seed in exact.items():
        for seed, rows in by_seed.items():
            rng = random.Random(int(seed))
            assert [slow_clip(videos[name], aligner, rng) for _ in rows] == [row[:4] for row in rows], name


@pytest.mark.parametrize("aligner", SAMPLERS)
def test_equal_in_distribution_to_the_reference_draws(aligner: str, golden_part: Path, videos: dict[str, dict]) -> None:
    ours = draw_group(list(videos.values()), aligner, 8000, seed=7)
    with np.load(golden_part / "sampler" / f"{aligner}_draws.npz") as theirs:
        for rows, (name, video) in zip(ours, videos.items(), strict=True):
            assert_same_distribution(rows, theirs[name][:, :4], video)


# Small enough for every branch to be frequent: borders, the 256 s limit, a text past the end, times that run backwards.
TRICKY = [
    {"T": 5, "start": [0.5, 1.0, 6.5], "end": [1.0, 4.0, 9.0], "ntok": [3, 0, 9]},
    {"T": 400, "start": [0.0, 90.5, 200.0, 330.0], "end": [80.0, 195.5, 310.0, 399.5], "ntok": [4, 9, 2, 30]},
    {"T": 30, "start": [4.0, 9.0, 2.0], "end": [1.0, 7.5, 6.0], "ntok": [6, 6, 6]},
    {"T": 2, "start": [0.0], "end": [0.0], "ntok": [0]},
    {"T": 90, "start": [3.0 * i for i in range(30)], "end": [3.0 * i + 4 for i in range(30)], "ntok": [1] * 30},
]


@pytest.mark.parametrize("aligner", SAMPLERS)
def test_equal_in_distribution_to_the_slow_version(aligner: str) -> None:
    rng = random.Random(3)
    for rows, video in zip(draw_group(TRICKY, aligner, 6000, seed=11), TRICKY, strict=True):
        assert_same_distribution(rows, np.array([slow_clip(video, aligner, rng) for _ in range(6000)]), video)


@pytest.mark.parametrize("aligner", SAMPLERS)
def test_clips_of_one_call_are_independent(aligner: str) -> None:
    video = TRICKY[4]
    rows = draw_group([video], aligner, 8000, seed=5)[0]
    for column in range(4):
        values = coarse(rows[:, column], 5)
        table = np.zeros((values.max() + 1, values.max() + 1))
        np.add.at(table, (values[0::2], values[1::2]), 1)
        assert stats.chi2_contingency(table).pvalue > SMALLEST_P


def slow_bag(video: dict, size: int, clip_seconds: tuple[int, int], rng: random.Random) -> list[int]:
    """One clip with a bag, by the docstring's words."""
    n = len(video["start"])
    middles = [(start + end) / 2 for start, end in zip(video["start"], video["end"])]
    centre = rng.randint(0, n - 1)
    bag = [centre]
    while len(bag) < size:
        outer = [i for i in (min(bag) - 1, max(bag) + 1) if 0 <= i < n]
        bag.append(min(outer, key=lambda i: (abs(middles[i] - middles[centre]), i)))
    alone = {"T": video["T"], "start": [video["start"][centre]], "end": [video["end"][centre]], "ntok": [64]}
    start, end = slow_clip(alone, "OverlappedAligner", rng, clip_seconds)[:2]
    return [start, end, min(bag), max(bag) + 1]


def draw_bags(videos: list[dict], size: int, n: int, seed: int, clip_seconds: tuple[int, int] = (3, 3)) -> np.ndarray:
    """(videos, n, 4) clips with bags of all videos, drawn in one call."""
    rng = np.random.default_rng(seed)
    rows = sample_bags_batch(table_of(videos), n, rng, bag_captions=size, clip_seconds=clip_seconds)
    return rows.reshape(len(videos), n, 4)


@pytest.mark.parametrize("clip_seconds", [(3, 3), (2, 9)])
def test_bags_equal_in_distribution_to_the_slow_version(clip_seconds: tuple[int, int]) -> None:
    rng = random.Random(4)
    videos = [TRICKY[i] for i in (0, 1, 2, 4)]
    for rows, video in zip(draw_bags(videos, 3, 6000, 13, clip_seconds), videos, strict=True):
        slow = np.array([slow_bag(video, 3, clip_seconds, rng) for _ in range(6000)])
        assert_same_distribution(rows, slow, video)


def test_bags_are_the_nearest_captions() -> None:
    # Middles 1, 2, 10, 11, 13. Of 0: 1, then 2. Of 1 (at 2): 0 at 1, then 2 at 10. Of 2 (at 10): 3 at 11, 4 at 13 before
    # 1 at 2. Of 3 (at 11): 2 at 10, then 4 at 13. Of 4: 3, 2. So runs of three start at 0, 0, 2, 2, 2.
    times = np.array([1.0, 2.0, 10.0, 11.0, 13.0])
    table = CaptionTable.of(times - 0.25, times + 0.25, np.ones(5), 14)
    rows = sample_bags_batch(table, 4000, np.random.default_rng(0), bag_captions=3)
    assert set(rows[:, 3] - rows[:, 2]) == {3} and set(rows[:, 2]) == {0, 2}
    assert stats.binomtest(int((rows[:, 2] == 0).sum()), 4000, 2 / 5).pvalue > SMALLEST_P
    # the window grows from [floor(t - 0.25), ceil(t + 0.25)] = [t - 1, t + 1]; 3 seconds further at most
    assert rows[rows[:, 2] == 0, 1].max() <= 3 + 3 and rows[rows[:, 2] == 2, 0].min() >= 9 - 3


def test_of_two_captions_as_near_the_earlier_is_taken() -> None:
    times = np.array([0.0, 5.0, 10.0])
    table = CaptionTable.of(times, times, np.ones(3), 11)
    rows = sample_bags_batch(table, 3000, np.random.default_rng(0), bag_captions=2)
    assert stats.binomtest(int((rows[:, 2] == 0).sum()), 3000, 2 / 3).pvalue > SMALLEST_P  # of captions 0 and 1


@settings(deadline=None)
@given(st.data(), st.integers(1, 6), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_invariants_of_bags(data: st.DataObject, size: int, n: int, seed: int) -> None:
    caption = st.tuples(st.floats(0, 300, width=32), st.floats(-2, 90, width=32))
    video = st.tuples(st.lists(caption, min_size=size, max_size=12), st.integers(1, 400))
    videos = [
        {"T": seconds, "start": [c[0] for c in times], "end": [c[0] + c[1] for c in times], "ntok": [1] * len(times)}
        for times, seconds in data.draw(st.lists(video, min_size=1, max_size=4))
    ]
    for rows, own in zip(draw_bags(videos, size, n, seed), videos, strict=True):
        for video_start, video_end, first, stop in rows:
            assert 0 <= video_start <= video_end <= own["T"] and video_end - video_start == min(3, own["T"])
            assert 0 <= first < stop <= len(own["start"]) and stop - first == size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"bag_captions": 3},
            "1 of 1 videos have fewer captions than a bag of 3, the first at position 0; take smaller",
        ),
        ({"bag_captions": 0}, "bag_captions must be 1 or more, got 0"),
        ({"clip_seconds": (4, 3)}, r"clip_seconds .* got \(4, 3\)"),
        ({"video_seconds": 0}, "1 of 1 videos have no seconds"),
    ],
)
def test_bad_arguments_of_bags(change: dict, message: str) -> None:
    given = GOOD | {"bag_captions": 2} | change
    table = CaptionTable.of(*(given.pop(name) for name in ("starts", "ends", "token_counts", "video_seconds")))
    with pytest.raises(ValueError, match=message):
        sample_bags_batch(table, **given, rng=np.random.default_rng(0))


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 20), st.integers(0, 20))
def test_bounded_walk_equals_walking(coins: list[bool], left_room: int, right_room: int) -> None:
    coins = coins[: left_room + right_room]
    left = right = 0
    for heads in coins:
        if (heads and right < right_room) or left == left_room:
            right += 1
        else:
            left += 1
    count = [np.array(x) for x in (sum(coins), len(coins), left_room, right_room)]
    assert clips._bounded_rightward(*count) == right


captions = st.lists(
    st.tuples(st.floats(0, 300, width=32), st.floats(-2, 90, width=32), st.integers(0, 40)), min_size=1, max_size=40
)
groups = st.lists(st.tuples(captions, st.integers(1, 400)), min_size=1, max_size=4)


@settings(deadline=None)
@given(groups, st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_invariants(group: list, n: int, seed: int) -> None:
    videos = [
        {
            "T": seconds,
            "start": [c[0] for c in video],
            "end": [c[0] + c[1] for c in video],
            "ntok": [c[2] for c in video],
        }
        for video, seconds in group
    ]
    for aligner, (_, (smallest, largest)) in SAMPLERS.items():
        drawn = draw_group(videos, aligner, n, seed)
        assert drawn.dtype == np.int64
        for rows, video in zip(drawn, videos, strict=True):
            for video_start, video_end, first, stop in rows:
                assert 0 <= video_start <= video_end <= video["T"]
                if aligner == "OverlappedAligner":
                    assert min(3, video["T"]) <= video_end - video_start <= min(32, video["T"])
                assert 0 <= first < stop <= len(video["start"])
                span = video["end"][stop - 1] - video["start"][first]
                grown_out = stop - first == len(video["start"])
                assert grown_out or sum(video["ntok"][first:stop]) >= smallest or span >= clips.MAX_TEXT_SECONDS
                # Before its last step the text lacked one of its outer captions and was still too short.
                assert sum(video["ntok"][first + 1 : stop - 1]) < largest


def test_one_video_is_the_smallest_group() -> None:
    video = TRICKY[1]
    arguments = [np.float32(video["start"]), np.float32(video["end"]), np.int32(video["ntok"])]
    for one, many in [
        (sample_overlapped_clips, sample_overlapped_clips_batch),
        (sample_aligned_clips, sample_aligned_clips_batch),
    ]:
        rows = one(*arguments, video["T"], 50, np.random.default_rng(1))
        assert rows.shape == (50, 4) and rows.dtype == np.int64
        table = CaptionTable.of(*arguments, [video["T"]], [0, 4])
        np.testing.assert_array_equal(rows, many(table, 50, np.random.default_rng(1)))


def test_draws_depend_on_the_generator_alone() -> None:
    random.seed(0)
    np.random.seed(0)
    before = draw_group(TRICKY, "OverlappedAligner", 16, seed=2)
    random.seed(1)
    np.random.seed(1)
    np.testing.assert_array_equal(draw_group(TRICKY, "OverlappedAligner", 16, seed=2), before)
    assert (draw_group(TRICKY, "OverlappedAligner", 16, seed=3) != before).any()


@pytest.mark.parametrize(("seconds", "captions"), [(100.0, 3), (64.0, 4), (63.75, 5)])
def test_text_stops_at_the_limit_in_seconds(seconds: float, captions: int) -> None:
    # One token each, so only the 256 s end a text: 3 x 100 > 256 > 2 x 100; 4 x 64 = 256; 5 x 63.75 > 256 > 4 x 63.75.
    starts = seconds * np.arange(12)
    rows = sample_aligned_clips(starts, starts + seconds, np.ones(12), 1200, 200, np.random.default_rng(0))
    assert set(rows[:, 3] - rows[:, 2]) == {captions}
    np.testing.assert_array_equal(rows[:, 0], np.floor(rows[:, 2] * seconds))
    np.testing.assert_array_equal(rows[:, 1], np.ceil(rows[:, 3] * seconds))


def test_text_of_empty_captions_takes_them_all() -> None:
    starts = np.arange(40)
    rows = sample_aligned_clips(starts, starts + 1, np.zeros(40), 40, 50, np.random.default_rng(0))
    np.testing.assert_array_equal(rows, np.tile([0, 40, 0, 40], (50, 1)))


def test_captions_past_the_end_of_the_video() -> None:
    # Aligned: both ends are cut to second 10. Overlapped: three steps from the last second's start, 9, where there is
    # room for one to the right: [6, 9) when all three coins say left, 1/8 of the draws, otherwise [7, 10).
    arguments = ([20.0], [25.0], [100], 10, 4000, np.random.default_rng(0))
    np.testing.assert_array_equal(sample_aligned_clips(*arguments), np.tile([10, 10, 0, 1], (4000, 1)))
    rows = sample_overlapped_clips(*arguments, clip_seconds=(3, 3))
    windows, counts = np.unique(rows[:, :2], axis=0, return_counts=True)
    np.testing.assert_array_equal(windows, [[6, 9], [7, 10]])
    assert stats.binomtest(int(counts[0]), 4000, 1 / 8).pvalue > SMALLEST_P


def test_captions_that_end_before_they_start_centre_the_window_in_the_middle() -> None:
    # floor(9.5) = 9, ceil(1.2) = 2, and (9 + 2) // 2 = 5: three steps from there give [2, 5) to [5, 8).
    rows = sample_overlapped_clips([9.5], [1.2], [100], 30, 400, np.random.default_rng(0), clip_seconds=(3, 3))
    assert set(rows[:, 0]) == {2, 3, 4, 5}


@pytest.mark.parametrize("seconds", [1, 2])
def test_videos_shorter_than_the_shortest_window_are_taken_whole(seconds: int) -> None:
    rows = sample_overlapped_clips([0.0, 0.4], [0.4, 2.0], [9, 9], seconds, 50, np.random.default_rng(0))
    np.testing.assert_array_equal(rows[:, :2], np.tile([0, seconds], (50, 1)))


def test_a_video_without_seconds_has_empty_aligned_spans() -> None:
    rows = sample_aligned_clips([0.0], [4.0], [9], 0, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(rows, np.tile([0, 0, 0, 1], (3, 1)))


def test_zero_length_caption_centres_the_window() -> None:
    # The window grows from the empty [20, 20), as floor(20.0) = ceil(20.0), so it never starts after 20 or ends before.
    # A caption from 20.5 to 21.5 gives the windows [20, 20), [21, 21) and [22, 22) to grow from.
    sharp = sample_overlapped_clips([20.0], [20.0], [9], 60, 4000, np.random.default_rng(0))
    assert sharp[:, 0].max() == 20 and sharp[:, 1].min() == 20
    wide = sample_overlapped_clips([20.5], [21.5], [9], 60, 4000, np.random.default_rng(0))
    assert wide[:, 0].max() == 22 and wide[:, 1].min() == 20


GOOD = {"starts": [0.0, 2.0], "ends": [2.0, 4.0], "token_counts": [5, 5], "video_seconds": 9, "n": 2}


@pytest.mark.parametrize("sample", [sample_overlapped_clips, sample_aligned_clips])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"starts": [], "ends": [], "token_counts": []}, "1 of 1 videos have no captions, the first at position 0"),
        ({"ends": [2.0]}, r"one number a caption, got shapes \(2,\), \(1,\)"),
        ({"ends": [2.0, math.nan]}, "finite seconds"),
        ({"token_counts": [5, -1]}, "token_counts must be 0 or more, got -1"),
        ({"n": 0}, "1 or more, got 0"),
        ({"text_tokens": (64, 8)}, r"text_tokens .* got \(64, 8\)"),
    ],
)
def test_bad_arguments(sample, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(**(GOOD | change), rng=np.random.default_rng(0))


def test_overlapped_clips_need_seconds() -> None:
    with pytest.raises(ValueError, match="no seconds"):
        sample_overlapped_clips(**(GOOD | {"video_seconds": 0}), rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"clip_seconds .* got \(0, 4\)"):
        sample_overlapped_clips(**GOOD, clip_seconds=(0, 4), rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("offsets", "message"),
    [([0, 1, 1, 2], "1 of 3 videos have no captions, the first at position 1"), ([0, 1, 2, 3], "must be 4 numbers")],
)
def test_bad_offsets(offsets: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CaptionTable.of([0, 1], [1, 2], [3, 3], [5, 5, 5], offsets)


@pytest.mark.parametrize(
    ("sample", "papers"),
    [
        (sample_overlapped_clips, {"text_tokens": (8, 64), "clip_seconds": (3, 32)}),
        (sample_overlapped_clips_batch, {"text_tokens": (8, 64), "clip_seconds": (3, 32)}),
        (sample_aligned_clips, {"text_tokens": (8, 64)}),
        (sample_aligned_clips_batch, {"text_tokens": (8, 64)}),
        (sample_bags_batch, {"bag_captions": 5, "clip_seconds": (3, 3)}),
    ],
)
def test_defaults_are_the_papers(sample, papers):
    assert sample.__kwdefaults__ == papers
