"""Fine-tuning data for fairseq: a pair of clip and sentence as an item, or a whole video with its labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from fairseq.data import FairseqDataset
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from mmpt_plugin.data.feature_folder import FeatureFolder
from mmpt_plugin.data.inputs import join_texts, load_windows, tokenize
from mmpt_plugin.data.pairs import Batch, SpecialTokens, build_pairs
from mmpt_plugin.finetuning.training_sets import CaptionedClip, LabelledVideo


class CaptionedClipDataset(FairseqDataset):
    """An item is a clip and one of its sentences; which one follows from (seed, epoch, item) alone.

    With `repeats` each clip is that many items of an epoch, each with a sentence drawn for itself.
    """

    def __init__(
        self,
        clips: Sequence[CaptionedClip],
        features: FeatureFolder,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_pieces: int,
        seed: int,
        repeats: int = 1,
    ) -> None:
        """
        Args:
            clips: each has at least one sentence.
            features: where their rows lie.
            tokenizer: the model's.
            max_pieces: sentences are cut to this many word pieces.
            seed: of the draws.
            repeats: how often each clip comes in an epoch.
        """
        self.clips = clips
        self.repeats = repeats
        self.features = features
        self.special = SpecialTokens.of(tokenizer)
        self.pieces = tokenize(tokenizer, [sentence for clip in clips for sentence in clip.sentences], max_pieces)
        self.offsets = np.cumsum([0, *(len(clip.sentences) for clip in clips)])  # where a clip's sentences begin
        self.seed = seed
        self.epoch = 1

    def set_epoch(self, epoch: int) -> None:
        """Called before an epoch, and before its workers start."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.clips) * self.repeats

    def __getitem__(self, index: int) -> tuple[int, NDArray[np.int64]]:
        """The clip's position and the word pieces of the sentence drawn; features are read a batch at a time."""
        clip = index % len(self.clips)
        first, after = self.offsets[clip], self.offsets[clip + 1]
        drawn = np.random.default_rng([self.seed, self.epoch, index]).integers(first, after)
        return clip, self.pieces[drawn]

    def collater(self, samples: list[tuple[int, NDArray[np.int64]]]) -> Batch:
        """The batch (data/pairs.py); fairseq passes an empty list where a process has none."""
        if not samples:
            return {}
        windows = [self.clips[index].window for index, _ in samples]
        text = join_texts([pieces for _, pieces in samples], self.special)
        batch = build_pairs(0, [window.video_id for window in windows], load_windows(self.features, windows), text)
        batch["id"] = torch.tensor([index for index, _ in samples])
        return batch


class LabelledVideoDataset(FairseqDataset):
    """An item is a video, and a batch is one item, since each video has steps of its own.

    Beside the keys of data/pairs.py, where a clip is a window and a text a step, a batch has `target`, a row for each of
    the S seconds of all windows: (S,) int64 classes, or (S, steps) uint8. `net_input.frames` asks the model for logits of
    the seconds.
    """

    def __init__(
        self,
        videos: Sequence[LabelledVideo],
        features: FeatureFolder,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_pieces: int,
    ) -> None:
        """
        Args:
            videos: each at least one second long.
            features: where their rows lie.
            tokenizer: the model's, for the steps.
            max_pieces: steps are cut to this many word pieces.
        """
        self.videos = videos
        self.features = features
        self.special = SpecialTokens.of(tokenizer)
        steps = list(dict.fromkeys(step for video in videos for step in video.steps))
        self.pieces = dict(zip(steps, tokenize(tokenizer, steps, max_pieces)))

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Batch:
        video = self.videos[index]
        inputs = load_windows(self.features, video.windows)
        target = np.concatenate([video.labels[window.start : window.end] for window in video.windows])
        if video.steps:
            inputs |= join_texts([self.pieces[step] for step in video.steps], self.special)
        return {
            "id": torch.tensor([index]),
            "nsentences": 1,
            "ntokens": len(target),
            "video_id": [video.windows[0].video_id],
            "net_input": {**inputs, "frames": True},
            "target": torch.from_numpy(target),
        }

    def collater(self, samples: list[Batch]) -> Batch:
        """The one batch of an item; fairseq passes an empty list where a process has none."""
        return samples[0] if samples else {}
