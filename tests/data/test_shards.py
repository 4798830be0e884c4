"""What goes into a shard comes out of it; damaged shards are refused."""

import json
import mmap
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmpt_plugin.data import ragged_arrays
from mmpt_plugin.data.ragged_arrays import MappedArray, RaggedArray, read_ahead, union_of_ranges
from mmpt_plugin.data.shard_writer import ShardWriter
from mmpt_plugin.data.shards import read_shard
from mmpt_plugin.data.video_ids import id_problem
from mmpt_plugin.files import UnusableFile

WIDTH = 3


@st.composite
def one_video(draw):
    seconds, captions = draw(st.integers(0, 5)), draw(st.integers(0, 4))
    finite = {"allow_nan": False, "allow_infinity": False}
    features = draw(hnp.arrays(np.float16, (seconds, WIDTH), elements=st.floats(width=16, **finite)))
    times = draw(hnp.arrays(np.float32, (captions, 2), elements=st.floats(-(2**20), 2**20, width=32, **finite)))
    tokens = [draw(st.lists(st.integers(0, 2**31 - 1), max_size=6)) for _ in range(captions)]
    return features, times, tokens


def write_one_shard(folder: Path, name: str = "train_0", videos=None, **settings) -> Path:
    """Two small videos, or the given {id: (features, times, tokens)}."""
    videos = videos or {
        "-aa": (np.arange(6).reshape(2, 3), [[0, 1.5], [1, 2]], [[7, 8], [9]]),
        "b": (np.ones((1, 3)), [[0, 1]], [[5]]),
    }
    with ShardWriter(folder, name, feature_size=WIDTH, **settings) as writer:
        for video_id, video in videos.items():
            writer.add(video_id, *video)
    return folder / name


ids = st.text(min_size=1, max_size=11).filter(lambda video_id: id_problem(video_id) is None)


@settings(max_examples=50, deadline=None)
@given(videos=st.dictionaries(ids, one_video(), min_size=1, max_size=5))
def test_round_trip(videos, tmp_path_factory):
    source = {"fps": 30, "tokenizer": "tiny"}
    shard = read_shard(write_one_shard(tmp_path_factory.mktemp("shards"), videos=videos, source=source))
    shard.verify()
    assert shard.video_ids == list(videos)
    assert shard.source == source
    for i, (features, times, tokens) in enumerate(videos.values()):
        assert shard.features[i].dtype == np.float16 and shard.caption_times[i].dtype == np.float32
        np.testing.assert_array_equal(shard.features[i], features)
        np.testing.assert_array_equal(shard.caption_times[i], times)
        assert shard.features.lengths[i] == len(features) and shard.caption_times.lengths[i] == len(times)
        if tokens:
            assert shard.piece_counts(i).tolist() == [len(caption) for caption in tokens]
        for first in range(len(tokens) + 1):
            for last in range(first, len(tokens) + 1):
                run = shard.pieces(i, first, last)
                assert run.dtype == np.int32
                assert run.tolist() == [token for caption in tokens[first:last] for token in caption]


def test_the_files_are_plain_and_described(tmp_path):
    folder = write_one_shard(tmp_path, source={"network": "s3d"})
    index = json.loads((folder / "index.json").read_text())
    assert index["format"] == "mmpt_plugin.shard" and index["version"] == 1
    assert index["video_ids"] == ["-aa", "b"]
    assert index["counts"] == {"videos": 2, "seconds": 3, "captions": 3, "tokens": 4}
    assert index["source"] == {"network": "s3d"}
    for described in index["arrays"].values():
        array = np.load(folder / described["file"])
        assert (array.dtype.name, list(array.shape)) == (described["dtype"], described["shape"])
    np.testing.assert_array_equal(np.load(folder / "token_starts.npy"), [0, 2, 3, 4])  # captions of 2, 1 and 1 pieces
    np.testing.assert_array_equal(np.load(folder / "tokens.npy"), [7, 8, 9, 5])
    np.testing.assert_array_equal(np.load(folder / "feature_starts.npy"), [0, 2, 3])


def test_items_are_views_of_the_file(tmp_path):
    shard = read_shard(write_one_shard(tmp_path))
    assert np.shares_memory(shard.features[0], shard.features.data.array)
    assert not shard.features[0].flags.writeable
    with pytest.raises(IndexError):
        shard.features[2]


def test_a_file_written_anew_is_mapped_anew(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(4))
    assert MappedArray.open(path, ["float64"], 1).array.sum() == 0
    np.save(tmp_path / "b.npy", np.ones(4))
    os.utime(tmp_path / "b.npy", ns=(1, 1))
    (tmp_path / "b.npy").replace(path)
    assert MappedArray.open(path, ["float64"], 1).array.sum() == 4


