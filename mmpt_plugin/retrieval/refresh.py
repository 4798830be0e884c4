"""Embedding every training video with the current model, once an epoch (paper, section 3.4)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from fairseq.utils import apply_to_sample
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from mmpt_plugin.data.groups import consecutive_groups
from mmpt_plugin.data.pairs import Batch
from mmpt_plugin.data.pretraining_dataset import PretrainingDataset
from mmpt_plugin.data.workers import shield_worker
from mmpt_plugin.runs.processes import host_group, world

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 65536  # that the first process receives: bounds what it holds twice
BATCHES_AT_ONCE = 64  # whose vectors stay on the device until they are fetched together, so that nothing waits a batch


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; mode and random states are afterwards as they were, whatever happens."""
    training = model.training
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            yield
    finally:
        model.train(training)


def pair_embeddings(output: dict[str, Tensor]) -> Tensor:
    """(video embedding + text embedding) / 2 of a model's output, (B, D) float32; of a bag of texts, their mean."""
    video, text = output["video_embeddings"].float(), output["text_embeddings"].float()
    return (video + text.unflatten(0, (len(video), -1)).mean(1)) / 2


def inputs_on(device: torch.device, batch: Batch) -> dict[str, Any]:
    """What the model takes of a batch, its tensors on a device."""
    return apply_to_sample(lambda tensor: tensor.to(device, non_blocking=True), batch["net_input"])


def embed_videos(
    model: nn.Module,
    dataset: PretrainingDataset,
    epoch: int,
    *,
    videos: NDArray[np.integer] | None = None,
    videos_per_batch: int = 32,
    num_workers: int = 0,
    amp: bool = False,
) -> NDArray[np.float32] | None:
    """The mean, over clips of each video, of (video embedding + text embedding) / 2.

    Every process embeds its share, as the clips of a video depend on the data set's seed, the epoch and the video's place
    alone; the first process gets all vectors, the others keep their own rows no longer than they are needed.

    Args:
        model: gives both embeddings of a batch of pairs.
        dataset: draws the clips; used by nothing else meanwhile.
        epoch: what the draws depend on.
        videos: indexes of the videos to embed, at least one; default all.
        videos_per_batch: videos encoded at once.
        num_workers: processes that load data.
        amp: encode under autocast, as the run trains.

    Returns:
        (videos, D) float32 on the first process, None on the others.
    """
    rank, processes = world()
    wanted = np.arange(len(dataset.corpus)) if videos is None else videos
    groups = [wanted[group] for group in consecutive_groups(len(wanted), videos_per_batch)]
    dataset.set_groups(epoch, groups)
    share = range(rank, len(groups), processes)
    device = next(model.parameters()).device
    rows: list[NDArray[np.float32]] = []
    waiting: list[Tensor] = []
    with (
        evaluation_mode(model),
        torch.autocast("cuda", enabled=amp and device.type == "cuda"),
        tqdm(total=len(wanted), unit="video", desc=f"embedding (epoch {epoch})", disable=None) as bar,
    ):
        loader: torch.utils.data.DataLoader = torch.utils.data.DataLoader(
            dataset,
            batch_sampler=[[group] for group in share],
            collate_fn=dataset.collater,
            num_workers=num_workers,
            pin_memory=device.type == "cuda",
            worker_init_fn=shield_worker,
        )
        for batch in loader:
            pairs = pair_embeddings(model(**inputs_on(device, batch)))
            waiting.append(pairs.unflatten(0, (-1, dataset.clips.clips_per_video)).mean(1))  # (videos, D)
            if len(waiting) == BATCHES_AT_ONCE:
                rows.append(torch.cat(waiting).cpu().numpy())
                waiting.clear()
            bar.update(min(processes * len(waiting[-1] if waiting else rows[-1]), len(wanted) - bar.n))
    if waiting:
        rows.append(torch.cat(waiting).cpu().numpy())
    places = np.concatenate(
        [np.zeros(0, np.int64), *(_places(group, videos_per_batch, len(wanted)) for group in share)]
    )
    return rows_on_first(np.concatenate(rows) if rows else None, places, len(wanted))


def _places(group: int, videos_per_batch: int, total: int) -> NDArray[np.int64]:
    """Where a group's videos stand among all."""
    return np.arange(group * videos_per_batch, min((group + 1) * videos_per_batch, total))


