"""The metrics against hand-worked cases, slow obvious versions and the original's recorded numbers."""

import json
import math
from functools import lru_cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mmpt_plugin.evaluation.metrics import (
    best_monotonic_assignment,
    chance_retrieval_metrics,
    edit_score,
    edit_scores,
    frame_accuracy,
    label_segments,
    moment_metrics,
    moment_scores,
    original_monotonic_assignment,
    original_retrieval_metrics,
    ranks,
    retrieval_metrics,
    segment_iou,
    segmental_f1,
    step_recall,
)

# few distinct values: many ties
SCORES = st.integers(1, 7).flatmap(lambda n: npst.arrays(np.float32, (n, n), elements=st.sampled_from([0.0, 0.5, 1.0])))


# ---------------------------------------------------------------------------------------------------------- retrieval


def slow_rank(row, target, ties):
    """Walks down the sorted list; the right item stands behind (or before) all others of its score."""
    others = sorted(np.delete(row, target), reverse=True)
    ahead = [other for other in others if other > row[target] or (ties == "pessimistic" and other == row[target])]
    return len(ahead) + 1


def slow_original_positions(scores):
    """All positions, counted from 0, at which a sorted row holds the diagonal's value."""
    return [
        position
        for query, row in enumerate(scores)
        for position, value in enumerate(sorted(row, reverse=True))
        if value == row[query]
    ]


@given(SCORES, st.sampled_from(["pessimistic", "optimistic"]))
def test_ranks_equal_the_slow_walk(scores, ties):
    expected = [slow_rank(row, query, ties) for query, row in enumerate(scores)]
    assert ranks(scores, ties=ties).tolist() == expected


@given(SCORES)
def test_a_query_has_one_rank_between_one_and_the_gallery(scores):
    pessimistic, optimistic = ranks(scores), ranks(scores, ties="optimistic")
    assert pessimistic.shape == (len(scores),)
    assert (optimistic >= 1).all() and (optimistic <= pessimistic).all() and (pessimistic <= len(scores)).all()


@given(SCORES)
def test_the_originals_rule_equals_the_slow_count(scores):
    positions = slow_original_positions(scores)
    metrics = original_retrieval_metrics(scores)
    for k in (1, 5, 10):
        assert metrics[f"R@{k}"] == pytest.approx(sum(p < k for p in positions) / len(positions))
    assert metrics["median_rank"] == np.median(positions) + 1


@given(npst.arrays(np.float64, (6, 6), elements=st.integers(0, 10**6), unique=True))
def test_without_ties_all_rules_agree(scores):
    assert retrieval_metrics(scores) == retrieval_metrics(scores, ties="optimistic")
    assert retrieval_metrics(scores) == original_retrieval_metrics(scores)


def test_retrieval_by_hand():
    scores = np.array([[3, 1, 2], [5, 5, 0], [9, 8, 7]])
    # query 0: first. Query 1: ties with item 0, so 2nd (1st if optimistic). Query 2: last of three.
    assert ranks(scores).tolist() == [1, 2, 3]
    assert retrieval_metrics(scores) == {"R@1": 1 / 3, "R@5": 1.0, "R@10": 1.0, "median_rank": 2.0}
    assert retrieval_metrics(scores, ties="optimistic")["R@1"] == pytest.approx(2 / 3)
    # the original counts query 1 twice: ranks 1; 1, 2; 3 -> two of four are first
    assert original_retrieval_metrics(scores) == {"R@1": 0.5, "R@5": 1.0, "R@10": 1.0, "median_rank": 1.5}


def test_a_constant_model_gets_nothing():
    assert retrieval_metrics(np.ones((20, 20))) == {"R@1": 0, "R@5": 0, "R@10": 0, "median_rank": 20}


def test_targets_may_point_anywhere():
    scores = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    assert ranks(scores, [2, 0]).tolist() == [1, 3]


def test_chance_is_the_expectation_over_random_orders():
    rng = np.random.default_rng(0)
    drawn = [retrieval_metrics(rng.random((40, 40))) for _ in range(300)]
    for name, value in chance_retrieval_metrics(40).items():
        assert np.mean([metrics[name] for metrics in drawn]) == pytest.approx(value, rel=0.05)
    assert chance_retrieval_metrics(3)["R@5"] == 1.0