@pytest.mark.parametrize("mapped_before", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: os.truncate(path, 130), "was altered or replaced"),
        (lambda path: os.utime(path, ns=(1, 1)), "was altered or replaced"),  # another file of the same size
        (lambda path: path.unlink(), "was removed"),
    ],
)
def test_a_shard_that_changes_under_a_run_is_named(tmp_path, monkeypatch, mapped_before, change, message):
    monkeypatch.setattr(ragged_arrays, "LOOK_SECONDS", 0)
    shard = read_shard(write_one_shard(tmp_path))
    if mapped_before:
        shard.features[0].sum()
    path = Path(shard.features.data.path)
    change(path)
    with pytest.raises(UnusableFile, match=rf"features\.npy: {message} since this run opened it"):
        shard.features[0].sum()
    with pytest.raises(UnusableFile, match=message):
        shard.features.data.read_ahead(0, 1)


@pytest.mark.parametrize(
    ("starts", "message"),
    [([0, 2, 3, 5], "must rise from 0 to 4"), ([1, 2, 3, 4], "must rise"), ([0, 3, 2, 4], "must rise")],
)
def test_damaged_token_starts_are_named(tmp_path, starts, message):
    folder = write_one_shard(tmp_path)
    np.save(folder / "token_starts.npy", np.array(starts))
    with pytest.raises(UnusableFile, match=rf"token_starts\.npy: .*{message}"):
        read_shard(folder).piece_counts(0)
    if starts[0] == 0 and starts[-1] == 4:
        with pytest.raises(UnusableFile, match=message):
            read_shard(folder).pieces(0, 1, 2)


# --- the writer ---


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ((np.zeros((2, 4)), [], []), r"features of shape \(2, 4\), expected \(seconds, 3\)"),
        ((np.zeros(3), [], []), r"features of shape \(3,\)"),
        (([[0, 0, 0], [0, np.nan, 0]], [], []), "features must be finite as float16, row 1"),
        (([[0, 0, 1e6]], [], []), "features must be finite as float16, row 0"),  # above float16's 65,504
        ((np.zeros((2, 3)), [[0, np.inf]], [[1]]), "caption times must be finite"),
        ((np.zeros((2, 3)), [[0, 1e30]], [[1]]), "caption times reach 1e\\+30 s"),
        ((np.zeros((2, 3)), [[0, 1]], [[9]]), "word piece 9, but its captions' vocabulary has 9"),
        ((np.zeros((2, 3)), [0, 1], [[1]]), r"caption times of shape \(2,\), expected \(captions, 2\)"),
        ((np.zeros((2, 3)), [[0, 1]], [[1], [2]]), "1 caption times, but word pieces of 2 captions"),
        ((np.zeros((2, 3)), [[0, 1]], [[-1]]), "word pieces of caption 0 must be a list of token ids"),
        ((np.zeros((2, 3)), [[0, 1]], [[1.5]]), "word pieces of caption 0 must be a list of token ids"),
        ((np.zeros((2, 3)), [[0, 1]], [[2**31]]), "word pieces of caption 0 must be a list of token ids"),
        ((np.zeros((2, 3)), [[0, 1]], [[[1, 2]]]), "word pieces of caption 0 must be a list of token ids"),
    ],
)
def test_a_bad_video_is_refused_and_leaves_the_shard_as_it_was(tmp_path, video, message):
    source = {"captions": {"vocabulary_size": 9}}
    with ShardWriter(tmp_path, "train_0", feature_size=WIDTH, source=source) as writer:
        writer.add("good", np.ones((1, 3)), [[0, 1]], [[5]])
        with pytest.raises(ValueError, match=f"video bad: .*{message}"):
            writer.add("bad", *video)
        writer.add("also good", np.ones((2, 3)), [[0, 1]], [[6, 7]])
    shard = read_shard(tmp_path / "train_0")
    assert shard.video_ids == ["good", "also good"]
    assert shard.pieces(1, 0, 1).tolist() == [6, 7]


@pytest.mark.parametrize(
    ("video_id", "message"),
    [("a", "'a' is a duplicate"), ("", "is empty"), ("b ", "blanks"), ("a\nb", "line break"), ("\ud800", "surrogate")],
)
def test_ids_are_unique_and_not_empty(tmp_path, video_id, message):
    with ShardWriter(tmp_path, "train_0", feature_size=WIDTH) as writer:
        writer.add("a", np.ones((1, 3)), [], [])
        with pytest.raises(ValueError, match=message):
            writer.add(video_id, np.ones((1, 3)), [], [])


