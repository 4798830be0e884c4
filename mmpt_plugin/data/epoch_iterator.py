"""fairseq's epoch iterators: one makes its groups when an epoch starts and keeps them in the checkpoint of a half-done
epoch, to pre-train; one shuffles anew each epoch, to fine-tune; one serves the same batches every time, to validate and
evaluate."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fairseq.data import FairseqDataset
from fairseq.data.iterators import BufferedIterator, CountingIterator, EpochBatchIterator, ShardedIterator
from numpy.typing import NDArray

from mmpt_plugin.data.groups import GroupSource
from mmpt_plugin.data.pretraining_dataset import PretrainingDataset
from mmpt_plugin.data.workers import shield_worker

logger = logging.getLogger(__name__)


def fingerprint(video_ids: Sequence[str]) -> str:
    """A short hash of a list of videos and its order."""
    return hashlib.sha256("\n".join(video_ids).encode()).hexdigest()[:16]


class EqualSharesEpochIterator(EpochBatchIterator):
    """As many batches an epoch for every process, made when the epoch starts.

    An epoch is a row of units (groups or items) that is cut into batches, and processes take turns. A checkpoint in
    mid-epoch keeps the place in that row, so that a run may go on with other numbers of processes and units a batch: what
    is left of the row is cut anew, and no unit comes twice or is passed over.
    """

    def __init__(self, dataset: FairseqDataset, units: int, units_per_batch: int, **settings: int) -> None:
        """
        Args:
            dataset: gives the items.
            units: of an epoch.
            units_per_batch: of each process.
            settings: of fairseq's iterator.
        """
        if units_per_batch < 1:
            raise ValueError(f"dataset.batch_size is {units_per_batch}: it must be at least 1")
        super().__init__(dataset, dataset.collater, batch_sampler=[], **settings)
        self.units = units
        self.units_per_batch = units_per_batch
        self.batches_per_epoch = len(self.batch_sizes(units, self.num_shards, units_per_batch)) // self.num_shards
        self._start = 0  # units of the epoch that came before its present cutting
        self._batches_before = 0  # batches of a process that these were in

    @staticmethod
    def batch_sizes(units: int, processes: int, units_per_batch: int) -> NDArray[np.int64]:
        """Units of each batch of all processes, in order; as many batches for each process."""
        raise NotImplementedError

    def order(self, epoch: int) -> NDArray[np.int64]:
        """(units,) the items of an epoch."""
        raise NotImplementedError

    @property
    def first_batch(self) -> str:
        """fairseq's word for "no batch before the epoch starts"; all processes have as many batches, none is needed."""
        return "DUMMY"

    def __len__(self) -> int:
        return self.batches_per_epoch

    def _get_iterator_for_epoch(
        self, epoch: int, shuffle: bool, fix_batches_to_gpus: bool = False, offset: int = 0
    ) -> CountingIterator:
        """The rest of an epoch from batch `offset` on."""
        if offset == 0:
            self._start = self._batches_before = 0
        sizes = self.batch_sizes(self.units - self._start, self.num_shards, self.units_per_batch)
        if left_over := self.units - self._start - int(sizes.sum()):
            logger.info(f"epoch {epoch}: {left_over} of {self.units} groups are left over")
        all_batches = np.split(self.order(epoch)[self._start : self._start + int(sizes.sum())], np.cumsum(sizes)[:-1])
        own = [batch.tolist() for batch in all_batches[self.shard_id :: self.num_shards]]
        batches = _loader(self, own[offset - self._batches_before :])
        if self.buffer_size > 0:
            batches = BufferedIterator(self.buffer_size, batches)
        return CountingIterator(batches, start=offset)

    def state_dict(self) -> dict[str, Any]:
        """fairseq's state and, in mid-epoch, the place in the row of units."""
        state = super().state_dict()
        if state["iterations_in_epoch"] > 0:
            state["place"] = {
                "units": self.units,
                "start": self._start,
                "batches_before": self._batches_before,
                "processes": self.num_shards,
                "units_per_batch": self.units_per_batch,
            }
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """
        Raises:
            ValueError: if the state is none of this iterator's, or of an epoch of another size.
        """
        epoch, done = state_dict.get("epoch"), state_dict.get("iterations_in_epoch")
        if not (isinstance(epoch, int) and epoch >= 1 and isinstance(done, int) and done >= 0):
            raise _unusable(f"epoch={epoch} and iterations_in_epoch={done}")
        if done > 0:
            self._take_place(done, state_dict.get("place"))
            if not len(self.batch_sizes(self.units - self._start, self.num_shards, self.units_per_batch)):
                logger.info(
                    f"epoch {epoch}: too few groups are left for a batch of each process; the next epoch follows"
                )
                state_dict = {**state_dict, "epoch": epoch + 1, "iterations_in_epoch": 0}
        super().load_state_dict(state_dict)

    def _take_place(self, done: int, place: Any) -> None:
        """Go on after `done` batches of each process, as `place` says what was in them."""
        if place is None:  # of an earlier version, which did not keep it: the same settings are taken for granted
            place = {"processes": self.num_shards, "units_per_batch": self.units_per_batch, "units": self.units}
            place |= {"start": 0, "batches_before": 0}
        names = ("units", "start", "batches_before", "processes", "units_per_batch")
        if not isinstance(place, dict) or any(
            not isinstance(place.get(name), int) or place[name] < (name not in ("start", "batches_before"))
            for name in names
        ):
            raise _unusable(f"place={place}")
        units, start, before, processes, size = (place[name] for name in names)
        if units != self.units:
            raise ValueError(
                f"the checkpoint was saved in mid-epoch, with {units} groups or items an epoch; now there are {self.units}: "
                "restore the training data, or set checkpoint.reset_dataloader=true to start the epoch anew"
            )
        sizes = self.batch_sizes(max(units - start, 0), processes, size)
        if not before <= done <= before + len(sizes) // processes:
            raise _unusable(f"iterations_in_epoch={done} and place={place}")
        if (processes, size) == (self.num_shards, self.units_per_batch):
            self._start, self._batches_before = start, before
        else:
            self._start, self._batches_before = start + int(sizes[: (done - before) * processes].sum()), done
            logger.info(
                f"the checkpoint was saved by {processes} processes with {size} groups or items a batch, now "
                f"{self.num_shards} with {self.units_per_batch}: the {units - self._start} of {units} left are shared anew"
            )