@pytest.mark.parametrize(
    ("scores", "targets", "words"),
    [
        ([[1.0, math.nan], [1.0, 2.0]], None, "NaN in 1 of 2 rows, first in row 0"),
        ([[1.0, 2.0, 3.0]], None, "not square"),
        ([[1.0, 2.0]], [2], r"0\.\.1"),
        ([[1.0, 2.0]], [-1], r"0\.\.1"),
        ([[1.0, 2.0]], [0.0], "integers"),
        ([[1.0, 2.0]], [0, 1], "one a query"),
        ([1.0], None, "matrix"),
        (np.zeros((0, 0)), None, "filled"),
    ],
)
def test_bad_similarities_are_refused(scores, targets, words):
    with pytest.raises(ValueError, match=words):
        retrieval_metrics(scores, targets)


def test_bad_rules_are_refused():
    with pytest.raises(ValueError, match="lucky"):
        ranks([[1.0]], ties="lucky")
    with pytest.raises(ValueError, match="as many queries as items"):
        original_retrieval_metrics([[1.0, 2.0]])
    with pytest.raises(ValueError, match="NaN"):
        original_retrieval_metrics([[math.nan]])


@pytest.mark.parametrize("name", ["youcook", "msrvtt"])
def test_recorded_scores_give_the_recorded_metrics(golden_part, name):
    folder = golden_part / f"eval_{name}"
    with np.load(folder / "golden.npz") as arrays:
        scores = arrays["scores"]
    recorded = json.loads((folder / "metrics.json").read_text())
    tie_free = json.loads((folder / "details.json").read_text())["tie_free_alternatives"]
    keys = {"R1": "R@1", "R5": "R@5", "R10": "R@10", "MR": "median_rank"}
    assert original_retrieval_metrics(scores) == {keys[key]: pytest.approx(recorded[key], abs=1e-12) for key in keys}
    for rule, numbers in tie_free.items():
        ours = retrieval_metrics(scores, ties=rule.split("_")[0])
        assert ours == {keys[key]: pytest.approx(numbers[key], abs=1e-12) for key in keys}


# ------------------------------------------------------------------------------------------------ action segmentation

LABELS = st.lists(st.integers(0, 3), min_size=1, max_size=14)
VIDEO_PAIRS = st.lists(
    LABELS.flatmap(
        lambda true: st.tuples(st.lists(st.integers(0, 3), min_size=len(true), max_size=len(true)), st.just(true))
    ),
    min_size=1,
    max_size=4,
)


def slow_segments(labels, background=0):
    """(label, set of frames) of each run."""
    segments = []
    for frame, label in enumerate(labels):
        if frame and labels[frame - 1] == label:
            segments[-1][1].add(frame)
        else:
            segments.append((label, {frame}))
    return [segment for segment in segments if segment[0] != background]


def slow_edit(predicted, target):
    first, second = ([label for label, _ in slow_segments(labels)] for labels in (predicted, target))

    @lru_cache(None)
    def distance(i, j):
        if i == 0 or j == 0:
            return i + j
        changed = first[i - 1] != second[j - 1]
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + changed)

    longest = max(len(first), len(second))
    return 1 - distance(len(first), len(second)) / longest if longest else 1.0


def slow_f1(pairs, overlap):
    hits = guesses = truths = 0
    for predicted, target in pairs:
        true_segments, claimed = slow_segments(target), set()
        for label, frames in slow_segments(predicted):
            guesses += 1
            best, best_iou = None, 0.0
            for position, (true_label, true_frames) in enumerate(true_segments):
                iou = len(frames & true_frames) / len(frames | true_frames) if label == true_label else 0.0
                if iou > best_iou:
                    best, best_iou = position, iou
            if best is not None and best_iou >= overlap and best not in claimed:
                hits += 1
                claimed.add(best)
        truths += len(true_segments)
    return 2 * hits / (guesses + truths) if guesses + truths else math.nan


@given(VIDEO_PAIRS)
def test_segmental_scores_equal_the_slow_versions(pairs):
    predicted, target = [p for p, _ in pairs], [t for _, t in pairs]
    assert edit_scores(predicted, target) == pytest.approx([slow_edit(p, t) for p, t in pairs])
    f1 = segmental_f1(predicted, target)
    for overlap in (0.10, 0.25, 0.50):
        assert f1[f"F1@{round(100 * overlap)}"] == pytest.approx(slow_f1(pairs, overlap), nan_ok=True)