def test_nothing_looks_whole_before_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="interrupted"), ShardWriter(tmp_path, "a", feature_size=WIDTH) as writer:
        writer.add("v", np.ones((1, 3)), [], [])
        assert not (tmp_path / "a").exists()
        raise RuntimeError("interrupted")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_where_closing_fails(tmp_path, monkeypatch):
    """As on a full disk: closing writes what is left, and fails."""

    def full(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), ShardWriter(tmp_path, "a", feature_size=WIDTH) as writer:
        for file in writer._files.values():
            monkeypatch.setattr(file, "close", full)
        writer.add("v", np.ones((1, 3)), [], [])
        full()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_shard_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no video was added"), ShardWriter(tmp_path, "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_shard_is_never_overwritten(tmp_path):
    write_one_shard(tmp_path, "a")
    with pytest.raises(FileExistsError, match=r"a: exists\. Remove it"):
        ShardWriter(tmp_path, "a")


@pytest.mark.parametrize("name", ["../a", "", ".a", "a/b"])
def test_shard_names_are_plain(tmp_path, name):
    with pytest.raises(ValueError, match="plain folder name"):
        ShardWriter(tmp_path, name)


# --- damage ---


def test_an_altered_file_fails_its_checksum(tmp_path):
    folder = write_one_shard(tmp_path)
    path = folder / "features.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    shard = read_shard(folder)  # sizes are right
    with pytest.raises(ValueError, match=r"features\.npy: altered or damaged: sha256"):
        shard.verify()


@pytest.mark.parametrize(
    "name", ["features", "feature_starts", "caption_times", "caption_starts", "tokens", "token_starts"]
)
@pytest.mark.parametrize("bytes_left", [0, 20, -1])
def test_a_truncated_file_is_always_noticed(tmp_path, name, bytes_left):
    folder = write_one_shard(tmp_path)
    path = folder / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:bytes_left])
    with pytest.raises(ValueError, match=rf"{name}\.npy: (truncated or altered|not a whole \.npy array)"):
        read_shard(folder)


def test_a_missing_file_is_named(tmp_path):
    folder = write_one_shard(tmp_path)
    (folder / "tokens.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokens\.npy: no such file"):
        read_shard(folder)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("features", np.zeros((3, 3), np.float64), r"features\.npy: holds float64 .* expected float16"),
        ("features", np.zeros(3, np.float16), r"features\.npy: holds float16 of shape \(3,\).* 2 dimension"),
        ("features", np.zeros((3, 3), ">f2"), r"features\.npy: holds >f2"),
        ("features", np.asfortranarray(np.zeros((3, 3), np.float16)), r"features\.npy: .* in Fortran order"),
        ("features", np.zeros((3, 4), np.float16), r"features\.npy: shape \(3, 4\), but .*index\.json says \(3, 3\)"),
        ("features", np.array([[None]]), r"features\.npy: holds Python objects"),
        ("tokens", np.zeros(5, np.int32), r"tokens\.npy: shape \(5,\), but .*index\.json says \(4,\)"),
        (
            "feature_starts",
            np.array([0, 2, 4]),
            r"feature_starts\.npy: must rise from 0 to 3, the rows of features\.npy",
        ),
        ("feature_starts", np.array([0, 4, 3]), r"feature_starts\.npy: must rise"),
        ("feature_starts", np.array([1, 2, 3]), r"feature_starts\.npy: must rise"),
        ("feature_starts", np.array([0, 3]), r"feature_starts\.npy counts 1 items, but .*index\.json counts 2"),
        ("caption_starts", np.array([0, 1, 2, 3]), r"caption_starts\.npy counts 3 .*feature_starts\.npy counts 2"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, name, array, message):
    folder = write_one_shard(tmp_path)
    np.save(folder / f"{name}.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        read_shard(folder)


def test_times_need_two_columns(tmp_path):
    folder = write_one_shard(tmp_path)
    np.save(folder / "caption_times.npy", np.zeros((3, 1), np.float32))
    change_index(folder, lambda index: index["arrays"]["caption_times"].update(shape=[3, 1]))
    with pytest.raises(ValueError, match=r"caption_times\.npy: shape \(3, 1\), expected \(captions, 2\)"):
        read_shard(folder)


def change_index(folder: Path, change) -> None:
    index = json.loads((folder / "index.json").read_text())
    change(index)
    (folder / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.update(version=2), r"format and version are \('mmpt_plugin\.shard', 2\)"),
        (lambda index: index.update(format="other"), "format and version are"),
        (lambda index: index.pop("video_ids"), r"not the index of a shard .*video_ids"),
        (lambda index: index["arrays"].pop("tokens"), "not the index of a shard .*tokens"),
        (lambda index: index["arrays"]["tokens"].update(file="../tokens.npy"), "lies elsewhere"),
        (lambda index: index["arrays"]["tokens"].update(file="/etc/passwd"), "lies elsewhere"),
        (lambda index: index.update(source=[]), "source is no object"),
        (lambda index: index.update(video_ids=["a", "a"]), "twice"),
        (lambda index: index.update(video_ids=["a", "b\n"]), "blanks around it"),
        (lambda index: index.update(video_ids="ab"), "no list"),
        (
            lambda index: index["video_ids"].append("c"),
            r"feature_starts\.npy counts 2 items, but .*index\.json counts 3",
        ),
    ],
)
def test_a_wrong_index_is_refused(tmp_path, change, message):
    folder = write_one_shard(tmp_path)
    change_index(folder, change)
    with pytest.raises(ValueError, match=message):
        read_shard(folder)


