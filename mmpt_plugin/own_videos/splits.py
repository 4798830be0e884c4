"""Which videos train, which choose the best weights, and which test them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

LEAST_VIDEOS = 3
TEST_SHARE, VALIDATION_SHARE = 5, 10  # one in so many
MOST_HELD_OUT = 100
"""Videos for each of the two: more would make the numbers hardly surer, and every validation slower."""

SPLITS = ("train", "val", "test")


def deal_videos(
    video_ids: Sequence[str], before: Mapping[str, str], seed: int, validation: int = 0, test: int = 0
) -> dict[str, list[str]]:
    """Shares videos out. A video stays where an earlier call has put it, so that no test video is ever trained on.

    Args:
        video_ids: all that can be used.
        before: split of each video that was dealt earlier.
        seed: of the draw; the draw hangs on the ids alone, not on their order.
        validation, test: how many; 0: one in ten and one in five, at most 100.

    Returns:
        Ids of `train`, `val` and `test`, in the order of `video_ids`.

    Raises:
        ValueError: a split would be empty.
    """
    if len(video_ids) < LEAST_VIDEOS:
        raise ValueError(
            f"only {len(video_ids)} videos can be used, and at least {LEAST_VIDEOS} are needed: one to train on, one to "
            "choose the best weights by, one to test them. Some dozens are needed before the numbers say anything"
        )
    wanted = {
        "test": test or min(MOST_HELD_OUT, max(1, len(video_ids) // TEST_SHARE)),
        "val": validation or min(MOST_HELD_OUT, max(1, len(video_ids) // VALIDATION_SHARE)),
    }
    if sum(wanted.values()) >= len(video_ids):
        raise ValueError(
            f"task.validation_videos={wanted['val']} and task.test_videos={wanted['test']} leave none of the "
            f"{len(video_ids)} videos to train on: lower them"
        )
    place = {video_id: before[video_id] for video_id in video_ids if video_id in before}
    new = sorted(
        (video_id for video_id in video_ids if video_id not in place),
        key=lambda video_id: hashlib.sha256(f"{seed} {video_id}".encode()).digest(),
    )
    for split, number in wanted.items():
        missing = max(0, number - list(place.values()).count(split))
        place |= dict.fromkeys(new[:missing], split)
        new = new[missing:]
    place |= dict.fromkeys(new, "train")
    splits = {split: [video_id for video_id in video_ids if place[video_id] == split] for split in SPLITS}
    if empty := [split for split, own in splits.items() if not own]:
        raise ValueError(
            f"no video is left for {empty[0]}, as the videos that earlier calls had put there are gone: remove split.json "
            "in the run's cache to share all videos out anew"
        )
    return splits
