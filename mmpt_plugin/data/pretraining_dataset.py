"""Pre-training data for fairseq: one item is one group of videos with clips drawn from each."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from fairseq.data import FairseqDataset
from fairseq.dataclass import ChoiceEnum
from numpy.typing import NDArray

from mmpt_plugin.data.caption_table import CaptionTable
from mmpt_plugin.data.clips import sample_aligned_clips_batch, sample_bags_batch, sample_overlapped_clips_batch
from mmpt_plugin.data.corpus import VideoTextCorpus
from mmpt_plugin.data.pairs import Batch, SpecialTokens, build_pairs, build_text, build_video, collate_groups
from mmpt_plugin.data.windows import whole_seconds

BAG = "bag"  # several texts a clip
SAMPLING_RULES = ("overlapped", "aligned", BAG)
FIRST_SECONDS = "first"  # one fixed clip a video, for retrieval's `first_32s`


@dataclass
class ClipSettings:
    """How clips are drawn (paper, section 3.3) and cut: the keys of `task` on the command line that say so.

    `clip_sampling` may also be `first`: the first `max_video_seconds` of a video with the captions that start there.
    """

    clip_sampling: ChoiceEnum(list(SAMPLING_RULES)) = field(  # type: ignore[valid-type]
        default="overlapped",
        metadata={
            "help": "overlapped; aligned: video span = text span; bag: several captions, each a text, for criterion mil_nce"
        },
    )
    clips_per_video: int = field(
        default=16,
        metadata={
            "help": "clips drawn from each video of a group, independently: a video with few captions repeats them",
            "at_least": 1,
            "at_most": 10_000,
        },
    )
    min_text_tokens: int = field(
        default=8, metadata={"help": "smallest budget of a text span, word pieces", "at_least": 0}
    )
    max_text_tokens: int = field(
        default=64, metadata={"help": "largest budget of a text span, word pieces", "at_least": 1}
    )
    min_clip_seconds: int = field(
        default=3, metadata={"help": "shortest video window, but of aligned clips", "at_least": 1}
    )
    max_clip_seconds: int = field(
        default=32, metadata={"help": "longest video window, but of aligned clips", "at_least": 1}
    )
    bag_captions: int = field(
        default=5,
        metadata={
            "help": "captions of a bag (clip_sampling=bag); a video must have so many",
            "at_least": 1,
            "at_most": 10_000,
        },
    )
    max_video_seconds: int = field(default=32, metadata={"help": "what the model takes; longer clips are cut"})
    max_text_pieces: int = field(default=61, metadata={"help": "what the model takes; longer texts are cut"})

    @property
    def text_tokens(self) -> tuple[int, int]:
        """Smallest and largest budget of a text span."""
        return self.min_text_tokens, self.max_text_tokens

    @property
    def clip_seconds(self) -> tuple[int, int]:
        """Shortest and longest video window."""
        return self.min_clip_seconds, self.max_clip_seconds

    @property
    def captions_needed(self) -> int:
        """Captions that every video must have."""
        return self.bag_captions if self.clip_sampling == BAG else 1


def draw_pairs(
    corpus: VideoTextCorpus,
    videos: NDArray[np.integer],
    clips: ClipSettings,
    special: SpecialTokens,
    rng: np.random.Generator,
    index: int = 0,
) -> Batch:
    """The batch of a group of videos: `clips_per_video` clips of each, video by video.

    Args:
        corpus: where features and captions lie.
        videos: (V,) indexes into the corpus.
        clips: the sampling rule and its bounds.
        special: ids around a text.
        rng: the only source of randomness.
        index: recorded as the pairs' `id`.
    """
    table, n = corpus.group_captions(videos), clips.clips_per_video
    if clips.clip_sampling == "overlapped":
        spans = sample_overlapped_clips_batch(
            table, n, rng, text_tokens=clips.text_tokens, clip_seconds=clips.clip_seconds
        )
    elif clips.clip_sampling == "aligned":
        spans = sample_aligned_clips_batch(table, n, rng, text_tokens=clips.text_tokens)
    elif clips.clip_sampling == BAG:
        spans = sample_bags_batch(table, n, rng, bag_captions=clips.bag_captions, clip_seconds=clips.clip_seconds)
    elif clips.clip_sampling == FIRST_SECONDS:
        spans = np.repeat(_first_clips(table, clips.max_video_seconds), n, 0)
    else:
        raise ValueError(f"task.clip_sampling is {clips.clip_sampling!r}: choose one of {', '.join(SAMPLING_RULES)}")
    repeated = np.repeat(videos, clips.clips_per_video)
    features, rows, pieces, lengths = corpus.clips(
        repeated, spans, max_seconds=clips.max_video_seconds, max_pieces=clips.max_text_pieces
    )
    if clips.clip_sampling == BAG:  # each caption is a text
        caption = (spans[:, 2, None] + np.arange(clips.bag_captions)).ravel()
        of_video = np.repeat(repeated, clips.bag_captions)
        pieces, lengths = corpus.texts(of_video, caption, caption + 1, max_pieces=clips.max_text_pieces)
    video_ids = [corpus.video_ids[video] for video in repeated]
    seconds = whole_seconds(rows, corpus.features_per_second)
    seen = np.stack([repeated, spans[:, 0], spans[:, 0] + seconds], axis=1)
    return build_pairs(index, video_ids, build_video(features, rows), build_text(pieces, lengths, special), seen)


def _first_clips(table: CaptionTable, seconds: int) -> NDArray[np.int64]:
    """(V, 4) spans of the first seconds of each video and the captions that start in them, its first one at least."""
    early = np.add.reduceat(table.starts < seconds, table.offsets[:-1], dtype=np.int64)
    zeros = np.zeros_like(early)
    return np.stack([zeros, np.minimum(table.video_seconds, seconds), zeros, np.maximum(early, 1)], axis=1)


class PretrainingDataset(FairseqDataset):
    """Groups of videos; what is drawn depends on (seed, epoch, group) alone, not on workers, processes or a resume.

    `stream` tells apart data sets of one seed: their draws are independent.
    """

    def __init__(
        self, corpus: VideoTextCorpus, clips: ClipSettings, special: SpecialTokens, seed: int, stream: int = 0
    ) -> None:
        self.corpus = corpus
        self.clips = clips
        self.special = special
        self.seed = (seed, stream)
        self.epoch = 0
        self.groups: Sequence[NDArray[np.integer]] = []

    def set_groups(self, epoch: int, groups: Sequence[NDArray[np.integer]]) -> None:
        """The groups to serve from now on; call before workers start.

        Args:
            epoch: from 1; 0 for validation, whose clips are the same in every epoch.
            groups: each (V,) indexes of videos.
        """
        self.epoch, self.groups = epoch, groups

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng([*self.seed, self.epoch, index])
        return draw_pairs(self.corpus, np.asarray(self.groups[index]), self.clips, self.special, rng, index)

    def collater(self, samples: list[Batch]) -> Batch:
        """Join groups; fairseq passes an empty list where a process has no batch."""
        return collate_groups(samples) if samples else {}