def test_a_damaged_index_is_refused(tmp_path):
    folder = write_one_shard(tmp_path)
    (folder / "index.json").write_text((folder / "index.json").read_text()[:-20])
    with pytest.raises(ValueError, match=r"index\.json: not the index of a shard"):
        read_shard(folder)


def test_ragged_array(tmp_path):
    np.save(tmp_path / "data.npy", np.arange(5, dtype=np.int32))
    np.save(tmp_path / "starts.npy", np.array([0, 2, 2, 5]))
    ragged = RaggedArray.open(tmp_path / "data.npy", tmp_path / "starts.npy", ["int32"], 1)
    assert [ragged[i].tolist() for i in range(3)] == [[0, 1], [], [2, 3, 4]]
    assert len(ragged) == 3 and ragged.lengths.tolist() == [2, 0, 3]


# --- reading ahead ---

ranges = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), max_size=12)


@given(ranges)
def test_union_of_ranges_covers_the_same_integers_in_order(drawn):
    firsts, lengths = np.array(drawn, np.int64).reshape(-1, 2).T
    united = list(zip(*(edges.tolist() for edges in union_of_ranges(firsts, firsts + lengths))))
    covered = {i for first, length in drawn for i in range(first, first + length)}
    assert [i for first, last in united for i in range(first, last)] == sorted(covered)
    assert all(last < first for (_, last), (first, _) in pairwise(united))  # none could be joined


def test_what_is_asked_for_is_what_will_be_read(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(MappedArray, "read_ahead", lambda array, first, last: asked.append((array.path, first, last)))
    folders = [write_one_shard(tmp_path, name) for name in ("train_0", "train_1")]
    arrays = [read_shard(folder).features.data for folder in folders]
    which, firsts, lasts = np.array([1, 0, 1, 1, 0]), np.array([2, 0, 0, 1, 2]), np.array([3, 1, 1, 1, 3])
    read_ahead(arrays, which, firsts, lasts)
    zero, one = (array.path for array in arrays)
    assert asked == [(zero, 0, 1), (zero, 2, 3), (one, 0, 1), (one, 2, 3)]  # file by file, in the files' order


@pytest.mark.parametrize("rows", [(0, 1), (5, 6), (2000, 3000), (2999, 3000)])
def test_whole_pages_are_asked_for(tmp_path, monkeypatch, rows):
    """The call that the system gets: whole pages, which hold the rows, inside of the file."""
    videos = {"a": (np.arange(3000 * WIDTH).reshape(3000, WIDTH) / 9000, [[0, 1]], [[5]])}
    array = read_shard(write_one_shard(tmp_path, videos=videos)).features.data
    calls = []

    class Recording:
        def madvise(self, option, start, length):
            calls.append((option, start, length))

    whole = array.array  # mapped for real, once
    monkeypatch.setattr(ragged_arrays, "_map", lambda path, version: Recording())
    array.read_ahead(*rows)
    ((option, start, length),) = calls
    assert option == mmap.MADV_WILLNEED and start % mmap.PAGESIZE == 0
    assert start <= array.offset + rows[0] * WIDTH * 2 < start + mmap.PAGESIZE
    assert start + length == array.offset + rows[1] * WIDTH * 2 <= Path(array.path).stat().st_size
    monkeypatch.undo()
    array.read_ahead(*rows)  # and the system takes it
    np.testing.assert_array_equal(array.array, whole)
