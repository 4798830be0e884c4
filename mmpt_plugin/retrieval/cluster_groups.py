"""Retrieval-augmented batches: groups of similar videos, from the model's own embeddings (paper, section 3.4)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mmpt_plugin.data.groups import RandomGroups
from mmpt_plugin.data.pretraining_dataset import PretrainingDataset
from mmpt_plugin.models.similarity import unit_rows
from mmpt_plugin.retrieval.clusters import cluster_statistics, draw_seeds, form_clusters
from mmpt_plugin.retrieval.index import VideoIndex, all_cores
from mmpt_plugin.retrieval.refresh import EmbeddingMemory, broadcast_from_first, embed_videos
from mmpt_plugin.retrieval.settings import RetrievalConfig, check_retrieval

logger = logging.getLogger(__name__)

Observer = Callable[[int, dict[str, float], NDArray[np.int64], NDArray[np.float32]], None]
FAILED = np.int64(-1)  # stands in all clusters where the first process could not form them


class ClusterGroups:
    """A source of groups that are clusters of similar videos.

    Before `start_epoch`, and as long as validation's recall has not reached `start_recall`, groups are random. From then
    on, every `every` epochs, all videos are embedded and clusters formed anew; the epochs between take the last clusters in
    another order.

    Attributes:
        recall: of the last validation, for `start_recall`; the task keeps it up to date.
    """

    repeats_videos = True

    def __init__(
        self,
        model: nn.Module,
        dataset: PretrainingDataset,
        videos_per_group: int,
        settings: RetrievalConfig,
        seed: int,
        num_workers: int,
        amp: bool,
    ) -> None:
        """
        Args:
            model: as trained; used in evaluation mode.
            dataset: draws the clips to embed; a data set of its own, not the one that training reads.
            videos_per_group: k, the size of a cluster.
            settings: what to retrieve, and when.
            seed: of the seeds' and clusters' draws.
            num_workers: processes that load the clips to embed.
            amp: embed under autocast, as the run trains.

        Raises:
            ValueError: for fewer videos than a cluster needs, or settings that make no sense.
        """
        self.random = RandomGroups(len(dataset.corpus), videos_per_group, seed)
        check_retrieval(settings, videos_per_group)
        self.num_groups = self.random.num_groups
        self.videos_per_group = videos_per_group
        self.model = model
        self.dataset = dataset
        self.settings = settings
        self.seed = seed
        self.num_workers = num_workers
        self.amp = amp
        self.memory = EmbeddingMemory(dataset.corpus.video_ids) if settings.embeddings == "reuse" else None
        self.statistics: dict[str, float] = {}
        self.observe: Observer | None = None  # told of new clusters, on the first process
        self.recall = 0.0
        self._first: int | None = None  # epoch of the first clusters
        self._clusters: NDArray[np.int64] | None = None

    def groups(self, epoch: int) -> NDArray[np.int64]:
        """See `GroupSource`."""
        if self._first is None and epoch >= self.settings.start_epoch:
            self._first = self._may_start(epoch)
        if self._first is None or epoch < self._first:
            return self.random.groups(epoch)
        if self._clusters is None or (epoch - self._first) % self.settings.every == 0:
            self._clusters = self._refresh(epoch)
            return self._clusters
        return np.random.default_rng([self.seed, epoch]).permutation(self._clusters)

    def _may_start(self, epoch: int) -> int | None:
        """The epoch of the first clusters, if it is known by now."""
        needed = self.settings.start_recall
        if needed is None:
            return self.settings.start_epoch
        reached = self.recall >= needed
        logger.info(
            f"epoch {epoch}: text_to_video of validation is {self.recall:.3f}, task.retrieval.start_recall {needed}: "
            + ("clusters begin" if reached else "its videos are random")
        )
        return epoch if reached else None

    def _refresh(self, epoch: int) -> NDArray[np.int64]:
        """Embed on all processes, cluster on the first, tell the others."""
        started = time.perf_counter()
        vectors = self._vectors(epoch)
        if vectors is not None and getattr(self.model, "normalize", False):
            vectors = unit_rows(vectors)  # the nearest by L2 distance are then those of the largest similarity
        clusters = np.full((self.num_groups, self.videos_per_group), FAILED)
        failure: Exception | None = None
        if vectors is not None:
            try:
                with all_cores():
                    clusters = self._cluster(vectors, epoch, time.perf_counter() - started)
            except Exception as error:  # the others wait for the clusters: they shall stop too
                failure = error
        clusters = broadcast_from_first(clusters)
        if failure is not None:
            raise failure
        if (clusters == FAILED).any():
            raise RuntimeError(f"the first process could not form the clusters of epoch {epoch}: its log says why")
        return clusters

    def _cluster(self, vectors: NDArray[np.float32], epoch: int, seconds_embed: float) -> NDArray[np.int64]:
        """(groups, videos_per_group) indexes of videos, from the embeddings of all; logs what they are like."""
        started = time.perf_counter()
        settings, k = self.settings, self.videos_per_group
        index = VideoIndex(vectors, settings, seed=self.seed, names=self.dataset.corpus.video_ids)
        indexed = time.perf_counter()
        rng = np.random.default_rng([self.seed, epoch])
        seeds = draw_seeds(len(vectors), k, rng)
        neighbours = index.neighbours_of(seeds, min(settings.num_neighbors, len(vectors)))
        clusters = np.array(form_clusters(neighbours, k, rng, pick=str(settings.pick)))
        searched = time.perf_counter()
        self.statistics = cluster_statistics(list(clusters), vectors, rng) | {
            "seconds_embed": seconds_embed,
            "seconds_index": indexed - started,
            "seconds_search": searched - indexed,
        }
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.statistics.items())
        logger.info(f"clusters of epoch {epoch}: {self.num_groups} of {k} videos; {values}")
        if self.observe:
            self.observe(epoch, self.statistics, clusters, vectors)
        return clusters

    def _vectors(self, epoch: int) -> NDArray[np.float32] | None:
        """(videos, D) on the first process alone: from what training computed where allowed, else by a pass."""
        remembered = self.memory.take() if self.memory else None
        if remembered is None:
            return self._embed(epoch, None)
        vectors, seen = remembered
        unseen = np.flatnonzero(~seen)
        logger.info(f"epoch {epoch}: {seen.sum()} videos keep training's embeddings, {len(unseen)} are embedded now")
        if len(unseen):
            embedded = self._embed(epoch, unseen)
            if vectors is not None:
                vectors[unseen] = embedded
        return vectors

    def _embed(self, epoch: int, videos: NDArray[np.int64] | None) -> NDArray[np.float32] | None:
        return embed_videos(
            self.model,
            self.dataset,
            epoch,
            videos=videos,
            videos_per_batch=self.videos_per_group,
            num_workers=self.num_workers,
            amp=self.amp,
        )

    def state_dict(self) -> dict[str, Any]:
        """The last clusters, where later epochs use them again, and what `start_recall` goes by."""
        state: dict[str, Any] = {}
        if self.settings.start_recall is not None:
            state |= {"recall": self.recall, "first": self._first}
        if self.settings.every > 1 and self._clusters is not None:
            state["clusters"] = torch.from_numpy(self._clusters)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Raises:
            ValueError: if the clusters were made with another `task.videos_per_batch`.
        """
        if self.settings.start_recall is not None and "recall" in state:
            self.recall, self._first = float(state["recall"]), state["first"]
        if "clusters" not in state:
            return
        expected = (self.num_groups, self.videos_per_group)
        if tuple(state["clusters"].shape) != expected:
            raise ValueError(
                f"the checkpoint's clusters are {state['clusters'].shape[0]} of {state['clusters'].shape[1]} videos, now "
                f"they would be {expected[0]} of {expected[1]}: restore task.videos_per_batch, or set "
                "checkpoint.reset_dataloader=true to form them anew"
            )
        self._clusters = state["clusters"].numpy()
