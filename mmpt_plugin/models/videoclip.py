"""VideoCLIP (Xu et al., EMNLP 2021, https://arxiv.org/abs/2109.14084) as a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmpt_plugin.data.windows import whole_seconds
from mmpt_plugin.models import text_backbone
from mmpt_plugin.models.config import VideoClipConfig, check_settings, max_features
from mmpt_plugin.models.encoders import TextEncoder, VideoEncoder
from mmpt_plugin.models.packing import Lengths, length_mask, on_device
from mmpt_plugin.models.pooling import POOLING, part_means
from mmpt_plugin.models.precision import outside_autocast
from mmpt_plugin.models.similarity import similarity
from mmpt_plugin.models.text_backbone import TextBackbone
from mmpt_plugin.models.towers import SHARED, TEXT, VIDEO, label_transformer

FRAME_CLASSIFIER = "frame_classifier."  # prefix of its parameters
LEARNED_LOGITS = ("logit_scale", "logit_bias")  # names of parameters
FIRST_LOGIT_SCALE, LARGEST_LOGIT_SCALE = 1 / 0.07, 100.0  # CLIP's (https://arxiv.org/abs/2103.00020, section 2.5)


class VideoClipModel(nn.Module):
    """Two towers whose embeddings are compared by their dot product (models/similarity.py), of length 1 where `normalize`.

    `encode_video` and `encode_text` take padded batches with masks. All other methods take values end to end with lengths
    (data/pairs.py), which needs no padding and no waiting for a GPU.
    """

    def __init__(
        self,
        video_encoder: VideoEncoder,
        text_encoder: TextEncoder,
        cls_id: int,
        sep_id: int,
        chunk_pairs: int = 0,
        frame_classes: int = 0,
        pooling: str = "mean",
        normalize: bool = False,
        logit_scale: bool = False,
        logit_bias: float | None = None,
        clip_parts: int = 1,
    ) -> None:
        super().__init__()
        self.clip_parts = clip_parts
        self.chunk_pairs = chunk_pairs
        self.normalize = normalize
        # The logarithm is learned, as in CLIP; both are saved with the weights.
        self.logit_scale = nn.Parameter(torch.tensor(math.log(FIRST_LOGIT_SCALE))) if logit_scale else None
        self.logit_bias = nn.Parameter(torch.tensor(logit_bias)) if logit_bias is not None else None
        self.video_encoder = video_encoder
        self.text_encoder = text_encoder
        self.cls_id, self.sep_id = cls_id, sep_id
        self.pool = POOLING[pooling]
        self.frame_classifier = frame_classifier(video_encoder, frame_classes) if frame_classes else None

    @classmethod
    def from_backbone(cls, cfg: VideoClipConfig) -> Self:
        """A model that starts from the weights of `cfg.bert`.

        Raises:
            ValueError: if the BERT is missing or does not fit the other settings.
        """
        model = cls.from_config(cfg)
        try:
            text_backbone.initialise_text(model.text_encoder.transformer, cfg.bert)
        except ValueError as error:
            if cfg.freeze_text:
                raise ValueError(f"{error}. model.freeze_text=true trains none: they must be there") from error
            raise
        if not cfg.shared_encoder:
            text_backbone.initialise_video(
                model.video_encoder.transformer, model.text_encoder.transformer, model.cls_id, model.sep_id
            )
        return model

    @classmethod
    def from_config(cls, cfg: VideoClipConfig, backbone: TextBackbone | None = None) -> Self:
        """A model with random weights, into which a checkpoint can be loaded.

        Args:
            cfg: its settings, checked here.
            backbone: by default, that of `cfg.bert`.

        Raises:
            ValueError: if a setting is out of bounds, or the BERT is missing or does not fit the other settings.
        """
        check_settings(cfg)
        backbone = backbone or TextBackbone.load(cfg.bert)
        config, special_ids = backbone.config, (backbone.cls_id, backbone.sep_id)
        first = text_backbone.first_position(config)
        video_positions = first + max_features(cfg) + 2
        longest = max(max_features(cfg) if cfg.shared_encoder else 0, cfg.max_text_pieces) + 2
        if config.max_position_embeddings - first < longest:
            raise ValueError(
                f"model.bert: {cfg.bert!r} has {config.max_position_embeddings - first} positions; "
                f"model.max_video_seconds and model.max_text_pieces need {longest}"
            )
        if cfg.shared_encoder:
            text_backbone.check_shareable(config, cfg.video_layers)
            text = text_backbone.new_transformer(config)
            video_encoder = VideoEncoder(
                text,
                cfg.feature_size,
                cfg.max_video_seconds,
                special_ids,
                shared=True,
                first_position=first,
                features_per_second=cfg.features_per_second,
            )
            text_encoder = TextEncoder(text, cfg.max_text_pieces, token_type=1)
        else:
            video = text_backbone.video_transformer(config, cfg.video_layers, video_positions)
            video_encoder = VideoEncoder(
                video,
                cfg.feature_size,
                cfg.max_video_seconds,
                first_position=first,
                features_per_second=cfg.features_per_second,
            )
            text_encoder = TextEncoder(text_backbone.new_transformer(config), cfg.max_text_pieces)
        if cfg.freeze_text:
            text_encoder.freeze()
        return cls(
            video_encoder,
            text_encoder,
            *special_ids,
            chunk_pairs=cfg.chunk_pairs,
            pooling=cfg.pooling,
            normalize=cfg.normalize,
            logit_scale=cfg.logit_scale,
            logit_bias=cfg.logit_bias,
            clip_parts=cfg.clip_parts,
            frame_classes=len(cfg.frame_labels) + 1 if cfg.frame_labels else 0,  # background is a class of its own
        )

    def label_towers(self) -> None:
        """Note at the transformers' parameters which tower and layer they are of, for optimizers (models/towers.py)."""
        video, text = self.video_encoder.transformer, self.text_encoder.transformer
        label_transformer(video, VIDEO)
        label_transformer(text, SHARED if text is video else TEXT)

    def encode_video(
        self,
        video_features: Tensor,
        video_mask: Tensor,
        attend_to_cls: bool = True,
        return_hidden_states: bool = False,
    ) -> Tensor:
        """Embed padded clips.

        Args:
            video_features: (B, T, feature_size), `features_per_second` rows a second, T <= those of max_video_seconds.
            video_mask: (B, T) bool, True = real, padding at the end; a clip may have no second at all.
            attend_to_cls: False keeps the tokens from attending to [CLS], as the original's COIN and CrossTask do.
            return_hidden_states: give the states per token instead: [CLS], features, [SEP], then zeros.

        Returns:
            (B, D), or (B, T + 2, D) hidden states.

        Raises:
            ValueError: if a clip is too long, or the mask has another shape or holes.
        """
        features, lengths = without_padding("video", video_features, video_mask)
        if not return_hidden_states:
            return self.embed_videos(features, lengths, attend_to_cls)
        return _padded_to(video_mask.shape[1] + 2, self.video_encoder(features, lengths, attend_to_cls))

    def encode_text(self, text_ids: Tensor, text_mask: Tensor, return_hidden_states: bool = False) -> Tensor:
        """Embed padded texts.

        Args:
            text_ids: (B, L) int64, [CLS] word pieces [SEP] [PAD]*.
            text_mask: (B, L) bool, True = real, padding at the end.
            return_hidden_states: give the states per token instead, zero where padded.

        Returns:
            (B, D), or (B, L, D) hidden states.

        Raises:
            ValueError: if a text is too long, or the mask has another shape or holes.
        """
        ids, lengths = without_padding("text", text_ids, text_mask)
        if not return_hidden_states:
            return self.embed_texts(ids, lengths)
        return _padded_to(text_mask.shape[1], self.text_encoder(ids, lengths))

    def embed_videos(self, video_features: Tensor, video_lengths: Lengths, attend_to_cls: bool = True) -> Tensor:
        """(N, feature_size) features of B clips -> (B, D)."""
        return self.pooled(self.video_encoder(video_features, video_lengths, attend_to_cls), video_lengths + 2)

    def embed_texts(self, text_ids: Tensor, text_lengths: Lengths) -> Tensor:
        """(N,) tokens of B texts -> (B, D)."""
        return self.pooled(self.text_encoder(text_ids, text_lengths), text_lengths)

    def pooled(self, hidden_states: Tensor, lengths: Lengths) -> Tensor:
        """(B, L, D) hidden states of either tower, and the tokens of each sequence -> (B, D) embeddings."""
        return self.comparable(self.pool(hidden_states, lengths))

    def comparable(self, vectors: Tensor) -> Tensor:
        """(..., D) as they are compared: of length 1 where the model normalises, in float32; else as they are."""
        return nn.functional.normalize(vectors.float(), dim=-1) if self.normalize else vectors

    def _embed_parts(self, video_features: Tensor, video_lengths: Lengths) -> Tensor:
        """(N, feature_size) features of B clips -> (B, 1 + clip_parts, D), the whole clip first."""
        hidden_states = self.video_encoder(video_features, video_lengths)
        parts = self.comparable(part_means(hidden_states, video_lengths, self.clip_parts))
        return torch.cat([self.pooled(hidden_states, video_lengths + 2)[:, None], parts], dim=1)

    def encode_seconds(
        self,
        video_features: Tensor,
        video_lengths: Lengths,
        attend_to_cls: bool = True,
        attended_lengths: Lengths | None = None,
    ) -> Tensor:
        """(N, feature_size) features of B clips -> (S, D), the state of each second as it is compared with texts.

        That is the mean of its features' states, where a second has several. The arguments are `VideoEncoder.forward`'s.
        """
        return self.comparable(self._second_states(video_features, video_lengths, attend_to_cls, attended_lengths))

    def _second_states(
        self,
        video_features: Tensor,
        video_lengths: Lengths,
        attend_to_cls: bool,
        attended_lengths: Lengths | None = None,
    ) -> Tensor:
        states = self.video_encoder(video_features, video_lengths, attend_to_cls, attended_lengths)
        return self.states_of_seconds(states, video_lengths)

    def states_of_seconds(self, states: Tensor, video_lengths: Lengths) -> Tensor:
        """(B, T + 2, D) hidden states of clips -> (S, D), those of their seconds, not yet made comparable with texts."""
        is_feature = np.pad(length_mask(video_lengths), ((0, 0), (1, 1)))  # after [CLS], before [SEP] or padding
        of_features = states.flatten(0, 1).index_select(0, on_device(np.flatnonzero(is_feature), states.device))
        return means_of_seconds(of_features, video_lengths, self.video_encoder.features_per_second)

    def forward(
        self,
        video_features: Tensor,
        video_lengths: Lengths,
        text_ids: Tensor | None = None,
        text_lengths: Lengths | None = None,
        frames: bool = False,
    ) -> dict[str, Tensor]:
        """Embed a batch of pairs (data/pairs.py): video_embeddings and text_embeddings, both (B, D).

        Beside them `logit_scale` and `logit_bias`, where the model learns these: a loss's logits are similarities times
        the one plus the other. And `video_parts` (B, 1 + clip_parts, D), where clips have such: the whole clip, then its
        parts in order.

        With `frames` instead: frame_logits, as from `classify_frames`.

        With `chunk_pairs`, training keeps no activations of the towers: each chunk is run again, with the same dropout, when
        its gradient is wanted. The loss still sees all pairs, so gradients are those of the whole batch
        (Gao et al. 2021, https://arxiv.org/abs/2101.06983; here by torch's checkpointing).
        """
        if frames:
            return {"frame_logits": self.classify_frames(video_features, video_lengths, text_ids, text_lengths)}
        assert text_ids is not None and text_lengths is not None  # a pair has both sides
        video = self._in_chunks(
            self._embed_parts if self.clip_parts > 1 else self.embed_videos, video_features, video_lengths
        )
        return {
            **(
                {"video_embeddings": video[:, 0], "video_parts": video}
                if self.clip_parts > 1
                else {"video_embeddings": video}
            ),
            "text_embeddings": self._in_chunks(self.embed_texts, text_ids, text_lengths),
            **self.learned_logits(),
        }

    def learned_logits(self) -> dict[str, Tensor]:
        """`logit_scale`, the factor itself, and `logit_bias`: of these what the model learns, as scalars."""
        learned = {}
        if self.logit_scale is not None:
            with torch.no_grad():  # here and not in the product, whose gradient would be 0 beyond the ceiling for good
                self.logit_scale.clamp_(max=math.log(LARGEST_LOGIT_SCALE))
            learned["logit_scale"] = self.logit_scale.exp()
        if self.logit_bias is not None:
            learned["logit_bias"] = self.logit_bias
        return learned

    def classify_frames(
        self,
        video_features: Tensor,
        video_lengths: Lengths,
        text_ids: Tensor | None = None,
        text_lengths: Lengths | None = None,
    ) -> Tensor:
        """Logits of every second, among the frame classifier's classes or, if there are texts, among these.

        As the original does for COIN and CrossTask, [CLS] is not attended to, and a text's logit is the similarity of the
        second's state and the text's embedding, scaled and shifted where the model learns to.

        Args:
            video_features, video_lengths: windows of any videos (data/pairs.py).
            text_ids, text_lengths: K texts that all windows are compared with.

        Returns:
            (S, classes) with 0 for background, or (S, K); a row for each of the S seconds.
        """
        seconds = self._second_states(video_features, video_lengths, attend_to_cls=False)
        texts = None
        if text_ids is not None and text_lengths is not None:
            texts = self.embed_texts(text_ids, text_lengths)
        with outside_autocast(seconds):
            if texts is not None:
                return scaled(similarity(self.comparable(seconds).float(), texts.float()), self.learned_logits())
            assert self.frame_classifier is not None  # the task gave the model its labels
            weight, bias = self.frame_classifier.weight.float(), self.frame_classifier.bias.float()
            return nn.functional.linear(seconds.float(), weight, bias)

    def _in_chunks(self, embed: Callable[[Tensor, Lengths], Tensor], values: Tensor, lengths: Lengths) -> Tensor:
        """`embed` in training by chunks that are recomputed in the backward pass, if `chunk_pairs` is set."""
        if not (self.chunk_pairs and torch.is_grad_enabled()):
            return embed(values, lengths)
        chunks = np.split(lengths, range(self.chunk_pairs, len(lengths), self.chunk_pairs))
        parts = values.split([int(chunk.sum()) for chunk in chunks])
        return torch.cat([checkpoint(embed, part, chunk, use_reentrant=False) for part, chunk in zip(parts, chunks)])


