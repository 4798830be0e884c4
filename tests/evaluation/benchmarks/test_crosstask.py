"""CrossTask: readers, split, rules by hand, parity with the reference data made by running the original."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.evaluation.benchmark import Encodings
from mmpt_plugin.evaluation.benchmarks.crosstask import (
    CrossTask,
    StepInterval,
    Task,
    chance_assignment,
    held_out_videos,
    paint_steps,
    read_step_intervals,
    read_tasks,
    read_videos,
    step_costs,
    summarize_recall,
    uniform_assignment,
)

WIDTH = 4
BLOCKS = "10\nMake tea\nhttps://x\n2\nboil water,pour\n\n20\nFry\nhttps://y\n1\nNA\n"


def write_crosstask(
    folder: Path,
    videos: dict[tuple[str, str], int | None],
    steps: dict[str, Sequence[str]],
    annotations: dict[tuple[str, str], str] | None = None,
    validation: Sequence[tuple[str, str]] = (("0", "none"),),
) -> Path:
    """Writes crosstask/: (task, video) -> seconds (None: no features); every video is annotated, by default with
    step 1 in second 0."""
    release, features = folder / "crosstask" / "crosstask_release", folder / "crosstask" / "features"
    (release / "annotations").mkdir(parents=True)
    features.mkdir()
    blocks = [f"{task}\nTitle\nurl\n{len(names)}\n{','.join(names)}\n" for task, names in steps.items()]
    (release / "tasks_primary.txt").write_text("\n".join(blocks))
    (release / "tasks_related.txt").write_text("77\nRelated\nurl\n1\nwait\n\n")
    (release / "videos.csv").write_text("".join(f"{task},{video},url\n" for task, video in videos))
    (release / "videos_val.csv").write_text("".join(f"{task},{video},url\n" for task, video in validation))
    for (task, video), seconds in videos.items():
        (release / "annotations" / f"{task}_{video}.csv").write_text((annotations or {}).get((task, video), "1,0,1\n"))
        if seconds is not None:
            np.save(features / f"{video}.npy", np.zeros((seconds, WIDTH), np.float16))
    return folder


def videos_of(task: str, count: int, seconds: int | None = 5) -> dict[tuple[str, str], int | None]:
    return {(task, f"-v_{task}_{i}"): seconds for i in range(count)}


def benchmark(folder: Path, **options: object) -> CrossTask:
    return CrossTask(folder, feature_size=WIDTH, **options)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ readers


@pytest.mark.parametrize("ending", ["", "\n", "\n\n\n"])
def test_reads_tasks_with_or_without_a_last_blank_line(tmp_path: Path, ending: str) -> None:
    (tmp_path / "tasks.txt").write_text(BLOCKS.rstrip("\n") + ending)
    assert read_tasks(tmp_path / "tasks.txt") == [
        Task("10", "Make tea", ("boil water", "pour")),
        Task("20", "Fry", ("NA",)),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10\nTea\nurl\n3\nboil water,pour\n", "task 10 announces 3 steps and lists 2"),
        ("10\nTea\nurl\n2\nboil water;pour\n", "task 10 announces 2 steps and lists 1"),
        ("10\nTea\nurl\n2\nboil water,\n", "task 10 lists an empty step"),
        ("10\nTea\nurl\n2\n", "line 1: no whole block begins with '10'"),
        ("10\nTea\nurl\n1\nboil\n\n10\nTee\nurl\n1\nboil\n", "first the task 10"),
        ("10\nTea\nurl\n2\nboil,pour\n20\nFry\n", "line 1: no whole block"),
        ("10,video,url\n11,video,url\n12,v,u\n13,v,u\n14,v,u\n", "line 1: no whole block"),
        ("", "no task in it"),
    ],
)
def test_malformed_tasks_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "tasks_primary.txt").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_tasks(tmp_path / "tasks_primary.txt")
    assert "Expected: the official tasks_primary.txt" in str(error.value)


def test_reads_videos_whatever_their_ids(tmp_path: Path) -> None:
    (tmp_path / "videos.csv").write_text("10,-a_b_c,https://x\n10,NA,https://y\n\n20,null,https://z\n")
    assert read_videos(tmp_path / "videos.csv") == [("10", "-a_b_c"), ("10", "NA"), ("20", "null")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10\tv\turl\n", "line 1"),
        ("10;v;url\n", "line 1"),
        ("10,v,url\n10,w\n", "line 2"),
        ("10,,u\n", "line 1"),
        ("10,v,u\n10,w,u\n10,v,u\n", r"1 of its entries stand there twice, first the task and video \('10', 'v'\)"),
        ("", "no video"),
    ],
)
def test_malformed_video_lists_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "videos.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_videos(tmp_path / "videos.csv")
    assert "task,video,url" in str(error.value)


def test_reads_step_intervals(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("2,0.5,3\r\n1,3,3.25\r\n")
    assert read_step_intervals(tmp_path / "a.csv", 2) == [StepInterval(2, 0.5, 3.0), StepInterval(1, 3.0, 3.25)]
    (tmp_path / "empty.csv").write_text("")
    assert read_step_intervals(tmp_path / "empty.csv", 2) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0,1,2", "step 0 of a task with steps 1..2"),
        ("3,1,2", "step 3 of a task with steps 1..2"),
        ("1,5,4", "5.0..4.0"),
        ("1,-5,4", "-5.0..4.0"),
        ("1,nan,4", "nan..4.0"),
        ("1,0,inf", "0.0..inf"),
        ("1;0;1", "line 1 is"),
        ("1,0", "line 1 is"),
        ("one,0,1", "line 1 is"),
        ("1,0,1,2", "line 1 is"),
    ],
)
def test_malformed_intervals_are_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "10_v.csv").write_text(line + "\n")
    with pytest.raises(ValueError, match=message) as error:
        read_step_intervals(tmp_path / "10_v.csv", 2)
    assert "10_v.csv" in str(error.value) and "step,start,end" in str(error.value)


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "videos.csv").write_bytes(b"\x93NUMPY\x01\x00\xff\xfe")
    with pytest.raises(ValueError, match=r"this is a \.npy array, a text file is needed"):
        read_videos(tmp_path / "videos.csv")


def test_a_missing_file_says_which_belongs_there(tmp_path: Path) -> None:
    write_crosstask(tmp_path, videos_of("1", 31), {"1": ["a"]})
    (tmp_path / "crosstask" / "crosstask_release" / "videos_val.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"videos_val\.csv"):
        benchmark(tmp_path)


# -------------------------------------------------------------------------------------------------------------- split


def test_split_leaves_what_a_seeded_draw_does_not_take() -> None:
    first = [("b", f"b{i}") for i in range(33)]
    related = [("r", f"r{i}") for i in range(40)]
    few = [("few", f"f{i}") for i in range(30)]
    second = [("a", f"a{i}") for i in range(31)]
    test = held_out_videos([*first, *related, *few, *second], {"a", "b", "few"})
    np.random.seed(0)  # the original's calls, task by task
    expected = []
    for videos in (first, second):
        training = np.random.choice([video for _, video in videos], 30, replace=False)
        expected += [pair for pair in videos if pair[1] not in training]
    assert test == expected and len(test) == 3 + 1


def test_split_leaves_numpys_global_state_alone() -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    held_out_videos([("a", str(i)) for i in range(31)], {"a"})
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_official_split_does_not_depend_on_feature_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    videos = {**videos_of("1", 34), **videos_of("2", 36), **videos_of("99", 3)}
    steps = {"1": ["a", "b"], "2": ["c"]}
    whole = benchmark(write_crosstask(tmp_path / "whole", videos, steps))
    test = [(task.task_id, video) for task, video in whole.videos]
    assert (whole.found, whole.missing) == (4 + 6, [])
    assert (
        "tasks 99" in caplog.text
        and "10 items found, the official test set has 1850 and the paper's numbers are on 1690" in caplog.text
    )

    gone = next(pair for pair in videos if pair not in test), test[0]  # a training and a test video
    folder = write_crosstask(tmp_path / "gaps", {**videos, gone[0]: None, gone[1]: None}, steps)
    with pytest.raises(FileNotFoundError, match=test[0][1]):
        benchmark(folder)
    skipped = benchmark(folder, on_missing="skip")
    assert [(task.task_id, video) for task, video in skipped.videos] == test[1:]
    assert (skipped.found, skipped.missing) == (9, [test[0][1]])

    original = benchmark(folder, split="original")
    assert set(original.missing) == {video for _, video in gone}
    assert original.found == 4 + 6 - 2  # both are of the first task, of which 30 still train
    assert [(t.task_id, v) for t, v in original.videos][:2] != test[1:3]


def test_validation_and_unannotated_videos_take_no_part(tmp_path: Path) -> None:
    videos = videos_of("1", 34)
    pairs = list(videos)
    folder = write_crosstask(tmp_path, videos, {"1": ["a"]}, validation=pairs[:2])
    (folder / "crosstask" / "crosstask_release" / "annotations" / f"1_{pairs[2][1]}.csv").unlink()
    crosstask = benchmark(folder)
    assert crosstask.found == 34 - 2 - 1 - 30
    assert not {video for _, video in crosstask.videos} & {video for _, video in pairs[:3]}


def test_no_test_video_and_an_unknown_split_are_refused(tmp_path: Path) -> None:
    folder = write_crosstask(tmp_path, videos_of("1", 30), {"1": ["a"]})
    with pytest.raises(ValueError, match="no test video"):
        benchmark(folder)
    with pytest.raises(ValueError, match="'validation'; allowed: 'official', 'original'"):
        benchmark(folder, split="validation")


# -------------------------------------------------------------------------------------------------------------- rules


def test_truth_by_hand() -> None:
    intervals = [StepInterval(2, 0.5, 2.1), StepInterval(1, 3.0, 9.0), StepInterval(1, 7.0, 9.0)]
    np.testing.assert_array_equal(paint_steps(intervals, 4, 2), [[0, 1], [0, 1], [0, 1], [1, 0]])
    assert paint_steps(intervals, 0, 2).shape == (0, 2)


def test_costs_are_negative_log_softmax() -> None:
    logits = np.array([[1000.0, 1000.0], [0.0, math.log(3)]])
    np.testing.assert_allclose(step_costs(logits), [[math.log(2)] * 2, [math.log(4), math.log(4 / 3)]])
    assert step_costs(np.zeros((0, 3))).shape == (0, 3)


def test_uniform_spread_by_hand() -> None:
    # 3 steps in 10 seconds: 1.67, 5, 8.33
    np.testing.assert_array_equal(uniform_assignment(10, 3).argmax(axis=0), [1, 5, 8])
    np.testing.assert_array_equal(uniform_assignment(2, 3).argmax(axis=0), [0, 1, 1])
    assert uniform_assignment(0, 3).shape == (0, 3)


@pytest.mark.parametrize("seconds", [1, 3, 4, 7])
@pytest.mark.parametrize("steps", [1, 3, 4])
def test_chance_against_all_assignments(seconds: int, steps: int) -> None:
    counted, ways = np.zeros((seconds, steps)), 0
    shared = min(seconds, steps)
    for frames in combinations(range(seconds), shared):
        for chosen in combinations(range(steps), shared):
            counted[list(frames), list(chosen)] += 1
            ways += 1
    np.testing.assert_allclose(chance_assignment(seconds, steps), counted / ways, atol=1e-12)


def test_chance_of_long_and_empty_videos() -> None:
    chance = chance_assignment(2000, 11)
    np.testing.assert_allclose(chance.sum(axis=0), np.ones(11), atol=1e-9)  # each step takes one second
    assert chance_assignment(0, 3).shape == (0, 3)


def test_recall_by_hand() -> None:
    counts = np.array([[1, 2], [1, 2], [0, 1], [0, 0]])
    summary = summarize_recall(counts, ["a", "a", "b", "never shown"])
    assert summary == {"recall": 0.25, "recall_per_task": {"a": 0.5, "b": 0.0}}
    assert math.isnan(summarize_recall(np.zeros((1, 2)), ["a"])["recall"])


# ---------------------------------------------------------------------------------------------------------- benchmark


def three_videos(folder: Path, seconds: Sequence[int], annotations: Sequence[str]) -> CrossTask:
    """Of 33 videos of one task with steps a, b, the test videos get these lengths and annotations."""
    videos = videos_of("1", 33)
    test = held_out_videos(videos, {"1"})
    lengths = {**videos, **dict(zip(test, seconds))}
    return benchmark(write_crosstask(folder, lengths, {"1": ["a", "b"]}, dict(zip(test, annotations))))


def test_short_videos(tmp_path: Path) -> None:
    """0, 1 and 2 seconds for two steps: the original predicts no step in any of them."""
    crosstask = three_videos(tmp_path, [0, 1, 2], ["1,0,1\n", "2,0,1\n", "1,0,1\n2,1,2\n"])
    plan = crosstask.plan()
    assert plan.texts == ["a", "b"] and len(plan.windows) == 2 and plan.per_frame and not plan.attend_to_cls
    states = [np.array([[0.0, 1.0]], np.float32), np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)]
    scores = crosstask.score(Encodings(np.eye(2, dtype=np.float32), states))
    assert scores["logits"].dtype == np.float32
    np.testing.assert_array_equal(scores["logits"], [0, 1, 1, 0, 0, 1])
    np.testing.assert_array_equal(scores["video_lengths"], [0, 1, 2])
    np.savez(tmp_path / "scores.npz", allow_pickle=False, **scores)
    with np.load(tmp_path / "scores.npz", allow_pickle=False) as stored:
        evaluation = crosstask.evaluate(stored)
    assert evaluation.metrics == {"recall": 1.0, "recall_per_task": {"1": 1.0}}  # 3 of 3 steps shown
    assert evaluation.original == {"recall": 0.0, "recall_per_task": {"1": 0.0}}
    # one second: step b with probability 1/2; two seconds: no choice
    assert evaluation.baselines["chance"]["recall"] == pytest.approx((0.5 + 2) / 3)
    assert evaluation.baselines["uniform_spread"]["recall"] == 1.0
    assert evaluation.queries == 3
    low, high = evaluation.intervals["recall"]
    assert low == high == 1.0


def test_a_task_that_shows_no_step_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    videos = {**videos_of("1", 31), **videos_of("2", 31)}
    empty = {pair: "" for pair in videos if pair[0] == "2"}
    crosstask = benchmark(write_crosstask(tmp_path, videos, {"1": ["a", "b"], "2": ["c"]}, empty))
    logits = np.concatenate([np.tile([1.0, -1.0], 5), np.zeros(5)])
    with caplog.at_level(logging.WARNING):
        evaluation = crosstask.evaluate({"video_lengths": np.array([5, 5]), "logits": logits})
    assert list(evaluation.metrics["recall_per_task"]) == ["1"] and np.isfinite(evaluation.metrics["recall"])
    assert "no test video of tasks 2 shows a step" in caplog.text


def test_one_video_in_two_tasks_is_encoded_once(tmp_path: Path) -> None:
    videos = {**videos_of("1", 30), ("1", "both"): 5, **videos_of("2", 30), ("2", "both"): 5}
    steps = {"1": ["a", "b"], "2": ["b", "c", "a"]}
    crosstask = benchmark(write_crosstask(tmp_path, videos, steps))
    crosstask.videos = [(task, "both") for task, _ in crosstask.videos]  # whatever the draw says
    crosstask.seconds = {"both": 5}
    assert len(crosstask.plan().windows) == 1 and crosstask.plan().texts == ["a", "b", "c"]
    states = [np.tile(np.array([[1, 2, 3]], np.float32), (5, 1))]
    scores = crosstask.score(Encodings(np.eye(3, dtype=np.float32), states))
    np.testing.assert_array_equal(scores["logits"], [1, 2] * 5 + [2, 3, 1] * 5)


def test_scores_that_do_not_fit_or_are_not_finite_are_refused(tmp_path: Path) -> None:
    crosstask = three_videos(tmp_path, [3, 3, 3], [""] * 3)
    with pytest.raises(ValueError, match="do not fit"):
        crosstask.evaluate({"video_lengths": np.array([3, 3, 3]), "logits": np.zeros(17)})
    with pytest.raises(ValueError, match="do not fit"):
        crosstask.evaluate({"video_lengths": np.array([3, 3]), "logits": np.zeros(12)})
    with pytest.raises(ValueError, match="NaN"):
        crosstask.evaluate({"video_lengths": np.array([3, 3, 3]), "logits": np.full(18, np.nan)})


# ------------------------------------------------------------------------------------------------------ the original


def test_parity_with_the_original(golden_part: Path) -> None:
    folder = golden_part / "eval_crosstask"
    recorded, details = np.load(folder / "golden.npz"), json.loads((folder / "details.json").read_text())
    features = folder / "data" / "feat" / "feat_crosstask_s3d"
    crosstask = CrossTask(folder / "data", features=features, split="original")
    pairs = [[task.task_id, video] for task, video in crosstask.videos]
    assert pairs == json.loads((folder / "split_from_CrossTaskMetaProcessor.json").read_text())["test"]
    assert pairs == details["order"]

    keys = [f"{task}/{video}" for task, video in pairs]
    for key, (task, video), intervals in zip(keys, crosstask.videos, crosstask.intervals):
        truth = paint_steps(intervals, crosstask.seconds[video], len(task.steps))
        np.testing.assert_array_equal(truth, recorded[f"{key}/y_true"])
        np.testing.assert_allclose(step_costs(recorded[f"{key}/logits"]), recorded[f"{key}/cost"], atol=1e-4)
    evaluation = crosstask.evaluate(
        {
            "video_lengths": np.array([crosstask.seconds[video] for _, video in crosstask.videos]),
            "logits": np.concatenate([recorded[f"{key}/logits"].ravel() for key in keys]),
        }
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    assert evaluation.original["recall"] == pytest.approx(metrics.pop("recall"), abs=1e-15)
    assert evaluation.original["recall_per_task"] == metrics
    assert evaluation.metrics["recall"] >= evaluation.original["recall"]
