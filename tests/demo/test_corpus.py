"""The data folder: whole or not there, the same bytes for the same world, never another world by mistake."""

import dataclasses
import hashlib
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from demo import corpus as corpus_module
from demo import words
from demo.corpus import write_demo_corpus
from demo.world import DemoWorld
from mmpt_plugin.data.corpus import VideoTextCorpus, read_video_list


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_the_same_world_gives_the_same_bytes(tiny_corpus: Path, tiny_world: DemoWorld, tmp_path: Path) -> None:
    write_demo_corpus(tmp_path / "again", tiny_world)
    assert digests(tmp_path / "again") == digests(tiny_corpus)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again"]  # nothing is left aside


def test_another_seed_gives_another_world(tiny_corpus: Path, tiny_world: DemoWorld, tmp_path: Path) -> None:
    write_demo_corpus(tmp_path / "other", dataclasses.replace(tiny_world, seed=6))
    one, other = digests(tiny_corpus), digests(tmp_path / "other")
    same = {name for name in one.keys() & other.keys() if one[name] == other[name]}
    assert all(
        Path(name).parts[0] == "bert" or name.endswith((".txt", "videos_val.csv", "videos.csv")) for name in same
    )


def test_pretraining_reads_the_videos_as_they_were_narrated(tiny_corpus: Path, tiny_world: DemoWorld) -> None:
    howto = tiny_corpus / "howto100m"
    raw = json.loads((howto / "raw_caption.json").read_text())
    vocabulary = words.vocabulary()
    for split, number in (("train", tiny_world.train_videos), ("val", tiny_world.val_videos)):
        video_ids = read_video_list(howto / f"{split}.txt")
        assert len(video_ids) == number
        corpus = VideoTextCorpus.open(howto / "shards", video_ids, verify="full")
        for i, video_id in enumerate(video_ids):
            times, counts = corpus.captions(i)
            np.testing.assert_allclose(times, np.array([raw[video_id]["start"], raw[video_id]["end"]]).T, rtol=1e-6)
            pieces = np.split(corpus.text(i, 0, len(counts)), np.cumsum(counts)[:-1])
            assert [" ".join(vocabulary[t] for t in caption) for caption in pieces] == raw[video_id]["text"]
            assert corpus.features(i).dtype == np.float16
            np.testing.assert_allclose(np.linalg.norm(corpus.features(i).astype(np.float32), axis=1), 1, atol=1e-2)


def test_a_folder_with_the_same_world_is_kept(
    tiny_corpus: Path, tiny_world: DemoWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "_write", lambda *_: pytest.fail("written again"))
    write_demo_corpus(tiny_corpus, tiny_world)
    write_demo_corpus(tiny_corpus, tiny_world, overwrite=True)
    write_demo_corpus(tiny_corpus, dataclasses.replace(tiny_world, noise=3))  # 3 is 3.0


def test_a_folder_with_another_world_is_refused(tiny_corpus: Path, tiny_world: DemoWorld) -> None:
    other = dataclasses.replace(tiny_world, seed=6, gap_seconds=(1, 7))
    with pytest.raises(
        ValueError, match=r"seed is 5, not 6, gap_seconds is \[1, 6\], not \[1, 7\].*--overwrite"
    ) as error:
        write_demo_corpus(tiny_corpus, other)
    assert str(tiny_corpus) in str(error.value)


def test_a_folder_of_an_older_generator_is_refused(
    tiny_corpus: Path, tiny_world: DemoWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "VERSION", corpus_module.VERSION + 1)
    with pytest.raises(ValueError, match="version is"):
        write_demo_corpus(tiny_corpus, tiny_world)


def write_little(folder: Path, config: DemoWorld) -> None:
    """Stands for the writing of all files, which other tests check."""
    folder.mkdir()
    (folder / "file").write_text(str(config.seed))


def test_overwrite_replaces_another_world_but_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "_write", write_little)
    write_demo_corpus(tmp_path / "data", DemoWorld(seed=1))
    (tmp_path / "data" / "stale").touch()
    write_demo_corpus(tmp_path / "data", DemoWorld(seed=2), overwrite=True)
    assert (tmp_path / "data" / "file").read_text() == "2"
    assert not (tmp_path / "data" / "stale").exists()

    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").touch()
    with pytest.raises(ValueError, match=r"thesis exists and is no demo corpus .*choose another folder"):
        write_demo_corpus(tmp_path / "thesis", DemoWorld(), overwrite=True)
    assert (tmp_path / "thesis" / "chapter1.tex").exists()


def test_an_empty_folder_and_missing_parents_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "_write", lambda folder, _: folder.mkdir(parents=True))
    (tmp_path / "empty").mkdir()
    write_demo_corpus(tmp_path / "empty", DemoWorld())
    write_demo_corpus(tmp_path / "a" / "b", DemoWorld())
    assert (tmp_path / "empty" / "world.json").is_file() and (tmp_path / "a" / "b" / "world.json").is_file()


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path, config: DemoWorld) -> None:
        write_little(folder, config)
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus_module, "_write", fail)
    with pytest.raises(KeyboardInterrupt):
        write_demo_corpus(tmp_path / "data", DemoWorld())
    assert not list(tmp_path.iterdir())


def test_two_processes_may_write_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)

    def write_together(folder: Path, config: DemoWorld) -> None:
        both.wait(timeout=10)
        write_little(folder, config)

    monkeypatch.setattr(corpus_module, "_write", write_together)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            write_demo_corpus(tmp_path / "data", DemoWorld())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_default_world_is_written_in_seconds(seed: int, tmp_path: Path) -> None:
    start = time.process_time()
    write_demo_corpus(tmp_path / "data", DemoWorld(seed=seed))
    assert time.process_time() - start < 20  # measured: 9
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size < 180e6  # measured: 157e6, of which the training splits to fine-tune on are about 30e6
