"""The same batches whatever the workers, processes and stops; groups are made when an epoch starts and not before."""

import gc
import io
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.data import FairseqDataset
from fairseq.data.iterators import EpochBatchIterator
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt_plugin.data.corpus import VideoTextCorpus, read_video_list
from mmpt_plugin.data.epoch_iterator import (
    FixedEpochIterator,
    GroupEpochIterator,
    ShuffledEpochIterator,
    fingerprint,
)
from mmpt_plugin.data.groups import RandomGroups, consecutive_groups
from mmpt_plugin.data.pairs import Batch, SpecialTokens
from mmpt_plugin.data.pretraining_dataset import ClipSettings, PretrainingDataset

VIDEOS = 24


class RecordingGroups(RandomGroups):
    """Random groups that remember for which epochs they were asked."""

    def __init__(self, *arguments: int) -> None:
        super().__init__(*arguments)
        self.asked: list[int] = []

    def groups(self, epoch: int) -> np.ndarray:
        self.asked.append(epoch)
        return super().groups(epoch)


@pytest.fixture(scope="module")
def corpus(tiny_data: Path) -> VideoTextCorpus:
    folder = tiny_data / "howto100m"
    return VideoTextCorpus.open(folder / "shards", read_video_list(folder / "train.txt"))


def iterator(corpus: VideoTextCorpus, videos_per_group: int = 2, **settings: int) -> GroupEpochIterator:
    """12 groups of 2 videos, 1 clip each, unless told otherwise."""
    dataset = PretrainingDataset(corpus, ClipSettings(clips_per_video=1), SpecialTokens(2, 3), seed=1)
    return GroupEpochIterator(dataset, RecordingGroups(len(corpus), videos_per_group, 1), **settings)


def signature(batch: Batch) -> tuple:
    """All that a batch holds, in a form that compares."""
    inputs = {name: np.asarray(value).tolist() for name, value in batch["net_input"].items()}
    return batch["id"].tolist(), batch["video_id"], batch["nsentences"], batch["ntokens"], inputs


def epochs(batches: GroupEpochIterator, count: int) -> list[list[tuple]]:
    return [[signature(batch) for batch in batches.next_epoch_itr()] for _ in range(count)]


@pytest.fixture(scope="module")
def one_process(corpus: VideoTextCorpus) -> list[list[tuple]]:
    """Batches of three epochs in one process without workers."""
    return epochs(iterator(corpus), 3)


def test_an_epoch_is_its_groups_in_order(corpus: VideoTextCorpus, one_process: list[list[tuple]]) -> None:
    assert len(iterator(corpus)) == 12
    for epoch, batches in enumerate(one_process, start=1):
        groups = RandomGroups(VIDEOS, 2, 1).groups(epoch)
        assert [batch[0] for batch in batches] == [[index] * 2 for index in range(12)]
        assert [batch[1] for batch in batches] == [[corpus.video_ids[video] for video in group] for group in groups]
    assert one_process[0] != one_process[1] != one_process[2]


@pytest.mark.parametrize("settings", [{"num_workers": 2}, {"buffer_size": 3}, {"num_workers": 2, "buffer_size": 2}])
def test_workers_and_buffers_change_nothing(
    corpus: VideoTextCorpus, one_process: list[list[tuple]], settings: dict
) -> None:
    assert epochs(iterator(corpus, **settings), 2) == one_process[:2]


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_processes_share_the_groups_of_one(
    corpus: VideoTextCorpus, one_process: list[list[tuple]], processes: int
) -> None:
    for shard in range(processes):
        share = epochs(iterator(corpus, num_shards=processes, shard_id=shard), 2)
        equal = 12 // processes  # every process takes as many; what is left over sits out
        assert share == [batches[shard : equal * processes : processes] for batches in one_process[:2]]


@pytest.mark.parametrize(("processes", "told"), [(5, "epoch 1: 2 of 12 groups are left over"), (3, "")])
def test_groups_that_sit_out_are_counted_aloud(
    corpus: VideoTextCorpus, caplog: pytest.LogCaptureFixture, processes: int, told: str
) -> None:
    caplog.set_level(logging.INFO)
    iterator(corpus, num_shards=processes).next_epoch_itr()
    assert told in caplog.text and ("left over" in caplog.text) == bool(told)


