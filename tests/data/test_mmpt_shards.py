"""MMPT's own files are read as they are: compared with what the original's processors return."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.data.corpus import VideoTextCorpus, open_shards, read_video_list
from mmpt_plugin.data.mmpt_shards import read_mmpt_shards

PREFIX = "raw_caption_dedup.tiny."


def write_mmpt_shard(
    folder: Path, split: str, videos: dict, *, number: int = 0, prefix: str = PREFIX, width: int = 4
) -> None:
    """Writes {id: (features, times, tokens)} in MMPT's format, from the words of the reference data's README."""

    def save_ragged(stem: str, arrays: list[np.ndarray]) -> None:
        np.save(folder / f"{stem}_starts.npy", np.cumsum([0, *map(len, arrays)]))
        np.save(folder / f"{stem}_data.npy", np.concatenate(arrays))

    def pad(tokens: list[list[int]]) -> np.ndarray:
        return np.array([caption + [-1] * (width - len(caption)) for caption in tokens], np.int32).reshape(-1, width)

    features, times, tokens = zip(*videos.values())
    name = f"{split}_{number}"
    save_ragged(name, [np.asarray(video, np.float16) for video in features])
    save_ragged(f"{prefix}{name}.startends", [np.asarray(video, np.float32).reshape(-1, 2) for video in times])
    save_ragged(f"{prefix}{name}.caps_ids", [pad(video) for video in tokens])
    meta = folder / f"{split}_meta.pkl"
    metas = pickle.loads(meta.read_bytes()) if meta.exists() else {}
    meta.write_bytes(pickle.dumps({**metas, number: list(videos)}))


def two_videos(first_id: str = "-aa", second_id: str = "b") -> dict:
    return {
        first_id: (np.arange(6).reshape(2, 3), [[0, 1.5], [1, 2]], [[7, 8], []]),
        second_id: (np.ones((1, 3)), [[0, 1]], [[5, 6, 7, 8]]),
    }


def original_videos(golden: Path, split: str) -> list[dict]:
    return json.loads((golden / "shards" / "processor_outputs.json").read_text())[split]["videos"]


def assert_equals_original(features, times, captions, expected: dict) -> None:
    assert list(features.shape) == expected["feat_shape"] and str(features.dtype) == expected["feat_dtype"]
    assert hashlib.sha256(np.ascontiguousarray(features).tobytes()).hexdigest() == expected["feat_sha256"]
    assert times[:, 0].tolist() == expected["start"] and times[:, 1].tolist() == expected["end"]
    assert captions == expected["cap"]


@pytest.mark.parametrize(("split", "files"), [("train", "train"), ("valid", "val"), ("test", "val")])
def test_shards_hold_what_the_original_reads(golden, split, files):
    folder = golden / "shards" / "data" / "feat" / "feat_how2_s3d_shard_small"
    shards = {shard.name: shard for shard in read_mmpt_shards(folder)}
    for expected in original_videos(golden, split):
        video_id, _, number, i = expected["meta"]
        shard = shards[f"{files}_{number}"]
        assert shard.video_ids[i] == video_id
        captions = [shard.pieces(i, c, c + 1).tolist() for c in range(len(shard.caption_times[i]))]
        assert shard.piece_counts(i).tolist() == [len(caption) for caption in captions]
        assert_equals_original(shard.features[i], shard.caption_times[i], captions, expected)


@pytest.mark.parametrize(("split", "files"), [("train", "train"), ("valid", "val")])
def test_the_corpus_reads_the_same(golden, split, files):
    data = golden / "shards" / "data"
    video_ids = read_video_list(data / "how2" / f"how2_s3d_{files}.lst")
    corpus = VideoTextCorpus.open(data / "feat" / "feat_how2_s3d_shard_small", video_ids)
    expected_videos = original_videos(golden, split)
    assert corpus.video_ids == [expected["meta"][0] for expected in expected_videos]
    assert corpus.source == {"format": "MMPT", "captions": "raw_caption_dedup.bert-tiny."}
    for video, expected in enumerate(expected_videos):
        times, token_counts = corpus.captions(video)
        captions = [corpus.text(video, c, c + 1).tolist() for c in range(len(times))]
        assert token_counts.tolist() == [len(caption) for caption in captions]
        assert_equals_original(corpus.features(video), times, captions, expected)


def test_splits_and_shards_of_a_folder(tmp_path):
    write_mmpt_shard(tmp_path, "train", two_videos())
    write_mmpt_shard(tmp_path, "train", two_videos("c", "d"), number=10)
    write_mmpt_shard(tmp_path, "train", two_videos("e", "f"), number=2)
    write_mmpt_shard(tmp_path, "val", two_videos("g", "h"), prefix="")
    shards = open_shards(tmp_path, "full")
    assert [shard.name for shard in shards] == ["train_0", "train_2", "train_10", "val_0"]
    assert [shard.video_ids[0] for shard in shards] == ["-aa", "e", "c", "g"]
    assert shards[0].piece_counts(0).tolist() == [2, 0]
    assert shards[0].pieces(0, 0, 2).tolist() == [7, 8]
    assert shards[3].source == {"format": "MMPT", "captions": ""}


def test_the_captions_of_another_split_with_the_same_ending_do_not_count(tmp_path):
    write_mmpt_shard(tmp_path, "train", two_videos())
    write_mmpt_shard(tmp_path, "pre_train", two_videos("c", "d"), prefix="other.")
    assert {shard.name: shard.source["captions"] for shard in read_mmpt_shards(tmp_path)} == {
        "pre_train_0": "other.",
        "train_0": PREFIX,
    }


def test_several_versions_of_the_captions_are_an_error(tmp_path):
    write_mmpt_shard(tmp_path, "train", two_videos())
    write_mmpt_shard(tmp_path, "train", two_videos(), prefix="raw_caption.tiny.")
    with pytest.raises(ValueError, match=r"several versions, \['raw_caption\.tiny\.', 'raw_caption_dedup\.tiny\.'\]"):
        open_shards(tmp_path)


def test_a_foreign_meta_file_cannot_run_code(tmp_path):
    write_mmpt_shard(tmp_path, "train", two_videos())
    (tmp_path / "train_meta.pkl").write_bytes(pickle.dumps({0: print}))
    with pytest.raises(ValueError, match=r"train_meta\.pkl: refused, it asks for the global builtins\.print"):
        open_shards(tmp_path)


@pytest.mark.parametrize("metas", [["a"], {"0": ["a"]}, {0: "ab"}, {0: [1]}])
def test_a_meta_file_of_another_kind(tmp_path, metas):
    (tmp_path / "train_meta.pkl").write_bytes(pickle.dumps(metas))
    with pytest.raises(ValueError, match=r"train_meta\.pkl: must hold \{shard number: \[video ids\]\}"):
        open_shards(tmp_path)


def test_different_numbers_of_videos_name_both_files(tmp_path):
    write_mmpt_shard(tmp_path, "train", two_videos())
    np.save(tmp_path / f"{PREFIX}train_0.startends_starts.npy", np.array([0, 3]))
    with pytest.raises(ValueError, match=r"startends_starts\.npy counts 1 items, but .*train_0_starts\.npy counts 2"):
        open_shards(tmp_path)


def test_different_numbers_of_ids_name_both_files(tmp_path):
    write_mmpt_shard(tmp_path, "train", two_videos())
    (tmp_path / "train_meta.pkl").write_bytes(pickle.dumps({0: ["a", "b", "c"]}))
    with pytest.raises(ValueError, match=r"train_meta\.pkl counts 3 items, but .*train_0_starts\.npy counts 2"):
        open_shards(tmp_path)


def test_times_and_pieces_of_different_captions(tmp_path):
    write_mmpt_shard(tmp_path, "train", two_videos())
    np.save(tmp_path / f"{PREFIX}train_0.caps_ids_starts.npy", np.array([0, 1, 3]))
    with pytest.raises(ValueError, match=r"caps_ids_starts\.npy and .*startends_starts\.npy give .* different numbers"):
        open_shards(tmp_path)


def test_a_truncated_file_is_always_noticed(tmp_path):
    write_mmpt_shard(tmp_path, "train", two_videos())
    path = tmp_path / "train_0_data.npy"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"train_0_data\.npy: truncated or altered: 144 bytes, .* asks for 146"):
        open_shards(tmp_path, "size")  # a header of 128 bytes and 3 rows of 3 numbers of 2 bytes are 146


@pytest.mark.parametrize("name", ["train_0_data.npy", f"{PREFIX}train_0.caps_ids_data.npy"])
def test_a_missing_file_is_named(tmp_path, name):
    write_mmpt_shard(tmp_path, "train", two_videos())
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        open_shards(tmp_path)


def test_missing_captions_are_explained(tmp_path):
    write_mmpt_shard(tmp_path, "train", two_videos())
    (tmp_path / f"{PREFIX}train_0.startends_data.npy").unlink()
    with pytest.raises(FileNotFoundError, match="no caption file"):
        open_shards(tmp_path)
