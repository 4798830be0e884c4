"""Random groups are permutations cut into equal parts; validation's groups are the list itself."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from mmpt_plugin.data.groups import RandomGroups, consecutive_groups


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 5), st.integers(1, 5))
def test_an_epoch_has_every_video_at_most_once(videos: int, size: int, seed: int, epoch: int) -> None:
    assume(size <= videos)
    source = RandomGroups(videos, size, seed)
    groups = source.groups(epoch)
    assert groups.shape == (source.num_groups, source.videos_per_group) == (videos // size, size)
    assert len(np.unique(groups)) == groups.size  # the remainder, fewer than a group, sits out
    assert set(groups.flat) <= set(range(videos))
    np.testing.assert_array_equal(RandomGroups(videos, size, seed).groups(epoch), groups)


def test_epochs_and_seeds_differ() -> None:
    draws = [RandomGroups(100, 10, seed).groups(epoch).tolist() for seed in (1, 2) for epoch in (1, 2)]
    assert all(a != b for i, a in enumerate(draws) for b in draws[:i])


def test_every_video_sits_out_equally_often() -> None:
    source = RandomGroups(11, 3, 0)  # 2 of 11 sit out in an epoch
    counts = np.bincount(np.concatenate([source.groups(epoch).ravel() for epoch in range(1, 2001)]), minlength=11)
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(("videos", "size"), [(31, 32), (5, 0)])
def test_impossible_sizes(videos: int, size: int) -> None:
    with pytest.raises(
        ValueError, match=rf"task\.videos_per_batch is {size} and the training list has {videos} videos"
    ):
        RandomGroups(videos, size, 0)


def test_there_is_no_state() -> None:
    source = RandomGroups(10, 2, 0)
    assert source.state_dict() == {}
    source.load_state_dict({"clusters": "of a run with retrieval"})
    np.testing.assert_array_equal(source.groups(1), RandomGroups(10, 2, 0).groups(1))


@given(st.integers(0, 40), st.integers(1, 9))
def test_consecutive_groups_leave_no_video_out(videos: int, size: int) -> None:
    groups = consecutive_groups(videos, size)
    assert [video for group in groups for video in group] == list(range(videos))
    assert all(len(group) == size for group in groups[:-1])