@settings(max_examples=15, deadline=None)
@given(size=st.integers(1, 3), per_batch=st.integers(1, 2), processes=st.integers(1, 2), data=st.data())
def test_equal_batches_and_the_rest_of_an_epoch(
    corpus: VideoTextCorpus, size: int, per_batch: int, processes: int, data: st.DataObject
) -> None:
    equal = VIDEOS // size // (per_batch * processes)
    offset = data.draw(st.integers(1, equal - 1))
    seen = []
    for shard in range(processes):
        share = {"groups_per_batch": per_batch, "num_shards": processes, "shard_id": shard}
        full = iterator(corpus, size, **share)
        whole = epochs(full, 1)[0]
        assert len(full) == len(whole) == equal
        assert {batch[2] for batch in whole} == {size * per_batch}
        seen += [video_id for batch in whole for video_id in batch[1]]
        stopped = iterator(corpus, size, **share)
        consumed = stopped.next_epoch_itr()
        for _ in range(offset):
            next(consumed)
        resumed = iterator(corpus, size, **share)
        resumed.load_state_dict(stopped.state_dict())
        assert epochs(resumed, 1)[0] == whole[offset:]
    assert len(seen) == len(set(seen))  # no two processes share a video


def through_a_file(state: dict) -> dict:
    """As a checkpoint keeps it, read by torch's safe loading."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_stop_in_mid_epoch_goes_on_with_the_same_batches(
    corpus: VideoTextCorpus, one_process: list[list[tuple]]
) -> None:
    stopped = iterator(corpus)
    for _ in stopped.next_epoch_itr():
        pass
    second = stopped.next_epoch_itr()
    for _ in range(5):
        next(second)
    state = through_a_file(stopped.state_dict())
    assert (state["epoch"], state["iterations_in_epoch"]) == (2, 5) and state["groups"].shape == (12, 2)

    resumed = iterator(corpus)
    resumed.load_state_dict(state)
    assert resumed.next_epoch_idx == 2 and resumed.iterations_in_epoch == 5
    assert epochs(resumed, 2) == [one_process[1][5:], one_process[2]]
    assert resumed.source.asked == [3]  # the groups of epoch 2 came from the checkpoint


def test_resumed_groups_are_those_of_the_checkpoint_not_of_the_source(corpus: VideoTextCorpus) -> None:
    stopped = iterator(corpus)
    next(stopped.next_epoch_itr())
    state = stopped.state_dict()
    state["groups"] = state["groups"].flip(0)
    resumed = iterator(corpus)
    resumed.load_state_dict(state)
    expected = RandomGroups(VIDEOS, 2, 1).groups(1)[::-1][1:]
    assert [batch[1] for batch in epochs(resumed, 1)[0]] == [[corpus.video_ids[v] for v in group] for group in expected]


def test_a_stop_at_the_end_of_an_epoch_keeps_no_groups(corpus: VideoTextCorpus, one_process: list[list[tuple]]) -> None:
    stopped = iterator(corpus)
    epochs(stopped, 1)
    state = through_a_file(stopped.state_dict())
    assert (state["epoch"], state["iterations_in_epoch"]) == (2, 0) and "groups" not in state
    resumed = iterator(corpus)
    resumed.load_state_dict(state)
    assert resumed.source.asked == []
    assert epochs(resumed, 1) == one_process[1:2]


def test_groups_are_asked_for_only_when_an_epoch_starts(corpus: VideoTextCorpus) -> None:
    batches = iterator(corpus)
    assert (batches.first_batch, len(batches), batches.next_epoch_idx) == ("DUMMY", 12, 1)
    assert batches.source.asked == []
    first = batches.next_epoch_itr()
    assert batches.source.asked == [1]
    for _ in first:
        pass
    assert batches.end_of_epoch() and batches.next_epoch_idx == 2
    batches.state_dict()
    # what fairseq does after the last epoch: another iterator, which is never started
    after = GroupEpochIterator(batches.dataset, batches.source, epoch=2)
    assert (after.first_batch, len(after), after.next_epoch_idx) == ("DUMMY", 12, 2)
    assert batches.source.asked == [1]


def test_another_list_of_videos_is_refused(corpus: VideoTextCorpus, tiny_data: Path) -> None:
    stopped = iterator(corpus)
    next(stopped.next_epoch_itr())
    changed = VideoTextCorpus.open(tiny_data / "howto100m" / "shards", corpus.video_ids[::-1])
    message = (
        rf"another list of training videos \({fingerprint(corpus.video_ids)}, now {fingerprint(changed.video_ids)}\)"
    )
    with pytest.raises(ValueError, match=message + r".*checkpoint\.reset_dataloader=true"):
        iterator(changed).load_state_dict(stopped.state_dict())


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (3, r"12 groups of 2 videos; now an epoch has 8 groups of 3: restore task\.videos_per_batch"),
        (1, "12 groups of 2 videos; now an epoch has 24 groups of 1"),
    ],
)
def test_another_size_of_groups_is_refused(corpus: VideoTextCorpus, size: int, message: str) -> None:
    stopped = iterator(corpus)
    next(stopped.next_epoch_itr())
    with pytest.raises(ValueError, match=message):
        iterator(corpus, size).load_state_dict(stopped.state_dict())


def test_another_size_of_as_many_groups_is_refused(corpus: VideoTextCorpus) -> None:
    stopped = iterator(corpus, 9)  # 24 videos: 2 groups of 9, and 2 of 10
    next(stopped.next_epoch_itr())
    with pytest.raises(ValueError, match="2 groups of 9 videos; now an epoch has 2 groups of 10"):
        iterator(corpus, 10).load_state_dict(stopped.state_dict())


def test_too_few_groups_for_the_processes(corpus: VideoTextCorpus) -> None:
    with pytest.raises(ValueError, match=r"has 12 groups .*; 4 processes with dataset\.batch_size=4 groups need 16"):
        iterator(corpus, num_shards=4, groups_per_batch=4)


def test_fingerprints_tell_lists_apart() -> None:
    lists = (["a", "b"], ["b", "a"], ["a"], ["ab"], ["a", "b", "c"])
    assert len({fingerprint(video_ids) for video_ids in lists}) == len(lists)
    assert fingerprint(["a", "b"]) == "7e18f737311b2dc3"  # as in the checkpoints that are there already


# --- another number of processes, another batch size ---


class GroupNumbers(FairseqDataset):
    """32 groups of a video each; an item is its group's number."""

    def __init__(self) -> None:
        self.corpus = ThirtyTwoVideos()

    def set_groups(self, epoch: int, groups: np.ndarray) -> None:
        self.groups = groups

    def __getitem__(self, index: int) -> int:
        return index

    def collater(self, samples: list[int]) -> list[int]:
        return samples


