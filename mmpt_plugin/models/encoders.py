"""The two towers of VideoCLIP (paper, section 3.1). Each yields hidden states per token; pooling.py makes embeddings.

Both take values end to end, sequence after sequence, and the sequences' lengths (data/pairs.py). Both lay a sequence out as
[CLS] tokens [SEP], compute real tokens only (packing.py), and give their states padded at the end with zeros. Lengths lie on
the host, so that a GPU is never waited for.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from torch import Tensor, full_like, nn
from transformers import PreTrainedModel

from mmpt_plugin.models.packing import Lengths, Packing, can_be_packed, length_mask, on_device, run_packed
from mmpt_plugin.models.text_backbone import first_position


class FeatureProjection(nn.Module):
    """From video features to the transformer's width: linear, GELU, LayerNorm, linear (paper, section 3.1).

    The LayerNorm has torch's default eps of 1e-5, unlike BERT's 1e-12. Weights start as BERT's own do, from a normal
    distribution of standard deviation `initializer_range` (0.02).
    """

    def __init__(self, feature_size: int, hidden_size: int, initializer_range: float = 0.02) -> None:
        super().__init__()
        self.input = nn.Linear(feature_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)
        for linear in (self.input, self.output):
            nn.init.normal_(linear.weight, std=initializer_range)
            nn.init.zeros_(linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(..., feature_size) -> (..., hidden_size)."""
        return self.output(self.norm(nn.functional.gelu(self.input(features))))


class VideoEncoder(nn.Module):
    """Projected features between [CLS] and [SEP], through the first layers of a BERT.

    A transformer of its own has word embeddings of just these two tokens, [CLS] at 0 and [SEP] at 1: no other is ever
    looked up. The text's transformer may be shared instead; it stays the text encoder's part, so that its weights are
    trained, counted and saved once.
    """

    def __init__(
        self,
        transformer: PreTrainedModel,
        feature_size: int,
        max_seconds: int,
        special_ids: tuple[int, int] = (0, 1),
        shared: bool = False,
        first_position: int = 0,
        features_per_second: int = 1,
    ) -> None:
        """
        Args:
            transformer: the video's own, or the text's.
            feature_size: width of the video features.
            max_seconds: longest clip.
            special_ids: [CLS] and [SEP] among the transformer's word embeddings.
            shared: whether `transformer` is another module's part.
            first_position: of [CLS], as in the text tower (`text_backbone.first_position`).
            features_per_second: each is a token of its own.
        """
        super().__init__()
        self.first_position = first_position
        if shared:
            object.__setattr__(self, "transformer", transformer)  # past torch, which would list it as a part
        else:
            self.transformer = transformer
        self.special_ids = special_ids
        config = transformer.config
        self.feature_projection = FeatureProjection(feature_size, config.hidden_size, config.initializer_range)
        self.max_seconds = max_seconds
        self.features_per_second = features_per_second

    @property
    def max_features(self) -> int:
        """Features of the longest clip."""
        return self.max_seconds * self.features_per_second

    def forward(
        self,
        video_features: Tensor,
        video_lengths: Lengths,
        attend_to_cls: bool = True,
        attended_lengths: Lengths | None = None,
    ) -> Tensor:
        """Hidden states of the tokens.

        Args:
            video_features: (S, feature_size), the features of all clips, clip after clip.
            video_lengths: (B,) features of each clip, at most max_features; a clip may have none.
            attend_to_cls: False keeps all tokens from attending to [CLS] (COIN and CrossTask in the original).
            attended_lengths: (B,) the features of each clip that may be attended to; by default all. The original averages
                over the states of padded seconds in DiDeMo, which attend to the real ones but are attended to by none.

        Returns:
            (B, longest + 2, D): [CLS], the features, [SEP], then zeros.

        Raises:
            ValueError: if a clip is longer than max_seconds, or the features are not as many as the lengths say.
        """
        longest = video_lengths.max(initial=0)
        if longest > self.max_features:
            raise ValueError(
                f"a clip of {longest / self.features_per_second:g} seconds was given, model.max_video_seconds is "
                f"{self.max_seconds}: "
                "cut the clip or slide a window over it"
            )
        check_count("video_features", video_features, 2, video_lengths)
        device = video_features.device
        key_mask = length_mask(video_lengths + 2)  # (B, longest + 2)
        if attended_lengths is not None:
            columns = np.arange(longest + 2)
            key_mask &= (columns <= attended_lengths[:, None]) | (columns == video_lengths[:, None] + 1)
        key_mask[:, 0] = attend_to_cls
        packing = Packing.of(video_lengths + 2, device, key_mask)

        is_cls, is_sep = packing.columns == 0, packing.columns == video_lengths[packing.sequences] + 1
        is_second = ~(is_cls | is_sep)
        seconds = (packing.rows(video_lengths) - 1)[is_second]  # [CLS] takes the first column
        projected = self.feature_projection(
            video_features.index_select(0, on_device(seconds, device)).to(self.feature_projection.input.weight.dtype)
        )
        cls_id, sep_id = self.special_ids
        special_ids = on_device(np.where(is_sep, sep_id, cls_id), device)  # also where seconds are, which replace them
        special: Tensor = self.transformer.get_input_embeddings()(special_ids)  # (N, D)
        inputs_embeds = special.to(projected.dtype).index_copy(
            0, on_device(np.flatnonzero(is_second), device), projected
        )
        position_ids = np.where(is_sep, self.max_features + 1, packing.columns)  # [SEP] however short the clip
        return run_packed(self.transformer, packing, self.first_position + position_ids, inputs_embeds=inputs_embeds)


