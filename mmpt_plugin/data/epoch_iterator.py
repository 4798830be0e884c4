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

logger = logging.getLogger(__name__)


def fingerprint(video_ids: Sequence[str]) -> str:
    """A short hash of a list of videos and its order."""
    return hashlib.sha256("\n".join(video_ids).encode()).hexdigest()[:16]


class EqualSharesEpochIterator(EpochBatchIterator):
    """As many batches an epoch for every process, made when the epoch starts."""

    batches_per_epoch: int  #: of each process

    def epoch_batches(self, epoch: int) -> list[list[int]]:
        """This process's batches of items, `batches_per_epoch` of them."""
        raise NotImplementedError

    @property
    def first_batch(self) -> str:
        """fairseq's word for "no batch before the epoch starts"; all processes have as many batches, none is needed."""
        return "DUMMY"

    def __len__(self) -> int:
        return self.batches_per_epoch

    def _get_iterator_for_epoch(
        self, epoch: int, shuffle: bool, fix_batches_to_gpus: bool = False, offset: int = 0
    ) -> CountingIterator | None:
        """The rest of an epoch from batch `offset` on; None if there is none."""
        if offset >= self.batches_per_epoch:
            return None
        batches = _loader(self, self.epoch_batches(epoch)[offset:])
        if self.buffer_size > 0:
            batches = BufferedIterator(self.buffer_size, batches)
        return CountingIterator(batches, start=offset)


class GroupEpochIterator(EqualSharesEpochIterator):
    """Batches of whole groups for this process.

    fairseq asks for an iterator before a checkpoint's state is known, and once more after the last epoch; the source is
    therefore asked only when an epoch really starts (`next_epoch_itr`), and not at all when the checkpoint holds the
    groups of the epoch to go on with. All processes take equal numbers of equal batches; the groups that do not fill a
    batch for each process are left over, others in each epoch as the groups' order is random.
    """

    def __init__(
        self,
        dataset: PretrainingDataset,
        source: GroupSource,
        *,
        groups_per_batch: int = 1,
        num_shards: int = 1,
        shard_id: int = 0,
        num_workers: int = 0,
        epoch: int = 1,
        buffer_size: int = 0,
    ) -> None:
        """
        Raises:
            ValueError: if an epoch has too few groups for every process to get a batch.
        """
        super().__init__(
            dataset,
            dataset.collater,
            batch_sampler=[],
            num_shards=num_shards,
            shard_id=shard_id,
            num_workers=num_workers,
            epoch=epoch,
            buffer_size=buffer_size,
        )
        self.source = source
        self.groups_per_batch = groups_per_batch
        self.batches_per_epoch = source.num_groups // (num_shards * groups_per_batch)
        if self.batches_per_epoch == 0:
            raise ValueError(
                f"an epoch has {source.num_groups} groups of task.videos_per_batch videos; {num_shards} processes with "
                f"dataset.batch_size={groups_per_batch} groups need {num_shards * groups_per_batch}: "
                "add videos or lower one of them"
            )
        self._groups: NDArray[np.int64] | None = None
        self._restored: NDArray[np.int64] | None = None

    def epoch_batches(self, epoch: int) -> list[list[int]]:
        """Whole groups, those of a restored epoch if there are any."""
        self._groups = self.source.groups(epoch) if self._restored is None else self._restored
        self._restored = None
        self.dataset.set_groups(epoch, self._groups)
        used = self.batches_per_epoch * self.num_shards * self.groups_per_batch
        if used < len(self._groups):
            logger.info(f"epoch {epoch}: {len(self._groups) - used} of {len(self._groups)} groups are left over")
        shares = np.arange(used).reshape(self.batches_per_epoch, self.num_shards, self.groups_per_batch)
        return shares[:, self.shard_id].tolist()

    def state_dict(self) -> dict[str, Any]:
        """fairseq's state, the source's and, in mid-epoch, the epoch's groups."""
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
        current = fingerprint(self.dataset.corpus.video_ids)
        if state_dict["videos"] != current:
            raise ValueError(
                f"the checkpoint was saved with another list of training videos ({state_dict['videos']}, now {current}): "
                "restore howto100m/train.txt, or set checkpoint.reset_dataloader=true to start with the new list"
            )
        groups = state_dict.get("groups")
        if groups is not None:
            expected = (self.source.num_groups, self.source.videos_per_batch)
            if tuple(groups.shape) != expected:
                raise ValueError(
                    f"the checkpoint was saved in mid-epoch with {groups.shape[0]} groups of {groups.shape[1]} videos; "
                    f"now an epoch has {expected[0]} groups of {expected[1]}: restore task.videos_per_batch, or set "
                    "checkpoint.reset_dataloader=true to start the epoch anew"
                )
            self._restored = groups.numpy()
        self.source.load_state_dict(state_dict["source"])
        super().load_state_dict(state_dict)


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

    def __init__(
        self,
        dataset: FairseqDataset,
        *,
        batch_size: int,
        seed: int,
        num_shards: int = 1,
        shard_id: int = 0,
        num_workers: int = 0,
        epoch: int = 1,
    ) -> None:
        """
        Raises:
            ValueError: if there are fewer items than processes.
        """
        super().__init__(
            dataset,
            dataset.collater,
            batch_sampler=[],
            seed=seed,
            num_shards=num_shards,
            shard_id=shard_id,
            num_workers=num_workers,
            epoch=epoch,
        )
        if len(dataset) < num_shards:
            raise ValueError(f"{len(dataset)} training items are too few for {num_shards} processes")
        self.batches_per_epoch = min(-(-len(dataset) // (batch_size * num_shards)), len(dataset) // num_shards)

    def epoch_batches(self, epoch: int) -> list[list[int]]:
        """Every num_shards-th batch of the epoch's order."""
        self.dataset.set_epoch(epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))
        batches = [batch.tolist() for batch in np.array_split(order, self.batches_per_epoch * self.num_shards)]
        return batches[self.shard_id :: self.num_shards]


def _loader(iterator: EpochBatchIterator, batches: list[list[int]]) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(
        iterator.dataset,
        batch_sampler=batches,
        collate_fn=iterator.collate_fn,
        num_workers=iterator.num_workers,
        pin_memory=torch.cuda.is_available(),
    )