class ThirtyTwoVideos:
    video_ids = tuple(map(str, range(32)))

    def __len__(self) -> int:
        return 32


def of_groups(processes: int, batch: int, shard: int) -> GroupEpochIterator:
    source = RandomGroups(32, 1, seed=1)
    return GroupEpochIterator(GroupNumbers(), source, groups_per_batch=batch, num_shards=processes, shard_id=shard)


def of_items(processes: int, batch: int, shard: int) -> ShuffledEpochIterator:
    return ShuffledEpochIterator(Numbers(37), batch_size=batch, seed=1, num_shards=processes, shard_id=shard)


def units(batches: list) -> list[int]:
    """The groups or items of batches, in order."""
    return [unit[1] if isinstance(unit, tuple) else unit for batch in batches for unit in batch]


def some_batches(make: Callable, processes: int, batch: int, states: list | None, count: int) -> tuple[list, list]:
    """What all processes see in `count` more batches each, and the states they would save then."""
    seen, saved = [], []
    for shard in range(processes):
        batches = make(processes, batch, shard)
        if states is not None:
            batches.load_state_dict(states[0])
        epoch = batches.next_epoch_itr()
        seen += units([next(epoch) for _ in range(count)])
        saved.append(through_a_file(batches.state_dict()))
    return seen, saved


SIZES = [(processes, batch) for processes in (1, 2, 4, 8) for batch in (1, 2)]


@pytest.mark.parametrize("make", [of_groups, of_items])
@pytest.mark.parametrize("before", SIZES)
def test_another_number_of_processes_or_batch_size_goes_on_where_the_run_stopped(make: Callable, before: tuple) -> None:
    total = 32 if make is of_groups else 37
    begun, states = some_batches(make, *before, None, 1)
    assert all(state["place"] == states[0]["place"] for state in states)
    for processes, batch in SIZES:
        rest = []
        for shard in range(processes):
            resumed = make(processes, batch, shard)
            resumed.load_state_dict(states[0])
            epoch = resumed.next_epoch_itr()
            assert resumed.epoch == 1 and epoch.n == 1
            rest += units(list(epoch))
        seen = begun + rest
        assert len(seen) == len(set(seen)), "a group came twice"
        left_over = (total - len(begun)) % (processes * batch) if make is of_groups else 0
        assert len(seen) == total - left_over, "a group was passed over"