@given(LABELS)
def test_runs_cover_the_video_once(labels):
    label, start, end = label_segments(labels, background=None)
    assert np.repeat(label, end - start).tolist() == labels
    assert (label[1:] != label[:-1]).all()


@pytest.mark.parametrize(("labels", "runs"), [([], []), ([0], []), ([4], [(4, 0, 1)])])
def test_the_shortest_sequences(labels, runs):
    assert list(zip(*label_segments(labels))) == runs
    assert {len(part) for part in label_segments(labels)} == {len(runs)}


def test_segmental_scores_by_hand():
    target = [1, 1, 1, 1, 0, 2, 2, 3]
    predicted = [1, 1, 0, 1, 1, 2, 3, 3]
    # segments: true 1 2 3, predicted 1 1 2 3: one deletion in a list of 4
    assert edit_score(predicted, target) == pytest.approx(1 - 1 / 4)
    # IoU: 1 (frames 0-1 of 0-3) 2/4; 1 (3-4 of 0-3) 1/5; 2 (5 of 5-6) 1/2; 3 (6-7 of 7) 1/2
    # three hits (the second "1" comes too late for its segment), 4 predicted, 3 true: 2*3/7
    assert segmental_f1(predicted, target) == dict.fromkeys(("F1@10", "F1@25", "F1@50"), pytest.approx(6 / 7))
    assert segmental_f1(predicted, target, overlaps=[0.51]) == {"F1@51": 0.0}
    # frames 0, 1, 3, 5, 7 of 8 are right; on the foreground 5 of 7
    assert frame_accuracy(predicted, target) == 5 / 8
    assert frame_accuracy(predicted, target, ignore=0) == 5 / 7


def test_an_overlap_at_the_threshold_counts():
    target, predicted = [1] * 10, [1] + [2] * 9
    assert segmental_f1(predicted, target)["F1@10"] == pytest.approx(2 * 1 / (2 + 1))


def test_frames_are_pooled_over_videos_and_edits_averaged():
    predicted, target = [[1, 1, 1], [2]], [[1, 1, 1], [1]]
    assert frame_accuracy(predicted, target) == 3 / 4
    assert edit_score(predicted, target) == 1 / 2
    assert frame_accuracy([np.array([1]), np.array([], int)], [np.array([1]), np.array([], int)]) == 1.0


def test_background_counts_as_a_segment_when_asked():
    assert edit_score([0, 1], [1, 1]) == 1.0
    assert edit_score([0, 1], [1, 1], background=None) == 0.5
    assert segmental_f1([0, 0], [0, 1], background=None)["F1@50"] == pytest.approx(2 * 1 / 3)


def test_videos_without_segments():
    assert edit_score([0, 0], [0, 0]) == 1.0
    assert edit_score([0, 0], [0, 1]) == 0.0
    assert math.isnan(segmental_f1([0, 0], [0, 0])["F1@50"])
    assert segmental_f1([0, 1], [0, 0])["F1@50"] == 0.0
    assert math.isnan(frame_accuracy([0, 0], [0, 0], ignore=0))
    assert math.isnan(frame_accuracy(np.zeros(0), np.zeros(0)))


@pytest.mark.parametrize("measure", [frame_accuracy, edit_score, segmental_f1])
@pytest.mark.parametrize(
    ("predicted", "target"), [([1, 2], [1, 2, 3]), ([[1], [2]], [[1]]), ([[1], [2, 2]], [[1], [2]]), ([], [])]
)
def test_labels_that_do_not_pair_are_refused(measure, predicted, target):
    with pytest.raises(ValueError, match=r"pair up|alike"):
        measure(predicted, target)


@pytest.mark.parametrize("overlap", [0.0, -0.1, 1.1])
def test_impossible_overlaps_are_refused(overlap):
    with pytest.raises(ValueError, match="overlaps"):
        segmental_f1([1], [1], overlaps=[overlap])


def test_recorded_coin_labels_give_the_recorded_accuracies(golden_part):
    folder = golden_part / "eval_coin"
    extra = json.loads((folder / "details.json").read_text())["extra"]
    with np.load(folder / "golden.npz") as arrays:
        cuts = np.cumsum(arrays["video_lengths"])[:-1]
        predicted, target = (np.split(arrays[key], cuts) for key in ("pred", "target"))
    recorded = json.loads((folder / "metrics.json").read_text())["frame_acc"]
    assert frame_accuracy(predicted, target) == pytest.approx(recorded, abs=1e-12)
    assert frame_accuracy(predicted, target, ignore=0) == pytest.approx(extra["acc_on_foreground"], abs=1e-12)
    nothing = [np.zeros_like(video) for video in target]
    assert frame_accuracy(nothing, target) == pytest.approx(extra["acc_always_O"], abs=1e-12)