def check_count(name: str, values: Tensor, dimensions: int, lengths: Lengths) -> None:
    """Refuse values that are not as many as their lengths say."""
    if values.dim() != dimensions or len(values) != lengths.sum():
        raise ValueError(
            f"{name} of the shape {tuple(values.shape)} do not fit {len(lengths)} lengths with the sum {lengths.sum()}: "
            "give all sequences' values in one row, one sequence after the other"
        )


class TextEncoder(nn.Module):
    """Word pieces between [CLS] and [SEP], through all layers of a BERT or of another text encoder."""

    def __init__(self, transformer: PreTrainedModel, max_pieces: int, token_type: int | None = None) -> None:
        """
        Args:
            transformer: the text's, which the video encoder may share.
            max_pieces: most word pieces of a text.
            token_type: of all tokens, where the transformer is shared; None: the transformer's own.
        """
        super().__init__()
        self.transformer = transformer
        self.first_position = first_position(transformer.config)
        self.max_pieces = max_pieces
        self.token_type = token_type
        self.frozen = False

    def freeze(self) -> None:
        """Keep the weights as they are: they get no gradient, and texts are read as in evaluation, without dropout."""
        self.frozen = True
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """As torch's, but that a frozen tower stays in evaluation."""
        return super().train(mode and not self.frozen)

    def forward(self, text_ids: Tensor, text_lengths: Lengths) -> Tensor:
        """Hidden states of the tokens.

        Args:
            text_ids: (N,) int64, [CLS] word pieces [SEP] of all texts, text after text.
            text_lengths: (B,) tokens of each text, at most max_pieces + 2.

        Returns:
            (B, longest, D), zero where no token is.

        Raises:
            ValueError: if a text is longer than max_pieces + 2, or the tokens are not as many as the lengths say.
        """
        longest = text_lengths.max(initial=0)
        if longest > self.max_pieces + 2:
            raise ValueError(
                f"a text of {longest} tokens was given; model.max_text_pieces allows {self.max_pieces} "
                "word pieces, [CLS] and [SEP]: cut it"
            )
        check_count("text_ids", text_ids, 1, text_lengths)
        device = text_ids.device
        packing = Packing.of(text_lengths, device)
        ids = text_ids.index_select(0, on_device(packing.rows(text_lengths), device))
        if not can_be_packed(self.transformer.config):
            mask = on_device(length_mask(text_lengths), device)
            padded_ids = packing.unpack(ids).masked_fill(~mask, self.transformer.config.pad_token_id or 0)
            padded = self.transformer(input_ids=padded_ids, attention_mask=mask.long()).last_hidden_state
            return padded.masked_fill(~mask[..., None], 0)
        tokens = {"input_ids": ids}
        if self.token_type is not None:
            tokens["token_type_ids"] = full_like(ids, self.token_type)
        return run_packed(self.transformer, packing, self.first_position + packing.columns, **tokens)
