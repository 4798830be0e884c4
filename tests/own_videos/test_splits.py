"""Sharing videos out, and the recipe for so many."""

from __future__ import annotations

import pytest

from mmpt_plugin.own_videos.recipe import VALIDATIONS, fit_recipe
from mmpt_plugin.own_videos.splits import MOST_HELD_OUT, deal_videos


def names(number: int) -> list[str]:
    return [f"v{i}" for i in range(number)]


def sizes(splits: dict[str, list[str]]) -> list[int]:
    return [len(splits[name]) for name in ("train", "val", "test")]


@pytest.mark.parametrize(
    ("videos", "expected"),
    [(3, [1, 1, 1]), (10, [7, 1, 2]), (50, [35, 5, 10]), (2000, [1800, MOST_HELD_OUT, MOST_HELD_OUT])],
)
def test_shares(videos, expected):
    splits = deal_videos(names(videos), {}, seed=1)
    assert sizes(splits) == expected
    assert sorted(video for own in splits.values() for video in own) == sorted(names(videos))


def test_given_numbers():
    assert sizes(deal_videos(names(10), {}, 1, validation=3, test=4)) == [3, 3, 4]
    with pytest.raises(ValueError, match=r"task\.validation_videos=5 and task\.test_videos=5 leave none of the 10"):
        deal_videos(names(10), {}, 1, validation=5, test=5)


def test_the_draw_hangs_on_the_seed_and_not_on_the_order():
    one = deal_videos(names(30), {}, 1)
    turned = deal_videos(names(30)[::-1], {}, 1)
    assert {split: set(own) for split, own in one.items()} == {split: set(own) for split, own in turned.items()}
    assert deal_videos(names(30), {}, 2) != one


def test_a_video_stays_where_it_is_when_others_come():
    before = deal_videos(names(10), {}, 1)
    place = {video: split for split, own in before.items() for video in own}
    after = deal_videos(names(40), place, 1)
    assert all(set(before[split]) <= set(after[split]) for split in before)
    assert sizes(after) == [28, 4, 8]


@pytest.mark.parametrize("videos", [0, 1, 2])
def test_too_few(videos):
    with pytest.raises(ValueError, match=f"only {videos} videos can be used, and at least 3"):
        deal_videos(names(videos), {}, 1)


def test_a_split_whose_videos_are_gone():
    with pytest.raises(ValueError, match="no video is left for train"):
        deal_videos(names(3), dict.fromkeys(names(3), "test"), 1)


@pytest.mark.parametrize("videos", [1, 2, 7, 35, 140, 700, 20_000])
def test_a_recipe_can_be_run(videos):
    recipe = fit_recipe(videos)
    per_epoch = videos // recipe.videos_per_batch
    assert per_epoch >= 1 and recipe.clips_per_video >= 1
    assert 1 <= recipe.warmup_updates <= recipe.max_epoch * per_epoch // 5
    assert recipe.max_epoch % recipe.validate_interval == 0  # so that the last weights are validated
    assert recipe.max_epoch // recipe.validate_interval >= VALIDATIONS


def test_more_videos_are_trained_on_for_longer():
    updates = [fit_recipe(n).max_epoch * (n // fit_recipe(n).videos_per_batch) for n in (35, 140, 700)]
    assert updates == sorted(updates) and updates[2] > 2 * updates[0]


def test_what_is_given_is_kept():
    recipe = fit_recipe(100, videos_per_batch=7, clips_per_video=3, max_epoch=50)
    assert (recipe.videos_per_batch, recipe.clips_per_video, recipe.max_epoch, recipe.validate_interval) == (
        7,
        3,
        50,
        2,
    )
    with pytest.raises(ValueError, match=r"task\.videos_per_batch is 8, and there are 7 videos"):
        fit_recipe(7, videos_per_batch=8)
