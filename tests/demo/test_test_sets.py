"""The test sets: read by the benchmarks' own readers, about unseen material, right where the truth is known."""

from pathlib import Path

import numpy as np
import pytest

from demo import words
from demo.test_sets import unseen_videos
from demo.world import DemoWorld, Step, Stream, World
from mmpt_plugin.evaluation.benchmarks import BENCHMARKS
from mmpt_plugin.evaluation.benchmarks.coin import read_coin
from mmpt_plugin.evaluation.benchmarks.crosstask import read_step_intervals, read_tasks, read_videos
from mmpt_plugin.evaluation.benchmarks.didemo import read_didemo
from mmpt_plugin.evaluation.benchmarks.msrvtt import read_msrvtt
from mmpt_plugin.evaluation.benchmarks.msrvtt_qa import read_msrvtt_qa
from mmpt_plugin.evaluation.benchmarks.youcook2 import read_youcook2


def pair(sentence: str) -> tuple[int, int]:
    """Verb and object of a sentence in annotation style: 'peel the spud with the knife'."""
    verb, _, thing = sentence.split()[:3]
    row_of = {word: i for rows in (words.VERBS, words.OBJECTS) for i, row in enumerate(rows) for word in row}
    return row_of[verb], row_of[thing]


@pytest.fixture(scope="module")
def world(tiny_world: DemoWorld) -> World:
    return World(tiny_world)


@pytest.mark.parametrize("seed", range(4))
def test_the_default_gallery_has_240_different_unseen_pairs_of_all_families(seed: int) -> None:
    world = World(DemoWorld(seed=seed, step_seconds=(1, 1), gap_seconds=(1, 1)))  # short videos, for speed
    videos = list(unseen_videos(world, Stream.YOUCOOK2, world.config.youcook2_clips))
    steps = [video.timeline.spans[i].step for video in videos for i in video.asked]
    pairs = {(step.verb, step.object) for step in steps}
    assert len(steps) == len(pairs) == 240
    assert not pairs & world.training_pairs
    assert {video.timeline.family for video in videos} == set(range(24))


def test_too_many_clips_for_the_world_are_refused(world: World) -> None:
    with pytest.raises(ValueError, match=r"1000 test clips .* found: raise objects or verbs"):
        list(unseen_videos(world, Stream.YOUCOOK2, 1000))


def test_no_query_combines_a_verb_and_an_object_of_training(tiny_corpus: Path, world: World) -> None:
    youcook2 = tiny_corpus / "youcook2"
    clips = read_youcook2(youcook2 / "youcook_val.pkl", youcook2 / "youcookii_annotations_trainval.json")
    queries = read_msrvtt(tiny_corpus / "msrvtt" / "MSRVTT_JSFUSION_test.csv")
    moments = read_didemo(tiny_corpus / "didemo" / "test_data.json")
    assert len(clips) == 12 and len(queries) == 10 and len(moments) >= 6
    for sentences in ([c.sentence for c in clips], [q.sentence for q in queries], [m.description for m in moments]):
        assert not {pair(sentence) for sentence in sentences} & world.training_pairs
    assert len({pair(clip.sentence) for clip in clips}) == 12  # each once
    assert len({pair(query.sentence) for query in queries}) == 10


def test_youcook2_clips_show_what_their_sentence_says(tiny_corpus: Path, world: World) -> None:
    youcook2 = tiny_corpus / "youcook2"
    clips = read_youcook2(youcook2 / "youcook_val.pkl", youcook2 / "youcookii_annotations_trainval.json")
    for clip in clips:
        features = np.load(youcook2 / "features" / f"{clip.video_id}.npy").astype(np.float32)
        assert 0 <= clip.start < clip.end <= len(features)
        signal = features @ world.text_latents([clip.sentence])[0]
        outside = np.delete(signal, np.s_[clip.start : clip.end])
        assert signal[clip.start : clip.end].mean() > outside.mean() + 0.1


