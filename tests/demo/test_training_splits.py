"""The demo's training splits: read by the fine-tuning's own readers, apart from the test sets, and true."""

import json
from pathlib import Path

import numpy as np

from demo import words
from demo.corpus import TEST_SETS
from demo.world import DemoWorld, World
from mmpt_plugin.evaluation.benchmark_files import BenchmarkFiles
from mmpt_plugin.evaluation.benchmarks.coin import label_texts, read_coin
from mmpt_plugin.finetuning.training_sets import TRAINING_SETS


def pair(sentence: str) -> tuple[int, int]:
    """Verb and object of a sentence in annotation style: 'peel the spud with the knife'."""
    verb, _, thing = sentence.split()[:3]
    row_of = {word: i for rows in (words.VERBS, words.OBJECTS) for i, row in enumerate(rows) for word in row}
    return row_of[verb], row_of[thing]


def test_every_benchmark_can_be_trained_on(tiny_corpus: Path) -> None:
    official = TRAINING_SETS.keys() - {"csv"}  # a user's own table
    sets = {name: TRAINING_SETS[name](BenchmarkFiles(tiny_corpus)) for name in official}
    assert {name: len(own.clips or own.videos) for name, own in sets.items()} | {"youcook2": 0} == {
        "youcook2": 0,
        "msrvtt": 30,  # three for each of the 10 test videos
        "msrvtt_qa": 30,
        "coin": 4,  # as many as test videos
        "crosstask": 30,
    }
    assert 4 * 4 <= len(sets["youcook2"].clips) <= 4 * 5  # 4 videos of 4 or 5 steps
    assert {len(clip.sentences) for clip in sets["msrvtt"].clips} == {20}


def test_retrieval_is_trained_on_what_pre_training_showed(tiny_corpus: Path, tiny_world: DemoWorld) -> None:
    world = World(tiny_world)
    for name in ("youcook2", "msrvtt"):
        for clip in TRAINING_SETS[name](BenchmarkFiles(tiny_corpus)).clips:
            assert {pair(sentence) for sentence in clip.sentences} <= world.training_pairs


def test_clips_show_what_their_sentences_say(tiny_corpus: Path, tiny_world: DemoWorld) -> None:
    world = World(tiny_world)
    for name in ("youcook2", "msrvtt"):
        training = TRAINING_SETS[name](BenchmarkFiles(tiny_corpus))
        texts = world.text_latents([clip.sentences[0] for clip in training.clips])
        windows = [clip.window for clip in training.clips]
        videos = np.stack([training.features.load(w.video_id, w.start, w.end).mean(0) for w in windows])
        similarities = texts @ videos.T
        assert np.diag(similarities).mean() > similarities.mean() + 0.1


def test_coin_has_the_labels_of_the_test_set(tiny_corpus: Path, tiny_world: DemoWorld) -> None:
    world, videos = World(tiny_world), read_coin(tiny_corpus / "coin" / "COIN.json")
    training, testing = ([v for v in videos if v.subset == subset] for subset in ("training", "testing"))
    assert label_texts(training) == label_texts(testing)
    for video in training:
        features = np.load(tiny_corpus / "coin" / "features" / f"{video.video_id}.npy").astype(np.float32)
        for segment in video.segments:
            signal = features @ world.text_latents([segment.label])[0]
            inside = slice(int(segment.start), int(segment.end))
            assert signal[inside].mean() > np.delete(signal, np.s_[inside]).mean()


def test_test_sets_do_not_depend_on_them(tiny_corpus: Path, tiny_world: DemoWorld, tmp_path: Path) -> None:
    for name, write in TEST_SETS.items():
        write(tmp_path / name, World(tiny_world))
    for path in sorted(tmp_path.rglob("*.*")):
        whole = tiny_corpus / path.relative_to(tmp_path)
        if path.name in ("COIN.json", "youcookii_annotations_trainval.json"):  # training videos are appended to these
            alone, both = (json.loads(file.read_text())["database"] for file in (path, whole))
            assert list(both.items())[: len(alone)] == list(alone.items())
        else:
            assert path.read_bytes() == whole.read_bytes(), path.name
