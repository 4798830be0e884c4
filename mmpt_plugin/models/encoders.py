"""The two towers of VideoCLIP (paper, section 3.1). Each yields hidden states per token; pooling.py makes embeddings.

Both lay a sequence out as [CLS] tokens [SEP], padding at the end, and compute real tokens only (packing.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mmpt_plugin.models.bert import first_position
from mmpt_plugin.models.packing import Packing, can_be_packed, run_packed


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
    ) -> None:
        """
        Args:
            transformer: the video's own, or the text's.
            feature_size: width of the video features.
            max_seconds: longest clip.
            special_ids: [CLS] and [SEP] among the transformer's word embeddings.
            shared: whether `transformer` is another module's part.
            first_position: of [CLS], as in the text tower (`bert.first_position`).
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

    def forward(
        self, video_features: Tensor, video_mask: Tensor, attend_to_cls: bool = True, compute_padding: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Hidden states of the tokens.

        Args:
            video_features: (B, T, feature_size), one row a second, T <= max_seconds.
            video_mask: (B, T) bool, True = real.
            attend_to_cls: False keeps all tokens from attending to [CLS] (COIN and CrossTask in the original).
            compute_padding: also compute the states of padded rows, which attend to the real tokens but are attended to
                by none (the original's DiDeMo averages over them). [SEP] then follows the padding.

        Returns:
            hidden_states (B, T + 2, D): [CLS], the real seconds, [SEP], then zeros; and their mask (B, T + 2).

        Raises:
            ValueError: if T exceeds max_seconds.
        """
        T = video_features.shape[1]
        if self.max_seconds < T:
            raise ValueError(
                f"a clip of {T} seconds was given, model.max_video_seconds is {self.max_seconds}: "
                "cut the clip or slide a window over it"
            )
        token_mask = torch.ones_like(video_mask) if compute_padding else video_mask
        lengths = token_mask.sum(1)  # (B,)

        column = torch.arange(T + 2, device=video_mask.device)
        sequence_mask = column < (lengths + 2)[:, None]  # (B, T + 2)
        is_cls = (column == 0).expand_as(sequence_mask)
        is_sep = column == (lengths + 1)[:, None]
        is_second = sequence_mask & ~is_cls & ~is_sep
        key_mask = sequence_mask.clone()
        key_mask[is_second] = video_mask[token_mask]
        key_mask[:, 0] = attend_to_cls

        packing = Packing.of(sequence_mask, key_mask)
        tokens = packing.pack(is_second)  # (N,) True where the token is a second
        source = torch.zeros_like(sequence_mask, dtype=torch.int64)
        source[is_second] = token_mask.flatten().nonzero().squeeze(1)  # row of the features, clips end to end
        source = packing.pack(source)[tokens]
        features = video_features.flatten(0, 1).index_select(0, source)
        projected = self.feature_projection(features.to(self.feature_projection.input.weight.dtype))

        position_ids = torch.where(packing.pack(is_sep), self.max_seconds + 1, 0)  # [SEP] however short the clip
        position_ids[tokens] = source % max(T, 1) + 1
        position_ids += self.first_position
        cls_id, sep_id = self.special_ids
        special_ids = torch.where(packing.pack(is_sep), sep_id, cls_id)  # also where seconds are, which replace them
        special = self.transformer.get_input_embeddings()(special_ids)  # (N, D)
        inputs_embeds = special.to(projected.dtype).index_copy(0, tokens.nonzero().squeeze(1), projected)
        hidden_states = run_packed(self.transformer, packing, position_ids, inputs_embeds=inputs_embeds)
        return packing.unpack(hidden_states), sequence_mask


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

    def forward(self, text_ids: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states of the tokens.

        Args:
            text_ids: (B, L) int64, [CLS] pieces [SEP] [PAD]*, at most max_pieces pieces.
            text_mask: (B, L) bool, True = real.

        Returns:
            hidden_states (B, L, D), zero where padded, and their mask (B, L).

        Raises:
            ValueError: if a text is longer than max_pieces + 2.
        """
        if text_ids.shape[1] > self.max_pieces + 2:
            raise ValueError(
                f"a text of {text_ids.shape[1]} tokens was given; model.max_text_pieces allows {self.max_pieces} "
                "word pieces, [CLS] and [SEP]: cut it"
            )
        if not can_be_packed(self.transformer.config):
            padded = self.transformer(input_ids=text_ids, attention_mask=text_mask.long()).last_hidden_state
            return padded.masked_fill(~text_mask[..., None], 0), text_mask
        packing = Packing.of(text_mask)
        positions = self.first_position + torch.arange(text_ids.shape[1], device=text_ids.device)
        position_ids = positions.expand_as(text_ids)
        tokens = {"input_ids": packing.pack(text_ids)}
        if self.token_type is not None:
            tokens["token_type_ids"] = torch.full_like(tokens["input_ids"], self.token_type)
        hidden_states = run_packed(self.transformer, packing, packing.pack(position_ids), **tokens)
        return packing.unpack(hidden_states), text_mask
