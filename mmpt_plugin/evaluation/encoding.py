"""Encoding what a benchmark asks for: batches of similar lengths, and their embeddings.

Texts and windows are cut into batches sorted by length; each batch is one item of the data set, so that a data loader can
spread them over processes. The order of batches does not matter: every result carries its places in the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from mmpt_plugin.data.feature_folder import FeatureFolder
from mmpt_plugin.data.inputs import batches_by_length, join_texts, load_windows, tokenize
from mmpt_plugin.data.pairs import Batch, Inputs, SpecialTokens, build_video
from mmpt_plugin.data.windows import whole_seconds
from mmpt_plugin.evaluation.benchmark import EncodingPlan, Encodings
from mmpt_plugin.models.videoclip import VideoClipModel


@dataclass(frozen=True)
class EncodedBatch:
    """Results of one batch: `indices` (n,) places in the plan; `states` one array a place: (D,) or (rows, D)."""

    kind: str
    indices: NDArray[np.int64]
    states: Sequence[NDArray[np.float32]]


class EncodingDataset(Dataset):
    """The batches of one plan.

    An item is a whole batch: kind (`text` or `video`), places in the plan, and the model's input (data/pairs.py).
    """

    def __init__(
        self,
        plan: EncodingPlan,
        features: FeatureFolder,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_pieces: int,
        batch_size: int,
        both_sides: bool = False,
    ) -> None:
        """
        Args:
            plan: what to encode.
            features: where the windows' rows lie.
            tokenizer: the model's.
            max_pieces: texts are cut to this many word pieces.
            batch_size: most texts or windows in a batch.
            both_sides: give an empty text beside each window, and an empty second of video beside each text, for models
                that only know pairs.
        """
        self.both_sides = both_sides
        self.plan = plan
        self.features = features
        self.special = SpecialTokens.of(tokenizer)
        self.pieces = tokenize(tokenizer, plan.texts, max_pieces)
        text_lengths = np.array([len(pieces) for pieces in self.pieces], np.int64)
        window_lengths = np.array([window.end - window.start for window in plan.windows], np.int64)
        self.batches = [("text", batch) for batch in batches_by_length(text_lengths, batch_size)]
        self.batches += [("video", batch) for batch in batches_by_length(window_lengths, batch_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        kind, places = self.batches[index]
        inputs = (
            join_texts([self.pieces[place] for place in places], self.special)
            if kind == "text"
            else load_windows(self.features, [self.plan.windows[place] for place in places])
        )
        if self.both_sides:
            inputs |= self._other_side(kind, len(places))
        return {"kind": kind, "indices": places, "nsentences": len(places), "net_input": inputs}

    def _other_side(self, kind: str, count: int) -> Inputs:
        if kind == "video":
            return join_texts([np.zeros(0, np.int64)] * count, self.special)
        return build_video(np.zeros((count, self.features.feature_size), np.float16), np.ones(count, np.int64))

    def collater(self, samples: list[Batch]) -> Batch:
        """The one batch of an item; fairseq passes an empty list where a process has none left."""
        return samples[0] if samples else {}


@torch.no_grad()
def encode_batch(model: nn.Module, batch: Batch, plan: EncodingPlan) -> EncodedBatch:
    """Run the model on one batch of an `EncodingDataset`.

    Args:
        model: in evaluation mode; ours, or any that gives `video_embeddings` and `text_embeddings` for pairs.
        batch: on the model's device.
        plan: says whether frames are wanted, of which length, and whether [CLS] is attended to.
    """
    kind, inputs = batch["kind"], batch["net_input"]
    if not isinstance(model, VideoClipModel):
        return EncodedBatch(kind, batch["indices"], list(to_numpy(model(**inputs)[f"{kind}_embeddings"])))
    if kind == "text":
        embeddings = model.embed_texts(inputs["text_ids"], inputs["text_lengths"])
        return EncodedBatch(kind, batch["indices"], list(to_numpy(embeddings)))
    features, lengths = inputs["video_features"], inputs["video_lengths"]
    if not plan.per_frame:
        return EncodedBatch(kind, batch["indices"], list(to_numpy(model.embed_videos(features, lengths))))
    attended = lengths
    rate = model.video_encoder.features_per_second
    if plan.pad_to is not None:
        longest = plan.pad_to * rate
        features = pad_sequence(features.split(lengths.tolist()), batch_first=True)
        features = torch.nn.functional.pad(features, (0, 0, 0, longest - features.shape[1])).flatten(0, 1)
        lengths = np.full_like(lengths, longest)
    if plan.classify_frames:
        seconds = model.classify_frames(features, lengths)
    else:
        seconds = model.encode_seconds(features, lengths, plan.attend_to_cls, attended)
    return EncodedBatch(
        kind, batch["indices"], np.split(to_numpy(seconds), np.cumsum(whole_seconds(lengths, rate))[:-1])
    )


def to_numpy(states: torch.Tensor) -> NDArray[np.float32]:
    """On the host, in float32 whatever the model's precision."""
    return states.float().cpu().numpy()


def assemble(plan: EncodingPlan, encoded: Iterable[EncodedBatch]) -> Encodings:
    """Put the results of all batches, of all processes, in the plan's order.

    A batch may come twice (fairseq repeats one where processes have unequal numbers); the results are the same.

    Raises:
        ValueError: if a text or window was not encoded.
    """
    places: dict[str, list[Any]] = {"text": [None] * len(plan.texts), "video": [None] * len(plan.windows)}
    for batch in encoded:
        for index, state in zip(batch.indices, batch.states):
            places[batch.kind][index] = state
    for kind, states in places.items():
        absent = sum(state is None for state in states)
        if absent:
            raise ValueError(f"{absent} of {len(states)} {kind} items were not encoded: a process ended early")
    text = np.stack(places["text"]) if places["text"] else np.zeros((0, 0), np.float32)
    return Encodings(text, places["video"] if plan.per_frame else np.stack(places["video"]))
