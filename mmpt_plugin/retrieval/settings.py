"""The settings of retrieval: `task.retrieval` on the command line, and what the code of this folder takes."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass

from mmpt_plugin.bounds import check_bounds


@dataclass
class RetrievalConfig(FairseqDataclass):
    """The epoch hook that makes batches of similar videos (paper, section 3.4)."""

    enabled: bool = field(default=True, metadata={"help": "clusters of similar videos; false: random videos"})
    num_neighbors: int = field(
        default=64, metadata={"help": "nearest videos of a seed (itself first) to pick from: 2k", "at_least": 1}
    )
    pick: ChoiceEnum(["random", "nearest"]) = field(  # type: ignore[valid-type]
        default="random", metadata={"help": "which k = task.videos_per_batch of them make the cluster"}
    )
    start_epoch: int = field(
        default=1, metadata={"help": "first epoch with clusters; earlier ones are random", "at_least": 1}
    )
    start_recall: Optional[float] = field(
        default=None,
        metadata={
            "help": "random videos, past start_epoch too, until a validation's text_to_video reaches this; null: no such rule",
            "above": 0,
            "at_most": 1,
        },
    )
    every: int = field(default=1, metadata={"help": "embed and cluster anew every so many epochs", "at_least": 1})
    embeddings: ChoiceEnum(["fresh", "reuse"]) = field(  # type: ignore[valid-type]
        default="fresh", metadata={"help": "embed all videos, or reuse the mean of what training computed"}
    )
    clips: ChoiceEnum(["sampled", "first_32s"]) = field(  # type: ignore[valid-type]
        default="sampled", metadata={"help": "a video's vector from aligned clips, or from its first seconds only"}
    )
    clips_per_video: int = field(
        default=16, metadata={"help": "sampled clips that a video's vector averages", "at_least": 1, "at_most": 10_000}
    )
    index: ChoiceEnum(["flat", "ivf"]) = field(  # type: ignore[valid-type]
        default="flat", metadata={"help": "exact search, or an approximate one with its recall measured"}
    )
    min_recall: float = field(
        default=0.95, metadata={"help": "recall of num_neighbors that ivf must reach", "above": 0, "at_most": 1}
    )
    num_centroids: Optional[int] = field(
        default=None, metadata={"help": "lists of ivf; null: by the number of videos", "at_least": 1}
    )
    max_nprobe: Optional[int] = field(
        default=None,
        metadata={
            "help": "most lists of ivf that a search may take; null: as many as min_recall needs",
            "at_least": 1,
        },
    )


def check_retrieval(settings: RetrievalConfig, videos_per_batch: int) -> None:
    """Refuse settings that are out of bounds or do not fit the size of a cluster.

    Raises:
        ValueError: naming the setting.
    """
    check_bounds(settings, RetrievalConfig, "task.retrieval")
    if settings.num_neighbors < videos_per_batch:
        raise ValueError(
            f"task.retrieval.num_neighbors is {settings.num_neighbors}: a cluster keeps task.videos_per_batch="
            f"{videos_per_batch} of them, so at least that many are needed (the paper takes twice as many)"
        )
