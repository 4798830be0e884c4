"""The captions of a group of videos in one table: what clips are drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class CaptionTable:
    """Captions of several videos, end to end, and the videos' lengths. Values are checked when a table is made.

    Video v owns the captions offsets[v]:offsets[v + 1], at least one.

    Attributes:
        starts: (captions,) float64 seconds.
        ends: (captions,) float64 seconds; an end before its start is allowed.
        token_counts: (captions,) int64 word pieces; 0 is allowed.
        offsets: (videos + 1,) int64.
        video_seconds: (videos,) int64; 0 is allowed.
    """

    starts: NDArray[np.float64]  # float32 would round differences
    ends: NDArray[np.float64]
    token_counts: NDArray[np.int64]
    offsets: NDArray[np.int64]
    video_seconds: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        starts: ArrayLike,
        ends: ArrayLike,
        token_counts: ArrayLike,
        video_seconds: ArrayLike,
        offsets: ArrayLike | None = None,
    ) -> CaptionTable:
        """Converts and checks the values of a table; without `offsets` all captions are of one video.

        Raises:
            ValueError: lengths do not fit together, a video has no caption, or a value makes no sense.
        """
        offsets = [0, len(np.asarray(starts))] if offsets is None else offsets
        return cls(
            np.asarray(starts, dtype=np.float64),
            np.asarray(ends, dtype=np.float64),
            np.asarray(token_counts, dtype=np.int64),
            np.asarray(offsets, dtype=np.int64),
            np.atleast_1d(np.asarray(video_seconds, dtype=np.int64)),
        )

    def __post_init__(self) -> None:
        starts, ends, counts, offsets = self.starts, self.ends, self.token_counts, self.offsets
        if not starts.shape == ends.shape == counts.shape == (len(starts),):
            raise ValueError(
                f"starts, ends and token_counts must hold one number a caption, got shapes {starts.shape}, {ends.shape}, "
                f"{counts.shape}"
            )
        if len(offsets) != len(self.video_seconds) + 1 or offsets[0] != 0 or offsets[-1] != len(starts):
            raise ValueError(
                f"offsets must be {len(self.video_seconds) + 1} numbers (videos + 1) from 0 to {len(starts)}, "
                f"got {len(offsets)} from {offsets[0]} to {offsets[-1]}"
            )
        self.refuse_videos(np.diff(offsets) < 1, "no captions", "leave it out of the video list")
        if not (np.isfinite(starts).all() and np.isfinite(ends).all()):
            raise ValueError("caption times must be finite seconds, got nan or inf; repair starts or ends")
        if (counts < 0).any():
            raise ValueError(f"token_counts must be 0 or more, got {counts.min()}; leave padding out of the count")

    @property
    def caption_counts(self) -> NDArray[np.int64]:
        """Captions of each video, (videos,)."""
        return np.diff(self.offsets)

    def refuse_videos(self, wrong: NDArray[np.bool_], what: str, remedy: str) -> None:
        """Raises a ValueError if a video is wrong, (videos,) bool."""
        if wrong.any():
            first = int(wrong.argmax())
            raise ValueError(
                f"{wrong.sum()} of {len(wrong)} videos have {what}, the first at position {first}; {remedy}"
            )
