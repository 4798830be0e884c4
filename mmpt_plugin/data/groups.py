"""Which videos share a batch: sources of groups of videos, one set of groups an epoch.

A group becomes one batch of `videos_per_group` x `clips_per_video` pairs that are each other's negatives. A source may draw
them at random (here) or from the model's own embeddings (retrieval/).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class GroupSource(Protocol):
    """Gives the groups of an epoch; the same on all processes."""

    num_groups: int
    videos_per_group: int
    repeats_videos: bool  #: whether a video may be in several groups of an epoch

    def groups(self, epoch: int) -> NDArray[np.int64]:
        """(num_groups, videos_per_group) indexes of videos in the corpus."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to make the groups of later epochs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of an earlier run."""
        ...


class RandomGroups:
    """Random videos: every epoch a new permutation, cut into groups. The remainder, smaller than a group, sits out."""

    repeats_videos = False

    def __init__(self, num_videos: int, videos_per_group: int, seed: int) -> None:
        """
        Raises:
            ValueError: if there are fewer videos than one group needs.
        """
        if not 1 <= videos_per_group <= num_videos:
            raise ValueError(
                f"task.videos_per_batch is {videos_per_group} and the training list has {num_videos} videos: "
                "choose 1 to the number of videos"
            )
        self.num_groups = num_videos // videos_per_group
        self.num_videos = num_videos
        self.videos_per_group = videos_per_group
        self.seed = seed

    def groups(self, epoch: int) -> NDArray[np.int64]:
        """See `GroupSource`."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.num_videos)
        return order[: self.num_groups * self.videos_per_group].reshape(self.num_groups, self.videos_per_group)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: groups follow from seed and epoch."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to take over."""


def consecutive_groups(num_videos: int, videos_per_group: int) -> list[NDArray[np.int64]]:
    """The videos in their own order, for validation; the last group may be smaller, no video is left out."""
    return [
        np.arange(start, min(start + videos_per_group, num_videos)) for start in range(0, num_videos, videos_per_group)
    ]
