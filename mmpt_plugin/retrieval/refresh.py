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

logger = logging.getLogger(__name__)

ROWS_REDUCED_AT_ONCE = 65536  # bounds the memory that joining the processes' vectors takes on their devices


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; mode and random states are afterwards as they were."""
    training = model.training
    model.eval()
    with torch.random.fork_rng(), torch.no_grad():
        yield
    model.train(training)


def world() -> tuple[int, int]:
    """This process's rank and the number of processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


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
) -> NDArray[np.float32]:
    """The mean, over clips of each video, of (video embedding + text embedding) / 2.

    Every process embeds its share, as the clips of a video depend on the data set's seed, the epoch and the video's place
    alone; the first process gets all vectors.

    Args:
        model: gives both embeddings of a batch of pairs.
        dataset: draws the clips; used by nothing else meanwhile.
        epoch: what the draws depend on.
        videos: indexes of the videos to embed; default all.
        videos_per_batch: videos encoded at once.
        num_workers: processes that load data.

    Returns:
        (videos, D) float32, complete on the first process.
    """
    rank, processes = world()
    wanted = np.arange(len(dataset.corpus)) if videos is None else videos
    groups = [wanted[group] for group in consecutive_groups(len(wanted), videos_per_batch)]
    dataset.set_groups(epoch, groups)
    share = range(rank, len(groups), processes)
    device = next(model.parameters()).device
    vectors: NDArray[np.float32] | None = None
    with (
        undisturbed(model),
        tqdm(total=len(wanted), unit="video", desc=f"embedding (epoch {epoch})", disable=None) as bar,
    ):
        loader: torch.utils.data.DataLoader = torch.utils.data.DataLoader(
            dataset, batch_sampler=[[group] for group in share], collate_fn=dataset.collater, num_workers=num_workers
        )
        for group, batch in zip(share, loader):
            output = model(**inputs_on(device, batch))
            pairs = pair_embeddings(output)
            mean = pairs.unflatten(0, (-1, dataset.clips.clips_per_video)).mean(1).cpu().numpy()  # (videos, D)
            if vectors is None:
                vectors = np.zeros((len(wanted), mean.shape[1]), np.float32)
            first = group * videos_per_batch
            vectors[first : first + len(mean)] = mean
            bar.update(min(processes * len(mean), len(wanted) - bar.n))
    if vectors is None:  # more processes than groups
        vectors = np.zeros((len(wanted), _width(model, dataset)), np.float32)
    return reduce_to_first(vectors, device)


def reduce_to_first(vectors: NDArray[np.float32], device: torch.device) -> NDArray[np.float32]:
    """The sum over processes, on the first process; each holds zeros where it embedded nothing."""
    if world()[1] == 1:
        return vectors
    for start in range(0, len(vectors), ROWS_REDUCED_AT_ONCE):
        rows = torch.from_numpy(vectors[start : start + ROWS_REDUCED_AT_ONCE]).to(device)
        torch.distributed.reduce(rows, dst=0)
        vectors[start : start + ROWS_REDUCED_AT_ONCE] = rows.cpu().numpy()
    return vectors


def broadcast_from_first(groups: NDArray[np.int64], device: torch.device) -> NDArray[np.int64]:
    """The first process's groups on all; the others give an array of the same shape."""
    if world()[1] == 1:
        return groups
    tensor: Tensor = torch.from_numpy(groups).to(device)
    torch.distributed.broadcast(tensor, src=0)
    return tensor.cpu().numpy()


def _width(model: nn.Module, dataset: PretrainingDataset) -> int:
    """Size of the model's embeddings, by embedding the first group."""
    device = next(model.parameters()).device
    with undisturbed(model):
        return model(**inputs_on(device, dataset[0]))["video_embeddings"].shape[1]


class EmbeddingMemory:
    """Running means of the embeddings that training computes anyway, as a stand-in for a new pass over all videos.

    They are no part of a checkpoint (gigabytes, for a million videos): after a resume in mid-epoch the next clusters rest
    on what was seen since, and the videos not seen are embedded anew.
    """

    def __init__(self, video_ids: list[str]) -> None:
        self._place = {video_id: place for place, video_id in enumerate(video_ids)}
        self._sums: NDArray[np.float32] | None = None
        self._counts = np.zeros(len(video_ids), np.float32)

    @contextmanager
    def recording(self, model: nn.Module, video_ids: list[str]) -> Iterator[None]:
        """Add what `model` returns for a batch of these videos while the context lasts."""

        def add(module: nn.Module, args: object, output: dict[str, Tensor]) -> None:
            pairs = pair_embeddings(output).detach()
            if self._sums is None:
                self._sums = np.zeros((len(self._counts), pairs.shape[1]), np.float32)
            places = np.array([self._place[video_id] for video_id in video_ids])
            np.add.at(self._sums, places, pairs.cpu().numpy())
            np.add.at(self._counts, places, 1)

        handle = model.register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()

    def take(self, device: torch.device) -> tuple[NDArray[np.float32], NDArray[np.bool_]] | None:
        """Means since the last call (rows of unseen videos are zero) and which videos were seen; None if none was.

        All processes must call; each gets which videos were seen, the first gets the means.
        """
        if self._sums is None:
            return None
        counts = torch.from_numpy(self._counts).to(device)
        if world()[1] > 1:
            torch.distributed.all_reduce(counts)
        counts_of_all = counts.cpu().numpy()
        means = reduce_to_first(self._sums, device) / np.maximum(counts_of_all, 1)[:, None]
        self._sums, self._counts = None, np.zeros_like(self._counts)
        return means, counts_of_all > 0