def scaled(similarities: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
    """Similarities times `logit_scale` plus `logit_bias`, as far as a model's output has these; float32."""
    if "logit_scale" in learned:
        similarities = similarities * learned["logit_scale"].float()
    return similarities + learned["logit_bias"].float() if "logit_bias" in learned else similarities


def means_of_seconds(states: Tensor, lengths: Lengths, features_per_second: int) -> Tensor:
    """(N, D) states of all clips' features, clip after clip -> (S, D), the mean of each second's.

    Args:
        states: N is the sum of `lengths`.
        lengths: (B,) features of each clip; its last second may have fewer than the others.
        features_per_second: of the other seconds.
    """
    if features_per_second == 1:
        return states
    seconds = whole_seconds(lengths, features_per_second)
    place_in_clip = np.arange(len(states)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    owner = np.repeat(np.cumsum(seconds) - seconds, lengths) + place_in_clip // features_per_second  # (N,)
    counts = on_device(np.bincount(owner, minlength=int(seconds.sum())), states.device)
    sums = states.new_zeros(len(counts), states.shape[1]).index_add(0, on_device(owner, states.device), states)
    return sums / counts[:, None]


def without_padding(modality: str, values: Tensor, mask: Tensor) -> tuple[Tensor, Lengths]:
    """The real values of a padded batch end to end, and their lengths.

    Args:
        modality: "video" or "text", for the message.
        values: (B, T, ...).
        mask: (B, T), True where real.

    Raises:
        ValueError: if the shapes differ, or a real value follows padding.
    """
    if mask.dim() != 2 or values.shape[:2] != mask.shape:
        raise ValueError(
            f"{modality}_mask of the shape {tuple(mask.shape)} does not fit values of the shape {tuple(values.shape)}: "
            "give (B, T), True where real"
        )
    real = mask.bool().cpu().numpy()
    lengths = real.sum(1)
    if not (real == length_mask(lengths, real.shape[1])).all():
        raise ValueError(f"{modality}_mask has real positions behind padded ones: padding belongs at the end")
    return values[mask.bool()], lengths


def _padded_to(length: int, hidden_states: Tensor) -> Tensor:
    return nn.functional.pad(hidden_states, (0, 0, 0, length - hidden_states.shape[1]))


def frame_classifier(video_encoder: VideoEncoder, classes: int) -> nn.Linear:
    """A linear layer from a second's state to classes, started as BERT starts its own."""
    config = video_encoder.transformer.config
    linear = nn.Linear(config.hidden_size, classes)
    nn.init.normal_(linear.weight, std=config.initializer_range)
    nn.init.zeros_(linear.bias)
    return linear