# -------------------------------------------------------------------------------------------------- step localisation

COSTS = st.tuples(st.integers(0, 6), st.integers(0, 6)).flatmap(
    lambda shape: npst.arrays(np.float64, shape, elements=st.integers(-3, 3))
)


def slow_least_cost(cost):
    """Tries every order-preserving choice of min(T, K) frames and steps."""
    frames, steps = cost.shape
    size = min(frames, steps)
    return min(
        sum(cost[t, k] for t, k in zip(chosen_frames, chosen_steps, strict=True))
        for chosen_frames in combinations(range(frames), size)
        for chosen_steps in combinations(range(steps), size)
    )


@settings(deadline=None)
@given(COSTS)
def test_the_assignment_is_monotonic_and_optimal(cost):
    assignment = best_monotonic_assignment(cost)
    assert assignment.shape == cost.shape and assignment.dtype == np.uint8
    frames, steps = np.nonzero(assignment)
    assert len(frames) == min(cost.shape)
    assert (np.diff(frames) > 0).all() and (np.diff(steps) > 0).all()
    assert (assignment * cost).sum() == slow_least_cost(cost)


def test_assignments_by_hand():
    # as many frames as steps: the diagonal, whatever it costs
    assert np.array_equal(best_monotonic_assignment(100 * np.eye(3)), np.eye(3))
    # step 0 in frame 1 (cost 0), step 1 in frame 2 (2) beats step 0 in frame 0 (5), step 1 in frame 1 (0)
    assert best_monotonic_assignment([[5, 9], [0, 0], [9, 2]]).tolist() == [[0, 0], [1, 0], [0, 1]]
    # two frames, three steps: steps 0 and 2 fit at cost 1 + 1
    assert best_monotonic_assignment([[1, 4, 4], [4, 4, 1]]).tolist() == [[1, 0, 0], [0, 0, 1]]
    # all equal: the last step in the last frame, the first as early as it can
    assert best_monotonic_assignment(np.ones((4, 2))).tolist() == [[1, 0], [0, 0], [0, 0], [0, 1]]


def test_the_originals_bug_by_hand():
    assert not original_monotonic_assignment(np.ones((3, 3))).any()
    assert not original_monotonic_assignment(np.ones((2, 3))).any()
    # a last cost that is not positive leaves no cheaper, unreachable end
    assert np.array_equal(original_monotonic_assignment(np.zeros((3, 3))), np.eye(3))
    assert original_monotonic_assignment(np.zeros((0, 2))).shape == (0, 2)


def test_assignments_equal_the_originals(golden_part):
    with np.load(golden_part / "eval_crosstask" / "dp_cases.npz") as cases:
        costs = {key.removesuffix("_cost"): cases[key] for key in cases if key.endswith("_cost")}
        assignments = {key: cases[f"{key}_y"] for key in costs}
    for key, cost in costs.items():
        assert np.array_equal(original_monotonic_assignment(cost), assignments[key]), key
        if cost.shape[0] > cost.shape[1]:
            assert np.array_equal(best_monotonic_assignment(cost), assignments[key]), key
        elif cost.shape[0] == cost.shape[1]:
            assert np.array_equal(best_monotonic_assignment(cost), np.eye(len(cost))), key
    assert len(costs) >= 40


def test_recorded_assignments_give_the_recorded_recall(golden_part):
    folder = golden_part / "eval_crosstask"
    recorded = json.loads((folder / "metrics.json").read_text())
    order = json.loads((folder / "details.json").read_text())["order"]
    with np.load(folder / "golden.npz") as arrays:
        recalls = {
            task: step_recall(
                [original_monotonic_assignment(arrays[f"{task}/{video}/cost"]) for t, video in order if t == task],
                [arrays[f"{task}/{video}/y_true"] for t, video in order if t == task],
            )
            for task, _ in order
        }
    recalls["recall"] = float(np.mean(list(recalls.values())))
    assert recalls == {name: pytest.approx(value, abs=1e-12) for name, value in recorded.items()}


