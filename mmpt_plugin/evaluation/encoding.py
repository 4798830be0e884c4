"""Encoding what a benchmark asks for: batches of similar lengths for fairseq's data loader, and their embeddings.

Texts and windows are cut into batches sorted by length, so that little is padded; each batch is one item of the data set,
which fairseq spreads over processes. The order of batches does not matter: every result carries its places in the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fairseq.data import FairseqDataset
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from mmpt_plugin.data.pairs import Batch, SpecialTokens, build_text, build_video
from mmpt_plugin.evaluation.benchmark import EncodingPlan, Encodings
from mmpt_plugin.evaluation.feature_folder import FeatureFolder
from mmpt_plugin.models.videoclip import VideoClipModel


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_pieces: int) -> list[NDArray[np.int64]]:
    """Word pieces of each text without special tokens, cut to max_pieces."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
    return [np.array(pieces[:max_pieces], np.int64) for pieces in encoded["input_ids"]]


def batches_by_length(lengths: NDArray[np.integer], batch_size: int) -> list[NDArray[np.int64]]:
    """Indexes in batches of nearly equal size, at most batch_size, longest first: a batch's lengths are alike."""
    order = np.argsort(-lengths, kind="stable")
    return np.array_split(order, -(-len(order) // batch_size)) if len(order) else []


@dataclass(frozen=True)
class EncodedBatch:
    """Results of one batch: `indices` (n,) places in the plan; `states` one array a place: (D,) or (rows, D)."""

    kind: str
    indices: NDArray[np.int64]
    states: Sequence[NDArray[np.float32]]


class EncodingDataset(FairseqDataset):
    """The batches of one plan. An item is a whole batch: kind (`text` or `video`), places, and the model's input."""

    def __init__(
        self,
        plan: EncodingPlan,
        features: FeatureFolder,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_pieces: int,
        pad_to: int | None,
        batch_size: int,
    ) -> None:
        """
        Args:
            plan: what to encode.
            features: where the windows' rows lie.
            tokenizer: the model's.
            max_pieces: texts are cut to this many word pieces.
            pad_to: pad every window to that many rows (None: to the longest of its batch).
            batch_size: most texts or windows in a batch.
        """
        self.plan = plan
        self.features = features
        self.pad_to = pad_to
        self.special = SpecialTokens(tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
        self.pieces = tokenize(tokenizer, plan.texts, max_pieces)
        text_lengths = np.array([len(pieces) for pieces in self.pieces], np.int64)
        window_lengths = np.array([window.end - window.start for window in plan.windows], np.int64)
        self.batches = [("text", batch) for batch in batches_by_length(text_lengths, batch_size)]
        self.batches += [("video", batch) for batch in batches_by_length(window_lengths, batch_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        kind, places = self.batches[index]
        inputs = self._texts(places) if kind == "text" else self._windows(places)
        return {"kind": kind, "indices": torch.from_numpy(places), "nsentences": len(places), "net_input": inputs}

    def _texts(self, places: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        pieces = [self.pieces[place] for place in places]
        return build_text(np.concatenate(pieces), np.array([len(piece) for piece in pieces]), self.special)

    def _windows(self, places: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        windows = [self.plan.windows[place] for place in places]
        rows = [self.features.load(window.video_id, window.start, window.end) for window in windows]
        lengths = np.array([len(row) for row in rows])
        longest = self.pad_to or max(int(lengths.max()), 1)
        padded = np.zeros((len(rows), longest, self.features.feature_size), np.float32)
        for target, row in zip(padded, rows):
            target[: len(row)] = row
        if self.pad_to is None:
            return build_video(padded, lengths)
        mask = torch.arange(longest) < torch.from_numpy(lengths)[:, None]
        return {"video_features": torch.from_numpy(padded), "video_mask": mask}

    def collater(self, samples: list[Batch]) -> Batch:
        """The one batch of an item; fairseq passes an empty list where a process has none left."""
        return samples[0] if samples else {}


@torch.no_grad()
def encode_batch(model: VideoClipModel, batch: Batch, plan: EncodingPlan, padded: bool) -> EncodedBatch:
    """Run the model on one batch of an `EncodingDataset`.

    Args:
        model: in evaluation mode.
        batch: on the model's device.
        plan: says whether frames are wanted and whether [CLS] is attended to.
        padded: give the states of padded rows too: (rows of the padded window, D) for every window.
    """
    inputs = batch["net_input"]
    indices = batch["indices"].cpu().numpy()
    if batch["kind"] == "text":
        states = list(model.encode_text(**inputs).float().cpu().numpy())
    elif not plan.per_frame:
        states = list(model.encode_video(**inputs, attend_to_cls=plan.attend_to_cls).float().cpu().numpy())
    elif padded:
        hidden, _ = model.video_encoder(**inputs, attend_to_cls=plan.attend_to_cls, compute_padding=True)
        states = list(hidden[:, 1:-1].float().cpu().numpy())
    elif plan.classify_frames:
        logits = model.classify_frames(**inputs).float().cpu().numpy()
        states = [own[:length] for own, length in zip(logits, inputs["video_mask"].sum(1).tolist())]
    else:
        hidden = model.encode_video(**inputs, attend_to_cls=plan.attend_to_cls, return_hidden_states=True)
        frames = hidden.float().cpu().numpy()
        lengths = inputs["video_mask"].sum(1).tolist()
        states = [frame[1 : length + 1] for frame, length in zip(frames, lengths)]
    return EncodedBatch(batch["kind"], indices, states)


def assemble(plan: EncodingPlan, encoded: Iterable[EncodedBatch], padded: bool) -> Encodings:
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
    if not plan.per_frame:
        return Encodings(text, np.stack(places["video"]))
    if not padded:
        return Encodings(text, places["video"])
    lengths = [window.end - window.start for window in plan.windows]
    return Encodings(
        text, [state[:n] for state, n in zip(places["video"], lengths)], padded_video=np.stack(places["video"])
    )
