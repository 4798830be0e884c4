"""Where the files of a data set lie and how they are read: the same for evaluation and for fine-tuning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from mmpt_plugin.data.feature_folder import FeatureFolder


class OfVideo(Protocol):
    """An annotation of a video: a query, a clip, a labelled video."""

    @property
    def video_id(self) -> str:
        """The video's id."""


Annotation = TypeVar("Annotation", bound=OfVideo)


@dataclass(frozen=True)
class BenchmarkFiles:
    """Where the files of a data set lie and how they are read.

    Attributes:
        data: the data folder (docs/data.md).
        annotations: annotation file or folder instead of the usual one in the data folder.
        features: folder of `<video>.npy` instead of the usual one.
        on_missing: "error" or "skip" for videos without features.
        feature_size: width of a feature row.
        max_seconds: longest window that the model takes.
        features_per_second: rows of features for a second of video.
        split: "official", or "original" for CrossTask's draw among the videos with features.
        drop_suffix: as for `FeatureFolder`.
    """

    data: Path
    annotations: Path | None = None
    features: Path | None = None
    on_missing: str = "error"
    feature_size: int = 512
    max_seconds: int = 32
    features_per_second: int = 1
    split: str = "official"
    drop_suffix: bool = False

    def annotations_or(self, usual: str) -> Path:
        """`annotations`, or the usual file or folder in the data folder."""
        return Path(self.annotations or self.data / usual)

    def open_features(self, folder: str) -> FeatureFolder:
        """`features`, or the usual folder of a data set."""
        path = self.features or self.data / folder / "features"
        return FeatureFolder(path, self.feature_size, self.max_seconds, self.drop_suffix, self.features_per_second)

    def require_split(self, name: str, allowed: Sequence[str] = ("official",)) -> None:
        """Refuses a `split` that the data set of this name does not have."""
        if self.split not in allowed:
            listed = ", ".join(map(repr, allowed))
            raise ValueError(f"task.split is {self.split!r}; allowed: {listed}, the only test sets of {name}")

    def with_features(
        self, annotations: Iterable[Annotation], features: FeatureFolder
    ) -> tuple[list[Annotation], list[str]]:
        """The annotations of videos that have features, and the ids of the videos without.

        Raises:
            FileNotFoundError: as `FeatureFolder.require`.
        """
        listed = list(annotations)
        present, missing = features.require((item.video_id for item in listed), self.on_missing)
        available = set(present)
        return [item for item in listed if item.video_id in available], missing
