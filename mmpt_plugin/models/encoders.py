"""The two towers of VideoCLIP (paper, section 3.1). Each yields hidden states per token; pooling.py makes embeddings.

Both lay a sequence out as [CLS] tokens [SEP], padding at the end, and compute real tokens only (packing.py). Both take a
batch padded, or its real rows alone, sequence after sequence, which the mask then gives their places. They wait for a GPU
only if the mask lies there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mmpt_plugin.models.bert import first_position
from mmpt_plugin.models.packing import Packing, can_be_packed, on_device, run_packed


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
            video_features: (B, T, feature_size), one row a second, T <= max_seconds; or (S, feature_size), the real ones.
            video_mask: (B, T) bool, True = real.
            attend_to_cls: False keeps all tokens from attending to [CLS] (COIN and CrossTask in the original).
            compute_padding: also compute the states of padded rows, which attend to the real tokens but are attended to
                by none (the original's DiDeMo averages over them). [SEP] then follows the padding. Needs padded features.

        Returns:
            hidden_states (B, T + 2, D): [CLS], the real seconds, [SEP], then zeros; and their mask (B, T + 2).

        Raises:
            ValueError: if T exceeds max_seconds.
        """
        B, T = video_mask.shape
        if self.max_seconds < T:
            raise ValueError(
                f"a clip of {T} seconds was given, model.max_video_seconds is {self.max_seconds}: "
                "cut the clip or slide a window over it"
            )
        device, real = video_features.device, video_mask.cpu()
        token_mask = torch.ones_like(real) if compute_padding else real
        lengths = token_mask.sum(1)  # (B,)

        column = torch.arange(T + 2)
        sequence_mask = column < (lengths + 2)[:, None]  # (B, T + 2)
        is_sep = column == (lengths + 1)[:, None]
        is_second = sequence_mask & ~is_sep & (column > 0)
        key_mask = sequence_mask.clone()
        key_mask[is_second] = real[token_mask]
        key_mask[:, 0] = attend_to_cls
        position_ids = torch.where(is_sep, self.max_seconds + 1, 0)  # [SEP] however short the clip
        position_ids[is_second] = token_mask.nonzero()[:, 1] + 1
        source = torch.zeros(B, T + 2, dtype=torch.int64)
        source[is_second] = rows_of(token_mask, video_features, 3)
        cls_id, sep_id = self.special_ids
        special_ids = torch.where(is_sep, sep_id, cls_id)  # also where seconds are, which replace them

        packing = Packing.of(sequence_mask, key_mask, device)
        seconds = packing.pack(is_second).nonzero().squeeze(1)  # places of the seconds among the packed tokens
        source, special_ids, position_ids = (packing.pack(each) for each in (source, special_ids, position_ids))
        features = video_features.flatten(0, -2).index_select(0, on_device(source[seconds], device))
        projected = self.feature_projection(features.to(self.feature_projection.input.weight.dtype))
        special = self.transformer.get_input_embeddings()(on_device(special_ids, device))  # (N, D)
        inputs_embeds = special.to(projected.dtype).index_copy(0, on_device(seconds, device), projected)
        packing = packing.to(device)
        position_ids = on_device(self.first_position + position_ids, device)
        hidden_states = run_packed(self.transformer, packing, position_ids, inputs_embeds=inputs_embeds)
        return packing.unpack(hidden_states), on_device(sequence_mask, device)


def rows_of(token_mask: Tensor, batch: Tensor, padded_dimensions: int) -> Tensor:
    """Where the tokens of a mask lie among the rows of their batch.

    Args:
        token_mask: (B, L) bool on the host.
        batch: (B, L, ...), or the tokens alone, (tokens, ...).
        padded_dimensions: number of dimensions of the padded form.

    Returns:
        (tokens,) int64, rows of the batch with all its positions in one dimension.

    Raises:
        ValueError: if mask and batch do not fit.
    """
    tokens = token_mask.flatten().nonzero().squeeze(1)
    if batch.dim() == padded_dimensions and batch.shape[:2] == token_mask.shape:
        return tokens
    if batch.dim() == padded_dimensions - 1 and len(batch) == len(tokens):
        return torch.arange(len(tokens))
    raise ValueError(
        f"a batch of the shape {tuple(batch.shape)} does not fit a mask of the shape {tuple(token_mask.shape)} with "
        f"{len(tokens)} real tokens: give all positions, or the real ones alone"
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

    def forward(self, text_ids: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states of the tokens.

        Args:
            text_ids: (B, L) int64, [CLS] pieces [SEP] [PAD]*, at most max_pieces pieces; or (N,), the real ones.
            text_mask: (B, L) bool, True = real.

        Returns:
            hidden_states (B, L, D), zero where padded, and their mask (B, L).

        Raises:
            ValueError: if a text is longer than max_pieces + 2.
        """
        B, L = text_mask.shape
        if self.max_pieces + 2 < L:
            raise ValueError(
                f"a text of {L} tokens was given; model.max_text_pieces allows {self.max_pieces} "
                "word pieces, [CLS] and [SEP]: cut it"
            )
        device, mask = text_ids.device, text_mask.cpu()
        rows, mask_there = rows_of(mask, text_ids, 2), on_device(mask, device)
        packing = Packing.of(mask, mask, device)
        source = torch.zeros(B, L, dtype=torch.int64)
        source[mask] = rows
        ids = text_ids.flatten().index_select(0, on_device(packing.pack(source), device))
        position_ids = self.first_position + packing.pack(torch.arange(L).expand(B, L))
        packing, position_ids = packing.to(device), on_device(position_ids, device)
        if not can_be_packed(self.transformer.config):
            padding = self.transformer.config.pad_token_id or 0
            padded_ids = packing.unpack(ids).masked_fill(~mask_there, padding)
            padded = self.transformer(input_ids=padded_ids, attention_mask=mask_there.long()).last_hidden_state
            return padded.masked_fill(~mask_there[..., None], 0), mask_there
        tokens = {"input_ids": ids}
        if self.token_type is not None:
            tokens["token_type_ids"] = torch.full_like(ids, self.token_type)
        hidden_states = run_packed(self.transformer, packing, position_ids, **tokens)
        return packing.unpack(hidden_states), mask_there
