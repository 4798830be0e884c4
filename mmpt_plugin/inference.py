"""VideoCLIP in a few lines: load a checkpoint, embed texts and videos, compare them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mmpt_plugin.data.inputs import batches_by_length, join_texts, tokenize
from mmpt_plugin.data.pairs import SpecialTokens
from mmpt_plugin.data.windows import sliding_windows
from mmpt_plugin.models.loading import load_videoclip
from mmpt_plugin.models.text_backbone import load_tokenizer
from mmpt_plugin.models.videoclip import VideoClipModel


class VideoClip:
    """Embeds texts and videos with a pre-trained model.

    Example:
        >>> clip = VideoClip.from_pretrained("runs/demo/checkpoint_best.pt")  # doctest: +SKIP
        >>> similarities = clip.encode_text(["add the onions"]) @ clip.encode_video(features=[x]).T  # doctest: +SKIP

    Attributes:
        model: the `VideoClipModel`, in evaluation mode.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: VideoClipModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(
        cls, checkpoint: str | Path, bert: str | None = None, device: str | torch.device = "cpu"
    ) -> VideoClip:
        """Load a checkpoint.

        Args:
            checkpoint: a `.pt` file, ours or MMPT's.
            bert: folder or hub name of its BERT (configuration and tokenizer; no weights are needed). By default the
                copy beside our checkpoint, or `bert-base-uncased` for MMPT's.
            device: where to compute.

        Raises:
            FileNotFoundError, ValueError: if the checkpoint is missing, unsafe to load, or does not fit.
        """
        model, cfg = load_videoclip(checkpoint, bert)
        return cls(model.to(device), load_tokenizer(cfg.bert))

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], batch_size: int = 128) -> Tensor:
        """Embed texts of any length; word pieces past the model's longest are cut.

        Returns:
            (N, D) float32.
        """
        pieces = tokenize(self.tokenizer, texts, self.model.text_encoder.max_pieces)
        lengths = np.array([len(piece) for piece in pieces], np.int64)
        special = SpecialTokens.of(self.tokenizer)
        embeddings = self._empty(len(pieces))
        for batch in batches_by_length(lengths, batch_size):
            text = join_texts([pieces[index] for index in batch], special)
            embeddings[batch] = self.model.embed_texts(text["text_ids"].to(self._device), text["text_lengths"]).float()
        return embeddings

    @torch.no_grad()
    def encode_video(self, features: Sequence[ArrayLike], batch_size: int = 128) -> Tensor:
        """Embed videos of any length.

        Args:
            features: one array (seconds, feature_size) a video, one row a second. Longer ones than the model takes are
                covered by windows that overlap by half, whose embeddings are averaged.
            batch_size: windows encoded at once.

        Returns:
            (N, D) float32.

        Raises:
            ValueError: for another shape, or values that are not finite.
        """
        longest = self.model.video_encoder.max_seconds
        size = self.model.video_encoder.feature_projection.input.in_features
        videos = [self._checked(np.asarray(video), position, size) for position, video in enumerate(features)]
        windows = [
            (position, start, end)
            for position, video in enumerate(videos)
            for start, end in sliding_windows(len(video), longest, longest // 2) or [(0, 0)]
        ]
        lengths = np.array([end - start for _, start, end in windows], np.int64)
        embeddings, count = self._empty(len(videos)), torch.zeros(len(videos), 1, device=self._device)
        for batch in batches_by_length(lengths, batch_size):
            rows = [videos[position][start:end] for position, start, end in (windows[index] for index in batch)]
            seconds = torch.from_numpy(np.concatenate(rows).astype(np.float32)).to(self._device)
            encoded = self.model.embed_videos(seconds, lengths[batch]).float()
            owner = torch.tensor([windows[index][0] for index in batch], device=self._device)
            embeddings.index_add_(0, owner, encoded)
            count.index_add_(0, owner, torch.ones(len(batch), 1, device=self._device))
        return embeddings / count

    @staticmethod
    def _checked(video: np.ndarray, position: int, size: int) -> np.ndarray:
        if video.ndim != 2 or video.shape[1] != size:
            raise ValueError(
                f"features[{position}] has shape {video.shape}; (seconds, {size}) is needed, one row a second"
            )
        if not np.isfinite(video).all():
            raise ValueError(f"features[{position}] holds NaN or infinite values")
        return video

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _empty(self, rows: int) -> Tensor:
        return torch.zeros(rows, self.model.video_encoder.transformer.config.hidden_size, device=self._device)