def rows_on_first(
    rows: NDArray[np.float32] | None, places: NDArray[np.int64], total: int
) -> NDArray[np.float32] | None:
    """All processes' rows in one array on the first process, which alone holds it; None on the others, and if none has any.

    Args:
        rows: (n, D) of this process; None if it has none.
        places: (n,) where they belong, each place once; where several processes have a row, these are added.
        total: rows of the array.
    """
    if world()[1] == 1:
        if rows is not None and len(rows) == total and (places == np.arange(total)).all():
            return rows  # as they are: no second array of gigabytes
        return None if rows is None else _added(np.zeros((total, rows.shape[1]), np.float32), rows, places)
    group = host_group()
    if world()[0] > 0:
        count, width = (0, 0) if rows is None else rows.shape
        torch.distributed.send(torch.tensor([count, width]), 0, group=group)
        for first in range(0, count, ROWS_AT_ONCE):
            block = slice(first, first + ROWS_AT_ONCE)
            torch.distributed.send(torch.from_numpy(places[block].astype(np.int64)), 0, group=group)
            torch.distributed.send(torch.from_numpy(rows[block]), 0, group=group)  # type: ignore[index]
        return None
    everything = None if rows is None else _added(np.zeros((total, rows.shape[1]), np.float32), rows, places)
    for process in range(1, world()[1]):
        header = torch.zeros(2, dtype=torch.int64)
        torch.distributed.recv(header, process, group=group)
        count, width = header.tolist()
        if count and everything is None:
            everything = np.zeros((total, width), np.float32)
        for first in range(0, count, ROWS_AT_ONCE):
            size = min(ROWS_AT_ONCE, count - first)
            its_places, its_rows = torch.zeros(size, dtype=torch.int64), torch.zeros(size, width)
            torch.distributed.recv(its_places, process, group=group)
            torch.distributed.recv(its_rows, process, group=group)
            _added(everything, its_rows.numpy(), its_places.numpy())  # type: ignore[arg-type]
    return everything


def _added(into: NDArray[np.float32], rows: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.float32]:
    into[places] += rows
    return into


def broadcast_from_first(array: NDArray) -> NDArray:
    """The first process's array on all; the others give one of the same shape and type."""
    if world()[1] == 1:
        return array
    tensor = torch.from_numpy(array)
    torch.distributed.broadcast(tensor, src=0, group=host_group())
    return tensor.numpy()


class EmbeddingMemory:
    """Running means of the embeddings that training computes anyway, as a stand-in for a new pass over all videos.

    Each process keeps rows for the videos that it trained on. They are no part of a checkpoint (gigabytes, for a million
    videos): after a resume in mid-epoch the next clusters rest on what was seen since, and the videos not seen are
    embedded anew.
    """

    def __init__(self, video_ids: list[str]) -> None:
        self._place = {video_id: place for place, video_id in enumerate(video_ids)}
        self._forget()

    def _forget(self) -> None:
        self._row = np.full(len(self._place), -1)  # of each video among the sums
        self._counts = np.zeros(len(self._place), np.float32)
        self._sums: NDArray[np.float32] | None = None
        self._rows = 0

    @contextmanager
    def recording(self, model: nn.Module, video_ids: list[str]) -> Iterator[None]:
        """Add what `model` returns for a batch of these videos while the context lasts."""

        def add(module: nn.Module, args: object, output: dict[str, Tensor]) -> None:
            pairs = pair_embeddings(output).detach().cpu().numpy()
            places = np.array([self._place[video_id] for video_id in video_ids])
            np.add.at(self._sums_of(places, pairs.shape[1]), self._row[places], pairs)
            np.add.at(self._counts, places, 1)

        handle = model.register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()

    def _sums_of(self, places: NDArray[np.int64], width: int) -> NDArray[np.float32]:
        """The sums, with a row for each of these videos."""
        new = np.unique(places[self._row[places] < 0])
        self._row[new] = self._rows + np.arange(len(new))
        self._rows += len(new)
        if self._sums is None or self._rows > len(self._sums):
            grown = np.zeros((min(len(self._place), max(1024, 2 * self._rows)), width), np.float32)
            if self._sums is not None:
                grown[: len(self._sums)] = self._sums
            self._sums = grown
        return self._sums

    def take(self) -> tuple[NDArray[np.float32] | None, NDArray[np.bool_]] | None:
        """Means since the last call and which videos were seen; None if none was.

        All processes must call; each gets which videos were seen, the first gets the means (rows of unseen videos are
        zero), the others None instead.
        """
        places = np.flatnonzero(self._row >= 0)
        own = None if self._sums is None else self._sums[self._row[places]]
        counts, total = self._counts, len(self._place)
        self._forget()
        sums = rows_on_first(own, places, total)
        if world()[1] > 1:
            torch.distributed.all_reduce(torch.from_numpy(counts), group=host_group())
        if not counts.any():
            return None
        if sums is not None:
            sums /= np.maximum(counts, 1)[:, None]
        return sums, counts > 0