def test_right_answers_of_multiple_choice_are_the_only_right_ones(tiny_corpus: Path) -> None:
    sentence_of = {q.video_id: q.sentence for q in read_msrvtt(tiny_corpus / "msrvtt" / "MSRVTT_JSFUSION_test.csv")}
    questions = read_msrvtt_qa(tiny_corpus / "msrvtt" / "MSR_MC_test.csv")
    assert [question.video_id for question in questions] == list(sentence_of)
    for question in questions:
        right = [pair(option) == pair(sentence_of[question.video_id]) for option in question.options]
        assert right == [i == question.answer for i in range(5)]


def test_didemo_moments_are_where_the_step_is(tiny_corpus: Path, world: World) -> None:
    queries = read_didemo(tiny_corpus / "didemo" / "test_data.json")
    for query in queries:
        features = np.load(tiny_corpus / "didemo" / "features" / f"{query.video_id}.npy").astype(np.float32)
        assert features.shape == (30, 512) and len(query.moments) == 4
        signal = features @ world.text_latents([query.description])[0]
        first, last = max(set(query.moments), key=query.moments.count)
        inside = np.zeros(30, bool)
        inside[5 * first : 5 * last + 5] = True
        assert signal[inside].mean() > signal[~inside].mean() + 0.1
    training = read_didemo(tiny_corpus / "didemo" / "train_data.json")
    assert not {query.video_id for query in training} & {query.video_id for query in queries}
    assert len(training) > len(queries)


def test_coin_labels_are_contiguous_and_sparse(tiny_corpus: Path, world: World) -> None:
    videos = [video for video in read_coin(tiny_corpus / "coin" / "COIN.json") if video.subset == "testing"]
    assert len(videos) == 4
    labels = {segment.label_id: segment.label for video in videos for segment in video.segments}
    assert sorted(labels) == list(range(1, len(labels) + 1))
    assert len(set(labels.values())) == len(labels)
    shown = sum(segment.end - segment.start for video in videos for segment in video.segments)
    total = sum(len(np.load(tiny_corpus / "coin" / "features" / f"{video.video_id}.npy")) for video in videos)
    assert 0.25 < shown / total < 0.55
    for video in videos:
        features = np.load(tiny_corpus / "coin" / "features" / f"{video.video_id}.npy").astype(np.float32)
        for segment in video.segments:
            signal = features @ world.text_latents([segment.label])[0]
            assert signal[int(segment.start) : int(segment.end)].mean() > signal.mean() + 0.05


def test_crosstask_has_a_test_split_and_all_files(tiny_corpus: Path) -> None:
    release = tiny_corpus / "crosstask" / "crosstask_release"
    (task,), (related,) = read_tasks(release / "tasks_primary.txt"), read_tasks(release / "tasks_related.txt")
    assert (release / "tasks_primary.txt").read_text().endswith("\n\n")  # the original needs the last blank line
    videos, validation = read_videos(release / "videos.csv"), read_videos(release / "videos_val.csv")
    assert set(validation) < set(videos) and len(validation) == 2
    assert sum(task_id == task.task_id for task_id, _ in videos) == 33 + 2
    assert sum(task_id == related.task_id for task_id, _ in videos) == 2
    for task_id, video in videos:
        steps = task.steps if task_id == task.task_id else related.steps
        intervals = read_step_intervals(release / "annotations" / f"{task_id}_{video}.csv", len(steps))
        assert [interval.step for interval in intervals] == list(range(1, len(steps) + 1))
    for split in ("official", "original"):
        benchmark = BENCHMARKS["crosstask"](tiny_corpus, split=split)
        assert benchmark.found == 33 - 30 and not benchmark.missing


def test_tasks_to_segment_have_steps_that_training_lacks(world: World) -> None:
    for family in range(world.config.families):
        recipe = world.unseen_variant(family, world.rng(Stream.COIN))
        assert any(world.is_unseen(Step(step.verb, step.object, step.tool)) for step in recipe.steps)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_benchmarks_accept_the_files(name: str, tiny_corpus: Path) -> None:
    benchmark = BENCHMARKS[name](tiny_corpus)
    plan = benchmark.plan()
    assert benchmark.found > 0 and not benchmark.missing
    assert plan.texts and plan.windows
    assert all(window.end > window.start for window in plan.windows)
