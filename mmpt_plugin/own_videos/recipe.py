"""A training that suits the number of videos."""

from __future__ import annotations

from dataclasses import dataclass

PAIRS = 64  #: of a batch
MOST_CLIPS = 16  #: of a video in a batch: more repeat what its few captions say
MOST_VIDEOS = 16  #: of a batch
UPDATES_OF_100 = 800
VALIDATIONS = 20


@dataclass(frozen=True)
class Recipe:
    """What was chosen. A batch has `videos_per_batch` x `clips_per_video` pairs."""

    videos_per_batch: int
    clips_per_video: int
    max_epoch: int
    validate_interval: int  #: epochs from one validation to the next
    warmup_updates: int

    def words(self, videos: int, updates_per_epoch: int) -> str:
        """The choice, for people."""
        return (
            f"{videos} videos to train on: {self.videos_per_batch} videos x {self.clips_per_video} clips a batch, "
            f"{self.max_epoch} epochs of {updates_per_epoch} updates, of which {self.warmup_updates} warm up, a validation "
            f"every {self.validate_interval} epochs"
        )


def fit_recipe(videos: int, *, videos_per_batch: int = 0, clips_per_video: int = 0, max_epoch: int = 0) -> Recipe:
    """Chooses a training for so many videos; numbers that are given are kept.

    The number of updates grows as the root of the number of videos: few videos are learnt by heart soon, and many need
    more than one look at each.

    Args:
        videos: to train on.
        videos_per_batch: 0: as many as there are, up to `MOST_VIDEOS`.
        clips_per_video: 0: what makes `PAIRS` pairs.
        max_epoch: 0: chosen.

    Raises:
        ValueError: for fewer videos than a batch is to hold.
    """
    if videos_per_batch > videos:
        raise ValueError(
            f"task.videos_per_batch is {videos_per_batch}, and there are {videos} videos to train on: leave it out, and it "
            "is chosen"
        )
    group = videos_per_batch or min(MOST_VIDEOS, videos)
    clips = clips_per_video or min(MOST_CLIPS, max(1, PAIRS // group))
    per_epoch = max(1, videos // group)
    epochs = max_epoch or max(VALIDATIONS, round(UPDATES_OF_100 * (videos / 100) ** 0.5 / per_epoch))
    if not max_epoch:
        epochs -= epochs % VALIDATIONS  # so that the last epoch is validated
    interval = next(i for i in range(max(1, epochs // VALIDATIONS), 0, -1) if epochs % i == 0)
    return Recipe(group, clips, epochs, interval, warmup_updates=max(1, per_epoch * epochs // 10))