@pytest.mark.parametrize("make", [of_groups, of_items])
def test_a_run_that_is_stopped_again_and_again(make: Callable) -> None:
    seen, states = some_batches(make, 4, 1, None, 1)  # 4 of 32 groups (37 items in 40 / 4 batches: 4 a round at most)
    for processes, batch, count in ((2, 2, 1), (2, 2, 2), (8, 1, 1)):
        more, states = some_batches(make, processes, batch, states, count)
        seen += more
    rest, _ = some_batches(make, 1, 1, states, 0)
    last = make(1, 1, 0)
    last.load_state_dict(states[0])
    seen += units(list(last.next_epoch_itr()))
    assert sorted(seen) == list(range(32 if make is of_groups else 37)) and rest == []


def test_too_few_groups_for_all_processes_are_left_to_the_next_epoch() -> None:
    _, states = some_batches(of_groups, 1, 1, None, 27)
    resumed = of_groups(8, 1, 0)
    resumed.load_state_dict(states[0])
    assert resumed.next_epoch_idx == 2 and len(list(resumed.next_epoch_itr())) == 4


def test_a_checkpoint_without_its_place_goes_on_as_before() -> None:
    _, states = some_batches(of_groups, 2, 1, None, 3)
    del states[0]["place"]  # as an earlier version saved it
    resumed = of_groups(2, 1, 1)
    resumed.load_state_dict(states[0])
    assert units(list(resumed.next_epoch_itr())) == list(range(7, 32, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iterations_in_epoch": -1}, r"epoch=1 and iterations_in_epoch=-1"),
        ({"iterations_in_epoch": 17}, r"iterations_in_epoch=17 and place="),
        ({"epoch": 0}, r"epoch=0"),
        ({"epoch": "one"}, r"epoch=one"),
        ({"place": {"units": 32}}, r"place=\{'units': 32\}"),
        (
            {"place": {"units": 31, "start": 0, "batches_before": 0, "processes": 2, "units_per_batch": 1}},
            "31 groups or",
        ),
        (
            {"groups": torch.zeros(32, 1, dtype=torch.int64)},
            r"share videos, .* this run has task\.retrieval\.enabled=false: restore it, or set checkpoint\.reset_dataloader",
        ),
        ({"groups": torch.arange(1, 33)[:, None]}, "its groups hold others than the 32 training videos"),
        ({"groups": torch.arange(-1, 31)[:, None]}, "its groups hold others than the 32 training videos"),
        ({"groups": torch.arange(32)}, r"with 32 groups of \? videos"),
        ({"videos": None}, "another list of training videos"),
    ],
)
def test_states_that_cannot_be_are_refused(change: dict, message: str) -> None:
    _, states = some_batches(of_groups, 2, 1, None, 3)
    with pytest.raises(ValueError, match=message):
        of_groups(2, 1, 1).load_state_dict(states[0] | change)
    for key in ("videos", "source"):
        state = {name: value for name, value in states[0].items() if name != key}
        with pytest.raises(ValueError, match=f"no {key}; it was not saved by this package's pre-training"):
            of_groups(2, 1, 1).load_state_dict(state)


def test_fine_tuning_on_other_items_is_refused() -> None:
    _, states = some_batches(of_items, 2, 4, None, 2)
    with pytest.raises(
        ValueError, match=r"with 37 groups or items an epoch; now there are 36: .*reset_dataloader=true"
    ):
        shuffled(36, num_shards=2).load_state_dict(states[0])


def test_clusters_may_share_videos_but_hold_each_once(corpus: VideoTextCorpus) -> None:
    batches = iterator(corpus)
    batches.source.repeats_videos = True
    next(batches.next_epoch_itr())
    state = batches.state_dict()
    state["groups"] = torch.tensor([[0, 1], [1, 2]] * 6)
    batches.load_state_dict(state)
    state["groups"] = torch.tensor([[0, 1], [2, 2]] * 6)
    with pytest.raises(ValueError, match="its groups hold a video twice"):
        batches.load_state_dict(state)
    batches.source.repeats_videos = False
    with pytest.raises(ValueError, match="its groups hold a video twice"):  # which no setting makes
        batches.load_state_dict(state)


def test_a_batch_of_no_group_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dataset\.batch_size is 0: it must be at least 1"):
        of_groups(1, 0, 0)


# --- validation and evaluation ---


def fixed(corpus: VideoTextCorpus, videos_per_group: int = 5, **settings: int) -> FixedEpochIterator:
    """The first 24 videos in groups of 5, the last of 4."""
    dataset = PretrainingDataset(corpus, ClipSettings(clips_per_video=1), SpecialTokens(2, 3), seed=1)
    dataset.set_groups(0, consecutive_groups(len(corpus), videos_per_group))
    return FixedEpochIterator(dataset, len(dataset), **settings)


def fixed_batches(batches: FixedEpochIterator) -> list[tuple]:
    itr = batches.next_epoch_itr(shuffle=False, set_dataset_epoch=False)
    return [signature(batch) if batch else () for batch in itr]