def _unusable(what: str) -> ValueError:
    return ValueError(
        f"the checkpoint's place in the training data cannot be used ({what}): take another checkpoint, or set "
        "checkpoint.reset_dataloader=true to start the epoch anew"
    )


class GroupEpochIterator(EqualSharesEpochIterator):
    """Batches of whole groups for this process.

    fairseq asks for an iterator before a checkpoint's state is known, and once more after the last epoch; the source is
    therefore asked only when an epoch really starts (`next_epoch_itr`), and not at all when the checkpoint holds the
    groups of the epoch to go on with. All processes take equal numbers of equal batches; the groups that do not fill a
    batch for each process are left over, others in each epoch as the groups' order is random.
    """

    def __init__(
        self, dataset: PretrainingDataset, source: GroupSource, *, groups_per_batch: int = 1, **settings: int
    ) -> None:
        """
        Raises:
            ValueError: if an epoch has too few groups for every process to get a batch.
        """
        super().__init__(dataset, source.num_groups, groups_per_batch, **settings)
        self.source = source
        if self.batches_per_epoch == 0:
            raise ValueError(
                f"an epoch has {source.num_groups} groups of task.videos_per_batch videos; {self.num_shards} processes with "
                f"dataset.batch_size={groups_per_batch} groups need {self.num_shards * groups_per_batch}: "
                "add videos or lower one of them"
            )
        self._groups: NDArray[np.int64] | None = None
        self._restored: NDArray[np.int64] | None = None

    @staticmethod
    def batch_sizes(units: int, processes: int, units_per_batch: int) -> NDArray[np.int64]:
        """Full batches only."""
        return np.full(units // (processes * units_per_batch) * processes, units_per_batch)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """All groups one after the other, those of a restored epoch if there are any."""
        self._groups = self.source.groups(epoch) if self._restored is None else self._restored
        self._restored = None
        self.dataset.set_groups(epoch, self._groups)
        return np.arange(len(self._groups))

    def state_dict(self) -> dict[str, Any]:
        """The base's state, the source's and, in mid-epoch, the epoch's groups."""
        state = super().state_dict()
        state["videos"] = fingerprint(self.dataset.corpus.video_ids)
        state["source"] = self.source.state_dict()
        if state["iterations_in_epoch"] > 0 and self._groups is not None:
            state["groups"] = torch.from_numpy(self._groups)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """
        Raises:
            ValueError: if the checkpoint was made with other videos, or groups of another size.
        """
        missing = {"videos", "source"} - state_dict.keys()
        if missing:
            raise _unusable(f"no {' and no '.join(sorted(missing))}; it was not saved by this package's pre-training")
        current = fingerprint(self.dataset.corpus.video_ids)
        if state_dict["videos"] != current:
            raise ValueError(
                f"the checkpoint was saved with another list of training videos ({state_dict['videos']}, now {current}): "
                "restore howto100m/train.txt, or set checkpoint.reset_dataloader=true to start with the new list"
            )
        groups = state_dict.get("groups")
        if groups is not None:
            self._restored = self._checked(groups)
        self.source.load_state_dict(state_dict["source"])
        super().load_state_dict(state_dict)

    def _checked(self, groups: torch.Tensor) -> NDArray[np.int64]:
        """The groups of a checkpoint as this run needs them."""
        expected = (self.source.num_groups, self.source.videos_per_group)
        if tuple(groups.shape) != expected:
            shape = (*groups.shape, "?", "?")
            raise ValueError(
                f"the checkpoint was saved in mid-epoch with {shape[0]} groups of {shape[1]} videos; "
                f"now an epoch has {expected[0]} groups of {expected[1]}: restore task.videos_per_batch, or set "
                "checkpoint.reset_dataloader=true to start the epoch anew"
            )
        if groups.dtype != torch.int64 or groups.min() < 0 or groups.max() >= len(self.dataset.corpus):
            raise _unusable(f"its groups hold others than the {len(self.dataset.corpus)} training videos")
        if _hold_twice(groups.numpy()):
            raise _unusable("its groups hold a video twice")
        if not self.source.repeats_videos and _hold_twice(groups.reshape(1, -1).numpy()):
            raise ValueError(
                "the checkpoint was saved in mid-epoch with groups that share videos, as task.retrieval.enabled=true makes "
                "them, and this run has task.retrieval.enabled=false: restore it, or set "
                "checkpoint.reset_dataloader=true to start the epoch anew"
            )
        return groups.numpy()


def _hold_twice(groups: NDArray[np.int64]) -> bool:
    """Whether a row holds a video twice."""
    rows = np.sort(groups, axis=1)
    return bool((rows[:, 1:] == rows[:, :-1]).any())


class FixedEpochIterator(EpochBatchIterator):
    """Every item of a data set as a batch of its own, in order; processes take turns.

    fairseq's own iterator is part of a cycle of references. Its workers are therefore left to Python's garbage collector,
    which waits five seconds for each.
    """

    def __init__(
        self, dataset: FairseqDataset, num_items: int, *, num_shards: int = 1, shard_id: int = 0, num_workers: int = 0
    ) -> None:
        super().__init__(
            dataset,
            dataset.collater,
            [[item] for item in range(num_items)],
            num_shards=num_shards,
            shard_id=shard_id,
            num_workers=num_workers,
            disable_shuffling=True,
        )

    def _get_iterator_for_epoch(
        self, epoch: int, shuffle: bool, fix_batches_to_gpus: bool = False, offset: int = 0
    ) -> CountingIterator:
        """This process's batches from `offset` on; empty ones at the end, where others have one more."""
        share = list(ShardedIterator(self.frozen_batches, self.num_shards, self.shard_id, fill_value=[]))
        return CountingIterator(_loader(self, share[offset:]), start=offset)


class ShuffledEpochIterator(EqualSharesEpochIterator):
    """All items of a data set in another order each epoch, in batches of nearly equal size; to fine-tune.

    Order and batches follow from (seed, epoch) alone. All processes take equal numbers of batches and every item comes
    once an epoch. fairseq's own iterator shuffles ready-made batches, whose items would be each other's negatives for ever.
    """

    def __init__(self, dataset: FairseqDataset, *, batch_size: int, seed: int, **settings: int) -> None:
        """
        Raises:
            ValueError: if there are fewer items than processes.
        """
        super().__init__(dataset, len(dataset), batch_size, seed=seed, **settings)
        if len(dataset) < self.num_shards:
            raise ValueError(f"{len(dataset)} training items are too few for {self.num_shards} processes")

    @staticmethod
    def batch_sizes(units: int, processes: int, units_per_batch: int) -> NDArray[np.int64]:
        """As few batches as hold all items, of sizes that differ by one at most."""
        batches = processes * min(-(-units // (units_per_batch * processes)), units // processes)
        return units // batches + (np.arange(batches) < units % batches) if batches else np.zeros(0, np.int64)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """A permutation of the items."""
        self.dataset.set_epoch(epoch)
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))


def _loader(iterator: EpochBatchIterator, batches: list[list[int]]) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(
        iterator.dataset,
        batch_sampler=batches,
        collate_fn=iterator.collate_fn,
        num_workers=iterator.num_workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=shield_worker,
    )