def test_recall_by_hand():
    truths = [np.array([[1, 0, 0], [1, 1, 0]]), np.array([[0, 0, 1]])]
    assignments = [np.array([[0, 0, 0], [1, 0, 1]]), np.array([[0, 1, 0]])]
    # present: steps 0 and 1, then step 2; hit: step 0. Predicted but absent steps count neither way
    assert step_recall(assignments, truths) == 1 / 3
    assert step_recall(assignments[0], truths[0]) == 1 / 2
    assert math.isnan(step_recall([np.eye(2)], [np.zeros((2, 2))]))


@pytest.mark.parametrize(
    ("assignments", "truths", "words"),
    [
        ([np.eye(2)], [np.eye(3)], "alike"),
        ([np.eye(2)], [], "pair up"),
        ([np.ones((2, 1))], [np.ones((2, 1))], "several frames"),
    ],
)
def test_bad_assignments_are_refused(assignments, truths, words):
    with pytest.raises(ValueError, match=words):
        step_recall(assignments, truths)


@pytest.mark.parametrize("cost", [[1.0], [[math.nan]], [[math.inf]]])
def test_bad_costs_are_refused(cost):
    for function in (best_monotonic_assignment, original_monotonic_assignment):
        with pytest.raises(ValueError, match="finite"):
            function(cost)


# ------------------------------------------------------------------------------------------------ moment localisation


@given(*[st.tuples(st.integers(0, 5), st.integers(0, 5)).map(sorted).map(tuple)] * 2)
def test_iou_equals_the_count_of_chunks(first, second):
    chunks = [set(range(start, end + 1)) for start, end in (first, second)]
    assert segment_iou(first, second) == len(chunks[0] & chunks[1]) / (
        max(first[1], second[1]) - min(first[0], second[0]) + 1
    )


def test_moments_by_hand():
    rankings = [[(0, 0), (0, 1), (1, 1)], [(0, 0), (0, 1), (1, 1)], [(0, 0)], []]
    annotations = [
        [(0, 0), (0, 0), (0, 0), (1, 1)],  # the best three agree with the top segment: rank 1, IoU 1
        [(0, 0), (0, 1), (1, 1), (1, 1)],  # ranks 1, 2, 3, 3 -> 2; IoU 1, 1/2, 0 -> 1/2
        [(4, 5), (5, 5)],  # beyond the video: no rank, no overlap
        [(0, 0)],  # an empty video: a miss
    ]
    mean_ranks, mean_ious = moment_scores(rankings, annotations)
    assert mean_ranks == pytest.approx([1, 2, math.nan, math.nan], nan_ok=True)
    assert mean_ious == pytest.approx([1, 1 / 2, 0, 0])
    assert moment_metrics(rankings, annotations) == {"R@1": 1 / 4, "R@5": 2 / 4, "mIoU": 1.5 / 4}


def test_two_annotations_are_averaged_as_two():
    assert moment_scores([[(0, 0), (0, 1)]], [[(0, 0), (0, 1)]])[0].tolist() == [1.5]


def test_bad_moments_are_refused():
    with pytest.raises(ValueError, match="pair up"):
        moment_metrics([[(0, 0)]], [])
    with pytest.raises(ValueError, match="no annotated moment"):
        moment_metrics([[(0, 0)]], [[]])
    with pytest.raises(ValueError, match="no query"):
        moment_metrics([], [])


def test_recorded_rankings_give_the_recorded_moments(golden_part):
    folder = golden_part / "eval_didemo"
    details = json.loads((folder / "details.json").read_text())
    times = [query["times"] for query in json.loads((folder / "data" / "didemo" / "test_data.json").read_text())]
    mean_ranks, mean_ious = moment_scores(details["ranked_segments"], times)
    for query, rank, iou in zip(details["per_query"], mean_ranks, mean_ious, strict=True):
        assert rank == pytest.approx(math.nan if query["avg_rank"] is None else query["avg_rank"], nan_ok=True)
        assert iou == pytest.approx(query["miou"])
    recorded = json.loads((folder / "metrics.json").read_text())
    expected = {"R@1": recorded["rank1"], "R@5": recorded["rank5"], "mIoU": recorded["miou"]}
    assert moment_metrics(details["ranked_segments"], times) == {
        name: pytest.approx(value, abs=1e-12) for name, value in expected.items()
    }