def test_fixed_batches_are_the_same_every_time(corpus: VideoTextCorpus) -> None:
    first = fixed_batches(fixed(corpus))
    assert [batch[2] for batch in first] == [5, 5, 5, 5, 4]
    assert [video_id for batch in first for video_id in batch[1]] == corpus.video_ids
    again = fixed(corpus, num_workers=2)
    assert fixed_batches(again) == first and fixed_batches(again) == first


def test_a_process_without_a_last_batch_gets_an_empty_one(corpus: VideoTextCorpus) -> None:
    all_batches = fixed_batches(fixed(corpus))
    shares = [fixed(corpus, num_shards=2, shard_id=shard) for shard in (0, 1)]
    assert [len(share) for share in shares] == [3, 3]
    assert fixed_batches(shares[0]) == all_batches[::2]
    assert fixed_batches(shares[1]) == [*all_batches[1::2], ()]
    assert signature(shares[1].first_batch) == all_batches[0]  # fairseq's stand-in for a batch that is not there


@pytest.mark.parametrize("make", [iterator, fixed])
def test_workers_end_with_their_iterator(corpus: VideoTextCorpus, make: Callable[..., EpochBatchIterator]) -> None:
    """Not with the next garbage collection, which would wait five seconds for each."""
    gc.disable()
    try:
        batches = make(corpus, num_workers=1)
        loading = batches.next_epoch_itr()
        next(loading)
        (worker,) = loading._itr._workers
        del batches, loading
        assert not worker.is_alive()
    finally:
        gc.enable()


# --- shuffled items ---


class Numbers(FairseqDataset):
    """Items are their numbers and the epoch that was last set."""

    def __init__(self, items: int) -> None:
        self.items, self.epoch = items, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, index: int) -> tuple[int, int]:
        return self.epoch, index

    def collater(self, samples: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return samples


def shuffled(items: int = 23, **settings: int) -> ShuffledEpochIterator:
    return ShuffledEpochIterator(Numbers(items), **{"batch_size": 4, "seed": 1} | settings)


def test_fewer_items_than_processes_are_left() -> None:
    stopped = shuffled(5, batch_size=1)
    batches = stopped.next_epoch_itr()
    for _ in range(4):
        next(batches)
    resumed = shuffled(5, batch_size=1, num_shards=2)
    resumed.load_state_dict(stopped.state_dict())
    assert resumed.next_epoch_idx == 2 and len(list(resumed.next_epoch_itr())) == 2


def test_every_item_comes_once_an_epoch_in_batches_of_nearly_equal_size() -> None:
    batches = shuffled()
    seen = [list(batches.next_epoch_itr()) for _ in range(3)]
    for epoch, of_epoch in enumerate(seen, start=1):
        assert len(of_epoch) == len(batches) == 6 and {len(batch) for batch in of_epoch} == {3, 4}
        assert sorted(item for batch in of_epoch for item in batch) == [(epoch, number) for number in range(23)]
    neighbours = [{frozenset(number for _, number in batch) for batch in of_epoch} for of_epoch in seen]
    assert not neighbours[0] & neighbours[1]  # batches are drawn anew


@pytest.mark.parametrize(("items", "processes"), [(23, 2), (23, 5), (7, 4), (4, 4)])
def test_processes_share_an_epoch_and_take_equally_many_batches(items: int, processes: int) -> None:
    shares = [
        list(shuffled(items, num_shards=processes, shard_id=rank, epoch=2).next_epoch_itr())
        for rank in range(processes)
    ]
    assert len({len(share) for share in shares}) == 1 and all(batch for share in shares for batch in share)
    assert sorted(number for share in shares for batch in share for _, number in batch) == list(range(items))


def test_more_processes_than_items_are_refused() -> None:
    with pytest.raises(ValueError, match="3 training items are too few for 4 processes"):
        shuffled(3, num_shards=4)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_shuffled_epoch_goes_on_where_it_stopped(workers: int) -> None:
    whole = shuffled(epoch=2, num_workers=workers)
    expected = list(whole.next_epoch_itr())
    stopped = shuffled(epoch=2, num_workers=workers)
    batches = stopped.next_epoch_itr()
    begun = [next(batches), next(batches)]
    resumed = shuffled(epoch=2, num_workers=workers)
    resumed.load_state_dict(stopped.state_dict())
    assert begun + list(resumed.next_epoch_itr()) == expected
    assert [list(resumed.next_epoch_itr())] == [list(whole.next_epoch_itr())]
