"""Which seconds and which captions make a clip: three sampling rules, as pure functions of a numpy Generator.

A clip is four integers, `video_start, video_end, first caption, last caption + 1`: the seconds [video_start, video_end)
and a run of whole captions. The first two rules draw the text in the same way, first, and differ in the video:

- overlapped (pre-training): a window of random length grown from a second inside the text;
- aligned (the ablation, and the clips that retrieval embeds): the seconds that the text takes;
- bag (the ablation with MIL-NCE): a short window grown from a second inside one caption, and the captions nearest to it,
  each of them a text of its own.

A batch needs 16 clips of each of 32 videos, so the `*_batch` functions do the work, over all clips at once, and the
functions of one video are their smallest case. Overlapped and aligned clips are equal in distribution to those of the
original's samplers, not draw by draw.

Reference: VideoCLIP, https://arxiv.org/abs/2109.14084, and the rules of the original as its behaviour shows them.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmpt_plugin.data.caption_table import CaptionTable

MAX_TEXT_SECONDS = 256.0  # a text span that long grows no further, whatever its budget (the original's fixed limit)
STEPS_AT_ONCE = 12  # growth steps looked ahead together: most texts end within these, so numpy's overhead is paid once

Ints = NDArray[np.int64]


def sample_overlapped_clips(
    starts: ArrayLike,
    ends: ArrayLike,
    token_counts: ArrayLike,
    video_seconds: int,
    n: int,
    rng: np.random.Generator,
    *,
    text_tokens: tuple[int, int] = (8, 64),
    clip_seconds: tuple[int, int] = (3, 32),
) -> Ints:
    """Draws overlapped clips of one video; see `sample_overlapped_clips_batch`.

    Args:
        starts: (captions,) seconds.
        ends: (captions,) seconds.
        token_counts: (captions,) word pieces of each caption; 0 is allowed.
        video_seconds: length of the video, at least 1.
        n: clips to draw, independently of each other.
        rng: the only source of randomness.
        text_tokens: smallest and largest text budget, both inclusive.
        clip_seconds: smallest and largest length of the video window, both inclusive.

    Returns:
        (n, 4): video_start, video_end, first caption, last caption + 1.

    Raises:
        ValueError: no captions, no seconds, or arguments that make no sense.
    """
    table = CaptionTable.of(starts, ends, token_counts, video_seconds)
    return sample_overlapped_clips_batch(table, n, rng, text_tokens=text_tokens, clip_seconds=clip_seconds)


def sample_aligned_clips(
    starts: ArrayLike,
    ends: ArrayLike,
    token_counts: ArrayLike,
    video_seconds: int,
    n: int,
    rng: np.random.Generator,
    *,
    text_tokens: tuple[int, int] = (8, 64),
) -> Ints:
    """Draws aligned clips of one video; see `sample_aligned_clips_batch`.

    Args:
        starts: (captions,) seconds.
        ends: (captions,) seconds.
        token_counts: (captions,) word pieces of each caption; 0 is allowed.
        video_seconds: length of the video; 0 gives empty video spans.
        n: clips to draw, independently of each other.
        rng: the only source of randomness.
        text_tokens: smallest and largest text budget, both inclusive.

    Returns:
        (n, 4): video_start, video_end (not cut to the model's 32 seconds), first caption, last caption + 1.

    Raises:
        ValueError: no captions, or arguments that make no sense.
    """
    table = CaptionTable.of(starts, ends, token_counts, video_seconds)
    return sample_aligned_clips_batch(table, n, rng, text_tokens=text_tokens)


def sample_overlapped_clips_batch(
    table: CaptionTable,
    n: int,
    rng: np.random.Generator,
    *,
    text_tokens: tuple[int, int] = (8, 64),
    clip_seconds: tuple[int, int] = (3, 32),
) -> Ints:
    """Draws overlapped clips of a group of videos, whose captions stand one video after the other.

    The video window starts empty, at a second drawn uniformly from floor(text start) to ceil(text end), both
    inclusive, and moved into the video. It then grows second by second to its drawn length, left or right by a fair
    coin, or on the side that has room. So its length does not depend on the text, and it need not hold that second.

    Args:
        table: captions and lengths of the videos; at least 1 second each.
        n: clips to draw of each video, independently of each other.
        rng: the only source of randomness.
        text_tokens: smallest and largest text budget, both inclusive; (61, 61) is the original's fixed-length rule.
        clip_seconds: smallest and largest length of the video window, both inclusive; a shorter video is taken whole.

    Returns:
        (videos * n, 4), video by video: video_start, video_end, first caption, last caption + 1; captions are
        counted from their own video's first.

    Raises:
        ValueError: a video without captions or seconds, or arguments that make no sense.
    """
    _check_count(n)
    table.refuse_videos(table.video_seconds < 1, "no seconds", "a video window needs at least one second of features")
    first, stop = _sample_text_spans(table, n, rng, text_tokens)
    video_start, video_end = _sample_windows(
        table.starts[first], table.ends[stop - 1], table.video_seconds.repeat(n), rng, clip_seconds
    )
    return _as_rows(video_start, video_end, first, stop, table, n)


def sample_aligned_clips_batch(
    table: CaptionTable,
    n: int,
    rng: np.random.Generator,
    *,
    text_tokens: tuple[int, int] = (8, 64),
) -> Ints:
    """Draws aligned clips of a group of videos: the video span is the text's, in whole seconds.

    It runs from floor(start) to ceil(end), cut to the video. It may be empty (captions past the video's end, or that
    end before they start), and longer than the 32 seconds that the model takes, of which the first are then used.

    Args:
        table: captions and lengths of the videos.
        n: clips to draw of each video, independently of each other.
        rng: the only source of randomness.
        text_tokens: smallest and largest text budget, both inclusive; (61, 61) is the original's fixed-length rule.

    Returns:
        (videos * n, 4), video by video: video_start, video_end, first caption, last caption + 1; captions are
        counted from their own video's first.

    Raises:
        ValueError: a video without captions, or arguments that make no sense.
    """
    _check_count(n)
    first, stop = _sample_text_spans(table, n, rng, text_tokens)
    seconds = table.video_seconds.repeat(n)
    video_end = np.minimum(np.maximum(np.ceil(table.ends[stop - 1]).astype(np.int64), 0), seconds)
    video_start = np.minimum(np.maximum(np.floor(table.starts[first]).astype(np.int64), 0), video_end)
    return _as_rows(video_start, video_end, first, stop, table, n)


def sample_bags_batch(
    table: CaptionTable,
    n: int,
    rng: np.random.Generator,
    *,
    bag_captions: int = 5,
    clip_seconds: tuple[int, int] = (3, 3),
) -> Ints:
    """Draws short windows of a group of videos, each with a bag of captions that may describe it.

    A caption is drawn uniformly and the window grown from a second inside it, as an overlapped clip's. The bag is the
    run of `bag_captions` captions around the drawn one whose middles are nearest to its own, the earlier of two as near.

    Args:
        table: captions and lengths of the videos; at least 1 second each.
        n: clips to draw of each video, independently of each other.
        rng: the only source of randomness.
        bag_captions: captions of a bag, at most those of each video; 5 in Miech et al.
        clip_seconds: smallest and largest length of the window, both inclusive; a shorter video is taken whole. Miech
            et al. take 3.2 seconds.

    Returns:
        (videos * n, 4), video by video: video_start, video_end, first caption, last caption + 1; captions are
        counted from their own video's first.

    Raises:
        ValueError: a video with fewer captions than a bag, or without seconds, or arguments that make no sense.

    References:
        Miech et al., CVPR 2020, https://arxiv.org/abs/1912.06430, sections 3.2 and 4.1.
    """
    _check_count(n)
    table.refuse_videos(table.video_seconds < 1, "no seconds", "a video window needs at least one second of features")
    if bag_captions < 1:
        raise ValueError(f"bag_captions must be 1 or more, got {bag_captions}")
    few = table.caption_counts < bag_captions
    table.refuse_videos(few, f"fewer captions than a bag of {bag_captions}", "take smaller bags or leave the video out")

    begin, end = table.offsets[:-1].repeat(n), table.offsets[1:].repeat(n)
    centre = rng.integers(begin, end)
    first, stop = _nearest_captions((table.starts + table.ends) / 2, centre, begin, end, bag_captions)
    video_start, video_end = _sample_windows(
        table.starts[centre], table.ends[centre], table.video_seconds.repeat(n), rng, clip_seconds
    )
    return _as_rows(video_start, video_end, first, stop, table, n)


def _nearest_captions(
    middles: NDArray[np.float64], centre: Ints, begin: Ints, end: Ints, size: int
) -> tuple[Ints, Ints]:
    """Grows runs of `size` captions from each `centre`, inside [begin, end), on the side whose next middle is nearer.

    Returns:
        first, stop: (clips,) each, indexes into the concatenated captions.
    """
    first, stop = centre, centre + 1
    for _ in range(size - 1):
        left = np.abs(middles[centre] - middles[np.maximum(first - 1, begin)])
        right = np.abs(middles[np.minimum(stop, end - 1)] - middles[centre])
        leftward = (first > begin) & ((left <= right) | (stop == end))
        first, stop = first - leftward, stop + ~leftward
    return first, stop


def _sample_windows(
    starts: NDArray[np.float64],
    ends: NDArray[np.float64],
    seconds: Ints,
    rng: np.random.Generator,
    clip_seconds: tuple[int, int],
) -> tuple[Ints, Ints]:
    """Grows windows of drawn length from a second drawn inside the times (clips,) of a text; `seconds` (clips,) the video's.

    Returns:
        video_start, video_end: (clips,) each.
    """
    _check_range("clip_seconds", clip_seconds)
    low = np.floor(starts).astype(np.int64)
    high = np.ceil(ends).astype(np.int64)
    drawn = rng.integers(low, np.maximum(low, high), endpoint=True)
    # Captions whose words were moved can end before they start: the original then takes the middle.
    centre = np.where(low <= high, drawn, (low + high) // 2)
    centre = np.minimum(np.maximum(centre, 0), seconds - 1)
    steps = np.minimum(rng.integers(*clip_seconds, size=len(centre), endpoint=True), seconds)
    rightward = _bounded_rightward(rng.binomial(steps, 0.5), steps, centre, seconds - centre)
    return centre + rightward - steps, centre + rightward


def _sample_text_spans(
    table: CaptionTable, n: int, rng: np.random.Generator, text_tokens: tuple[int, int]
) -> tuple[Ints, Ints]:
    """Grows runs of captions around uniformly drawn ones until a drawn token budget or MAX_TEXT_SECONDS is reached.

    Each step adds the next caption on the left or right by a fair coin, or on the side that has one. Captions are
    added whole, so a text may exceed its budget.

    Returns:
        first, stop: (videos * n,) each, indexes into the concatenated captions.
    """
    _check_range("text_tokens", text_tokens)
    begin, end = table.offsets[:-1].repeat(n), table.offsets[1:].repeat(n)
    centre = rng.integers(begin, end)
    budget = rng.integers(*text_tokens, size=len(centre), endpoint=True)
    tokens_before = np.concatenate([[0], np.cumsum(table.token_counts)])

    first, stop = np.empty_like(centre), np.empty_like(centre)
    growing = np.arange(len(centre))  # the clips whose text is not final yet
    heads = np.zeros(len(centre), dtype=np.int64)  # their coins so far that said "right"
    steps_so_far = 0
    while len(growing):
        middle = centre[growing, None]
        left_room, right_room = middle - begin[growing, None], end[growing, None] - 1 - middle
        coins = rng.integers(0, 2, size=(len(growing), STEPS_AT_ONCE), dtype=bool)
        heads_after = heads[growing, None] + coins.cumsum(axis=1)
        # Column j is the text after steps_so_far + j steps: before coin j is thrown.
        steps = np.minimum(np.arange(steps_so_far, steps_so_far + STEPS_AT_ONCE), left_room + right_room)
        text_stop = middle + 1 + _bounded_rightward(heads_after - coins, steps, left_room, right_room)
        text_first = text_stop - 1 - steps
        final = (
            (tokens_before[text_stop] - tokens_before[text_first] >= budget[growing, None])
            | (table.ends[text_stop - 1] - table.starts[text_first] >= MAX_TEXT_SECONDS)
            | (steps == left_room + right_room)
        )
        done = final.any(axis=1)
        at = final.argmax(axis=1)[done]  # the first step that is final
        first[growing[done]], stop[growing[done]] = text_first[done, at], text_stop[done, at]
        heads[growing] = heads_after[:, -1]
        growing = growing[~done]
        steps_so_far += STEPS_AT_ONCE
    return first, stop


def _bounded_rightward(heads: Ints, steps: Ints, left_room: Ints, right_room: Ints) -> Ints:
    """How many of `steps` growth steps went right, when `heads` coins said so and a full side refuses.

    A refused step goes to the other side. Both counts only grow, so the side that a free walk would have overfilled by
    now is the one that is full: cutting the free walk's count gives the bounded one's without walking. Needs
    steps <= left_room + right_room.
    """
    return np.minimum(np.maximum(heads, steps - left_room), right_room)


def _as_rows(video_start: Ints, video_end: Ints, first: Ints, stop: Ints, table: CaptionTable, n: int) -> Ints:
    own_offset = table.offsets[:-1].repeat(n)
    return np.stack([video_start, video_end, first - own_offset, stop - own_offset], axis=1)


def _check_count(n: int) -> None:
    if n < 1:
        raise ValueError(f"n (clips a video) must be 1 or more, got {n}")


def _check_range(name: str, bounds: tuple[int, int]) -> None:
    low, high = bounds
    if not 1 <= low <= high:
        raise ValueError(f"{name} must be (smallest, largest) with 1 <= smallest <= largest, got {tuple(bounds)}")
