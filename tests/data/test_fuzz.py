"""Some hundred seeded mutations of shards, prepared captions and lists: a clear error that names the file, or the same."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.data.caption_files import PreparedCaptions, load_captions, write_captions
from mmpt_plugin.data.captions import Caption
from mmpt_plugin.data.corpus import VideoTextCorpus, read_video_list
from mmpt_plugin.data.shard_writer import ShardWriter
from mmpt_plugin.data.shards import DTYPES

from ..mutations import mutations

MUTATIONS = 300
WIDTH = 4
VIDEOS = {
    f"video{i}": (np.full((5 + i, WIDTH), 0.25 * i), [[0.0, 1.5], [1.5, 4.0]], [[i, 7], [8, 9, 3]]) for i in range(4)
}


def content_of(corpus: VideoTextCorpus) -> list:
    """Everything that a corpus serves."""
    videos = range(len(corpus))
    table = corpus.group_captions(np.arange(len(corpus)))
    texts = [corpus.text(video, 0, int(corpus.caption_counts[video])).tolist() for video in videos]
    return [corpus.video_ids, [corpus.features(video).tolist() for video in videos], table.starts.tolist(), texts]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index.json", *(f"{name}.npy" for name in DTYPES)])
def test_mutated_shards(tmp_path: Path, name: str) -> None:
    """With checksums; only of the index, which has none of itself, may a free word of its description change."""
    with ShardWriter(tmp_path / "whole", "train_0", feature_size=WIDTH, source={"captions": {}}) as writer:
        for video_id, video in VIDEOS.items():
            writer.add(video_id, *video)

    def read(folder: Path) -> list:
        corpus = VideoTextCorpus.open(folder, list(VIDEOS), verify="full", feature_size=WIDTH)
        corpus.check_vocabulary({str(i): i for i in range(10)})
        return content_of(corpus)

    expected = read(tmp_path / "whole")
    outcomes = {"same": 0, "refused": 0}
    shutil.copytree(tmp_path / "whole", tmp_path / "victim")
    victim = tmp_path / "victim" / "train_0" / name
    for content in mutations(victim.read_bytes(), MUTATIONS, random.Random(name)):
        victim.write_bytes(content)
        try:
            assert read(tmp_path / "victim") == expected
            outcomes["same"] += 1
        except (ValueError, FileNotFoundError) as error:
            assert str(tmp_path / "victim") in str(error) or "video" in str(error), error
            outcomes["refused"] += 1
    assert outcomes["refused"] > MUTATIONS / 2, outcomes


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"{name}.npy" for name in DTYPES])
def test_mutated_shards_without_checksums(tmp_path: Path, name: str) -> None:
    """As at HowTo100M's size: values may differ, but nothing is read that is not there, and nothing else is raised."""
    with ShardWriter(tmp_path, "train_0", feature_size=WIDTH, source={"captions": {}}) as writer:
        for video_id, video in VIDEOS.items():
            writer.add(video_id, *video)
    victim = tmp_path / "train_0" / name
    for content in mutations(victim.read_bytes(), MUTATIONS, random.Random(name)):
        victim.write_bytes(content)
        try:
            corpus = VideoTextCorpus.open(tmp_path, list(VIDEOS), verify="size", feature_size=WIDTH)
            corpus.check_vocabulary({str(i): i for i in range(10)})
            content_of(corpus)
        except (ValueError, FileNotFoundError) as error:
            assert str(tmp_path) in str(error) or "video" in str(error), error


@pytest.mark.slow
def test_mutated_prepared_captions(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    videos = [(f"v{i}", [Caption(0.0, 1.5, [i, 7]), Caption(1.5, 4.0, [8])]) for i in range(5)]
    write_captions(path, videos, settings={"vocabulary_size": 10}, counts={})
    for content in mutations(path.read_bytes(), 2 * MUTATIONS, random.Random(1)):
        path.write_bytes(content)
        try:
            prepared = PreparedCaptions(path)
            for times, tokens in load_captions(path, list(prepared.offsets.values())):
                assert times.shape == (len(tokens), 2) and np.isfinite(times).all()
                assert all(0 <= piece < 10 for caption in tokens for piece in caption)
        except (ValueError, FileNotFoundError) as error:
            assert str(path) in str(error), error


@pytest.mark.slow
def test_mutated_lists(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("".join(f"video{i}\n" for i in range(20)))
    for content in mutations(path.read_bytes(), MUTATIONS, random.Random(1)):
        path.write_bytes(content)
        try:
            assert all(video_id.strip() == video_id for video_id in read_video_list(path))
        except ValueError as error:
            assert str(path) in str(error), error
